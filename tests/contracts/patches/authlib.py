"""Where Stepwise reaches into Authlib."""

from __future__ import annotations

from tests.contracts.patches.patch import Patch

VERSION = "1.9.10"

PATCHES = (
    Patch(
        "authlib",
        "api/auth/openid.py",
        "class Discovered(StarletteOAuth2App)",
        "`StarletteOAuth2App.load_server_metadata`",
        "takes all of the provider's document for arguments of its HTTP client",
        "tests/contracts/test_authlib.py::test_metadata_is_loaded_as_it_was",
    ),
    Patch(
        "authlib",
        "api/auth/openid.py",
        "self._app.framework.get_state_data",
        "`framework.get_state_data`",
        "there is no function for whether this browser began a login",
        "tests/contracts/test_authlib.py::test_metadata_is_loaded_as_it_was",
    ),
)
