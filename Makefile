# `make help` lists the targets. `make test` is exactly what continuous integration runs (.ci/run).

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

CARGO ?= cargo
# Where `make run` keeps its data, and what else it passes to `holdfast serve`.
DATA_DIR ?= ./data
SERVE_FLAGS ?=
# For how long `make crash` runs. CRASH_SEED repeats a schedule.
CRASH_SECS ?= 3600

.PHONY: help
help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

.PHONY: run
run: build ## Build and serve for development: anonymous clients, private Postgres, data in ./data
	@scripts/ensure-postgres >/dev/null
	@exec target/release/holdfast serve --dev --data-dir "$(DATA_DIR)" $(SERVE_FLAGS)

.PHONY: build
build: tools ## Build the release binary, target/release/holdfast
	@$(CARGO) build --release --locked

.PHONY: test
test: check tools ## Everything CI runs: check, all tests against a real server and a real Postgres, schemathesis
	@scripts/ensure-mqtt-clients
	@scripts/ensure-client-generator
	@scripts/ensure-postgres >/dev/null
	$(CARGO) test --locked
	@SCHEMATHESIS_EXAMPLES=5 scripts/schemathesis "$${CARGO_TARGET_DIR:-target}/debug/holdfast"

.PHONY: schemathesis
schemathesis: tools ## Hold the service against its own specification (SCHEMATHESIS_EXAMPLES for each operation)
	@scripts/ensure-postgres >/dev/null
	$(CARGO) build --locked
	@scripts/schemathesis "$${CARGO_TARGET_DIR:-target}/debug/holdfast"

.PHONY: check
check: tools ## The static part: formatting, lints, documentation
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items

.PHONY: bench
bench: tools ## Run the benchmarks
	$(CARGO) bench --locked

# Not --locked: the crates that rumqttd's lock file names no longer compile.
.PHONY: peers
peers: tools ## Build brokers from the crate registry for the benchmarks to be measured beside
	$(CARGO) install --root target/peers --target-dir target/peers rumqttd --version 0.20.0
	@command -v protoc >/dev/null && command -v cmake >/dev/null || \
		{ echo "rmqttd needs protoc and cmake to build: apt-get install protobuf-compiler cmake"; exit 1; }
	$(CARGO) install --root target/peers --target-dir target/peers rmqttd --version 0.24.0

.PHONY: crash
crash: tools ## Kill the service at random moments for CRASH_SECS, and check what it promised (docs/crash-harness.md)
	@scripts/ensure-postgres >/dev/null
	CRASH_SECS=$(CRASH_SECS) $(CARGO) test --locked --release --test it \
		crash::nothing_acknowledged_is_lost_for_as_long_as_one_likes -- --ignored --nocapture

.PHONY: openapi
openapi: tools ## Write the OpenAPI document again, after a change of the API
	$(CARGO) run --locked --quiet -- openapi > target/openapi.json
	mv target/openapi.json openapi/holdfast.json

.PHONY: tools
tools:
	@scripts/ensure-build-tools
