"""The settings an owner may make, as environment variables STEPWISE_*. None is needed for a first run.

What the platform sets (HF_TOKEN, GRADIO_SERVER_NAME, GRADIO_SERVER_PORT, SPACE_ID) is read where it is used.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from pipeline.errors import SettingError

if TYPE_CHECKING:
    from pipeline.engine import Engine

_BEARER = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""What may stand behind `Authorization: Bearer` (RFC 6750, 2.1)."""


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
    zerogpu_size: Literal["large", "xlarge"] = "large"
    """Of the GPUs that ZeroGPU lends: xlarge holds all models, at twice the quota."""
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """Keys for /v1 and /mcp, separated by commas; where there is none, these are open to everybody."""

    @field_validator("api_keys", mode="before")
    @classmethod
    def _keys(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        keys = [key for part in value.split(",") if (key := part.strip())]
        if value.strip() and not keys:
            raise SettingError("STEPWISE_API_KEYS holds commas and no key: write one, or leave it out.")
        for number, key in enumerate(keys, 1):
            if not _BEARER.fullmatch(key):
                # Not a ValueError: pydantic would put the value, a secret, into its complaint.
                raise SettingError(
                    f"STEPWISE_API_KEYS: key {number} has a character that a bearer key can't have: use "
                    "letters, digits and -._~+/, and separate keys by commas."
                )
        return tuple(keys)

    def engine(self) -> Engine:
        """An engine with these settings, nothing loaded yet.

        Raises:
            CatalogueError: models.yaml can't be used.
        """
        # Here, because they import torch: seconds that whoever only reads a setting needn't wait.
        from pipeline.catalogue import read_catalogue
        from pipeline.engine import Engine

        catalogue = read_catalogue(self.models)
        return Engine(catalogue, self.device, self.threads, self.max_waiting, self.zerogpu_size)
