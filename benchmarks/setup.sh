#!/usr/bin/env bash
# Installs what run.py compares with, beneath benchmarks/.venv, and builds the ceilings into benchmarks/build.
# Call it again at will: what is there stays. A peer that cannot be built is named at the end, and run.py
# reports it as missing. PYTHON chooses the interpreter; take the one that will run run.py. FREE_PYTHON, if set, is a
# free-threaded one, for the cases that begin with "free".
set -u
python=$(command -v "${PYTHON:-python3}") || { echo "benchmarks: no ${PYTHON:-python3}" >&2; exit 1; }
# Not resolved further: an interpreter is its environment's by the name it is called by.
case $python in /*) ;; *) python=$PWD/$python ;; esac
cd "$(dirname "$0")" || exit 1
venv=.venv
missing=()

packages=()
command -v wrk >/dev/null || packages+=(wrk)
command -v nginx >/dev/null || packages+=(nginx-light)
command -v valgrind >/dev/null || packages+=(valgrind)
command -v strace >/dev/null || packages+=(strace)
[ -e /usr/include/ev.h ] || packages+=(libev-dev)
if [ ${#packages[@]} -gt 0 ]; then
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${packages[@]}" >/dev/null \
            || missing+=("${packages[@]}")
    else
        echo "benchmarks: install these system packages for the whole comparison: ${packages[*]}" >&2
        missing+=("${packages[@]}")
    fi
fi

[ -x $venv/bin/python ] || "$python" -m venv $venv || exit 1

# One by one, so that a peer that does not build takes no other with it.
while read -r name _; do
    case $name in '' | '#'*) continue ;; esac
    [ -e "$venv/installed/$name" ] && continue
    if $venv/bin/python -m pip install -q --disable-pip-version-check "$name"; then
        mkdir -p $venv/installed && touch "$venv/installed/$name"
    else
        missing+=("$name")
    fi
done <requirements-peers.txt

# Outside every site-packages, so that each server, ours included, runs the very same Flask and Django.
if [ ! -e $venv/installed/frameworks ]; then
    mkdir -p $venv/installed
    if $venv/bin/python -m pip install -q --disable-pip-version-check --target $venv/frameworks --upgrade \
        -r requirements-frameworks.txt; then
        touch $venv/installed/frameworks
    else
        missing+=(frameworks)
    fi
fi

# The fastwsgi of the package index has our import name: an environment of its own.
if [ ! -e $venv/installed/fastwsgi-pypi ]; then
    if "$python" -m venv $venv/fastwsgi-pypi \
        && $venv/fastwsgi-pypi/bin/python -m pip install -q --disable-pip-version-check fastwsgi; then
        touch $venv/installed/fastwsgi-pypi
    else
        missing+=(fastwsgi-pypi)
    fi
fi

if [ -n "${FREE_PYTHON:-}" ]; then
    free=$venv/free/bin/python
    [ -x $free ] || "$FREE_PYTHON" -m venv $venv/free
    $free -m pip install -q --disable-pip-version-check cython setuptools \
        && $free -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .. \
        || missing+=("fastwsgi for $FREE_PYTHON")
    # The newest that has a wheel for it.
    $free -m pip install -q --disable-pip-version-check --only-binary granian granian || missing+=("granian for $FREE_PYTHON")
fi

make --no-print-directory -s -C ceiling PYTHON="../$venv/bin/python" || missing+=(ceilings)

if [ ${#missing[@]} -gt 0 ]; then
    echo "benchmarks: missing: ${missing[*]}" >&2
fi
exit 0
