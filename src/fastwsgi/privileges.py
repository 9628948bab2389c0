"""Whose rights the process has: from root to a user and a group, for good."""

import grp
import os
import pwd
from dataclasses import dataclass
from typing import Self

from fastwsgi.errors import ConfigError

HIGHEST_ID = 0xFFFFFFFE  # one more means "leave it as it is"


@dataclass(frozen=True, slots=True)
class Identity:
    """A user, a group, and the other groups that the user is in."""

    uid: int
    gid: int
    groups: tuple[int, ...]

    @classmethod
    def find(cls, user: str | None, group: str | None) -> Self | None:
        """Look up names or numbers; None if neither is given.

        Raises ConfigError for what does not exist, or cannot be had by this process.
        """
        if user is None and group is None:
            return None
        found = cls.named(user, group)
        if os.geteuid() != 0 and not found.is_ours:
            given = " ".join(
                f"--{name} {value}" for name, value in (("user", user), ("group", group)) if value is not None
            )
            raise ConfigError(f"{given}: only root can change to another (this is user {os.geteuid()})")
        return found

    @classmethod
    def named(cls, user: str | None, group: str | None) -> Self:
        gid = None if group is None else find_group(group)
        if user is None:
            assert gid is not None
            return cls(os.geteuid(), gid, (gid,))
        entry = find_user(user)
        if entry is not None:
            gid = entry.pw_gid if gid is None else gid
            return cls(entry.pw_uid, gid, tuple(os.getgrouplist(entry.pw_name, gid)))
        if gid is None:
            raise ConfigError(f"--user {user}: this number has no entry and so no group; give --group too")
        return cls(int(user), gid, (gid,))

    @property
    def is_ours(self) -> bool:
        """The process is it already."""
        return {os.getuid(), os.geteuid()} == {self.uid} and {os.getgid(), os.getegid()} == {self.gid}

    def take(self) -> None:
        """Become it, for good; raise ConfigError if that is not allowed."""
        if self.is_ours:
            return
        try:
            # In this order: whoever has given up being root may not change groups any more.
            os.setgroups(self.groups)
            os.setgid(self.gid)
            os.setuid(self.uid)
        except OSError as error:
            raise ConfigError(
                f"--user, --group: cannot become user {self.uid} and group {self.gid}: {error.strerror}"
            ) from None


def find_user(user: str) -> pwd.struct_passwd | None:
    """Look up a name or a number; None for a number without an entry."""
    try:
        return pwd.getpwnam(user)
    except KeyError:
        if not is_id(user):
            raise ConfigError(f"--user {user}: there is no such user") from None
    try:
        return pwd.getpwuid(int(user))
    except KeyError:
        return None


def find_group(group: str) -> int:
    """Look up a name; a number is itself."""
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        if not is_id(group):
            raise ConfigError(f"--group {group}: there is no such group") from None
    return int(group)


def is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= HIGHEST_ID
