#!/usr/bin/env bash
# Runs the functional suite in greenlets, servers and tests alike; $1 is the Python, the rest is pytest's, or files.
# Left out is what is of threads: the crew and its stress, servers beside blocked main threads, coders that compute for long.
set -e
python=$1
shift
cd "$(dirname "$0")/.."
names="application board client_gone compress_tls connection content early_hints edges environ file_wrapper framing guards
    input limits measures over_tls probes proxy_protocol refusal request_id revoke routes slow_clients start_response timeout
    tls trust"
if [ $# -eq 0 ]; then
    for name in $names; do
        set -- "$@" "tests/functional/test_$name.py"
    done
fi
exec "$python" -W ignore -m gevent.monkey --module pytest -q -p no:xdist "$@"
