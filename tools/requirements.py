"""Print what pyproject.toml requires to build ("build") or for one of its extras ("test", "lint", ...)."""

import re
import sys
import sysconfig
import tomllib
from pathlib import Path

# What has no wheels for a free-threaded Python, or enables its GIL; its tests are skipped there.
NOT_FREE_THREADED = {"brotli", "gevent", "httptools", "kubernetes-validate", "psycopg", "pyramid"}
if sys.version_info < (3, 14):
    NOT_FREE_THREADED.add("cryptography")

project = tomllib.loads(Path("pyproject.toml").read_text())
lists = {"build": project["build-system"]["requires"], **project["project"]["optional-dependencies"]}
required = lists[sys.argv[1]]
if sysconfig.get_config_var("Py_GIL_DISABLED"):
    required = [one for one in required if re.split(r"[^\w-]", one)[0] not in NOT_FREE_THREADED]
print(*required, sep="\n")
