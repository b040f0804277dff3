"""The documentation's entry for models.yaml is one, and the models' table has what models.yaml says."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.catalog.catalogue import read_catalogue
from tests.support.tiny import ROOT


def test_the_entry_in_add_a_model_is_one(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "add-a-model.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    path = tmp_path / "models.yaml"
    path.write_text(shown, encoding="utf-8")
    (spec,) = read_catalogue(path)
    assert (spec.id, spec.source, spec.backend) == ("my-medium", "me/my-medium", "local")


def test_the_documented_disk_is_that_of_models_yaml() -> None:
    needs = {spec.id: spec.needs for spec in read_catalogue(ROOT / "models.yaml")}
    for page in ("README.md", "docs/memory.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        for title, model in [
            ("Stable Diffusion 3.5 Large, Large Turbo", "sd3.5-large"),
            ("Stable Diffusion 3.5 Large, Large Turbo", "sd3.5-large-turbo"),
            ("Stable Diffusion 3.5 Medium", "sd3.5-medium"),
            ("Z-Image Turbo", "z-image-turbo"),
        ]:
            (disk,) = re.findall(rf"^\| {title} \| \d+ GB \| (\d+) GB", text, re.MULTILINE)
            found = needs[model]
            assert found and float(disk) == found.disk, (page, model)
