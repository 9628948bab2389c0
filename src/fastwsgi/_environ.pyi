from typing import Any

def environ_of(request: bytes, *, peer: str = "127.0.0.1", port: int = 50000) -> dict[str, Any]:
    """The environ of the request whose head and content are in `request`, for tests; ValueError if not whole."""
