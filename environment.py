"""What is wrong with the environment variables that an owner has set, a sentence for each mistake.

What each may be stands in settings.py, and is read here from its JSON schema; what becomes of them is not
known here.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from pydantic import ValidationError

from pipeline.errors import SettingError, quoted

PREFIX = "STEPWISE_"
OTHERS = frozenset({"STEPWISE_BENCH_STARTED", "STEPWISE_CASES", "STEPWISE_SCREENSHOTS"})
"""What the tests and benchmarks read, whose servers inherit it."""
ELSEWHERE = {"STEPWISE_HOST": "GRADIO_SERVER_NAME", "STEPWISE_PORT": "GRADIO_SERVER_PORT"}
"""Settings that one would look for under our prefix, and what they are called."""
FOREIGN = ("HF_HOME", "HF_TOKEN", "OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "OPENID_PROVIDER_URL")
"""Settings in docs/settings.md that have no prefix of ours."""
SECRET = frozenset({"HF_TOKEN", "OAUTH_CLIENT_SECRET"})
_NEAR = 0.6
"""How much alike a name and its correction are, of 1."""
_TOKEN = re.compile("[!-~]*")
"""What a header may carry and no Hub token goes beyond."""
_SERVICE = re.compile(
    r"STEPWISE_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)=.*"
    r"|STEPWISE_(\w+_)?PORT=(tcp|udp|sctp)://.*"
)
"""What Kubernetes sets in every container beside a service that is called stepwise, or stepwise-something."""


def mistakes(settings: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """What can be said of the variables by themselves: names that there aren't, values that aren't text; by
    the variable.

    Args:
        settings: each field's JSON schema, by its name.
    """
    found, seen = dict[str, str](), dict[str, str]()
    for name, value in environ.items():
        if name.upper().startswith(PREFIX):
            field = name[len(PREFIX) :].lower()
            if field not in settings:
                if words := _unknown(name, value, settings):
                    found[name] = words
                continue
            secret = _is_secret(settings[field])
            if environ[other := seen.setdefault(field, name)] != value:
                found[name] = f"{other} and {name} are the same setting with two values: leave one out."
        elif name in FOREIGN:
            secret = name in SECRET
        else:
            continue
        if not _is_text(value):
            got = "" if secret else f"; got {quoted(value)}"
            found[name] = f"{name} must be text in UTF-8{got}."
        elif name == "HF_TOKEN" and not _TOKEN.fullmatch(value.strip()):
            found[name] = (
                f"{name} must be a Hub token, hf_ and letters and digits; it holds other characters."
            )
    return found


def explained(
    settings: Mapping[str, Any], environ: Mapping[str, str], error: ValidationError
) -> dict[str, str]:
    """pydantic's complaints, each with the variable, its value unless it is a secret, and what it may be; by
    the variable.

    Args:
        settings: as of `mistakes`.
    """
    spelled = {name.lower(): name for name in environ}
    found = {}
    for field in dict.fromkeys(str(one["loc"][0]) for one in error.errors(include_input=False)):
        variable = f"{PREFIX}{field.upper()}"
        name = spelled.get(variable.lower(), variable)
        value, kind = environ.get(name, ""), allowed_values(settings[field])
        if not value.strip():
            found[name] = f"{name} is empty: leave it out, or write {kind}."
        else:
            got = "" if _is_secret(settings[field]) else f"; got {quoted(value)}"
            found[name] = f"{name} must be {kind}{got}."
    return found


def proxies_in(value: str, name: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Return the addresses and networks of proxies that a variable holds, separated by commas.

    Args:
        value: what it holds. name: what it is called.

    Raises:
        SettingError: an entry is none, or is everyone: then a visitor could write any address.
    """
    networks = []
    for number, entry in enumerate(filter(None, map(str.strip, value.split(","))), 1):
        try:
            network = ip_network(entry)
        except ValueError:
            network = None
        if network is None or not network.prefixlen:
            raise SettingError(
                f"{name}: {quoted(entry)}, entry {number}, is not the address of a proxy, as 10.0.0.7, nor a "
                "network of proxies, as 10.0.0.0/24. Separate them by commas."
            )
        networks.append(network)
    return tuple(networks)


def _unknown(name: str, value: str, settings: Mapping[str, Any]) -> str | None:
    """The complaint about a name that no setting has; None where another program reads it."""
    if name in OTHERS or _SERVICE.fullmatch(f"{name}={value}"):
        return None
    # Never the value: it may be a secret whose name is misspelled.
    name, wanted = quoted(name)[1:-1], name.upper().removeprefix(PREFIX)
    near = difflib.get_close_matches(wanted, [field.upper() for field in settings], 1, _NEAR)
    meant = ELSEWHERE.get(name.upper()) or (f"{PREFIX}{near[0]}" if near else "")
    return f"{name} is not a setting" + (
        f": did you mean {meant}?" if meant else "; docs/settings.md has them all."
    )


def allowed_values(schema: Mapping[str, Any]) -> str:
    """What a setting may be, in words, as "a whole number from 1 to 1,024".

    Args:
        schema: the field's JSON schema.
    """
    schema = next((one for one in schema.get("anyOf", ()) if one.get("type") != "null"), schema)
    if names := schema.get("enum"):
        return f"{', '.join(names[:-1])} or {names[-1]}"
    what = {"integer": "a whole number", "number": "a number", "boolean": "true or false"}
    words = what.get(schema.get("type", ""), "the path of a file or folder" if "format" in schema else "text")
    low, above, high = (schema.get(key) for key in ("minimum", "exclusiveMinimum", "maximum"))
    if above is not None:
        words += f" above {above:g}" + ("" if high is None else f", at most {high:,}")
    elif low is not None:
        words += f" from {low:g} to {high:,}"
    return words


def _is_secret(schema: Mapping[str, Any]) -> bool:
    return bool(schema.get("items", {}).get("writeOnly"))


def _is_text(value: str) -> bool:
    """Whether it was UTF-8: Python keeps other bytes as lone surrogates, which can't be written anywhere."""
    return not any("\ud800" <= letter <= "\udfff" for letter in value)
