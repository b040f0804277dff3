"""A pipeline's folder in diffusers' layout, looked through without loading it: whether all its parts are
there and are what models.yaml says. Nothing here imports torch.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pipeline.catalog.spec import ModelSpec
from pipeline.errors import WeightsError
from pipeline.families import FAMILIES
from pipeline.weights.weights_file import SUFFIX, header, transformer_fault

_MEND = "mend `source` in models.yaml"


def read_index(spec: ModelSpec, folder: Path) -> dict[str, Any]:
    """The parts that a pipeline has, by name: its model_index.json.

    Raises:
        WeightsError: the folder is no pipeline, lacks a part, or is of another family than models.yaml says.
    """
    where = called(spec)
    index = _json(folder / "model_index.json", where)
    if index is None:
        raise WeightsError(f"{spec.name}: {where} {_no_pipeline(folder)}.")
    expected, found = FAMILIES[spec.family].pipeline, index.get("_class_name")
    if found != expected:
        right = [name for name, family in FAMILIES.items() if family.pipeline == found]
        remedy = f"mend `family` in models.yaml: {right[0]}" if right else f"mend `family` or {_MEND[5:]}"
        raise WeightsError(
            f"{spec.name}: {where} is a {found}, but family {spec.family} means {expected}; {remedy}."
        )
    if missing := [name for name in parts(index) if not (folder / name).is_dir()]:
        raise WeightsError(
            f"{spec.name}: {', '.join(missing)} missing in {where}: fetch or copy the whole folder again."
        )
    return index


def parts(index: dict[str, Any]) -> list[str]:
    """The names of the parts that a pipeline has."""
    return [name for name, entry in index.items() if isinstance(entry, list) and entry and entry[0]]


def called(spec: ModelSpec) -> str:
    """How the folder or Hub id of a model's pipeline is called: callers needn't know the server's folders."""
    return Path(spec.layout).name if spec.local else spec.layout


_Versions = tuple[tuple[int, ...], ...]
_faults: dict[tuple[str, ...], tuple[_Versions, str]] = {}
"""What was found the last time, and of which versions of the files."""


def local_fault(spec: ModelSpec) -> str:
    """What is wrong with those of a model's files that the owner has put on this machine, in words that say
    what to do; empty where nothing is, as far as can be told without loading them. Cheap where they are as
    they were the last time: every request asks."""
    key = (spec.name, spec.family, spec.source, spec.base or "")
    versions = _versions(Path(spec.source)) if spec.base else ()
    versions += _versions(Path(spec.layout)) if spec.local else ()
    known = _faults.get(key)
    if known is None or known[0] != versions:
        known = _faults[key] = versions, _fault(spec)
    return known[1]


def _versions(path: Path) -> _Versions:
    """Of a file or folder, and, where it is a pipeline's, of what is in it and in its parts."""
    found = [_version(path)]
    if (path / "model_index.json").exists():
        for folder, folders, files in os.walk(path):
            found += [_version(Path(folder, name)) for name in (*folders, *files)]
            if Path(folder) != path:
                folders.clear()  # no deeper: parts have no folders of their own
    return tuple(found)


def _version(path: Path) -> tuple[int, ...]:
    try:
        stat = path.stat()
    except OSError:
        return ()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _fault(spec: ModelSpec) -> str:
    try:
        if spec.base and (words := transformer_fault(Path(spec.source), spec.family)):
            return words
        if spec.local:
            _check_parts(spec, Path(spec.layout))
    except WeightsError as error:
        return str(error).removeprefix(f"{spec.name}: ")
    return ""


def _check_parts(spec: ModelSpec, folder: Path) -> None:
    index = read_index(spec, folder)
    networks = {"transformer", "vae", *(one.network for one in FAMILIES[spec.family].text_encoders)}
    for name in sorted(networks.intersection(parts(index))):
        if name == "transformer" and spec.base:
            if _json(folder / name / "config.json", f"{called(spec)}/{name}") is None:
                raise WeightsError(f"{called(spec)} has no {name}/config.json: copy the whole folder again.")
            continue
        check_part(folder / name, called(spec))


def check_part(folder: Path, where: str) -> None:
    """Looks whether a network's folder has its configuration and all its weights, whole.

    Args:
        where: how the pipeline's folder is called.

    Raises:
        WeightsError.
    """
    again = f"copy the whole folder {where} again"
    if _json(folder / "config.json", f"{where}/{folder.name}") is None:
        raise WeightsError(f"{where} has no {folder.name}/config.json: {again}.")
    files = {path.name for path in folder.glob(f"*{SUFFIX}")}
    named: set[str] = set()
    for path in folder.glob(f"*{SUFFIX}.index.json"):
        shards = (_json(path, f"{where}/{folder.name}") or {}).get("weight_map")
        named.update(map(str, shards.values()) if isinstance(shards, dict) else ())
    if missing := sorted(named - files):
        raise WeightsError(f"{where}/{folder.name} lacks {', '.join(missing)}: {again}.")
    if not files:
        others = [
            path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".ckpt", ".msgpack")
        ]
        what = f"; {others[0]} is in a format that isn't read here" if others else ""
        raise WeightsError(f"{where}/{folder.name} has no {SUFFIX[1:]} file{what}: {again}.")
    for file in sorted(files):
        try:
            header(folder / file)
        except WeightsError as error:
            raise WeightsError(f"{where}/{folder.name}/{error}") from error


def _json(path: Path, where: str) -> dict[str, Any] | None:
    """What the file has; None where there is no such file.

    Raises:
        WeightsError: it is damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise WeightsError(
            f"{path.name} in {where} can't be read ({error.strerror}): let this user read it."
        ) from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path.name} in {where} is damaged ({error}): fetch or copy it again.") from error
    if not isinstance(found, dict):
        raise WeightsError(f"{path.name} in {where} is damaged (no JSON object): fetch or copy it again.")
    return found


def _no_pipeline(folder: Path) -> str:
    """What a folder without model_index.json is instead."""
    words = "has no model_index.json, so it isn't a diffusers pipeline"
    if (folder / "snapshots").is_dir():
        where = "name the Hub id (owner/name), or a folder in its snapshots"
        return f"is a folder of the Hub's cache: {where}; {_MEND}"
    if (folder / "config.json").is_file():
        return f"{words}, but one part of one: name the folder above it; {_MEND}"
    if files := sorted(path.name for path in folder.glob(f"*{SUFFIX}")):
        return f"{words}; if {files[0]} is a transformer's weights, name that file and add `base`: {_MEND}"
    return f"{words}; {_MEND}"
