"""Says who it was imported as and who it runs as."""

import json
import os

KEYS = ("getuid", "geteuid", "getgid", "getegid", "getgroups")
AT_IMPORT = {key: getattr(os, key)() for key in KEYS}


def can_be_root():
    try:
        os.setuid(0)
    except PermissionError:
        return False
    return True


def app(environ, start_response):
    environ["wsgi.input"].read()
    umask = os.umask(0)
    os.umask(umask)
    now = {key: getattr(os, key)() for key in KEYS}
    answer = {"at_import": AT_IMPORT, "now": now, "umask": umask, "can_be_root": can_be_root()}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]
