"""The progress bar on standard error: what a drawing is at, in words, and how far."""

from __future__ import annotations

from typing import TextIO

from tqdm import tqdm

from cli.sources import Progress
from cli.terminal import printable

GB = 10**9
tqdm.monitor_interval = 0  # no thread that draws bars: ours is drawn when there is news


class Bar:
    """One line of a terminal, drawn anew with every event. As a context, it leaves no half line."""

    def __init__(self, stream: TextIO | None) -> None:
        """stream: a terminal; None: nothing is shown."""
        self._bar = tqdm(
            file=stream,
            total=1,
            bar_format="{bar:20} {desc}",
            dynamic_ncols=True,
            leave=False,
            disable=stream is None,
        )

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, words: str, done: float = 0, total: float = 0) -> None:
        """These words, and a bar filled as far where there is a total."""
        if self._bar.disable:
            return
        self._bar.n, self._bar.total = min(done, total), total or None
        self._bar.set_description_str(printable(words))

    def progress(self, at: Progress) -> None:
        """How a drawing stands."""
        if at.phase == "downloading" and not at.total:
            self.show("looking up the model's files")
        elif at.phase == "downloading":
            self.show(f"downloading {at.done / GB:.1f} of {at.total / GB:.1f} GB", at.done, at.total)
        elif at.phase == "loading":
            self.show(f"loading part {at.done} of {at.total}", at.done, at.total)
        elif at.phase in ("denoising", "decoding"):
            drawn = (at.image - 1) * at.steps + at.step
            self.show(_steps(at), drawn, at.steps * at.images)
        elif at.phase == "queued" and at.position:
            self.show(f"queued, {at.position} ahead")
        else:
            self.show(at.phase)

    def finished(self, words: str) -> None:
        """The bar's last line, which stays."""
        self._bar.leave = True
        self.show(words, 1, 1)


def _steps(at: Progress) -> str:
    words = f"step {at.step} of {at.steps}" if at.phase == "denoising" else at.phase
    if at.images > 1:
        words = f"image {at.image} of {at.images}, {words}"
    return words if at.eta is None else f"{words}, {_time(at.eta)} left"


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
