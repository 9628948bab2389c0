from typing import Literal, TypeAlias

from fastwsgi._networks import Networks

_Found: TypeAlias = (
    Literal["BAD", "NONE"] | tuple[Literal["TRUSTED", "CLIENT"], str | None, int, str | None, str]
)

def read_x_forwarded_for(value: bytes, trusted: Networks) -> _Found:
    """Which hop of an X-Forwarded-For value is the client.

    "BAD", "NONE", or whether all are "TRUSTED" or this is the "CLIENT", the address (None: hidden), the
    port (0: not known), the scheme (None: not said) and the host (empty: not said).
    """

def read_forwarded(value: bytes, trusted: Networks) -> _Found:
    """Which hop of a Forwarded value is the client, in the same form."""
