"""models.yaml: which models there are, read and checked once at the start.

A `ModelSpec` is one entry. A mistake stops the start with the line, the key and the remedy. Whether a
model can run on this machine is another question: see devices/hardware.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from pipeline.catalog.paths import owner_path
from pipeline.catalog.spec import ModelSpec
from pipeline.errors import CatalogueError, UnknownModel, quoted


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
    try:
        path = Path(path).resolve()
    except RuntimeError:  # before Python 3.13, as which it is an OSError that the next line raises, too
        raise CatalogueError(f"{path} is a link to itself: mend STEPWISE_MODELS.") from None
    try:
        entries = YAML(typ="rt").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CatalogueError(f"{path} doesn't exist: set STEPWISE_MODELS to your models.yaml.") from None
    except OSError as error:
        raise CatalogueError(f"{path} can't be read ({error.strerror}): mend STEPWISE_MODELS.") from error
    except UnicodeDecodeError as error:
        raise CatalogueError(f"{path} is not UTF-8 text: save it as UTF-8.") from error
    except YAMLError as error:
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
        for key in ("source", "base") if spec.backend == "local" else ():
            if value := getattr(spec, key):
                spec = spec.model_copy(update={key: _located(path, entries, index, key, value)})
        if spec.backend == "local" and (words := _base_mistake(spec)):
            line = _line(entries, (index, "base" if spec.base else "source"))
            raise CatalogueError(f"{path}, line {line}: base: {words}")
        specs.append(spec)
    return Catalogue(specs)


def _located(path: Path, entries: Any, index: int, key: str, value: str) -> str:
    """A path as an absolute one, a Hub id as it is."""
    line = f"{path}, line {_line(entries, (index, key))}: {key}"
    try:
        beside = (path.parent / owner_path(value)).resolve()
        if beside.exists():
            return str(beside)
    except OSError as error:
        raise CatalogueError(f"{line}: {value} can't be read ({error.strerror}); mend the path.") from error
    except ValueError as error:
        raise CatalogueError(f"{line}: {error}.") from error
    if value.startswith((".", "/", "~")) or value.count("/") != 1:
        raise CatalogueError(
            f"{line}: {value} is neither a folder nor a file on this machine, nor a Hub id (owner/name); "
            "mend the path."
        )
    return value


def _base_mistake(spec: ModelSpec) -> str:
    """What is wrong with `base`, which a single file needs and nothing else; empty where nothing is."""
    source = Path(spec.source)
    if source.is_file() and spec.base is None:
        return (
            f"goes with a source that is a single file, as {source.name} is: add base, the Hub id "
            "(owner/name) or folder of the pipeline that its text encoders, VAE and scheduler come from."
        )
    if not source.is_file() and spec.base is not None:
        return "goes with a source that is a single file, and only with one: remove it, or name the file."
    if spec.base is not None and Path(spec.base).is_file():
        return f"{Path(spec.base).name} is a file; name the folder or the Hub id (owner/name) of a pipeline."
    return ""


def _yaml_complaint(path: Path, error: YAMLError) -> str:
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        return f"{path}, line {error.problem_mark.line + 1}: not valid YAML ({error.problem}); mend it there."
    # A character that YAML doesn't allow: its error has a position instead of a mark.
    text = path.read_text(encoding="utf-8")[: getattr(error, "position", 0)]
    what = str(error).splitlines()[0]
    return f"{path}, line {text.count(chr(10)) + 1}: not valid YAML ({what}); mend it there."


def _complaint(path: Path, entries: Any, index: int, error: ValidationError) -> str:
    # A misspelt key is both unknown and missing: the first of the two says more.
    first = min(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
    kind, context = first["type"], first.get("ctx", {})
    keys = _keys(entries[index], (*first["loc"], *context.get("key", "").split(".")), kind == "missing")
    remedy = {
        "missing": "add this key",
        "extra_forbidden": "no such key; remove it or mend its spelling",
        "model_type": f"expected keys with values, from `id: …` on; got {quoted(first.get('input'))}",
        "tuple_type": f"must be a list; got {quoted(first.get('input'))}",
        "mistake": context.get("words"),
    }.get(kind, f"{first['msg']}; got {quoted(first.get('input'))}")
    if kind == "too_long" or (kind == "missing" and isinstance(first["loc"][-1], int)):
        remedy = f"a list of another length is expected; got {quoted(_at(entries[index], keys))}"
    return f"{path}, line {_line(entries, (index, *keys))}: {'.'.join(keys) or 'entry'}: {remedy}."


def _keys(entry: Any, location: tuple, missing: bool) -> tuple[str, ...]:
    """Pydantic's location as keys of the file: without places in a list and names of types."""
    keys: list[str] = []
    for part in location:
        node = _at(entry, keys)
        if isinstance(node, dict) and (part in node or (missing and part)):
            keys.append(part)
    return tuple(keys)


def _at(node: Any, keys: Iterable[str]) -> Any:
    for key in keys:
        node = node.get(key)
    return node


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
