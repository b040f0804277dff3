"""What the tests of one device share: who runs a job there in a thread of their own."""

from __future__ import annotations

import threading
from typing import Any

from pipeline.engine import Engine
from pipeline.events import Event
from pipeline.executors.local import LocalExecutor
from pipeline.run import Cancel

TINY = {"prompt": "a red apple", "model": "tiny", "width": 64, "height": 64, "steps": 4, "seed": 7}


class Caller:
    """Runs a job in a thread of its own, and keeps what is emitted."""

    def __init__(self, engine: Engine, **values: Any) -> None:
        self.cancel, self.events = Cancel(), list[Event]()
        self.result: Event | None = None
        job = engine.check(TINY | values)

        def run() -> None:
            self.result = engine.run(job, self.events.append, self.cancel)

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def end(self) -> Event:
        self._thread.join(600)
        assert self.result is not None
        assert self.events[-1] is self.result
        assert [event.last for event in self.events[:-1]] == [False] * (len(self.events) - 1)
        return self.result


def executor(engine: Engine, kind: str = "cpu") -> LocalExecutor:
    found = engine.executors[kind]
    assert isinstance(found, LocalExecutor)
    return found
