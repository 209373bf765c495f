#!/usr/bin/env bash
# Make .venv and install the project and all that it needs into it. Run by `make install`; may be
# run again. PYTHON names the Python to use; without it, it is that of .venv, else 3.11, which the
# lock is for, else another that fits.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
  echo "make install: $*" >&2
  exit 1
}

# --- What must be there before anything is downloaded.

[ "$(uname -s) $(uname -m)" = "Linux x86_64" ] ||
  fail "this is $(uname -s) $(uname -m); TFX 1.21 needs wheels that there are for Linux x86_64 only"

fits() {  # A pyenv shim of a version that isn't active exists but fails: so run it.
  "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

if [ -d .venv ] && ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  echo "make install: .venv has no working Python and pip: making it anew"
  rm -rf .venv
fi

if [ -n "${PYTHON:-}" ]; then
  fits "$PYTHON" || fail "PYTHON=$PYTHON does not run, or is not one of Python 3.10 to 3.13"
else
  for PYTHON in .venv/bin/python python3.11 python3.12 python3.13 python3.10 python3 ""; do
    [ -n "$PYTHON" ] || fail "no Python 3.10 to 3.13 found; on Debian: apt-get install python3-venv"
    if fits "$PYTHON"; then break; fi
  done
fi

version=$("$PYTHON" -c 'import sys; print("{}.{}".format(*sys.version_info))')
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
  fail "$PYTHON ($version) cannot make environments; on Debian: apt-get install python$version-venv"
# pyfarmhash, which tensorflow-data-validation needs, comes as C++ source only.
header=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("include") + "/Python.h")')
[ -f "$header" ] || fail "$header is missing; on Debian: apt-get install python$version-dev"
command -v g++ >/dev/null || fail "g++ is missing; on Debian: apt-get install g++"

# --- The environment, with the uv that the lock names.

is_version='import sys; sys.exit("{}.{}".format(*sys.version_info) != sys.argv[1])'
if [ -d .venv ] && ! .venv/bin/python -c "$is_version" "$version"; then
  echo "make install: .venv has another Python than $version: making it anew"
  rm -rf .venv
fi
[ -d .venv ] || "$PYTHON" -m venv .venv

uv_in_lock() {  # the lines of uv and its hashes
  awk '/^uv==/ { found = 1 } found { print } found && !/\\$/ { exit }' requirements.lock
}
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
  --requirement <(uv_in_lock)

# --- The packages.

# Two wheels are published for glibc 2.39; tools/glibc_compat.py makes them load on an older one.
environment=(--python .venv/bin/python --python-platform x86_64-manylinux_2_39)
# Where Python may not write bytecode itself, `import tfx` would take 38 seconds instead of 12.
options=("${environment[@]}" --compile-bytecode)
if [ "$version" = 3.11 ]; then
  .venv/bin/uv pip sync "${options[@]}" --require-hashes --build-constraints requirements.lock \
    requirements.lock
else
  echo "make install: the lock is for Python 3.11; on $version the newest that fits is taken"
  .venv/bin/uv pip install "${options[@]}" --requirement setup.py --extra dev --extra kubeflow \
    --requirement tools/environment.in
fi
.venv/bin/uv pip install "${options[@]}" --no-deps --no-build-isolation --editable .
.venv/bin/uv pip check --quiet "${environment[@]}" ||
  fail "what is installed does not fit setup.py; if that has changed, run make lock"
.venv/bin/python tools/glibc_compat.py
