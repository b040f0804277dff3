"""What a server does first, before the seconds that its imports take: it listens to signals, reads its
settings, and takes its folder, so that who starts it is told at once what is wrong.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from api.ending import Ending

if TYPE_CHECKING:
    from jobs.folder import DataFolder
    from settings import Settings


@dataclass(frozen=True)
class Started:
    """ending: owns this process' end. folder: this server's, for itself."""

    ending: Ending
    settings: Settings
    folder: DataFolder


def start() -> Started:
    """Called in the main thread.

    Raises:
        SystemExit: a setting can't be used, or another server has the folder; in words.
    """
    ending = Ending()
    ending.listen()
    # Here, because they take tenths of a second, in which a signal may come already.
    from pydantic import ValidationError

    from jobs.folder import DataFolder
    from pipeline.errors import StepwiseError
    from settings import Settings

    try:
        settings = Settings()
        return Started(ending, settings, DataFolder(settings.data))
    except (StepwiseError, ValidationError) as error:
        sys.exit(str(error))
