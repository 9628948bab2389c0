from enum import IntFlag

class refusal_t(IntFlag): ...

REFUSALS: dict[str, tuple[int, str, str]]
"""Name of each reason to its status code, reason phrase and log text."""
