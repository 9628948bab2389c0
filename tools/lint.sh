#!/usr/bin/env bash
# All that is checked without running the server; $1 is where the tools are. A failure does not end it.
bin=$1
status=0
check() {
    echo "$*"
    "$@" || status=1
}

check "$bin/ruff" check
check "$bin/ruff" format --check
check "$bin/mypy"
# The declarations of the compiled modules, held against what was built.
modules=$(cd src && for declared in fastwsgi/_*.pyi; do basename "$declared" .pyi; done)
check "$bin/stubtest" --allowlist tools/stubtest-allowlist.txt $(printf 'fastwsgi.%s ' $modules)
check "$bin/python" tools/check_gil_line.py
exit $status
