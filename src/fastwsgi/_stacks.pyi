from types import CodeType, FrameType
from typing import Any

# What is called, at which line, and its globals; the innermost first.
_Stack = list[tuple[CodeType, int, dict[str, Any]]]

def stacks() -> dict[int, _Stack]:
    """Where each thread is, by its identifier."""

def stack_of(frame: FrameType) -> _Stack:
    """The same of a frame that does not run."""

def stack_text(stack: _Stack) -> str:
    """A stack as a traceback shows it, the outermost frame first."""
