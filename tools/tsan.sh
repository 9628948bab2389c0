#!/usr/bin/env bash
# Runs tests on a build with the thread sanitizer; $1 is a Python that was built with it, the rest is pytest's.
set -e
python=$1
shift
reports=build/tsan/reports
FASTWSGI_VARIANT=tsan "$python" setup.py -q build --build-base build/tsan --build-lib build/tsan/lib
rm -rf $reports && mkdir $reports
export PYTHONPATH=$PWD/build/tsan/lib
export TEST_PATIENCE=${TEST_PATIENCE:-60}       # all is several times slower
# A free-threaded Python shall stay one, whatever the tests import.
"$python" -c 'import sysconfig; exit(not sysconfig.get_config_var("Py_GIL_DISABLED"))' && export PYTHON_GIL=0
# In files, for pytest keeps what is written to the standard error.
export TSAN_OPTIONS="suppressions=$PWD/tools/tsan.supp history_size=7 log_path=$PWD/$reports/of"
# The sanitizer's place in memory has to be free, so no random addresses.
setarch -R "$python" -m pytest "$@" && code=0 || code=$?
cat $reports/* 2>/dev/null && exit 1
exit $code
