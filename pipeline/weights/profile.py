"""How a model's networks are run: compiled or not, in which precision, with which caches. There is one way so
far; but the keys of networks, embeddings, estimates and recipes have it already. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.catalog.spec import ModelSpec
from pipeline.weights.patches import NO_PATCHES, Patches


@dataclass(frozen=True)
class Profile:
    """One way to run a model's networks, which may change its speed and the last bits of its pictures. Plain
    data. name: tells it from every other."""

    name: str


STOCK = Profile("stock")
"""As the libraries run them by themselves."""


def profile_of(spec: ModelSpec) -> Profile:
    """Return the profile that this model is drawn with here. The one place where it is chosen."""
    return STOCK


def drawn_as(model: str, profile: Profile, patches: Patches) -> str:
    """Return the name under which it is kept how long drawings take: the model's id, and behind it the
    profile and the patches where they aren't the usual ones."""
    unusual = () if (profile, patches) == (STOCK, NO_PATCHES) else (profile.name, *patches.identities)
    return " ".join((model, *unusual))
