"""The settings an owner may make, as environment variables STEPWISE_*. None is needed for a first run.

What the platform sets (HF_TOKEN, GRADIO_SERVER_NAME, GRADIO_SERVER_PORT, SPACE_ID) is read where it is used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self
from unicodedata import normalize

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from environment import PREFIX, explained, mistakes, proxies_in
from pipeline.catalog.paths import owner_path
from pipeline.catalog.spec import PlanName
from pipeline.errors import SettingError, quoted

if TYPE_CHECKING:
    from jobs.data_dir.folder import DataFolder
    from jobs.queue import Queue
    from pipeline.engine import Engine, EngineSpec

_BEARER = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""What may stand behind `Authorization: Bearer` (RFC 6750, 2.1)."""
_HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
HUGGING_FACE = "huggingface"
"""Of STEPWISE_LOGIN: who comes in shows a Hugging Face account."""

ABANDONED_ON_SPACE = 30.0
RATE_ON_SPACE = "60/minute"
MOST_GB = 1_000_000
MOST_SECONDS = 100_000_000
"""Three years. Without a bound a slip of the finger overflows somewhere after the start."""


class Settings(BaseSettings):
    """Each field is a variable: `models` is STEPWISE_MODELS. Its docstring is its row of docs/settings.md."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, allow_inf_nan=False, use_attribute_docstrings=True)

    models: Path = Path(__file__).parent / "models.yaml"
    """The list of models that this server offers."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """Where models draw that aren't bound to the CPU by their entry. `auto` takes the GPU if there is one."""
    gpu_memory: Annotated[float, Field(gt=0, le=MOST_GB)] | None = None
    """GB (10⁹ bytes) of the GPU that weights and drawing may take. Where unset, what is free at the start."""
    host_memory: Annotated[float, Field(ge=0, le=MOST_GB)] | None = None
    """GB (10⁹ bytes) of host memory for weights that are not on the GPU. Where unset, 90 % of what is free at
    the start; a container's limit counts."""
    plan: PlanName | None = None
    """How every model is kept in memory on a CUDA GPU; memory.md explains the plans. Where unset, each model
    gets the first plan that fits."""
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """How many CPU threads draw, where a CPU draws. Where unset, PyTorch chooses."""
    max_waiting: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    """How many drawings may wait in front of a device. More are refused."""
    preload: Annotated[tuple[str, ...] | None, NoDecode] = None
    """Ids of the models to fetch and load at the start, in this order, separated by commas. Empty: none.
    Where unset, the default model if nothing of it must be fetched."""
    max_waiting_each: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """How many drawings of one person may wait. More are refused."""
    running_each: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """How many drawings of one person are drawn at the same time, where several GPUs or providers draw."""
    rate: str | None = None
    """How many drawings one person may start, as `30/minute` or `5/minute, 100/hour`. Calls of Gradio's API
    are allowed ten times as many. Empty: no limit. Where unset, `60/minute` on a Space and no limit
    elsewhere."""
    max_wait: Annotated[float, Field(gt=0, le=MOST_SECONDS)] = 6 * 3600
    """Seconds after which a drawing fails that waits for its turn. Time without a running server does not
    count."""
    max_draw: Annotated[float, Field(gt=0, le=MOST_SECONDS)] = 3600
    """Seconds after which a drawing fails that has begun."""
    abandoned_after: Annotated[float, Field(ge=0, le=MOST_SECONDS)] | None = None
    """Seconds after which a running drawing ends that nobody follows, unless its client chose its id; jobs.md
    says more. Where unset, 30 on a Space. Elsewhere a drawing from the page is then drawn to its end, and one
    from a program ends when the program goes."""
    grace: Annotated[float, Field(ge=0, le=MOST_SECONDS)] = 30
    """Seconds for which running drawings may finish when the server is told to end (SIGTERM)."""
    workers: Annotated[int, Field(ge=0, le=256)] | None = None
    """How many worker processes draw, each on a GPU of its own, or on the CPU where there is no GPU. 0: the
    server itself draws. Where unset, as many as there are GPUs."""
    priority: Annotated[tuple[str, ...], NoDecode] = ()
    """Names of logged-in users who go before everyone else, separated by commas. A Space's owner always
    does."""
    data: Path | None = None
    """The folder on a local disk that jobs and their pictures are kept in. Where unset, a Space's attached
    storage, else the user's data directory; where that can't be written to, a temporary folder that goes with
    the server."""
    keep_gb: Annotated[float, Field(gt=0, le=MOST_GB)] = 2
    """GB (10⁹ bytes) of jobs that are kept: their previews, pictures and records. Those used longest ago go
    first."""
    keep_hours: Annotated[float, Field(gt=0, le=100_000)] = 24
    """Hours for which jobs and their pictures stay on the server."""
    log_prompts: bool = False
    """Whether the line that is logged for each ended drawing has its prompt."""
    zerogpu_size: Literal["large", "xlarge"] = "large"
    """The size of GPU to ask ZeroGPU for. `xlarge` holds all models, at twice the quota; zerogpu.md says
    more."""
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """Keys that `/v1` and `/mcp` ask for, separated by commas. The page and Gradio's own endpoints stay open.
    Without a key, everything is open."""
    login: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """Who may log in, each as `name:password`, separated by commas; or `huggingface`, for people with an
    account there. Without it, nobody needs to log in; login-and-security.md says more."""
    users: Annotated[tuple[str, ...], NoDecode] = ()
    """Names of the Hugging Face users and organisations that may come in with `STEPWISE_LOGIN=huggingface`,
    separated by commas. Without a name, everyone with an account may."""
    proxies: Annotated[tuple[IPv4Network | IPv6Network, ...] | None, NoDecode] = None
    """Addresses and networks of the proxies in front, separated by commas, that are believed when they say
    who asks (`X-Forwarded-For`) and at which address; proxy.md says more. Empty: none. Where unset, those in
    uvicorn's `FORWARDED_ALLOW_IPS`; where that is unset, too, a Space's own on a Space, and none elsewhere,
    not even this machine."""
    hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Names under which the server is reached, as `draw.example.org`, separated by commas. `.example.org`
    stands for all that end so, `*` for any. Known without it are addresses in numbers, names without a dot or
    of a private network (`.local`, `.internal`, …), the name in `GRADIO_ROOT_PATH`, and a Space's own."""
    origins: Annotated[tuple[str, ...], NoDecode] | None = None
    """Other sites whose pages may call what is open to everyone, as `https://example.org`, separated by
    commas. `*` stands for any. Pages on the visitor's own machine (`http://localhost:…`) always may. Where
    unset, any on a Space and none elsewhere."""
    frames: Annotated[tuple[str, ...], NoDecode] | None = None
    """Sites that may show the page in a frame, as `https://example.org`, separated by commas. `*` stands for
    any. Empty: none. Where unset, `https://huggingface.co`."""

    @field_validator("models", "data", mode="before")
    @classmethod
    def _paths(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, str):
            return value
        if not value.strip():
            raise ValueError("empty")  # Path("") is the current folder
        try:
            return owner_path(value)
        except ValueError as error:
            raise SettingError(f"STEPWISE_{str(info.field_name).upper()}: {error}.") from None

    @field_validator("preload", "priority", "users", "hosts", "origins", "frames", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        parts = normalize("NFC", value).split(",")
        return tuple(dict.fromkeys(name for part in parts if (name := part.strip())))

    @field_validator("rate")
    @classmethod
    def _rate(cls, value: str | None) -> str | None:
        from jobs.scheduling.rate_limit import rates  # its library, for those who set it

        rates(value or "", "STEPWISE_RATE")
        return value

    @field_validator("users", mode="before")
    @classmethod  # before `_names`: pydantic (2.12) begins with the last
    def _some(cls, value: object) -> object:
        if isinstance(value, str) and value.strip() and not value.strip(" ,"):
            raise SettingError("STEPWISE_USERS holds commas and no name: write one, or leave it out.")
        return value

    @field_validator("hosts", "origins", "frames")
    @classmethod
    def _sites(cls, value: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        from api.guard.sites import host_name, origin_of_site

        check = host_name if info.field_name == "hosts" else origin_of_site
        name = f"STEPWISE_{str(info.field_name).upper()}"
        return None if value is None else tuple(check(one, name) for one in value)

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

    @field_validator("login", mode="before")
    @classmethod
    def _accounts(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        accounts = [account for part in value.split(",") if (account := part.strip())]
        if value.strip() and not accounts:
            raise SettingError("STEPWISE_LOGIN holds commas and no login: write one, or leave it out.")
        if accounts == [HUGGING_FACE]:
            return tuple(accounts)
        if HUGGING_FACE in accounts:
            raise SettingError(
                f"STEPWISE_LOGIN is either {HUGGING_FACE} alone, or logins as name:password, not both."
            )
        # As api/auth/passwords.py compares them.
        accounts = [normalize("NFC", account) for account in accounts]
        names = [account.partition(":")[0] for account in accounts]
        for number, account in enumerate(accounts, 1):
            name, _, password = account.partition(":")
            if not name or name != name.strip() or not password or not account.isprintable():
                raise SettingError(
                    f"STEPWISE_LOGIN: login {number} is no name:password. Separate logins by commas; a name "
                    f"has no colon, and neither has a comma or a control character. Or write {HUGGING_FACE}."
                )
            if names.count(name) > 1:
                raise SettingError(f"STEPWISE_LOGIN: login {number} has a name that was there before.")
        return tuple(accounts)

    @field_validator("proxies", mode="before")
    @classmethod
    def _networks(cls, value: object) -> object:
        return proxies_in(value, "STEPWISE_PROXIES") if isinstance(value, str) else value

    @model_validator(mode="after")
    def _uvicorns_proxies(self) -> Self:
        value = os.environ.get("FORWARDED_ALLOW_IPS", "")
        if self.proxies is None and value.strip():
            self.proxies = proxies_in(value, "FORWARDED_ALLOW_IPS")
        return self

    @model_validator(mode="after")
    def _whom(self) -> Self:
        if self.users and not self.hub_login:
            raise SettingError(
                f"STEPWISE_USERS says who may come in with STEPWISE_LOGIN={HUGGING_FACE}, which isn't set: "
                "without it, it would keep nobody out."
            )
        for number, name in enumerate(self.users, 1):
            if not _HUB_NAME.fullmatch(name):
                raise SettingError(
                    f"STEPWISE_USERS: {quoted(name)}, name {number}, is no name of a Hugging Face user or "
                    "organisation. Separate names by commas."
                )
        return self

    @classmethod
    def read(cls) -> Self:
        """What the environment says.

        Raises:
            SettingError: of each mistake one sentence, a line of its own.
        """
        fields = cls.model_json_schema()["properties"]
        found = mistakes(fields, os.environ)
        try:
            settings = cls()
        except ValidationError as error:
            found = explained(fields, os.environ, error) | found
        except SettingError as error:
            variable = str(error).partition(" ")[0].rstrip(":")
            found.setdefault(variable, str(error))
        if found:
            raise SettingError("\n".join(found.values()))
        return settings

    @property
    def hub_login(self) -> bool:
        """Whether one logs in with Hugging Face."""
        return [account.get_secret_value() for account in self.login] == [HUGGING_FACE]

    def engine(self) -> Engine:
        """An engine with these settings, nothing loaded yet.

        Raises:
            CatalogueError: models.yaml can't be used.
        """
        return self.engine_spec().engine()

    def engine_spec(self) -> EngineSpec:
        """What makes that engine, for this process or another."""
        # Here, because they import torch: seconds that whoever only reads a setting needn't wait.
        from pipeline.devices.hardware import Wanted
        from pipeline.engine import EngineSpec

        wanted = Wanted(self.device, self.gpu_memory, self.host_memory, self.plan)
        return EngineSpec(self.models, wanted, self.threads, self.zerogpu_size)

    def queue(self, engine: Engine, preload: Sequence[str], folder: DataFolder) -> Queue:
        """The queue in front of this engine, which begins with what the last server left.

        Args:
            preload: models to make ready at once.
            folder: of `data`.

        Raises:
            StoreError: what the folder holds can't be read.
        """
        from jobs.limits import Limits
        from jobs.queue import Queue
        from jobs.workers.executors import executors, gpus

        on_space, owner = bool(os.environ.get("SPACE_ID")), os.environ.get("SPACE_AUTHOR_NAME")
        abandoned = self.abandoned_after
        if abandoned is None and on_space:
            abandoned = ABANDONED_ON_SPACE
        limits = Limits(
            room=self.max_waiting,
            each=self.max_waiting_each,
            running_each=self.running_each,
            abandoned=abandoned,
            rate=RATE_ON_SPACE if on_space and self.rate is None else self.rate or "",
            wait=self.max_wait,
            draw=self.max_draw,
            first=frozenset(self.priority + ((owner,) if owner else ())),
            most_bytes=round(self.keep_gb * 10**9),
            most_seconds=self.keep_hours * 3600,
            log_prompts=self.log_prompts,
        )
        workers = gpus(engine) if self.workers is None else self.workers
        return Queue(engine, folder, executors(engine, self.engine_spec(), workers), limits, preload)

    def to_preload(self, engine: Engine) -> list[str]:
        """The models to make ready at the start.

        Raises:
            SettingError: STEPWISE_PRELOAD names a model that there isn't, or that isn't drawn here.
        """
        if self.preload is None:
            default = engine.catalogue[engine.default_model]
            return [default.id] if default.local else []
        known = {spec.id: spec for spec in engine.catalogue if spec.backend == "local"}
        for model in self.preload:
            if model not in known:
                raise SettingError(
                    f"STEPWISE_PRELOAD: {quoted(model)} is no model that can be loaded here. Separate ids by "
                    f"commas, of: {', '.join(known)}."
                )
        return list(self.preload)
