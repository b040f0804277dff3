"""Weights from the Hugging Face Hub: fetched with progress, checked against the Hub's own SHA-256, stopped at
any moment. Which files there are, and which are here, huggingface_hub knows; model.py reads them.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import DryRunError, HFValidationError
from huggingface_hub.utils import tqdm

from pipeline.catalog.spec import ModelSpec
from pipeline.devices.hardware import GB
from pipeline.errors import Stopped, WeightsError, quoted
from pipeline.events import Phase
from pipeline.library_errors import hub_address, not_a_hub
from pipeline.weights.verified_files import is_sound

Report = Callable[[Phase, int, int], None]
"""Called with (phase, done, total) while weights arrive: bytes when `downloading`, parts when `loading`.
May raise Stopped."""

# The pipeline's own parts; not the single-file checkpoints that some repositories carry beside them.
WANTED = ["model_index.json", "*/*.json", "*/*.txt", "*/*.model", "*/*.jinja", "*/*.safetensors"]
UNWANTED = ["*/*.fp16*.safetensors"]
POLL = 0.1
"""Seconds between two looks at a download: how late a stop and its progress may be."""
_HASHERS = 8


def fetch(spec: ModelSpec, report: Report) -> Path:
    """Fetches what is missing of a Hub repository; a file that arrived whole is never fetched again, and who
    asks for a repository that is being fetched waits for the same download.

    Args:
        report: called with ("downloading", bytes done, bytes in all), of what was missing; in all 0 until
            the Hub has said how much that is, and where nothing is missing.

    Returns:
        The folder of the snapshot, in diffusers' layout.

    Raises:
        WeightsError: no room on the disk, or a file that isn't what the Hub has; it is deleted.
        Stopped, from `report`; what huggingface_hub raises (see `library_errors.explained`).
    """
    with _shared(spec) as download:
        while download.is_alive():
            report("downloading", download.done, download.total)
            download.join(POLL)
    if download.error is not None:
        raise download.error
    assert download.folder is not None
    return download.folder


def discard_damaged(folder: Path) -> str:
    """Deletes the files of a snapshot that aren't what the Hub has, so that the next try fetches them again.

    Returns:
        Which they were, in words; empty where all are sound.
    """
    files = [path for path in folder.rglob("*") if path.is_file()]
    return _discard_damaged(folder, files, threading.Event(), anew=True)


class _Download(threading.Thread):
    """A snapshot_download in a thread of its own: huggingface_hub (2.4) tries again for up to a minute and
    can't be interrupted, while a stop must not wait. An abandoned one ends with its next bytes."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(name=f"download {spec.id}", daemon=True)
        self.spec = spec
        self.waiting = 0
        self.done = 0
        self.total = 0
        self.folder: Path | None = None
        self.error: BaseException | None = None
        self.abandoned = threading.Event()

    def run(self) -> None:
        try:
            self.folder = self._fetch()
        except BaseException as error:  # raised again where the download is waited for
            self.error = error
        finally:
            _forget(
                self
            )  # whoever comes now begins anew, also where others have still to see this one's error

    def _fetch(self) -> Path:
        with _answers_of_a_hub(self.spec):
            missing = [file for file in self._list() if file.will_download]
            self.total = sum(file.file_size or 0 for file in missing)
            self._check_room()
            folder = Path(self._snapshot())
        damaged = _discard_damaged(folder, [Path(file.local_path) for file in missing], self.abandoned)
        if damaged:
            raise WeightsError(
                f"{self.spec.name}: {damaged} arrived damaged (not the Hub's SHA-256) and deleted again. "
                "Try again; if it goes on, check this machine's network, memory and disk."
            )
        return folder

    def _list(self) -> list[Any]:
        try:
            files = list(self._snapshot(dry_run=True))
        except DryRunError:  # the Hub can't be asked: a complete copy in the cache will do
            return []
        if not files:
            # Said here: huggingface_hub (2.4) would remember for this commit that there are none.
            raise WeightsError(
                f"{hub_address()} lists no files of a diffusers pipeline in {self.spec.layout}, so "
                f"{self.spec.name} can't be fetched: check `source` in models.yaml, and HF_ENDPOINT."
            )
        return files

    def _snapshot(self, **options: Any) -> Any:
        return snapshot_download(
            self.spec.layout,
            revision=self.spec.revision,
            allow_patterns=WANTED,
            ignore_patterns=UNWANTED,
            tqdm_class=_bar(self),
            **options,
        )

    def _check_room(self) -> None:
        folder = Path(constants.HF_HUB_CACHE)
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free
        if self.total > free:
            raise WeightsError(
                f"{self.spec.name} needs {self.total / GB:.1f} GB more disk, and {free / GB:.1f} GB are "
                "free where the Hub's files are kept. Free some, or set HF_HOME to a folder on a larger disk."
            )


_downloads: dict[tuple[str, str | None], _Download] = {}
_joining = threading.RLock()


@contextlib.contextmanager
def _shared(spec: ModelSpec) -> Iterator[_Download]:
    """The download of this repository that is under way, or a new one; abandoned once nobody waits for it."""
    with _joining:
        download = _downloads.get(_key(spec))
        if download is None:
            download = _downloads[_key(spec)] = _Download(spec)
            download.start()
        download.waiting += 1
    try:
        yield download
    finally:
        with _joining:
            download.waiting -= 1
            if not download.waiting:
                download.abandoned.set()
                _forget(download)


def _key(spec: ModelSpec) -> tuple[str, str | None]:
    return spec.layout, spec.revision


def _forget(download: _Download) -> None:
    """Nobody joins it any more."""
    with _joining:
        if _downloads.get(_key(download.spec)) is download:
            del _downloads[_key(download.spec)]


@contextlib.contextmanager
def _answers_of_a_hub(spec: ModelSpec) -> Iterator[None]:
    """What answers in the Hub's place, such as a network's page for logging in or a mirror that isn't whole,
    makes huggingface_hub (2.4) raise whatever comes of it where it reads the answer."""
    try:
        yield
    except (WeightsError, Stopped):
        raise
    except HFValidationError as error:
        raise WeightsError(
            f"{spec.name}: {quoted(spec.layout)} is no Hub id (owner/name): mend `source` in models.yaml."
        ) from error
    except OSError as error:  # also what the Hub's library says of a status
        if "Consistency check failed" in str(error):
            raise WeightsError(
                not_a_hub(spec.name, "a file came with another size than was announced")
            ) from error
        raise
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        raise WeightsError(not_a_hub(spec.name, "its answer can't be read")) from error


def _bar(download: _Download) -> type[tqdm]:
    class Bar(tqdm):
        """huggingface_hub's progress bar, drawn by no one: it counts the bytes of all files together."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            # Of its two bars of bytes the other counts what crossed the network, which may be compressed.
            self._counts = kwargs.get("name") == "huggingface_hub.snapshot_download"
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            if download.abandoned.is_set():
                raise Stopped
            if self._counts:
                download.done += int(n or 0)
            return super().update(n)

    return Bar


def _discard_damaged(folder: Path, files: list[Path], abandoned: threading.Event, anew: bool = False) -> str:
    with ThreadPoolExecutor(_HASHERS) as pool:
        found = pool.map(lambda path: is_sound(path, abandoned, anew), files)
        damaged = [path for path, sound in zip(files, found) if not sound]
    for path in damaged:
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    names = sorted(path.relative_to(folder).as_posix() for path in damaged)
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else "".join(names)
