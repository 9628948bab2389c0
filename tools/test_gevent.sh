#!/usr/bin/env bash
# Runs the functional suite in greenlets, servers and tests alike; $1 is the Python, the rest is pytest's, or files.
# What real threads alone do has a mark of its own there (`of_threads` in tests/conftest.py).
set -e
python=$1
shift
cd "$(dirname "$0")/.."
if [ $# -eq 0 ]; then
    set -- tests/functional
fi
exec "$python" -W ignore -m gevent.monkey --module pytest -q -p no:xdist "$@"
