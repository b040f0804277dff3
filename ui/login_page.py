"""The pages where one logs in, with Hugging Face or by a name and a password, and the one where one logs out.
Each is a whole document that needs nothing else from the server, and says nothing of what is on it.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from string import Template

ASSETS = Path(__file__).parent / "assets"
PAGE = Template((ASSETS / "login.html").read_text(encoding="utf-8"))
LOGO = (ASSETS / "favicon.svg").read_text(encoding="utf-8")

HUGGING_FACE = Template("""\
  <a class="button" href="$link" target="_blank" rel="noopener">Sign in with Hugging Face</a>
  <small>This server asks who you are. It is told your name and organisations, and can do nothing with your
  account.</small>""")
PASSWORD = """\
  <form action="login" method="post">
    <label>Name
      <input name="username" autocomplete="username" autocapitalize="none" spellcheck="false" required
        autofocus>
    </label>
    <label>Password
      <input name="password" type="password" autocomplete="current-password" required>
    </label>
    <button class="button">Log in</button>
  </form>
  <small>This server asks who you are.</small>"""
OUT = """\
  <form action="logout" method="post"><button class="button">Log out</button></form>
  <small>It logs you out in all tabs of this browser. <a href="./">Back</a></small>"""


def login_page(link: str, words: str = "") -> str:
    """Where one logs in with Hugging Face.

    Args:
        link: where the button leads.
        words: what went wrong with a login; empty: nothing.
    """
    return _page(HUGGING_FACE.substitute(link=escape(link)), words)


def password_page(words: str = "") -> str:
    """Where one logs in by name and password.

    Args:
        words: what went wrong with a login; empty: nothing.
    """
    return _page(PASSWORD, words)


def logout_page() -> str:
    """Where one logs out."""
    return _page(OUT, "")


def _page(way: str, words: str) -> str:
    alert = f'<p role="alert">{escape(words)}</p>' if words else ""
    return PAGE.substitute(logo=LOGO, way=way, alert=alert)
