"""Drawing by a Hugging Face Inference Provider: a job's pictures are asked for over HTTP, one by one.

An executor whose steps aren't seen. No weights, no device and no torch here; what a provider's errors mean
stands in service_errors.py.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import traceback
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import huggingface_hub
from huggingface_hub import AsyncInferenceClient, get_token
from PIL import Image, UnidentifiedImageError

from pipeline.catalog.spec import ModelSpec
from pipeline.devices.threads import start_thread
from pipeline.errors import Stopped
from pipeline.executors.executor import Capabilities
from pipeline.executors.in_process import DrawnElsewhere
from pipeline.executors.service_errors import provider_error, without
from pipeline.executors.turns import Turns
from pipeline.recipe import to_png
from pipeline.request import Job
from pipeline.run import Run
from pipeline.sampling.thumbnail import jpeg

log = logging.getLogger("stepwise")

AT_ONCE = 4
"""Drawings that are asked for at the same time, over all models: bounds what visitors can spend of the
owner's money in a minute, and what one account asks of a provider at once."""
MOST_PIXELS = 2**25
"""Of a provider's picture, 100 MB once unpacked: twice 4096², which no model that we know of exceeds. A small
file can unpack to any size."""
FORMATS = ("PNG", "JPEG", "WEBP")
"""What providers send. Pillow reads dozens more, some through other programs."""


class InferenceProviders(DrawnElsewhere):
    """Has jobs drawn by the providers that their models name. A stop ends one at once: the connection is
    closed, which may or may not end the provider's work and its cost."""

    at_once = AT_ONCE

    def __init__(self, specs: Sequence[ModelSpec]) -> None:
        """specs: the models with `backend: inference`."""
        super().__init__(specs, Turns(AT_ONCE))

    def capabilities(self) -> Capabilities:
        return Capabilities(tuple(self._specs))

    def _have_drawn(self, run: Run, spec: ModelSpec) -> None:
        _draw(run, spec)


def _draw(run: Run, spec: ModelSpec) -> None:
    """Has the job's images drawn, image k from seed + k.

    Raises:
        ProviderError: one image didn't come; says why. Stopped.
    """
    job = run.job
    made_with = {
        "source": spec.source,
        "provider": spec.provider,
        "huggingface_hub": huggingface_hub.__version__,
    }
    run.update(phase="denoising", provider=spec.provider)
    for index in range(job.images):
        run.update(step=0, image=index + 1)
        image = _ask(run, spec, job.seed + index)
        if image.size != (job.width, job.height):
            _warn_of_size(run, image, spec)
        png = to_png(image, job, index, made_with)
        run.raise_if_cancelled()
        event = run.latest
        run.update(
            step=job.steps, images=(*event.images, png), previews=(*event.previews[:index], jpeg(image))
        )


def _warn_of_size(run: Run, image: Image.Image, spec: ModelSpec) -> None:
    job, warnings = run.job, run.latest.warnings
    words = (
        f"{image.width} × {image.height} instead of {job.width} × {job.height}: the provider of {spec.name} "
        "draws sizes of its own."
    )
    if words not in warnings:
        run.update(warnings=(*warnings, words))


def _ask(run: Run, spec: ModelSpec, seed: int) -> Image.Image:
    """Waits for one picture, but not after a stop, and not longer than the model's `timeout`."""
    token = get_token() or ""
    answer = _in_its_own_thread(lambda: _picture(spec, run.job, seed, token), f"call for {run.job.short_id}")
    try:
        with run.cancel.calling(answer.cancel):
            return answer.result(spec.timeout)
    except concurrent.futures.CancelledError:
        raise Stopped from None
    except Exception as error:
        answer.cancel()
        failure = provider_error(
            error,
            model=spec.name,
            source=spec.source,
            license_url=spec.license.url,
            timeout=spec.timeout,
            secret=token,
        )
        # Logged here, not as the failure's cause: libraries and providers may quote the token.
        details = "".join(traceback.format_exception(error, limit=-3, chain=False))
        words = run.job.without_prompts(without(token, details)).strip()
        log.warning("%s: %s", spec.name, words)
        raise failure from None


async def _picture(spec: ModelSpec, job: Job, seed: int, token: str) -> Image.Image:
    async with AsyncInferenceClient(provider=spec.provider, token=token, timeout=spec.timeout) as client:
        image = await client.text_to_image(
            job.prompt,
            model=spec.source,
            negative_prompt=job.negative_prompt or None,
            width=job.width,
            height=job.height,
            num_inference_steps=job.steps,
            guidance_scale=job.guidance,
            seed=seed,
        )
    if image.format not in FORMATS:
        raise UnidentifiedImageError(f"a picture of the format {image.format}")
    if image.width * image.height > MOST_PIXELS:
        raise Image.DecompressionBombError(f"{image.width} × {image.height} pixels, above {MOST_PIXELS:,}")
    return image.convert("RGB")


def _in_its_own_thread(
    ask: Callable[[], Coroutine[Any, Any, Image.Image]], name: str
) -> concurrent.futures.Future[Image.Image]:
    """Runs a call in a thread and an event loop of its own, and gives its answer to come.

    Cancelling that frees whoever waits for it at once, and closes the call's connection. Where
    huggingface_hub (2.4) blocks its loop instead of awaiting (it asks the Hub who draws the model; it fetches
    a finished picture from where some providers keep it) the thread goes on to the end of that and no
    further: nobody waits for it, and what it brings is dropped.
    """
    answer: concurrent.futures.Future[Image.Image] = concurrent.futures.Future()

    async def asked() -> Image.Image:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def give_up(answer: concurrent.futures.Future[Image.Image]) -> None:
            if answer.cancelled():
                with contextlib.suppress(RuntimeError):  # the loop has ended by itself meanwhile
                    loop.call_soon_threadsafe(task.cancel)

        answer.add_done_callback(give_up)
        return await ask()

    def run() -> None:
        # Whatever ends the call, cancelling too, is the answer: somebody may be waiting for it.
        with contextlib.suppress(concurrent.futures.InvalidStateError):  # nobody is: it was cancelled
            try:
                answer.set_result(asyncio.run(asked()))
            except BaseException as error:
                answer.set_exception(error)

    start_thread(name, run)
    return answer
