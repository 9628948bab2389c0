#!/usr/bin/env bash
# Runs the suite on a build with the address and undefined behaviour sanitizers; $1 is the Python, the rest is pytest's.
set -e
python=$1
shift
FASTWSGI_VARIANT=asan "$python" setup.py -q build --build-base build/asan
export LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)"
export PYTHONPATH=$(echo "$PWD"/build/asan/lib*)
# Python's own allocator hides overruns; what Python keeps until the end is no leak of ours.
export PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0:use_sigaltstack=0 UBSAN_OPTIONS=print_stacktrace=1
exec "$python" -m pytest -n "${JOBS:-2}" --dist loadfile "$@"
