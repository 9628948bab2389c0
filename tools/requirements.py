"""Print what pyproject.toml requires to build ("build") or for one of its extras ("test", "lint", ...)."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())
lists = {"build": project["build-system"]["requires"], **project["project"]["optional-dependencies"]}
print(*lists[sys.argv[1]], sep="\n")
