#!/bin/sh
# Usage: install.sh BIN INSTALLER LOCKFILE
# Installs a hash-pinned lock file and this repository into the environment whose programs are in BIN.
# uv is five times as fast as pip; it comes from the same registry, by pinned hash, and where it
# fails (another index, another certificate store, no wheel), pip does the same work.
set -eu
bin=$1 installer=$2 lock=$3
start=$(date +%s)

with_uv() {
    if ! [ -x "$bin/uv" ]; then
        # The lines of one package in the lock file: its name, and what is indented below it.
        sed -n '/^uv==/,/^[^ ]/{/^uv==/p;/^ /p;}' requirements/dev.txt >"$bin/../uv.txt"
        "$bin/pip" install --quiet --disable-pip-version-check --require-hashes \
            -r "$bin/../uv.txt" || return 1
    fi
    VIRTUAL_ENV=$(dirname "$bin") UV_LINK_MODE=${UV_LINK_MODE:-hardlink} \
        "$bin/uv" pip install --quiet --require-hashes -r "$lock"
}

with_pip() {
    "$bin/pip" install --disable-pip-version-check --progress-bar off --quiet \
        --require-hashes -r "$lock"
}

packages=$(grep -c '^[a-z0-9]' "$lock")
echo "setup: installing $packages packages of $lock (once)"
if [ "$installer" != uv ] || ! with_uv; then
    echo "setup: with pip"
    with_pip
fi
"$bin/pip" install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
echo "setup: done in $(($(date +%s) - start)) s"
