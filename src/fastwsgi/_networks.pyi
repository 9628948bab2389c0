from typing import Self

from typing_extensions import disjoint_base

def canonical(text: bytes) -> str | None:
    """The address as REMOTE_ADDR has it; None if the text is none."""

@disjoint_base
class Networks:
    """A set of addresses from what a setting has: Networks("10.0.0.0/8", "::1", "*", "unix", "none")."""

    def __new__(cls, *given: str) -> Self: ...
    def __contains__(self, text: bytes) -> bool:
        """Is the address in one of the networks?"""

    def has_peer(self, text: bytes | None) -> bool:
        """Is the peer one of those? None: on a unix socket."""
