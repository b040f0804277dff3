"""The page where one logs in with Hugging Face: a button that leads there, and what went wrong."""

from __future__ import annotations

from html import escape
from pathlib import Path
from string import Template

HERE = Path(__file__).parent
PAGE = Template((HERE / "login.html").read_text(encoding="utf-8"))
LOGO = (HERE / "favicon.svg").read_text(encoding="utf-8")


def login_page(link: str, words: str = "") -> str:
    """A whole document that needs nothing else from the server.

    Args:
        link: where the button leads.
        words: what went wrong with a login; empty: nothing.
    """
    alert = f'<p role="alert">{escape(words)}</p>' if words else ""
    return PAGE.substitute(logo=LOGO, link=escape(link), alert=alert)
