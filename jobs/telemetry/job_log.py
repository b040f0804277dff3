"""One line of JSON for each job that ends, on the logger `stepwise.jobs`: for whoever runs the server, and
with nothing in it that a visitor would mind.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import sys

from jobs.store.models import Record
from pipeline.events import Event

log = logging.getLogger("stepwise.jobs")


class JobLog:
    """Writes a line for each job that ended. prompts: with its prompt."""

    def __init__(self, prompts: bool) -> None:
        self._prompts = prompts
        # Anew for each process: the line tells one person's jobs from another's, and not who that is.
        self._salt = secrets.token_bytes(16)

    def write(self, record: Record, last: Event) -> None:
        job, started = record.job, record.started
        line = {
            "job": job.short_id,  # whoever knows all of an id can stop the job and see its pictures
            "model": job.model,
            "width": job.width,
            "height": job.height,
            "steps": job.steps,
            "images": job.images,
            "line": record.line,
            "owner": self._owner(record),
            "attempt": record.attempt,
            "outcome": last.phase,
            "code": last.code,
            "wait": None if started is None else round(max(0.0, started - record.created), 3),
            "seconds": round(last.seconds, 3),
        }
        if self._prompts:
            line |= {"prompt": job.prompt, "negative_prompt": job.negative_prompt}
        log.info("%s", json.dumps(line))

    def _owner(self, record: Record) -> str:
        person = record.owner.person.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(person, digest_size=4, key=self._salt).hexdigest()


def print_job_log() -> None:
    """Makes this process print the lines, each once, on its standard output."""
    to = logging.StreamHandler(sys.stdout)
    to.setFormatter(logging.Formatter("%(message)s"))
    log.handlers = [to]
    log.setLevel(logging.INFO)
    log.propagate = False
