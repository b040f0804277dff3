"""Who a Hugging Face token belongs to: the Hub is asked, a few at a time, and its answers are kept for a
while. Programs log in with these where STEPWISE_LOGIN=huggingface. Of a token only its digest is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import httpx2
from huggingface_hub import whoami
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from api.auth.keys import GUESSES, digest
from api.auth.login import LoginRefused, too_many_guesses
from jobs.scheduling.rate_limit import RateLimit
from pipeline.errors import RateLimited

TOKENS = "https://huggingface.co/settings/tokens"
KEPT = 300.0
"""Seconds for which the Hub's answer is taken for true: it limits whoami strictly, and asks to cache it."""
MOST_KEPT = 10_000
AT_ONCE = 4
"""Tokens that the Hub is asked about at once; more wait, and give up with the rest of PATIENCE."""
PATIENCE = 15.0
"""Seconds until the Hub must have answered."""
AGAIN = {"Retry-After": "10"}
WRONG = (
    "The Hub knows no user's access token like this one. Send one of your own from "
    f"{TOKENS}; an organisation's, or one that another app was given, doesn't do."
)


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
"""Of a user or an organisation, as the Hub lets one choose it."""


@dataclass(frozen=True)
class Person:
    """A Hub account: its name, and those of the organisations it is in."""

    name: str
    organisations: frozenset[str] = frozenset()


def person_of(name: object, organisations: Collection[object] = ()) -> Person | None:
    """Return an account as the Hub names it, or None if that is no account's name. Organisations whose name
    is none don't count."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return None
    named = (one for one in organisations if isinstance(one, str) and _NAME.fullmatch(one))
    return Person(name, frozenset(named))


class Members:
    """Who may come in: everyone with an account, or those who are named or in an organisation that is."""

    def __init__(self, names: Collection[str]) -> None:
        self.names = frozenset(name.casefold() for name in names)  # as the Hub has it, ann is Ann

    def admit(self, person: Person) -> str:
        """Return the person's name if they may come in.

        Raises:
            LoginRefused: they are none of these.
        """
        theirs = {name.casefold() for name in (person.name, *person.organisations)}
        if self.names and not theirs & self.names:
            raise LoginRefused(403, f"{person.name} is not among the users that this server lets in.")
        return person.name


class Guesses:
    """Counts the wrong logins of each address. One login of an address is looked at at a time, so of those
    that come at once each wrong one counts."""

    def __init__(self, doing: str) -> None:
        self._limit = RateLimit(GUESSES, doing=doing)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def attempt(self, address: str) -> AsyncIterator[None]:
        """Let one login be looked at within this context; a LoginRefused with 401 counts as a wrong one.

        Raises:
            LoginRefused: there were too many wrong ones.
        """
        async with self._locks.setdefault(address, asyncio.Lock()):
            try:
                self._limit.allow(address)
                yield
            except RateLimited as error:
                raise too_many_guesses(error) from None
            except LoginRefused as away:
                if away.status == 401:
                    self._limit.count(address)
                raise


class HubTokens:
    """Asks the Hub whose a token is. For use on one event loop."""

    def __init__(self) -> None:
        self._guesses = Guesses("wrong tokens")
        self._known: OrderedDict[bytes, tuple[float, Person]] = OrderedDict()
        self._threads = ThreadPoolExecutor(AT_ONCE, "hub-login")

    async def person(self, token: str, address: str) -> Person:
        """Return whose token this is.

        Raises:
            LoginRefused: nobody's; or too many wrong ones came from this address; or the Hub doesn't answer.
        """
        key = digest(token.encode("utf-8", "surrogatepass"))
        if (known := self._cached(key)) is not None:
            return known
        async with self._guesses.attempt(address):
            if (known := self._cached(key)) is not None:  # while this one waited
                return known
            person = await self._ask(token)
            self._known[key] = time.monotonic() + KEPT, person
            if len(self._known) > MOST_KEPT:
                self._known.popitem(last=False)
            return person

    def _cached(self, key: bytes) -> Person | None:
        until, person = self._known.get(key, (0.0, None))
        if person is not None and until <= time.monotonic():
            del self._known[key]
            return None
        return person

    async def _ask(self, token: str) -> Person:
        if not _looks_like_token(token):
            raise LoginRefused(401, WRONG)
        asked = asyncio.get_running_loop().run_in_executor(self._threads, whoami, token)
        try:
            return _person_of_answer(await asyncio.wait_for(asked, PATIENCE))
        except HfHubHTTPError as error:
            if error.response.status_code in (401, 403):
                raise LoginRefused(401, WRONG) from None
            words = f"The Hub couldn't say whose token this is (HTTP {error.response.status_code})"
        except (AttributeError, TypeError, ValueError, RecursionError):
            words = "The Hub's answer, whose token this is, can't be read"
        except (httpx2.HTTPError, OfflineModeIsEnabled, OSError):
            words = "The Hub, which knows whose token this is, can't be reached from here"
        raise LoginRefused(503, f"{words}: try again a little later.", AGAIN)


def _looks_like_token(token: str) -> bool:
    """Whether this looks like a user's access token: hf_ and letters and digits. The Hub isn't asked about
    others. One with another underscore was given to an app (hf_oauth_, hf_jwt_)."""
    rest = token.removeprefix("hf_")
    return rest != token and rest.isascii() and rest.isalnum() and 16 <= len(rest) <= 256


def _person_of_answer(answer: Any) -> Person:
    """Return whose token it is, from an answer of /api/whoami-v2. One that another app got by OAuth says who
    its user is, too: taken for a login, it would let that app in under the user's name.

    Raises:
        LoginRefused: nobody's who may log in.
        TypeError, AttributeError: that is no answer of whoami's.
    """
    if answer.get("type") != "user" or (answer.get("auth") or {}).get("type") != "access_token":
        raise LoginRefused(401, WRONG)
    person = person_of(answer.get("name"), [one.get("name") for one in answer.get("orgs") or ()])
    if person is None:
        raise TypeError
    return person
