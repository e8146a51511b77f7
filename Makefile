# Every command of the project. `make help` lists them; CI calls `make test`.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
# Clusters, builds and tests each want the whole machine.
.NOTPARALLEL:

# Of `make cluster`: how many nodes, where, and how `/` delivers (replicated or direct).
NODES ?= 3
PORT ?= 3001
DELIVERY ?= replicated
# Of `make bench`, `make compare` and `make fuzz-test`.
BENCH_ARGS ?=
COMPARE_ARGS ?=
FUZZ_SECONDS ?= 20

JS := cluster-tests/js
# npm writes this file last, so that it is as new as the installation.
JS_INSTALLED := $(JS)/node_modules/.package-lock.json
PY := cluster-tests/py
PY_INSTALLED := $(PY)/.venv/installed
CLIENT_DIR := $(JS)/node_modules/socket.io-client/dist
CHROMIUM ?= /usr/bin/chromium
export CHROMIUM
HAPROXY ?= /usr/sbin/haproxy
export HAPROXY

FLOTILLA := target/release/flotilla
CLUSTER := target/release/cluster --nodes $(NODES) --delivery $(DELIVERY) --flotilla $(FLOTILLA) \
	--client-dir $(CLIENT_DIR) --config deploy/local.toml

# Of the suites that tell of no deaths: no node is taken for dead because the machine stood still for a moment.
CALM := FLOTILLA_CLUSTER__LEASE=20s FLOTILLA_RAFT__PROPOSE_TIMEOUT=20s

.PHONY: help setup build cluster run check test unit-test cluster-test client-test differential-test matrix-test \
	balancer-test browser-test dialects-test sim-test fuzz-test bench reference

help: ## Lists these commands.
	@awk -F ':.*## ' '/^[a-z-]+%?:.*## / { sub("%", "NAME", $$1); sub(":.*", "", $$1); printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(JS_INSTALLED) $(PY_INSTALLED) $(CHROMIUM) $(HAPROXY) ## Installs what the tests need: npm and Python packages, Chromium, HAProxy.

$(JS_INSTALLED): $(JS)/package.json $(JS)/package-lock.json
	npm --prefix $(JS) ci --no-audit --no-fund
	@touch $@

$(PY_INSTALLED): $(PY)/requirements.txt
	@python3 -c 'import ensurepip' 2> /dev/null || $(call debian,python3-venv)
	python3 -m venv $(PY)/.venv
	$(PY)/.venv/bin/pip install --quiet --disable-pip-version-check --requirement $(PY)/requirements.txt
	@touch $@

# Installs Debian packages, or says that someone has to.
debian = { [ "$$(id -u)" = 0 ] || { echo "the tests need: apt-get install $(1)" >&2; exit 1; }; \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(1); }

# Debian's package; another browser's path may be given as CHROMIUM=.
/usr/bin/chromium:
	@[ "$$(id -u)" = 0 ] || { echo "the browser test needs Chromium: apt-get install chromium, or CHROMIUM=path" >&2; exit 1; }
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core

/usr/sbin/haproxy:
	@[ "$$(id -u)" = 0 ] || { echo "the balancer test needs HAProxy: apt-get install haproxy, or HAPROXY=path" >&2; exit 1; }
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends haproxy

build: ## Builds the node and the tools, optimised.
	cargo build --release --package flotilla --package cluster-tests --bins

cluster: build $(JS_INSTALLED) ## Starts a local cluster until Ctrl-C; NODES=3 PORT=3001 DELIVERY=replicated.
	@exec $(CLUSTER) --port $(PORT) --dir target/cluster

run: build $(JS_INSTALLED) ## Starts one node in the foreground, with deploy/single.toml.
	@exec $(FLOTILLA) --config deploy/single.toml

check: ## Format and lints; a warning is an error.
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

test: check build unit-test cluster-test client-test differential-test matrix-test balancer-test browser-test dialects-test fuzz-test ## Everything that CI runs.

unit-test: ## The node's own tests: cores, properties, one node at its public door.
	cargo test --locked --package flotilla --package flotilla-proto --package flotilla-macros

