"""Keeps Gradio (6.31) from making its .pyi files anew whenever it is imported: its wheel brings them along,
and parsing every component's source for them takes 0.8 s of CPU."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MODULE = "gradio.component_meta"


def leave_interfaces() -> None:
    """Have Gradio leave them as they are. Call it before Gradio is imported; afterwards it does nothing."""
    if MODULE not in sys.modules and not any(isinstance(one, _Finder) for one in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def write_nothing(*_: Any) -> None:
    """Stands in for `create_or_modify_pyi`."""


class _Finder:
    """Finds that module as Python would, and changes it once it has run."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def run_and_change(module: ModuleType) -> None:
            run(module)
            setattr(module, "create_or_modify_pyi", write_nothing)  # noqa: B010

        spec.loader.exec_module = run_and_change  # type: ignore[method-assign]
        return spec
