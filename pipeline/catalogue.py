"""models.yaml: which models there are, read and checked once at the start.

A `ModelSpec` is one entry. A mistake stops the start with the line, the key and the remedy. Whether a
model can run on this machine is another question: see hardware.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from pipeline.errors import CatalogueError, UnknownModel

Count = Annotated[int, Field(ge=1)]
CountRange = tuple[Count, Count]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class License(_Entry):
    """Under which terms the weights may be used.

    gated: the Hub asks for a token and a click first. notice, policy: what the licence wants shown where
    pictures are made, and the address of its acceptable-use policy.
    """

    name: str
    url: str
    gated: bool = False
    notice: str = ""
    policy: str = ""


class Defaults(_Entry):
    """What a request gets where it says nothing. Sizes in pixels."""

    steps: Count
    guidance: Annotated[float, Field(ge=0)]
    width: Count
    height: Count


class Limits(_Entry):
    """The bounds of a request, each `[min, max]`, both allowed.

    steps: denoising steps an image; guidance: classifier-free guidance scale; pixels: width × height of
    one image; side: width and height, in pixels; images: images a job; tokens: what the longest-reading
    text encoder takes, its own special tokens included; multiple: width and height are multiples of it;
    total_pixels: the most that width × height × images may be.
    """

    steps: CountRange
    guidance: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]
    pixels: CountRange
    side: CountRange
    images: CountRange
    tokens: CountRange
    multiple: Count
    total_pixels: Count

    @model_validator(mode="after")
    def _ordered(self) -> Limits:
        for name in ("steps", "guidance", "pixels", "side", "images", "tokens"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} must be [min, max], smaller first; got [{low}, {high}]")
        return self


class SkipLayerGuidance(_Entry):
    """Skip-layer guidance of SD3.5 Medium: which blocks, how strongly, and from which to which part
    (0 to 1) of the schedule."""

    layers: list[Annotated[int, Field(ge=0)]]
    scale: Annotated[float, Field(gt=0)]
    start: Annotated[float, Field(ge=0, le=1)]
    stop: Annotated[float, Field(ge=0, le=1)]


class Needs(_Entry):
    """What a machine must have, in GB (10⁹ bytes): GPU memory to draw, disk to hold the weights."""

    gpu_memory: Annotated[float, Field(ge=0)] = 0
    disk: Annotated[float, Field(ge=0)] = 0


class PreviewFactors(_Entry):
    """A linear map from latents, as the transformer sees them, to RGB in [0, 1]:
    `factors` has a row of three for each latent channel, `bias` is what a zero latent looks like."""

    factors: list[tuple[float, float, float]]
    bias: tuple[float, float, float]


class ModelSpec(_Entry):
    """One entry of models.yaml.

    source: a Hub id, a folder in diffusers' layout, or a single file with a transformer's weights; paths
    are absolute once read. base: for a single file, the Hub id or folder of the pipeline that its other
    parts come from. revision: of whichever of the two is on the Hub.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    name: str
    about: str = ""
    family: Literal["sd3", "z-image"]
    source: str
    base: str | None = None
    revision: str | None = None
    license: License
    device: Literal["cpu"] | None = None
    needs: Needs = Needs()
    defaults: Defaults
    limits: Limits
    skip_layer_guidance: SkipLayerGuidance | None = None
    preview: Literal["sd3", "flux"] | PreviewFactors | None = None

    @property
    def layout(self) -> str:
        """The pipeline in diffusers' layout that this model is, or is based on: a Hub id or a folder."""
        return self.base or self.source

    @property
    def local(self) -> bool:
        """Whether all its weights are on this machine, nothing to be downloaded."""
        return Path(self.layout).is_absolute()

    @model_validator(mode="after")
    def _defaults_within_limits(self) -> ModelSpec:
        for name, value, (low, high) in (
            ("steps", self.defaults.steps, self.limits.steps),
            ("guidance", self.defaults.guidance, self.limits.guidance),
            ("width", self.defaults.width, self.limits.side),
            ("height", self.defaults.height, self.limits.side),
            ("width × height", self.defaults.width * self.defaults.height, self.limits.pixels),
        ):
            if not low <= value <= high:
                raise ValueError(f"the default {name} {value} is outside its limits [{low}, {high}]")
        for name in ("width", "height"):
            if getattr(self.defaults, name) % self.limits.multiple:
                raise ValueError(f"the default {name} is not a multiple of {self.limits.multiple}")
        return self


