#!/bin/sh
# Makes a Python with the pinned packages of requirements-oracle.txt, outside the checkout, and prints its path:
#
#     "$(scripts/oracle.sh)" scripts/golden.py tokens tiny-llama2 tests/fixtures/tiny-llama2.gguf
#
# Only golden files, fixtures and speed comparisons need it; nothing that users run does. The folder is named after the
# pins, so other pins get another one. Progress goes to standard error. PYTHON names the interpreter to start from.
set -eu

requirements=$(dirname -- "$0")/requirements-oracle.txt
pins=$(cksum < "$requirements" | cut -d ' ' -f 1)
home=${XDG_CACHE_HOME:-"$HOME/.cache"}/llamero/oracle-$pins

if [ ! -e "$home/complete" ]; then
    "${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "making the oracle: expected Python 3.11 or newer, got $("${PYTHON:-python3}" --version 2>&1)" >&2
        exit 1
    }
    echo "making the oracle in $home: llama.cpp is built from source, which takes some minutes" >&2
    "${PYTHON:-python3}" -m venv --clear "$home" >&2
    "$home/bin/python" -m pip install --disable-pip-version-check --quiet -r "$requirements" >&2
    touch "$home/complete" # only a whole one is used again
fi
echo "$home/bin/python"
