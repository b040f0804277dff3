"""What the tests of the pipeline share: the machine is asked anew by each; a stand-in for a provider."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import close_session, constants

from pipeline.devices.hardware import accelerator
from pipeline.engine import Engine
from pipeline.events import Event
from tests.support.services.provider import FakeProvider
from tests.support.tiny import catalogue

FOX = {"prompt": "a fox", "model": "far", "seed": 7}
"""What is asked for where a test doesn't say otherwise."""


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    """No test sees the machine that another one pretended to have."""
    accelerator.cache_clear()
    yield
    accelerator.cache_clear()


@pytest.fixture
def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeProvider]:
    """The stand-in, and this process made to call it."""
    with FakeProvider(tmp_path) as fake:
        for name, value in fake.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        close_session()  # huggingface_hub's; a new one reads the environment anew
        yield fake
        for thread in threading.enumerate():  # a stopped drawing's call ends too, if later than the drawing
            if thread.name.startswith("call for "):
                thread.join(60)
                assert not thread.is_alive()
        close_session()


@pytest.fixture
def draw(provider: FakeProvider, tmp_path: Path) -> Callable[..., Event]:
    """Draws FOX with these values, and gives the last event; `changes` are to the model's entry."""

    def draw(changes: dict[str, Any] | None = None, **values: Any) -> Event:
        engine = Engine(catalogue(tmp_path, provider.entry(**changes or {})))
        return engine.start(engine.check(FOX | values)).result()

    return draw
