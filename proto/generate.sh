#!/bin/bash
# Writes the Python stubs of proto/*.proto below the given directory, the
# repository itself by default. `make proto` and `make proto-check` call it.
set -euo pipefail

cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
out=${1:-.}

# The plugins stand beside the interpreter, which need not be on the PATH.
PATH=$(cd "$(dirname "$python")" && pwd):$PATH
protoc() { "$python" -m grpc_tools.protoc -Idatastore/etcdpb=proto "$@"; }

mkdir -p "$out"
protoc --python_out="$out" --mypy_out="quiet:$out" proto/*.proto
# A file without a service would get a module of stubs with nothing in it.
mapfile -t services < <(grep -l '^service ' proto/*.proto)
protoc --grpc_python_out="$out" --mypy_grpc_out="quiet:$out" "${services[@]}"
