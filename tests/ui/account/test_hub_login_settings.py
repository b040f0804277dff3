"""The login with Hugging Face without a server: what a login is, and which settings stop the start."""

from __future__ import annotations

import re

import pytest
from starlette.requests import Request

from api.auth.browser_login import Logins
from api.auth.hub_login import HubLogin, Provider
from api.auth.hub_tokens import Members, Person
from api.auth.login import LoginRefused
from pipeline.errors import SettingError
from settings import Settings
from tests.support.services.openid import SECRET
from ui.login_page import login_page, logout_page


def test_a_login_ends_with_its_time_and_names_are_the_hubs() -> None:
    logins = Logins()
    past, token = logins.begin("ann", 0), logins.begin("ann", 60)
    assert (logins.name(past), logins.name(token), logins.name("\ud800")) == (None, "ann", None)
    logins.end(token)
    assert logins.name(token) is None
    assert Members(()).admit(Person("whoever")) == "whoever"
    assert Members(("ANN", "foxes")).admit(Person("Ann")) == "Ann"
    with pytest.raises(LoginRefused):
        Members(("ann",)).admit(Person("anna", frozenset({"wolves"})))
    assert "<i>" not in login_page("x", "<i>who</i>")


def test_on_a_space_the_way_there_begins_at_the_host_that_the_hub_sends_back_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"CLIENT_ID": "an-id", "CLIENT_SECRET": SECRET}.items():
        monkeypatch.setenv(f"OAUTH_{name}", value)
    monkeypatch.setenv("SPACE_HOST", "me-stepwise.hf.space, draw.example.org")
    provider = Provider.from_environment()
    assert (provider.url, SECRET in repr(provider)) == ("https://huggingface.co", False)
    page = HubLogin(provider, (), login_page, logout_page).page
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"draw.example.org")]}
    answer = page(Request(scope))
    assert answer is not None
    assert b'href="https://me-stepwise.hf.space/login/huggingface"' in answer.body


@pytest.mark.parametrize(
    "settings, words",
    [({}, "OAUTH_CLIENT_ID and OAUTH_CLIENT_SECRET. On a Space, “hf_oauth: true”"),
     ({"SPACE_ID": "me/it", "OAUTH_CLIENT_ID": "x"}, "OAUTH_CLIENT_SECRET. Write “hf_oauth: true” into the")],
)  # fmt: skip
def test_without_the_oauth_app_the_start_says_what_to_write_where(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], words: str
) -> None:
    for name in ("OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingError, match=re.escape(words)):
        Provider.from_environment()


@pytest.mark.parametrize(
    "login, users, words",
    [("huggingface,ann:secret", "", "not both"), ("", "ann", "isn't set"), ("ann:secret", "ann", "isn't set"),
     ("huggingface", ",", "no name"), ("huggingface", "ann,b b", "name 2")],
)  # fmt: skip
def test_settings_that_would_not_guard_as_they_say_stop_the_start(
    monkeypatch: pytest.MonkeyPatch, login: str, users: str, words: str
) -> None:
    monkeypatch.setenv("STEPWISE_LOGIN", login)
    monkeypatch.setenv("STEPWISE_USERS", users)
    with pytest.raises(SettingError, match=words):
        Settings()
