"""Users and groups by name and by number."""

import grp
import os
import pwd

import pytest

from fastwsgi.errors import ConfigError
from fastwsgi.privileges import HIGHEST_ID, Identity

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can look for others")
NOBODY = pwd.getpwnam("nobody")
ME = pwd.getpwuid(os.geteuid())


def test_nobody_is_asked_for():
    assert Identity.find(None, None) is None


@pytest.mark.parametrize("user", [ME.pw_name, str(ME.pw_uid)])
def test_the_user_that_we_are(user):
    found = Identity.find(user, str(os.getegid()))
    assert (found.uid, found.gid) == (os.geteuid(), os.getegid())
    assert found.is_ours
    found.take()
    assert os.geteuid() == ME.pw_uid


@ROOT
@pytest.mark.parametrize("user", ["nobody", str(NOBODY.pw_uid)])
def test_a_user_has_its_groups(user):
    found = Identity.find(user, None)
    assert (found.uid, found.gid) == (NOBODY.pw_uid, NOBODY.pw_gid)
    assert set(found.groups) == set(os.getgrouplist("nobody", NOBODY.pw_gid))
    assert not found.is_ours


@ROOT
def test_a_group_of_its_own():
    group = grp.getgrnam("daemon")
    for text in ("daemon", str(group.gr_gid)):
        assert Identity.find("nobody", text).gid == group.gr_gid
        alone = Identity.find(None, text)
        assert (alone.uid, alone.gid, alone.groups) == (os.geteuid(), group.gr_gid, (group.gr_gid,))


@ROOT
def test_a_number_without_an_entry_needs_a_group():
    with pytest.raises(ConfigError, match=r"--user 54321: .*--group"):
        Identity.find("54321", None)
    assert Identity.find("54321", "12345") == Identity(54321, 12345, (12345,))


@pytest.mark.parametrize("name", ["no-such-name", "-1", "1e3", str(HIGHEST_ID + 1), "9" * 40, "\u0663"])
def test_no_such_user_or_group(name):
    with pytest.raises(ConfigError, match=f"^--user {name}: there is no such user$"):
        Identity.find(name, None)
    with pytest.raises(ConfigError, match=f"^--group {name}: there is no such group$"):
        Identity.find(None, name)


def test_only_root_can_become_another(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(ConfigError, match=r"^--user nobody: only root can change to another"):
        Identity.find("nobody", None)
