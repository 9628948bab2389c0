from typing import Self

from typing_extensions import disjoint_base

from fastwsgi.config import Settings

@disjoint_base
class Trust:
    """What a worker with these settings believes."""

    def __new__(cls, settings: Settings) -> Self: ...
    def judge(self, head: bytes, is_trusted: bool) -> str | tuple[dict[str, str | int], list[str], str]:
        """What becomes of a request head from a peer that is trusted, or not.

        The name of the refusal, or what is believed (client, client_port, scheme, host, port, script), the
        names of the fields that come into the environ, and the remark for the log.
        """
