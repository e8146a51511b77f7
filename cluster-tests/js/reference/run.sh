#!/usr/bin/env bash
# Runs every suite against the official server, which shows that the suites themselves are right.
# The suite of the gRPC port is left out: the official server has none.
set -euo pipefail
cd "$(dirname "$0")/.."

reference() { node reference/relay-server.mjs --exec "$@"; }

reference npm run --silent client
reference npm run --silent raw
# shellcheck source=../timers/settings.sh
(. timers/settings.sh && reference npm run --silent timers)
# shellcheck source=../msgpack/settings.sh
(. msgpack/settings.sh && reference npm run --silent msgpack)
reference npm run --silent browser

# The shared scenarios, with both parsers.
for parser in default msgpack; do
  # shellcheck source=../matrix/settings.sh
  (. matrix/settings.sh && FLOTILLA_SOCKETIO__PARSER=$parser reference bash matrix/run.sh)
done
