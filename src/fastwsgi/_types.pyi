def content_type(name: bytes) -> str:
    """The Content-Type of a file, by the ending of its name."""

def is_hashed(name: bytes) -> bool:
    """Build tools have put a hash of the content into the name, so that it never changes under this one."""
