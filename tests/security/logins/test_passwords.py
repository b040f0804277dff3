"""Names and passwords that strangers try, and forms that they send: no name is taken for another's, and all
are answered in words."""

from __future__ import annotations

import time

import httpx
import pytest

from pipeline.errors import RateLimited, SettingError
from tests.api.conftest import Keyed
from tests.security.support.local_logins import ANN, BOB, PERSON, accounts, browser
from tests.support.rest import TIMEOUT


def test_a_long_password_of_accents_takes_no_time(closed: Keyed) -> None:
    accents = "a" + "\u0301\u0316" * 80_000
    known = accounts(":".join(ANN))
    began = time.process_time()
    for number, (name, password) in enumerate([(accents, "x"), ("ann", accents), ("x" * 10**6, "y" * 10**6)]):
        assert known.verify(name, password, f"from {number}") is None
    assert time.process_time() - began < 10  # it was 20 s for each
    for form in ({"username": "ann", "password": "\u0301\u0316" * 1_000}, {"username": "ann"}, {}):
        answer = httpx.post(
            f"{closed.url}/login", data=form, headers={"x-forwarded-for": "8.9.2.1"}, timeout=TIMEOUT
        )
        assert answer.status_code == 400 and "detail" in answer.json()
    with pytest.raises(SettingError, match="login 2 has a name or a password of more than 1,000") as refusal:
        accounts("ann:one", f"bob:{'secret' * 200}")
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    "name",
    ["", "\x00", "ann\x00", "user:ann", "\u0430nn", "\uff41nn", "ANN", "a\u200bnn", "\ud800", "ann:a horse"],
)
def test_no_other_name_is_taken_for_a_users(name: str) -> None:
    known = accounts(":".join(ANN))
    for password in (ANN[1], "", "\x00", ANN[1] + "\x00"):
        assert known.verify(name, password, f"from {password}") is None


def test_a_refusal_doesnt_say_whether_there_is_such_a_name() -> None:
    known = accounts(":".join(ANN))
    refusals = []
    for name in ("ann", "nobody"):
        for _ in range(5):
            assert known.verify(name, "wrong", name) is None
        with pytest.raises(RateLimited) as refusal:
            known.verify(name, ANN[1], name)
        refusals.append(str(refusal.value))
    assert refusals[0] == refusals[1]


def test_form_posts_of_every_kind_are_answered_in_words(closed: Keyed) -> None:
    kinds = {
        "application/x-www-form-urlencoded": [
            b"",
            b"%",
            b"username",
            b"username=%ff&password=%00",
            b"&" * 5000,
        ],
        "multipart/form-data; boundary=x": [b"", b"--x", b"--x--", b"--y\r\n\r\n", b"--x\r\n" * 500],
        "multipart/form-data": [b"--x--"],
        "application/json": [b'{"username": "ann"}'],
        "text/plain": [b"username=ann"],
    }
    upload = b'--x\r\nContent-Disposition: form-data; name="username"; filename="a"\r\n\r\nann\r\n--x--\r\n'
    kinds["multipart/form-data; boundary=x"].append(upload)
    number = 0
    for kind, bodies in kinds.items():
        for body in bodies:
            number += 1
            headers = {"content-type": kind, "x-forwarded-for": f"8.9.3.{number}"}
            answer = httpx.post(f"{closed.url}/login", content=body, headers=headers, timeout=TIMEOUT)
            assert 400 <= answer.status_code < 500, (kind, body[:40], answer.status_code, answer.text[:200])
    assert "Traceback" not in closed.log.read_text()


def test_another_sites_form_neither_logs_in_nor_out(closed: Keyed) -> None:
    form = {"username": BOB[0], "password": BOB[1]}
    with browser(closed) as http:
        for site in ("cross-site", "same-site"):
            elsewhere = PERSON | {"sec-fetch-site": site, "origin": "https://evil.example"}
            entered = http.post("/login", data=form, headers=elsewhere)
            assert entered.status_code == 403 and "set-cookie" not in entered.headers
            out = http.post("/logout", headers=elsewhere)
            assert "set-cookie" not in out.headers
        for path in ("/logout", "/logout/", "/logout?all_session=true"):
            http.get(path)
        assert http.get("/config").json()["username"] == ANN[0]
