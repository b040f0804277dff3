"""A picture as the small JPEG that stands for it: in the frame while it is drawn, in the history afterwards.

Knows pictures only; how latents become one is preview.py's.
"""

from __future__ import annotations

import io

from PIL import Image

LONGEST_SIDE = 384
"""Pixels of a preview's longer side, at most: enough to judge a composition, small enough for a phone."""
JPEG_QUALITY = 80


def jpeg(image: Image.Image) -> bytes:
    """A picture as a JPEG of at most LONGEST_SIDE pixels a side."""
    image = image.convert("RGB")
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
