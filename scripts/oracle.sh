#!/bin/sh
# Makes a Python with the pinned packages of requirements-oracle.txt, outside the checkout, and prints its path:
#
#     "$(scripts/oracle.sh)" scripts/golden.py tokens tiny-llama2 tests/fixtures/tiny-llama2.gguf
#     "$(scripts/oracle.sh checkpoints)" scripts/make_checkpoints.py fixtures
#
# With `checkpoints`, `clients` or `cuda` the packages are those of requirements-checkpoints.txt and so on. Only golden
# files, fixtures, comparisons of formats and of speed, tests with clients, and the check of the feature `cuda` need them;
# nothing that users run does. The folder is named after the pins, so other pins get another one. Progress goes to
# standard error. PYTHON names the interpreter to start from.
set -eu

name=${1:-oracle}
case $name in
    oracle) cost="llama.cpp is built from source, which takes some minutes" ;;
    checkpoints) cost="about 3.5 GB are fetched" ;;
    clients) cost="some 10 MB are fetched" ;;
    cuda) cost="about 0.6 GB are fetched" ;;
    *) echo "making an oracle: expected oracle, checkpoints, clients or cuda, got $name" >&2; exit 2 ;;
esac
requirements=$(dirname -- "$0")/requirements-$name.txt
pins=$(cksum < "$requirements" | cut -d ' ' -f 1)
home=${XDG_CACHE_HOME:-"$HOME/.cache"}/llamero/$name-$pins

if [ ! -e "$home/complete" ]; then
    "${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "making the oracle: expected Python 3.11 or newer, got $("${PYTHON:-python3}" --version 2>&1)" >&2
        exit 1
    }
    echo "making a Python in $home: $cost" >&2
    "${PYTHON:-python3}" -m venv --clear "$home" >&2
    # GCC 12 loses the tile configuration of llama.cpp's AMX kernels, which then end in an illegal instruction. Clang builds
    # them right: CC=clang CXX=clang++ scripts/oracle.sh. A wheel that was built otherwise must not come from pip's cache.
    fresh=
    if [ "$name" = oracle ] && grep -qs amx_tile /proc/cpuinfo; then
        fresh=--no-cache-dir
        case ${CC:-cc} in
            *clang*) ;;
            *)
                echo "this CPU has AMX: llama.cpp is built without it; CC=clang CXX=clang++ builds it with it" >&2
                export CFLAGS="${CFLAGS:-} -mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
                export CXXFLAGS="${CXXFLAGS:-} -mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
                ;;
        esac
    fi
    "$home/bin/python" -m pip install --disable-pip-version-check --quiet $fresh -r "$requirements" >&2
    touch "$home/complete" # only a whole one is used again
fi
echo "$home/bin/python"
