"""What a process asks of its operating system that Python has no call for. Knows nothing of the server."""

from fastwsgi._platform cimport (
    platform_become_subreaper, platform_drop_new, platform_give_up, platform_name_thread,
)

cdef enum:
    NAME_MOST = 15      # octets; Linux refuses longer ones


def become_subreaper():
    """Have orphaned descendants become our children; False where there is no such thing."""
    return platform_become_subreaper() == 0


def name_thread(bytes name not None):
    """Name the calling thread for `ps` and `top`, with 15 octets; the main thread has the process's name."""
    platform_name_thread(name[:NAME_MOST])


def stop_hearing(int listener):
    """Let nobody else connect to a listening socket, and all who have it see that it is given up."""
    platform_give_up(listener)
    platform_drop_new(listener)
