#!/usr/bin/env bash
# Runs tests on a build with the thread sanitizer. $1 is any Python that has what builds and tests, $2 one that was built
# with that sanitizer (CONTRIBUTING.md), which needs nothing installed; the rest is pytest's.
set -e
builder=$1
python=$2
shift 2
reports=build/tsan/reports
ask() { "$1" -c "import sysconfig; print(sysconfig.$2)"; }

# Translated and compiled by the one, for it is ten times as fast, with the headers of the other.
suffix=$(ask "$python" 'get_config_var("EXT_SUFFIX")')
FASTWSGI_VARIANT=tsan SETUPTOOLS_EXT_SUFFIX=$suffix "$builder" setup.py -q \
    build_py --build-lib build/tsan/lib \
    build_ext --build-lib build/tsan/lib --build-temp "build/tsan/temp$suffix" \
    --include-dirs "$(ask "$python" 'get_path("include")')"

rm -rf $reports && mkdir $reports
export PYTHONPATH=$PWD/build/tsan/lib:$(ask "$builder" 'get_path("purelib")') PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
export TEST_PATIENCE=${TEST_PATIENCE:-60}       # all is several times slower
# A free-threaded Python shall stay one, whatever the tests import.
[ "$(ask "$python" 'get_config_var("Py_GIL_DISABLED")')" != 1 ] || export PYTHON_GIL=0
# In files, for pytest keeps what is written to the standard error. A thread that nobody joins is no race.
export TSAN_OPTIONS="suppressions=$PWD/tools/tsan.supp history_size=7 report_thread_leaks=0 log_path=$PWD/$reports/of"
# The sanitizer needs its own places in memory: no random addresses.
setarch -R "$python" -m pytest -o faulthandler_timeout=0 "$@" && code=0 || code=$?
cat $reports/* 2>/dev/null && exit 1
exit $code
