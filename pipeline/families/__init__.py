"""Families of models: a module each, registered here, that owns all that differs between them: the diffusers
pipeline, how prompts are encoded and counted, what guidance means, previews, what a step costs.

A new family is one new module and its line in `FAMILIES`. The modules import none of the libraries that draw;
`import_pipelines` does when it is called.
"""

from __future__ import annotations

from pipeline.families import sd3, z_image
from pipeline.families.family import Cost, Family, PreviewFactors, TextEncoder

__all__ = [
    "FAMILIES",
    "Cost",
    "Family",
    "PreviewFactors",
    "TextEncoder",
    "import_pipelines",
    "preview_factors",
]

FAMILIES: dict[str, Family] = {"sd3": sd3.FAMILY, "z-image": z_image.FAMILY}
"""By what `family` in models.yaml calls them."""


def preview_factors() -> dict[str, PreviewFactors]:
    """Return all published preview factors by the name that `preview` in models.yaml has for them."""
    return {name: one for family in FAMILIES.values() for name, one in family.preview_factors.items()}


def import_pipelines() -> None:
    """Imports all that draws, which else the first drawing of each family does: seconds."""
    import diffusers

    for family in FAMILIES.values():
        getattr(diffusers, family.pipeline)
