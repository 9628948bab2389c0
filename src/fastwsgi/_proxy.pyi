from typing import Literal

def read_header(
    data: bytes, versions: int = 3
) -> Literal["BAD", "MISSING", "MORE"] | tuple[int, str, str | None, int]:
    """Read a PROXY protocol header of version 1 (versions 1), version 2 (versions 2) or either (3).

    The size of the header, whose connection it is ("proxy", "hidden" or "address"), and for the last the
    client's address and port.
    """
