"""What api/auth/openid.py extends in authlib is still as it was written for."""

from __future__ import annotations

from authlib.integrations.starlette_client import OAuth

from tests.contracts.source import assert_unchanged


def test_metadata_is_loaded_as_it_was() -> None:
    made = OAuth().register(name="one", client_id="id", server_metadata_url="http://localhost/none")
    assert made.server_metadata == {}
    assert callable(made.framework.get_state_data)
    base, starlette = "authlib.integrations.base_client", "authlib.integrations.starlette_client"
    assert_unchanged(
        "api/auth/openid.py: Discovered, OpenId.begun",
        {
            f"{base}.async_app:AsyncOAuth2Mixin.load_server_metadata": "a81db05b6ea7",
            f"{starlette}.integration:StarletteIntegration.get_state_data": "68f9a57b6e9b",
        },
    )