class Catalogue:
    """The models of one models.yaml, in its order."""

    def __init__(self, specs: list[ModelSpec]) -> None:
        self._specs = {spec.id: spec for spec in specs}

    def __iter__(self):
        return iter(self._specs.values())

    def __getitem__(self, model: str) -> ModelSpec:
        """The spec with this id. Raises UnknownModel, which names the known ones."""
        try:
            return self._specs[model]
        except KeyError:
            known = ", ".join(self._specs)
            raise UnknownModel(
                {"model": f"model {quoted(model)} is not known. Known models: {known}."}
            ) from None


def read_catalogue(path: Path | str) -> Catalogue:
    """Reads models.yaml. A relative `source` that is a folder beside the file means that folder.

    Raises:
        CatalogueError: with file, line, key and remedy.
    """
    path = Path(path).resolve()
    try:
        entries = YAML(typ="rt").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CatalogueError(f"{path} doesn't exist: set STEPWISE_MODELS to your models.yaml.") from None
    except (MarkedYAMLError, UnicodeDecodeError) as error:
        raise CatalogueError(_yaml_complaint(path, error)) from error
    if not isinstance(entries, list) or not entries:
        raise CatalogueError(f"{path}, line 1: expected a list of models, each starting with `- id: …`.")

    specs: list[ModelSpec] = []
    for index, entry in enumerate(entries):
        try:
            spec = ModelSpec.model_validate(entry)
        except ValidationError as error:
            raise CatalogueError(_complaint(path, entries, index, error)) from error
        if any(spec.id == other.id for other in specs):
            line = _line(entries, (index, "id"))
            raise CatalogueError(f"{path}, line {line}: the id {spec.id} is used twice; give each its own.")
        for key in ("source", "base"):
            if value := getattr(spec, key):
                spec = spec.model_copy(update={key: _located(path, entries, index, key, value)})
        if (Path(spec.source).is_file()) != (spec.base is not None):
            line = _line(entries, (index, "source"))
            raise CatalogueError(
                f"{path}, line {line}: base: goes with a source that is a single file, and only with one: it "
                "says which pipeline the other parts come from."
            )
        specs.append(spec)
    return Catalogue(specs)


def _located(path: Path, entries: Any, index: int, key: str, value: str) -> str:
    """A path as an absolute one, a Hub id as it is."""
    beside = (path.parent / value).resolve()
    if beside.exists():
        return str(beside)
    if value.startswith((".", "/", "~")) or value.count("/") != 1:
        raise CatalogueError(
            f"{path}, line {_line(entries, (index, key))}: {key}: {value} is neither a folder nor a file on "
            "this machine, nor a Hub id (owner/name); mend the path."
        )
    return value


def quoted(value: Any, longest: int = 60) -> str:
    """A value as its sender wrote it (JSON), for a message: short, and safe to encode."""
    text = json.dumps(value, ensure_ascii=False, default=repr)
    text = text if len(text) <= longest else text[: longest - 1] + "…"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _yaml_complaint(path: Path, error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f", line {mark.line + 1}" if mark else ""
    what = getattr(error, "problem", None) or error
    return f"{path}{where}: not valid YAML ({what}); mend it there."


def _complaint(path: Path, entries: Any, index: int, error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    keys = tuple(first["loc"])
    key = ".".join(str(part) for part in keys) or "entry"
    remedy = {
        "missing": "add this key",
        "extra_forbidden": "no such key; remove it or mend its spelling",
    }.get(first["type"], f"{first['msg']}; got {quoted(first.get('input'))}")
    return f"{path}, line {_line(entries, (index, *keys))}: {key}: {remedy}."


def _line(entries: Any, keys: tuple) -> int:
    """The 1-based line of the deepest of these keys that the file has."""
    node, line = entries, 0
    for key in keys:
        try:
            line = node.lc.key(key)[0] if isinstance(key, str) else node.lc.item(key)[0]
            node = node[key]
        except (AttributeError, KeyError, IndexError, TypeError):
            break
    return line + 1
