"""The page that a person sees where Guard refuses what a browser would show: the words that programs get, and
the setting that the owner may write."""

from __future__ import annotations

from html import escape
from string import Template

from starlette.responses import HTMLResponse

_PAGE = Template(
    """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Stepwise: refused</title>
<style>
  body { max-width: 38rem; margin: 15vh auto 0; padding: 0 16px; font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
  code { display: block; padding: 8px 12px; border: 1px solid; border-radius: 8px; }
</style>
<h1>$title</h1>
<p>$words</p>
$setting
</html>
"""  # noqa: E501
)
TITLES = {
    421: "This server isn't known by this address",
    403: "The server doesn't take this from another site's page",
}


def refused_page(status: int, words: str, setting: str = "") -> HTMLResponse:
    """Return a whole document that needs nothing else from the server.

    Args:
        status: 421 or 403.
        words: what is wrong; any text, for it may hold a stranger's.
        setting: what the owner can write, as NAME=value; empty: nothing.
    """
    line = (
        "<p>If this is your server, start it with the following, beside names that it has already (separate "
        f"them by commas), or open it by an address in numbers:</p>\n<code>{escape(setting)}</code>"
        if setting
        else ""
    )
    return HTMLResponse(
        _PAGE.substitute(title=escape(TITLES[status]), words=escape(words), setting=line),
        status,
        {"Cache-Control": "no-store"},
    )
