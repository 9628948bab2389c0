def become_subreaper() -> bool:
    """Have orphaned descendants become our children; False where there is no such thing."""

def name_thread(name: bytes) -> None:
    """Name the calling thread for `ps` and `top`, with 15 octets; the main thread has the process's name."""

def stop_hearing(listener: int) -> None:
    """Let nobody else connect to a listening socket, and all who have it see that it is given up."""
