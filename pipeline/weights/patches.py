"""What is laid over a model's networks beside their own weights. Jobs bring none yet; but the keys of
networks, embeddings, estimates and recipes tell different ones apart already. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.request import Job


@dataclass(frozen=True)
class Patch:
    """One change to one network. Plain data.

    network: its name in the pipeline. identity: what tells the change from every other, such as the SHA-256
    of the file that it comes from and how strongly it is applied.
    """

    network: str
    identity: str


@dataclass(frozen=True)
class Patches:
    """The changes to a model's networks, in the order in which they are applied. Plain data."""

    each: tuple[Patch, ...] = ()

    def of(self, network: str) -> tuple[str, ...]:
        """Return the identities of those that change this network; to all others it is the same one."""
        return tuple(one.identity for one in self.each if one.network == network)

    @property
    def identities(self) -> tuple[str, ...]:
        """All of them as text, each with its network: for what is kept in files."""
        return tuple(f"{one.network}:{one.identity}" for one in self.each)


NO_PATCHES = Patches()


def patches_of(job: Job) -> Patches:
    """Return the patches that this job is drawn with. The one place where they are told from a job."""
    return NO_PATCHES
