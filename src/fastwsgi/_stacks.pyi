from types import CodeType, FrameType
from typing import Any

# What is called, at which line, and its globals; the innermost first.
Stack = list[tuple[CodeType, int, dict[str, Any]]]

def stacks() -> dict[int, Stack]:
    """Where each thread is, by its identifier."""

def stack_of(frame: FrameType) -> Stack:
    """The same of a frame that does not run."""

def stack_text(stack: Stack) -> str:
    """A stack as a traceback shows it, the outermost frame first."""
