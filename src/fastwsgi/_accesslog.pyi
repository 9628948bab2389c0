from typing import Any, Self, final

DEFAULT_FORMAT: str
SHORT: str

@final
class LogFormat:
    def __new__(
        cls, format: str = ..., *, is_json: bool = False, prefix: bytes = b"", has_colours: bool = False
    ) -> Self: ...
    @property
    def needs_environ(self) -> bool: ...
    def line(
        self,
        request: bytes | None = None,
        *,
        peer: bytes = b"",
        status: int = 0,
        content_bytes: int = 0,
        duration_ns: int = 0,
        times_ns: dict[str, int] = {},
        wall_ns: int = 0,
        request_id: bytes = b"",
        head: bytes = b"",
        environ: dict[str, Any] | None = None,
        capacity: int = 65536,
    ) -> bytes | None: ...
