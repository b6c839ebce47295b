#!/bin/sh
# Creates .venv: `tools/setup.sh demo` for the demo, `tools/setup.sh dev` with everything.
# Installs uv itself; needs python3 >= 3.11. Does nothing if nothing has changed.
set -eu
cd "$(dirname "$0")/.."
what=$1
BUILDER_LOCK=runtimes/images/builder.lock
UV_VERSION=$(sed -n 's/^uv==\([^ ]*\).*/\1/p' $BUILDER_LOCK)

fail() { echo "setup: $1" >&2; exit 1; }

find_python() {
  for candidate in python3 python3.13 python3.12 python3.11; do
    path=$(command -v "$candidate" 2>/dev/null) || continue
    if "$path" -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11))' 2>/dev/null; then
      echo "$path"
      return
    fi
  done
  fail "python3 >= 3.11 is needed, and none is on the PATH"
}

bring_uv() {
  [ "$(.tools/bin/uv --version 2>/dev/null | cut -d' ' -f2)" = "$UV_VERSION" ] && return
  rm -rf .tools
  if "$python" -m venv .tools 2>/dev/null; then
    .tools/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $BUILDER_LOCK
  elif "$python" -m pip --version >/dev/null 2>&1; then
    # Debian's python3 lacks parts of venv; pip alone can install uv too.
    rm -rf .tools
    "$python" -m pip install --quiet --disable-pip-version-check --target .tools --require-hashes -r $BUILDER_LOCK
  elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && apt-get install -qq -y python3-venv >/dev/null
    rm -rf .tools && "$python" -m venv .tools
    .tools/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $BUILDER_LOCK
  else
    fail "python3 has neither venv nor pip: install the package python3-venv"
  fi
}

python=$(find_python)
stamp=.venv/.installed-$what
wanted=$(cat pyproject.toml requirements.lock tools/setup.sh | cksum)
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
  bring_uv
  export UV_PYTHON_DOWNLOADS=never
  [ -x .venv/bin/python ] || .tools/bin/uv venv --quiet --python "$python" .venv
  case $what in
    demo) extras="runtime nats edge" groups="demo" ;;
    dev)
      extras="operator runtime s3 gs az delta sklearn xgboost lightgbm litert images text convert kserve kafka nats redis ray edge pkcs11 tracing"
      groups="demo dev servers clients" ;;
    train) extras="runtime" groups="demo train" ;;
    *) fail "what to set up? demo, dev or train" ;;
  esac
  set -- --quiet --python .venv/bin/python --constraints requirements.lock --build-constraints requirements.lock
  .tools/bin/uv pip install "$@" --require-hashes -r pyproject.toml \
    $(printf -- '--extra %s ' $extras) $(printf -- '--group %s ' $groups)
  .tools/bin/uv pip install "$@" --no-deps --editable .
  echo "$wanted" > "$stamp"
fi
