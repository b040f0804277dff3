"""What a server does first, before its imports, which take seconds: it handles signals, tries its address,
reads its settings and takes its folder, so that whoever starts it is told at once what is wrong.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from api.server.shutdown import Shutdown

if TYPE_CHECKING:
    from api.server.address import Address
    from jobs.data_dir.folder import DataFolder
    from settings import Settings


@dataclass(frozen=True)
class Started:
    """What a started process has. shutdown: owns its end. address: where to listen. folder: this server's
    own."""

    shutdown: Shutdown
    address: Address
    settings: Settings
    folder: DataFolder


def start(address: Address | None = None) -> Started:
    """Start the process; called in the main thread. The proxies that the environment names are made usable on
    the way, because libraries make HTTP clients while they are imported.

    Args:
        address: where to listen, looked at already; None: as the environment says.

    Raises:
        SystemExit: a setting can't be used, nobody can listen there, or another server has the folder; in
            words.
    """
    shutdown = Shutdown()
    shutdown.listen()
    # Here, because they take tenths of a second, in which a signal may come already.
    from api.server.address import Address
    from pipeline.errors import StepwiseError
    from pipeline.proxies import use_proxies

    try:
        if address is None:
            address = Address.from_environment()
            address.ensure_free()  # now, not after all else is done
        for words in use_proxies(address.host):  # Gradio asks itself there whether it has started
            print(words, file=sys.stderr, flush=True)
        from jobs.data_dir.folder import DataFolder, ensure_temporary
        from settings import Settings

        settings = Settings.read()
        ensure_temporary(settings.data)
        folder = DataFolder(settings.data)
        set_gradio_folder(folder.gradio)
        return Started(shutdown, address, settings, folder)
    except StepwiseError as error:
        sys.exit(str(error))


def set_gradio_folder(folder: Path) -> None:
    """Make this folder, or the one that GRADIO_TEMP_DIR names already, for this account alone, and have
    Gradio use it. By itself it takes /tmp/gradio, which all accounts of a machine share. Must be called
    before Gradio is imported: it reads the variable then.

    Raises:
        SettingError: nothing can be written to GRADIO_TEMP_DIR.
    """
    from jobs.data_dir.private_files import make_folder
    from pipeline.errors import SettingError

    if own := os.environ.get("GRADIO_TEMP_DIR"):
        folder = Path(own)
    try:
        make_folder(folder)
        # Gradio (6.31) makes this one when it starts, for everyone to read.
        (folder / "vibe_edit_history").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise SettingError(
            f"GRADIO_TEMP_DIR is {folder}, where nothing can be written: {error.strerror or error}. Name "
            "another folder, or leave it out."
        ) from error
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
