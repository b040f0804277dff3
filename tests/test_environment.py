"""Whatever an owner types into a setting, the server either starts or says in one sentence which variable is
wrong, what it holds and what it may be."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app import make_login
from environment import OTHERS, mistakes
from jobs.data_dir.folder import DataFolder
from pipeline.errors import SettingError, StepwiseError
from settings import Settings
from tests.support.tiny import ROOT, entry, models_yaml

PYTHONS_OWN = re.compile(r"Traceback|Error\b|Input should|unable to|validation|pydantic|errno", re.IGNORECASE)
NOT_TEXT = os.fsdecode(b"caf\xe9")
"""Bytes that are no UTF-8, as Python's os.environ has them."""

NO_NUMBER = ("", " ", "two", "--5", "1,5", "0x10", "1e400", "nan", "inf", "-inf", "9" * 5000, NOT_TEXT)
ABOVE_ZERO = (*NO_NUMBER, "0", "-1", "1e300")
FROM_ZERO = (*NO_NUMBER, "-1", "1e300")
COUNT = (*FROM_ZERO, "2.5", "1e3", "1" + "0" * 12)
WRONG = {
    "models": ("", NOT_TEXT, "/nowhere/models.yaml", "/", "/dev/null/models.yaml", "x" * 5000),
    "device": ("", "gpu", "CUDA", "cuda:0", NOT_TEXT),
    "gpu_memory": (*ABOVE_ZERO, "24 GB"),
    "host_memory": FROM_ZERO,
    "plan": ("", "fastest", "resident,offload", NOT_TEXT),
    "threads": (*COUNT, "0"),
    "max_waiting": (*COUNT, "0"),
    "preload": ("sketchy", "sketch;sd3.5-large", NOT_TEXT),
    "max_waiting_each": (*COUNT, "0"),
    "running_each": (*COUNT, "0"),
    "rate": ("abc", "30", "0/minute", "-5/minute", "30/fortnight", "9" * 5000 + "/minute", "1e3/h", NOT_TEXT),
    "max_wait": ABOVE_ZERO,
    "max_draw": ABOVE_ZERO,
    "abandoned_after": FROM_ZERO,
    "grace": FROM_ZERO,
    "workers": (*COUNT, "auto"),
    "priority": (NOT_TEXT,),
    "data": ("", " ", "/dev/null/jobs", "/proc/jobs", "x" * 5000, NOT_TEXT),
    "keep_gb": ABOVE_ZERO,
    "keep_hours": ABOVE_ZERO,
    "log_prompts": ("", "maybe", "2", NOT_TEXT),
    "zerogpu_size": ("", "huge", "XLARGE", NOT_TEXT),
    "api_keys": (",", "two words", NOT_TEXT),
    "login": (",", "ann", "ann:", ":word", "huggingface,ann:word", "ann:a,ann:b", NOT_TEXT),
    "users": (",", "b b", NOT_TEXT),
    "hosts": ("a b", "https://draw.example.org", "draw.example.org:80", NOT_TEXT),
    "origins": ("example.org", "https://example.org/page", "ftp://example.org", NOT_TEXT),
    "frames": ("'self'; script-src *", "https://a.example https://b.example", NOT_TEXT),
    "proxies": ("*", "nginx", "localhost", "10.0.0.7:80", "10.0.0.7/24", "10.0.0.7;::1", "0.0.0.0/0", "::/0",
                "10.0.0.0/33", "unix:", "9" * 5000, NOT_TEXT),
}  # fmt: skip
SECRETS = ("api_keys", "login")
CASES = [(field, value) for field, values in WRONG.items() for value in values]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """What a start with these variables says; empty where nothing is wrong. All that app.py asks before it
    listens, but for what takes seconds and no setting can change."""
    for name in list(os.environ):
        if name.upper().startswith("STEPWISE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("STEPWISE_DATA", str(tmp_path / "data"))

    def said(**variables: str) -> str:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        try:
            settings = Settings.read()
            make_login(settings)
            engine = settings.engine()
            settings.to_preload(engine)
            DataFolder(settings.data, patience=0).close()
        except StepwiseError as error:
            return str(error)
        return ""

    return said


def test_every_setting_has_wrong_values_here() -> None:
    assert WRONG.keys() == Settings.model_fields.keys()


@pytest.mark.parametrize("field, value", CASES, ids=[f"{field}={value!r:.20}" for field, value in CASES])
def test_a_wrong_value_is_told_in_a_line_with_the_variable_and_the_value(
    said: Callable[..., str], field: str, value: str
) -> None:
    name = f"STEPWISE_{field.upper()}"
    hub = {"STEPWISE_LOGIN": "huggingface", "OAUTH_CLIENT_ID": "me", "OAUTH_CLIENT_SECRET": "hush"}
    words = said(**(hub if field == "users" else {}), **{name: value})
    assert name in words, words
    assert "\n" not in words and not PYTHONS_OWN.search(words), words
    assert words.endswith((".", "?"))
    words.encode()  # whatever the value was, it can be printed
    shown = value.strip()[:20]
    if field in SECRETS:
        assert len(shown) < 2 or shown not in words
    elif value.isascii() and not value.startswith("/proc"):
        assert shown in words or (not shown and "is empty" in words)


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("STEPWISE_THREADS", "two", 'STEPWISE_THREADS must be a whole number from 1 to 1,024; got "two".'),
        ("stepwise_threads", "two", 'stepwise_threads must be a whole number from 1 to 1,024; got "two".'),
        ("STEPWISE_DEVICE", "gpu", 'STEPWISE_DEVICE must be auto, cuda, mps or cpu; got "gpu".'),
        ("STEPWISE_KEEP_GB", "-1", 'STEPWISE_KEEP_GB must be a number above 0, at most 1,000,000; got "-1".'),
        ("STEPWISE_LOG_PROMPTS", "ja", 'STEPWISE_LOG_PROMPTS must be true or false; got "ja".'),
        ("STEPWISE_WORKERS", "", "STEPWISE_WORKERS is empty: leave it out, or write a whole number from 0 to "
         "256."),
        ("STEPWISE_RATE", "abc", 'STEPWISE_RATE is no rate: got "abc", where 30/minute is one, or 5/minute, '
         "100/hour, or nothing for no limit."),
        ("STEPWISE_THREDS", "2", "STEPWISE_THREDS is not a setting: did you mean STEPWISE_THREADS?"),
        ("Stepwise_Modles", "x", "Stepwise_Modles is not a setting: did you mean STEPWISE_MODELS?"),
        ("STEPWISE_API_KEY", "hush", "STEPWISE_API_KEY is not a setting: did you mean STEPWISE_API_KEYS?"),
        ("STEPWISE_PORT", "8080", "STEPWISE_PORT is not a setting: did you mean GRADIO_SERVER_PORT?"),
        ("STEPWISE_QQQ", "x", "STEPWISE_QQQ is not a setting; docs/settings.md has them all."),
        ("STEPWISE_", "x", "STEPWISE_ is not a setting; docs/settings.md has them all."),
        ("STEPWISE_PROXIES", "10.0.0.7, *", 'STEPWISE_PROXIES: "*", entry 2, is not the address of a proxy, '
         "as 10.0.0.7, nor a network of proxies, as 10.0.0.0/24. Separate them by commas."),
        ("FORWARDED_ALLOW_IPS", "*", 'FORWARDED_ALLOW_IPS: "*", entry 1, is not the address of a proxy, as '
         "10.0.0.7, nor a network of proxies, as 10.0.0.0/24. Separate them by commas."),
        ("HF_TOKEN", "hf_ä", "HF_TOKEN must be a Hub token, hf_ and letters and digits; it holds other "
         "characters."),
        ("HF_HOME", NOT_TEXT, 'HF_HOME must be text in UTF-8; got "caf\\udce9".'),
    ],
)  # fmt: skip
def test_the_words_for_a_mistake(said: Callable[..., str], name: str, value: str, words: str) -> None:
    assert said(**{name: value}) == words


