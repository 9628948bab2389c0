from typing import Self, final

MOST_AHEAD: int

@final
class Rates:
    """The table, for the processes that this one will fork and for itself."""

    def __new__(cls) -> Self: ...

@final
class Rate:
    """A rate of a table: one request in `interval` seconds, and `burst` of them ahead of that."""

    def __new__(cls, rates: Rates, interval: float, burst: int) -> Self: ...
    def wait(self, address: bytes, *, takes: bool = True, now_ns: int | None = None) -> float:
        """0.0 if the client may have one more, which it then has if it `takes` it; or in how many seconds."""
