"""The proxies through which this process reaches others, as the environment names them: this machine is never
asked for through one, and one that can't be used stops what is fetched from elsewhere, not the start.

Both HTTP libraries here, httpx and httpx2, read these variables whenever a client is made, for whatever
address, and raise there: also for a server on this machine.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, MutableMapping
from urllib.parse import urlsplit

PROXIES = ("http_proxy", "https_proxy", "all_proxy")
LOOPBACK = ("localhost", "127.0.0.1", "::1")
NOWHERE = "http://127.0.0.1:0"
"""In place of a proxy that can't be used: nothing can listen on port 0, so each request fails at once.
Without any proxy it would go where the owner didn't want it to."""


def use_proxies(*own: str, environment: MutableMapping[str, str] = os.environ) -> list[str]:
    """Makes the proxies of this process, and of those that it starts, usable: this machine is spared, and
    what no client can be made with is taken out.

    Args:
        own: this machine's addresses besides those of the loopback.

    Returns:
        What can't be used and what to do about it, a sentence each.
    """
    given = [name for name in environment if environment[name].strip()]
    if not [name for name in given if name.lower() in (*PROXIES, "no_proxy")]:
        return []
    complaints = []
    for name in [name for name in given if name.lower() in PROXIES]:
        if words := _fault(environment[name].strip()):
            environment[name] = NOWHERE
            complaints.append(
                f"{name} can't be used: {words} Until then nothing is fetched from other machines; models "
                "that are here are drawn."
            )
    hosts = [
        host.strip(" []")  # of IPv6; httpx takes it without brackets alone
        for name in ("no_proxy", "NO_PROXY")
        for host in environment.get(name, "").split(",")
        if host.strip()
    ]
    for host in [host for host in dict.fromkeys(hosts) if not _can_be_spared(host)]:
        hosts = [one for one in hosts if one != host]
        complaints.append(
            f"NO_PROXY: “{host}” can't be read by the HTTP library, and is left out: name hosts without a "
            "network's length, as fd00::1 instead of fd00::/8."
        )
    spared = ["*"] if "*" in hosts else dict.fromkeys((*hosts, *LOOPBACK, *own))
    environment["no_proxy"] = environment["NO_PROXY"] = ",".join(spared)
    return complaints


def unusable(environment: MutableMapping[str, str] = os.environ) -> str:
    """What an error of the network should say besides, where `use_proxies` found a proxy of no use."""
    names = [name for name in environment if name.lower() in PROXIES and environment[name] == NOWHERE]
    return (
        f" The proxy in {' and '.join(names)} can't be used: the first lines of the log say why."
        if names
        else ""
    )


def _fault(value: str) -> str:
    """What is wrong with a proxy's address; empty: nothing. Doesn't show it: it may have a password."""
    import httpx  # here: it takes tenths of a second, and few need it

    url = value if "://" in value else f"http://{value}"
    scheme = url.partition("://")[0].lower()
    if scheme not in ("http", "https", "socks5", "socks5h"):
        known = "http://, https://, socks5:// or socks5h://"
        return f"its address begins with {scheme[:20]}://, and must begin with {known}."
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises, too
        if not parts.hostname:
            return "its address names no host: write it as http://proxy.example.org:3128."
        httpx.HTTPTransport(verify=False, proxy=httpx.Proxy(url)).close()
    except ImportError:
        return (
            "for a SOCKS proxy a package is missing: install it with `pip install httpx[socks]` (of this "
            "Python) and start again."
        )
    except (ValueError, httpx.InvalidURL):
        return "it is no address: write it as http://proxy.example.org:3128."
    return ""


def _can_be_spared(host: str) -> bool:
    """Whether a client can be made while NO_PROXY has this entry."""
    import httpx

    with _only(http_proxy=NOWHERE, no_proxy=host):
        try:
            httpx.Client(verify=False).close()
        except (ValueError, httpx.InvalidURL):
            return False
    return True


@contextlib.contextmanager
def _only(**values: str) -> Iterator[None]:
    """These variables in place of all that name proxies: httpx has no other way to be given them."""
    taken = {name: os.environ.pop(name) for name in list(os.environ) if name.lower().endswith("_proxy")}
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            del os.environ[name]
        os.environ.update(taken)