def test_all_mistakes_are_told_at_once_a_line_each(said: Callable[..., str]) -> None:
    words = said(STEPWISE_THREADS="two", STEPWISE_KEEP_HOURS="nan", STEPWISE_TREADS="2")
    assert sorted(line.split()[0] for line in words.splitlines()) == [
        "STEPWISE_KEEP_HOURS", "STEPWISE_THREADS", "STEPWISE_TREADS",
    ]  # fmt: skip


def test_a_setting_in_two_spellings_must_have_one_value(said: Callable[..., str]) -> None:
    assert said(STEPWISE_GRACE="1", stepwise_grace="1") == ""
    assert "are the same setting" in said(stepwise_grace="2")


def test_values_that_are_right_in_an_unusual_way_start(said: Callable[..., str], tmp_path: Path) -> None:
    right = {
        "STEPWISE_RATE": "", "STEPWISE_PRELOAD": "", "STEPWISE_PRIORITY": "", "STEPWISE_USERS": "",
        "STEPWISE_PROXIES": "",
        "STEPWISE_API_KEYS": "", "STEPWISE_LOGIN": "", "STEPWISE_WORKERS": "0", "STEPWISE_GRACE": "0.5",
        "STEPWISE_THREADS": " 2 ", "stepwise_keep_gb": "1e-3", "STEPWISE_DATA": str(tmp_path / "bilder ä"),
        "HF_TOKEN": "", "HF_HOME": "/dev/null/nowhere",
    }  # fmt: skip
    assert said(**right) == ""


