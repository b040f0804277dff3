"""How every API starts a job: in a thread, for it waits for the disk, while its caller may leave."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from api.visitor import asking

if TYPE_CHECKING:
    from jobs.lifecycle.subscription import Subscription
    from jobs.queue import Queue
    from jobs.store.models import Lifetime
    from pipeline.request import Job


async def start_job(queue: Queue, job: Job, lifetime: Lifetime = "attached") -> Subscription:
    """As `Queue.start`, for whoever asks in this context. Where the caller is cancelled before there is an
    answer, the job is one whose last reader has gone: it mustn't be drawn for nobody.

    Raises:
        As of `Queue.start`.
    """
    lock, gone = threading.Lock(), False
    started: list[Subscription] = []

    def start() -> Subscription:
        following = queue.start(job, asking(queue.limits.first), lifetime)
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
