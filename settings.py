"""The settings an owner may make, as environment variables STEPWISE_*. None is needed for a first run.

What the platform sets (HF_TOKEN, GRADIO_SERVER_NAME, GRADIO_SERVER_PORT, SPACE_ID) is read where it is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Each field is a variable: `models` is STEPWISE_MODELS. README has the same table."""

    model_config = SettingsConfigDict(env_prefix="STEPWISE_")

    models: Path = Path(__file__).parent / "models.yaml"
    """Which models there are."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """Where models draw that aren't bound to the CPU."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads for drawing there; torch's own choice where unset."""
    max_waiting: Annotated[int, Field(ge=1)] = 50
    """Drawings that may wait in front of a device; more are refused."""
    keep_hours: Annotated[float, Field(gt=0)] = 24
    """Hours for which pictures can be fetched again from the server, before their files are deleted."""
