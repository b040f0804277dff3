"""Everything about drawing: which models there are, what a request means, and how a job becomes pictures.

Knows nothing of the web: no gradio, no fastapi. Importing this package is cheap; torch and diffusers
are imported by the modules that draw, when `Engine` is built.
"""

import os

# diffusers (0.42) reads it when it is imported: the shards of one network are read by several threads.
os.environ.setdefault("HF_ENABLE_PARALLEL_LOADING", "yes")

__version__ = "0.1.0"
