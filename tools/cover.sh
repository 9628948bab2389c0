#!/usr/bin/env bash
# Runs the suite on a build that counts lines, C and Python, and prints a table per file; $1 is where the tools are.
bin=$1
shift
FASTWSGI_VARIANT=cover "$bin/python" setup.py -q build --build-base build/cover || exit 1
find build/cover -name '*.gcda' -delete
export PYTHONPATH=$(echo "$PWD"/build/cover/lib*) COVERAGE_FILE=build/cover/python
"$bin/coverage" run --source fastwsgi -m pytest "$@"
status=$?
echo; echo "Python"
"$bin/coverage" report --show-missing
echo; echo "Cython"
"$bin/python" tools/cython_coverage.py
exit $status
