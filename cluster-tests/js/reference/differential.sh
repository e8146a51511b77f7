#!/usr/bin/env bash
# Compares the nodes of FLOTILLA_NODES with the official server: `cluster … --exec bash reference/differential.sh`.
set -euo pipefail
cd "$(dirname "$0")/.."
SUBJECT_NODES=$FLOTILLA_NODES exec node reference/relay-server.mjs --exec node reference/differential.mjs
