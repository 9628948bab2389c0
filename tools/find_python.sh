#!/bin/sh
# Print the first Python from 3.11 up that can make a virtual environment and compile extensions.
for python in python3 python3.14 python3.13 python3.12 python3.11 python; do
    if "$python" - 2>/dev/null <<'END'
import ensurepip, os, sys, sysconfig, venv
sys.exit(sys.version_info < (3, 11) or not os.path.exists(sysconfig.get_path("include") + "/Python.h"))
END
    then
        command -v "$python"
        exit
    fi
done
echo "No Python >= 3.11 with venv and its C headers (python3-venv, python3-dev) was found; name one: make PYTHON=..." >&2
exit 1
