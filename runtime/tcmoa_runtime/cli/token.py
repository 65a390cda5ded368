"""Tokens of servers that commands start."""

from __future__ import annotations

from tcmoa_runtime.cli.printing import hides_secrets
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.web.address import Address


def check_token_is_known(token: str | None, address: Address) -> None:
    """Refuse to make a token that no one would see, because messages in JSON hide it like every secret.

    Args:
        token: The token that the user has chosen.
        address: What the server listens on.

    Raises:
        InputError: There is none, but the address needs one.
    """
    if token is None and not address.is_loopback and hides_secrets():
        raise InputError(
            f"none for {address.host}; expected one, because messages in JSON hide a generated one",
            subject="token",
            remedy="Set the environment variable TCMOA_TOKEN, or {token}",
            settings={"token": ...},
        )
