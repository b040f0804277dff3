"""How every API starts a job: in a thread, for it waits for the disk, while its caller may leave."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from api.visitor import asking

if TYPE_CHECKING:
    from jobs.lifecycle.subscription import Following
    from jobs.queue import Queue
    from jobs.store.models import Kept
    from pipeline.request import Job


async def start_job(queue: Queue, job: Job, kept: Kept = "call") -> Following:
    """As `Queue.start`, for whoever asks in this context. Where the caller is cancelled before there is an
    answer, the job is one whose last reader has gone: it mustn't be drawn for nobody.

    Raises:
        As of `Queue.start`.
    """
    lock, gone = threading.Lock(), False
    started: list[Following] = []

    def start() -> Following:
        following = queue.start(job, asking(queue.rules.first), kept)
        with lock:
            started.append(following)
            if gone:
                following.leave()
        return following

    try:
        return await asyncio.to_thread(start)  # with this context
    except BaseException:  # asyncio's cancellation; or no thread was free at once, and one begins it later
        with lock:
            gone = True
            for following in started:
                following.leave()
        raise
