"""A path that an owner writes may begin with ~, wherever it is written; where no home folder is meant by
that, words say so, and no folder of that name is made."""

from __future__ import annotations

import pwd
from pathlib import Path

import pytest

from cli.__main__ import parser
from cli.draw import requested
from cli.errors import UsageError
from cli.files import Target
from jobs.data_dir.folder import DataFolder
from pipeline.catalog.catalogue import read_catalogue
from pipeline.catalog.paths import owner_path
from pipeline.errors import CatalogueError, SettingError
from settings import Settings
from tests.support.tiny import entry, models_yaml


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder, and a current one that must stay empty."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def test_a_tilde_is_the_home_folder_and_only_at_the_beginning(home: Path) -> None:
    assert owner_path("~") == home
    assert owner_path("~/a b/c") == home / "a b" / "c"
    assert owner_path("~root") == Path(pwd.getpwnam("root").pw_dir)
    for plain in ("/a/~", "a~", "./~", "x/~/y"):
        assert owner_path(plain) == Path(plain)
    with pytest.raises(ValueError, match='no user "nobody-has-this-name" here'):
        owner_path("~nobody-has-this-name/x")


def test_settings_that_are_paths_know_the_home_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPWISE_DATA", "~/jobs")
    monkeypatch.setenv("STEPWISE_MODELS", "~/models.yaml")
    settings = Settings()
    assert (settings.data, settings.models) == (home / "jobs", home / "models.yaml")
    folder = DataFolder(settings.data, 0)
    folder.close()
    assert (home / "jobs" / "events").is_dir()
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("name", ["STEPWISE_DATA", "STEPWISE_MODELS"])
def test_a_setting_without_such_a_home_folder_is_refused_in_words_with_its_name(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "~nobody-has-this-name/x")
    with pytest.raises(SettingError, match=f'{name}: there is no user "nobody-has-this-name" here'):
        Settings()


def test_source_and_base_know_the_home_folder(home: Path, tmp_path: Path) -> None:
    (home / "tiny").mkdir()
    (home / "fine-tune.safetensors").touch()
    file = models_yaml(
        tmp_path, entry(Path("~/tiny")), entry(Path("~/fine-tune.safetensors"), "single", base="~/tiny")
    )
    folder, single = read_catalogue(file)
    assert folder.source == single.base == str(home / "tiny")
    assert single.source == str(home / "fine-tune.safetensors")
    with pytest.raises(CatalogueError, match=r'line \d+: source: there is no user "nobody-has-this-name"'):
        read_catalogue(models_yaml(tmp_path, entry(Path("~nobody-has-this-name/x"))))


def test_the_command_lines_files_know_the_home_folder_where_no_shell_saw_to_it(home: Path) -> None:
    assert Target("~/pictures/", 1).path == home / "pictures"
    with pytest.raises(UsageError, match="--output: there is no user"):
        Target("~nobody-has-this-name/x.png", 1)
    (home / "x.png").mkdir()
    for path, words in (
        ("~/x.png", "Is a directory"),
        ("~nobody-has-this-name/x.png", "--again: there is no user"),
    ):
        with pytest.raises(Exception, match=words):
            requested(parser().parse_args(["draw", "a fox", f"--again={path}"]))


def test_a_path_that_the_system_refuses_stops_the_start_in_words(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"line \d+: source: .* can't be read \(File name too long\)"):
        read_catalogue(models_yaml(tmp_path, entry(Path("/" + "x" * 300))))
