"""What stands for a person and a session wherever a job's owner is kept: of a bounded length, whatever a
client calls itself, and different where they are."""

from __future__ import annotations

import hashlib

LONGEST_NAME = 256
"""Characters of a user's name that is kept as it is."""
_HASHED = "sha256:"


def person_of(user: str) -> str:
    """The person (`Owner.person`) that a logged-in user is. A name that is too long, or that a database
    can't write, is its hash; one that looks like such a hash is hashed too: nobody is taken for another."""
    name = user.encode("utf-8", "surrogatepass")
    plain = name.decode("utf-8", "replace") == user
    if plain and len(user) <= LONGEST_NAME and not user.startswith(_HASHED):
        return f"user:{user}"
    return f"user:{_HASHED}{_digest(name)}"


def session_of(name: str | bytes) -> str:
    """The session (`Owner.session`) with this name; empty where that is. Always a hash: the client chooses
    the name, as long as it likes, and whoever knows it reads the session's messages.

    Args:
        name: text, or its UTF-8.
    """
    raw = name if isinstance(name, bytes) else name.encode("utf-8", "surrogatepass")
    return _digest(raw) if raw else ""


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()
