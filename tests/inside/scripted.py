"""Draws by a script, where what is drawn isn't what a test is about: the same events in the same order as a
drawing on this machine's own device, with previews, a picture and its recipe, and no network behind them. Of
the server all else is real: its queue, its log of events, its page and its APIs.

The same job gives the same picture, and another parameter another one. What only networks know is missing:
warnings of cut prompts, memory, and what a prompt shows.
"""

from __future__ import annotations

import hashlib
import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sitecustomize import Held

STEP, DECODE = 0.012, 0.02
"""Seconds that a step and a picture's end take. A drawing is watched, and takes next to no CPU time."""
NETWORKS = 4
"""How many are loaded before a model's first drawing."""


def script(local: Any, held: Held | None) -> None:
    """Changes the module `pipeline.executors.local`: its executor draws by the script.

    Args:
        held: where its drawings wait.
    """
    loaded: set[str] = set()

    def load_here(self: Any, spec: Any, progress: Any) -> None:
        self.plan(spec)
        if spec.id not in loaded:
            for done in range(NETWORKS):
                progress.update(phase="loading", done=done, total=NETWORKS)
                progress.raise_if_cancelled()
            loaded.add(spec.id)

    def draw(self: Any, run: Any, spec: Any) -> None:
        run.begin()
        plan, device = self.plan(spec), self._device(spec)
        run.update(plan=plan.name, device=f"{device.kind}: {device.name}")
        load_here(self, spec, run)
        run.update(phase="encoding")
        run.raise_if_cancelled()
        for index in range(len(run.latest.images), run.job.images):
            _draw_one(run, spec, index, held)

    local.LocalExecutor.load_here = load_here
    local.LocalExecutor.draw = draw
    local.LocalExecutor.ready = lambda self, spec: spec.id in loaded


def _draw_one(run: Any, spec: Any, index: int, held: Held | None) -> None:
    from pipeline.recipe import to_png
    from pipeline.sampling.preview import INTERVAL
    from pipeline.sampling.thumbnail import jpeg

    job, shown = run.job, float("-inf")
    finished = _picture(job, index)
    run.update(phase="denoising", step=0, image=index + 1)

    def show(step: int) -> None:
        before = run.latest.previews[:index]
        left = (job.steps - step + (job.images - index - 1) * job.steps) * STEP + DECODE
        run.update(step=step, eta=left, previews=(*before, jpeg(_noisy(finished, job, step / job.steps))))

    for step in range(1, job.steps + 1):
        time.sleep(STEP)
        try:
            run.raise_if_cancelled()
        except Exception:
            show(step)  # the last one of a stopped drawing
            raise
        if (held is not None and held.where()) or time.monotonic() - shown >= INTERVAL:
            shown = time.monotonic()
            show(step)
        if held is not None:
            held.wait_after(index * job.steps + step)
    run.update(phase="decoding", step=job.steps)
    if held is not None:
        held.wait_in("decoding")
    time.sleep(DECODE)
    png = to_png(finished, job, index, {"source": spec.id, "device": "script", "plan": run.latest.plan})
    run.raise_if_cancelled()
    event = run.latest
    run.update(images=(*event.images, png), previews=(*event.previews[:index], jpeg(finished)))


def _picture(job: Any, index: int) -> Any:
    """Return a picture of the job's size, of colours that follow from all that it is drawn from."""
    from PIL import Image

    recipe = {
        name: value
        for name, value in vars(job).items()
        if name not in ("id", "images", "warnings", "seed") and isinstance(value, str | int | float)
    }
    words = json.dumps(recipe | {"seed": job.seed + index}, sort_keys=True)
    few = Image.frombytes("RGB", (4, 4), hashlib.sha512(words.encode()).digest()[:48])
    return few.resize((job.width, job.height), Image.Resampling.BILINEAR)


def _noisy(finished: Any, job: Any, share: float) -> Any:
    """Return what is seen of it after this share of the steps, from 0 to 1."""
    from PIL import Image

    few = Image.frombytes("RGB", (4, 4), hashlib.sha512(str(job.seed).encode()).digest()[:48])
    return Image.blend(few.resize(finished.size), finished, share)
