"""Everything about drawing: which models there are, what a request means, and how a job becomes pictures.

Knows nothing of the web: no gradio, no fastapi. Importing this package is cheap; torch and diffusers
are imported by the modules that draw, when `Engine` is built.
"""

import logging
import os

# diffusers (0.42) reads it when it is imported: the shards of one network are read by several threads.
os.environ.setdefault("HF_ENABLE_PARALLEL_LOADING", "yes")

# torch (2.13) compiles nothing in this process. bitsandbytes (0.50.2) asks it to while it is imported, for
# functions that nothing here calls; torch would import its whole compiler for them, which is a quarter of the
# CPU time of every start.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")

# bitsandbytes (0.50.2), which diffusers imports, looks on a processor with AVX512-BF16 for a faster product
# of 4-bit matrices, in a package that we don't require: here only GPUs quantize. That it isn't found is all
# that this logger ever says.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

__version__ = "0.1.0"
