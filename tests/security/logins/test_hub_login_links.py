"""The way to Hugging Face's login and back, against links that strangers make."""

from __future__ import annotations

import base64
import re
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import pytest
from starlette.testclient import TestClient

from api.auth.hub_login import HubLogin, Provider
from tests.security.support.hub_logins import assert_nobody, browser_of, go, log_in, login_at
from tests.support.rest import TIMEOUT
from tests.support.services.openid import CLIENT, SECRET, OpenIdProvider
from ui.login_page import login_page, logout_page


def test_a_strangers_link_back_logs_nobody_in_as_the_stranger(hub: OpenIdProvider) -> None:
    login = login_at(hub)
    stranger, victim = browser_of(login), browser_of(login)
    link = go(stranger)
    assert_nobody(victim.get(link), 400)
    go(victim)  # nor one who has begun a login of their own
    assert_nobody(victim.get(link), 400)
    mixed = re.sub(r"state=[^&]*", f"state={parse_qs(urlsplit(go(victim)).query)['state'][0]}", link)
    assert_nobody(victim.get(mixed), 401)  # the code isn't of this login (PKCE)
    assert log_in(stranger).status_code == 303


@pytest.mark.parametrize(
    "query", ["", "?code=x", "?state=", "?state=x&code=x", "?error=access_denied", "?state=%00"]
)
def test_links_back_that_strangers_make_count_as_nobodys_guess(browser: TestClient, query: str) -> None:
    for _ in range(12):  # an address has five guesses a minute
        assert_nobody(browser.get(f"/login/callback{query}"), 400)
    assert log_in(browser).status_code == 303


def test_a_way_back_leads_in_once(hub: OpenIdProvider, browser: TestClient) -> None:
    link = go(browser)
    assert browser.get(link).status_code == 303
    assert_nobody(browser.get(link), 400)


def test_of_two_logins_that_were_begun_the_later_leads_in_and_the_other_is_said(browser: TestClient) -> None:
    first, second = go(browser), go(browser)
    refused = browser.get(first)
    assert_nobody(refused, 400)
    assert "in another tab" in refused.text
    assert browser.get(second).status_code == 303


def test_an_answer_of_another_provider_leads_nobody_in(hub: OpenIdProvider, browser: TestClient) -> None:
    assert_nobody(browser.get(f"{go(browser)}&iss=https%3A%2F%2Fevil.example"))
    assert browser.get(f"{go(browser)}&iss={hub.url}").status_code == 303


def test_a_refusal_there_is_said_here_without_its_words(hub: OpenIdProvider, browser: TestClient) -> None:
    state = parse_qs(urlsplit(go(browser)).query)["state"][0]
    answer = browser.get(f"/login/callback?error=%3Cb%3E&error_description=%3Ci%3Ecall+me&state={state}")
    assert_nobody(answer)
    assert "call me" not in answer.text


@pytest.mark.parametrize(
    "address, root, name, flags",
    [("http://testserver", "", "stepwise-login-state", {"path=/"}),
     ("https://testserver", "", "__Host-stepwise-login-state", {"path=/", "secure"}),
     ("https://testserver", "/sd", "__Secure-stepwise-login-state", {"path=/sd", "secure"})],
)  # fmt: skip
def test_the_state_is_kept_in_one_small_cookie_that_goes_with_links_alone(
    hub: OpenIdProvider, address: str, root: str, name: str, flags: set[str]
) -> None:
    login = HubLogin(Provider(CLIENT, SECRET, hub.url), (), login_page, logout_page, root)
    with browser_of(login, address) as browser:
        for _ in range(100 if not root and "https" in address else 3):  # each state has 30 bytes and more
            begun = browser.get("/login/huggingface")
    (line,) = begun.headers.get_list("set-cookie")
    first, *found = line.lower().split("; ")
    assert first.startswith(f"{name.lower()}=")
    assert set(found) == flags | {"httponly", "samesite=lax", "max-age=600"}
    assert len(line) < 2_000  # a browser keeps 4,096
    assert begun.headers["cache-control"] == "no-store"
    assert SECRET not in base64.b64decode(line.partition("=")[2].partition(".")[0] + "==").decode()


@pytest.mark.parametrize(
    "target", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:x"]
)
def test_no_request_says_where_a_login_leads(hub: OpenIdProvider, browser: TestClient, target: str) -> None:
    named = {"next": target, "_target_url": target, "redirect_uri": target, "return_to": target}
    there = browser.get("/login/huggingface", params=named)
    asked = parse_qs(urlsplit(there.headers["location"]).query)
    assert there.headers["location"].startswith(f"{hub.url}/oauth/authorize?")
    assert asked["redirect_uri"] == [hub.callback]
    assert "evil" not in there.headers["location"]
    entered = browser.get(go(browser) + "&next=" + quote(target))
    assert entered.headers["location"] == "../"


def test_a_host_that_the_request_names_isnt_led_back_to(hub: OpenIdProvider) -> None:
    evil = {"host": "evil.example", "x-forwarded-host": "evil.example", "x-forwarded-proto": "https"}
    # Where an address is set, it holds, whatever a request says.
    space = HubLogin(Provider(CLIENT, SECRET, hub.url, host="me-it.hf.space"), (), login_page, logout_page)
    proxy = HubLogin(
        Provider(CLIENT, SECRET, hub.url), (), login_page, logout_page, "https://draw.example.org/sd"
    )
    for login, back in ((space, "https://me-it.hf.space"), (proxy, "https://draw.example.org/sd")):
        there = browser_of(login).get("/login/huggingface", headers=evil).headers["location"]
        assert parse_qs(urlsplit(there).query)["redirect_uri"] == [f"{back}/login/callback"]
    # Elsewhere the provider refuses what isn't the app's.
    there = browser_of(login_at(hub)).get("/login/huggingface", headers=evil).headers["location"]
    assert httpx.get(there, timeout=TIMEOUT).status_code == 400
