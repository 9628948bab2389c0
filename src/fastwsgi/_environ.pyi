from typing import Any

def environ_of(request: bytes, *, peer: str = "127.0.0.1", port: int = 50000) -> dict[str, Any]:
    """The environ of a request in one piece, for tests; ValueError if it is refused."""