def test_what_kubernetes_sets_beside_a_service_of_that_name_is_no_mistake(said: Callable[..., str]) -> None:
    variables = {
        "STEPWISE_SERVICE_HOST": "10.0.0.7", "STEPWISE_SERVICE_PORT": "7860",
        "STEPWISE_SERVICE_PORT_HTTP": "80",
        "STEPWISE_PORT": "tcp://10.0.0.7:7860", "STEPWISE_PORT_7860_TCP": "tcp://10.0.0.7:7860",
        "STEPWISE_PORT_7860_TCP_PROTO": "tcp", "STEPWISE_PORT_7860_TCP_PORT": "7860",
        "STEPWISE_PORT_7860_TCP_ADDR": "10.0.0.7", "STEPWISE_WEB_SERVICE_HOST": "10.0.0.8",
        "STEPWISE_WEB_PORT": "tcp://10.0.0.8:80",
    }  # fmt: skip
    assert said(**variables) == ""


def test_every_variable_that_the_repository_reads_is_known() -> None:
    fields = Settings.model_json_schema()["properties"]
    ours = [path for path in ROOT.iterdir() if path.name[0] != "."]
    files = {path for top in ours for path in ([top] if top.is_file() else top.rglob("*")) if path.is_file()}
    read = {
        name
        for path in files - {Path(__file__)}
        if path.suffix in (".py", ".md", ".yaml", ".toml") or path.name == "Makefile"
        for name in re.findall(r"\bSTEPWISE_[A-Z_]*[A-Z]", path.read_text(encoding="utf-8"))
    }
    assert {*OTHERS, "STEPWISE_THREADS", "STEPWISE_LOGIN"} <= read
    others = dict.fromkeys(read - {"STEPWISE_HOST", "STEPWISE_PORT"}, "")
    assert mistakes(fields, others) == {}


@pytest.mark.parametrize(
    "url", ["nonsense", "huggingface.co", "ftp://huggingface.co", "https://", "https://a:b"]
)
def test_an_address_to_log_in_at_that_is_none_is_told(said: Callable[..., str], url: str) -> None:
    words = said(
        STEPWISE_LOGIN="huggingface",
        OAUTH_CLIENT_ID="me",
        OAUTH_CLIENT_SECRET="hush",
        OPENID_PROVIDER_URL=url,
    )
    assert words == f'OPENID_PROVIDER_URL must be an address such as https://huggingface.co; got "{url}".'


@pytest.mark.parametrize("kind", ["a link to itself", "a folder", "a file without permission"])
def test_a_file_of_models_that_cant_be_read_is_told(
    said: Callable[..., str], tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "models.yaml"
    if kind == "a link to itself":
        path.symlink_to(path.name)
    elif kind == "a folder":
        path.mkdir()
    else:
        models_yaml(tmp_path, entry(tmp_path)).chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip("to root every file is open")
    words = said(STEPWISE_MODELS=str(path))
    assert "STEPWISE_MODELS" in words and str(path) in words and not PYTHONS_OWN.search(words)


@pytest.mark.parametrize(
    "command", [["app.py"], ["stepwise", "serve"], ["stepwise", "draw", "a fox"]], ids=lambda words: words[-1]
)
def test_a_start_with_a_mistake_ends_with_its_sentence(command: list[str], tmp_path: Path) -> None:
    environment = {**os.environ, "STEPWISE_THREADS": "two", "STEPWISE_DATA": str(tmp_path)}
    words = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, timeout=250, text=True
    )
    assert words.returncode == 1
    sentence = 'STEPWISE_THREADS must be a whole number from 1 to 1,024; got "two".\n'
    assert words.stderr.removeprefix("stepwise: ") == sentence
    assert words.stdout == ""


def test_no_setting_is_made_where_there_is_none_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPWISE_WROKERS", "2")
    with pytest.raises(SettingError, match="did you mean STEPWISE_WORKERS"):
        Settings.read()