STORIES := $(filter-out sim%,$(basename $(notdir $(wildcard cluster-tests/tests/*.rs))))

SIMULATE := FLOTILLA_SIMULATE=$(CURDIR)/target/release/simulate cargo test --locked --package cluster-tests --test 'sim*'

# One story after the other: each starts several nodes, and has to be able to tell a lost lease from a busy machine.
# The simulation knows no time but its own.
cluster-test: build ## Stories of several real nodes with faults, and the simulation.
	FLOTILLA_BIN=$(CURDIR)/$(FLOTILLA) cargo test --locked --package cluster-tests --lib --bins $(STORIES:%=--test %) -- --test-threads=1
	$(SIMULATE)

sim-test: build ## The deterministic simulation alone.
	$(SIMULATE)

client-test: build $(JS_INSTALLED) ## Official and raw clients against real clusters.
	$(CALM) $(CLUSTER) --dir target/client-test --exec npm --prefix $(JS) run --silent client
	$(CALM) $(CLUSTER) --dir target/client-test --exec npm --prefix $(JS) run --silent raw
	$(CALM) $(CLUSTER) --dir target/client-test --exec npm --prefix $(JS) run --silent grpc
	. $(JS)/timers/settings.sh && $(CALM) $(CLUSTER) --dir target/client-test --exec npm --prefix $(JS) run --silent timers
	. $(JS)/msgpack/settings.sh && $(CALM) $(CLUSTER) --dir target/client-test --exec npm --prefix $(JS) run --silent msgpack
	. $(JS)/options/settings.sh && FLOTILLA_BIN=$(CURDIR)/$(FLOTILLA) $(CALM) $(CLUSTER) --dir target/client-test --exec npm --prefix $(JS) run --silent options

differential-test: build $(JS_INSTALLED) ## Raw scripts against a node and the official server: the same answers, byte for byte.
	@for eio3 in false true; do \
		FLOTILLA_ENGINE__ALLOW_EIO3=$$eio3 $(CALM) $(CLUSTER) --dir target/differential-test --exec bash $(JS)/reference/differential.sh || exit 1; \
	done

# A package of its own, with a target directory of its own: the crate under test brings a TLS library along.
.PHONY: rust-client
rust-client:
	@pkg-config --exists openssl || $(call debian,pkg-config libssl-dev)
	cargo build --locked --manifest-path cluster-tests/rust-client/Cargo.toml --target-dir target/rust-client

# Nodes with an application of their own, which the official server has too: see cluster-tests/matrix/README.md.
matrix-test: build rust-client $(JS_INSTALLED) $(PY_INSTALLED) $(CHROMIUM) ## One list of scenarios, by every client library.
	@for parser in default msgpack; do \
		(. $(JS)/matrix/settings.sh && FLOTILLA_SOCKETIO__PARSER=$$parser $(CALM) target/release/cluster --nodes $(NODES) \
			--flotilla target/release/scenarios --client-dir $(CLIENT_DIR) --config deploy/local.toml \
			--dir target/matrix-test --exec bash $(JS)/matrix/run.sh) || exit 1; \
	done

balancer-test: build $(JS_INSTALLED) $(HAPROXY) ## The client suites through a round-robin HAProxy before the nodes, for connections and for requests.
	$(CALM) $(CLUSTER) --dir target/balancer-test --exec npm --prefix $(JS) run --silent balancer

browser-test: build $(JS_INSTALLED) $(CHROMIUM) ## The chat page in Chromium; UPDATE_SCREENSHOT=1 renews docs/chat.png.
	$(CALM) $(CLUSTER) --dir target/browser-test --exec npm --prefix $(JS) run --silent browser

# Nodes of an application of their own: no other one is served beside it. The examples are built as the unit tests
# build them: an optimised build of them would compile the node a third time.
DIALECT = FLOTILLA_APPS='[]' target/release/cluster --nodes $(NODES) --client-dir $(CLIENT_DIR) --config deploy/local.toml

dialects-test: build $(JS_INSTALLED) $(CHROMIUM) ## Applications in each dialect, and the dialects' examples with their pages, on three nodes.
	cargo build --locked --package flotilla --examples
	. $(JS)/api/settings.sh && $(CALM) $(DIALECT) --flotilla target/release/dialects --dir target/dialects-test --exec npm --prefix $(JS) run --silent api
	@for dialect in controllers routes; do \
		$(CALM) $(DIALECT) --flotilla target/release/dialects --dir target/dialects-test --exec npm --prefix $(JS) run --silent $$dialect || exit 1; \
	done
	@for example in api controllers routes mixed; do \
		$(CALM) $(DIALECT) --flotilla target/debug/examples/$$example --dir target/dialects-test --exec npm --prefix $(JS) run --silent $$example-example || exit 1; \
	done

example-%: build $(JS_INSTALLED) ## Runs an example of node/examples on three nodes until Ctrl-C: make example-routes.
	cargo build --locked --package flotilla --example $*
	@exec env $(DIALECT) --flotilla target/debug/examples/$* --port $(PORT) --dir target/example-$*

# Without a sanitizer the stable compiler will do, and there is no unsafe code for one to watch. What is found on
# the way goes to the first folder of inputs, beside the sources: those in the second are chosen by hand.
fuzz-test: ## Each fuzz target, of the codecs and of queries, for FUZZ_SECONDS.
	@command -v cargo-fuzz > /dev/null || cargo install --locked cargo-fuzz
	@targets=(node/fuzz/fuzz_targets/*.rs); \
	for target in "$${targets[@]}"; do \
		name=$$(basename "$$target" .rs); echo "fuzzing $$name for $(FUZZ_SECONDS) s"; \
		found=$(CURDIR)/target/fuzz-corpus/$$name; mkdir -p "$$found"; \
		(cd node && cargo fuzz run --sanitizer none "$$name" "$$found" $(CURDIR)/node/fuzz/corpus/$$name -- -max_total_time=$(FUZZ_SECONDS) -verbosity=0 -print_final_stats=1); \
	done

bench: build ## Measures a cluster of its own, set as the local one: deliveries, latencies, losses, server CPU. BENCH_ARGS="--scenario echo"
	FLOTILLA_RAFT__DURABILITY=os FLOTILLA_NODE__SCHEDULING=batch \
		target/release/bench --start $(NODES) --flotilla $(FLOTILLA) $(BENCH_ARGS)

# A package of its own, as rust-client is.
.PHONY: compare
compare: build ## The same load on socketioxide and the official server, with Redis: COMPARE_ARGS="--scenario join"
	@command -v redis-server > /dev/null || $(call debian,redis-server)
	npm --prefix cluster-tests/compare ci --no-audit --no-fund
	cargo build --locked --release --manifest-path cluster-tests/compare/Cargo.toml --target-dir target/compare
	@python3 cluster-tests/compare/compare.py $(COMPARE_ARGS)

reference: rust-client $(JS_INSTALLED) $(PY_INSTALLED) $(CHROMIUM) ## The client suites against the official server, which shows that they are right.
	npm --prefix $(JS) run --silent reference
