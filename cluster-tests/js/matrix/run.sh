#!/usr/bin/env bash
# Plays the shared scenarios with every client against the nodes of FLOTILLA_NODES, and fails if one of them did.
set -uo pipefail
cd "$(dirname "$0")/.."
parser=${FLOTILLA_SOCKETIO__PARSER:-default}
status=0

npm run --silent matrix || status=1
npm run --silent matrix-browser || status=1
../py/.venv/bin/python ../py/matrix.py || status=1
# The crate knows the default parser alone.
if [ "$parser" = default ]; then
  ../../target/rust-client/debug/rust-client || status=1
fi
exit $status
