#!/usr/bin/env bash
# Make .venv with the locked packages and see that FFmpeg is there. Called by the Makefile; arguments go to pip.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "set-up: $*" >&2; exit 1; }

as_root() { if [ "$(id -u)" = 0 ]; then env "$@"; else sudo -n env "$@"; fi; }

apt_install() { # quiet; false where apt is missing, not allowed, or does not succeed
    command -v apt-get >/dev/null || return 1
    as_root true 2>/dev/null || return 1
    local log; log=$(mktemp)
    local apt=(PATH="$PATH:/usr/sbin:/sbin" DEBIAN_FRONTEND=noninteractive apt-get -qq)
    echo "set-up: installing $* with apt-get"
    if { as_root "${apt[@]}" update && as_root "${apt[@]}" install -y --no-install-recommends "$@"; } >"$log" 2>&1 </dev/null
    then rm "$log"; else tail -n 5 "$log" >&2; rm "$log"; return 1; fi
}

find_python() { # the first interpreter that is new enough and passes the import given as an argument
    local name
    for name in ${PYTHON:-python3.11 python3.12 python3.13 python3 python}; do
        if "$name" -c "import sys, $1; sys.exit(not (3, 11) <= sys.version_info < (3, 14))" >/dev/null 2>&1; then
            echo "$name"
            return
        fi
    done
    return 1
}

if ! command -v ffmpeg >/dev/null && ! apt_install ffmpeg; then
    fail "FFmpeg is missing. Debian: sudo apt-get install ffmpeg; conda: conda install -c conda-forge ffmpeg; macOS: brew install ffmpeg"
fi

command -v curl >/dev/null || apt_install curl || echo "set-up: there is no curl; make kinetics and its tests need it" >&2

if ! python=$(find_python "venv, ensurepip"); then
    [ -n "${PYTHON:-}" ] || apt_install python3 python3-venv || true
    python=$(find_python "venv, ensurepip") ||
        fail "no Python 3.11, 3.12 or 3.13 with the venv module (on Debian: sudo apt-get install python3-venv); or name one: make PYTHON=/path/to/python3 ..."
fi

# A virtual environment that was made for another folder was moved or copied: start anew.
case "$(cat .venv/pyvenv.cfg 2>/dev/null)" in
    *" $PWD/.venv") ;;
    *) "$python" -m venv --clear .venv ;;
esac
mkdir -p .venv/home .venv/etc/ipython
# Kernels talk to this machine only; without this line each of them warns that it does not encrypt.
echo "c.IPKernelApp.log_level = 'ERROR'" >.venv/etc/ipython/ipython_kernel_config.py

echo "set-up: installing packages into .venv (a minute or two, about 2 GB)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check "$@" -c requirements.lock -e '.[book,test]' ||
    fail "pip did not succeed; its message is above (a slow network: make PIP_ARGS='--default-timeout 180' ...)"
.venv/bin/python -c "import torchcodec.decoders" 2>/dev/null || { .venv/bin/python tools/doctor.py; exit 1; }
