# Two commands: `make demo` and `make test`. Each does its own set-up in this checkout.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8000
ONCE ?=

.PHONY: demo test lint rust python fuzz generate lock bench clean

# Nothing is installed that no lock names with its hashes, and nothing is built from source by pip:
# the packages that a build needs would come from no lock.
PIP_LOCKED := $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all:

demo:
	$(PYTHON) examples/demo/run.py --port $(PORT) $(if $(ONCE),--once)

test: lint rust python

lint: $(VENV)/ready
	cargo fmt --all --check
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	cargo clippy --locked --all-targets -- -D warnings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python lint/style.py
	$(BIN)/python lint/cycles.py
	$(BIN)/python lint/shared_state.py

rust:
	XDG_CACHE_HOME=$(CURDIR)/target/cache cargo test --locked
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

# The tests run against a wheel, installed afresh as users do. Its binary is built in the profile of the Rust tests, which
# have compiled most of it, and checks debug assertions. An optimised build would take more than half as long as the tests.
python: $(VENV)/ready
	rm -rf dist
	$(BIN)/maturin build --locked --out dist
	$(BIN)/pip install --quiet --disable-pip-version-check --force-reinstall --no-deps --no-index dist/*.whl
	$(BIN)/pytest --numprocesses 3 --dist loadfile

$(VENV)/ready: tests/requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP_LOCKED) -r tests/requirements.txt
	touch $@

# Feeds the parsers for a minute in all; fuzz/run SECONDS TARGET... does one for longer.
FUZZ_SECONDS ?= 60
fuzz: $(VENV)/ready
	PYTHON=$(CURDIR)/$(BIN)/python fuzz/run $(FUZZ_SECONDS)

# Writes what is derived from the tables of options and metrics.
generate:
	LITPLEX_GENERATE=1 cargo test --locked -q -p litplex-config -p litplex-metrics

# Locks what the inputs (`*.in`) ask for, to the last package that another needs, in its newest version.
LOCK_VENV := target/lock-venv
lock:
	$(PYTHON) -m venv --clear $(LOCK_VENV)
	$(LOCK_VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/uv.txt
	$(PYTHON) requirements/lock.py $(LOCK_VENV)/bin/uv

# litplex (Python and Rust models), LitServe, mosec and the floor side by side; W=w4,w5 picks
# other workloads.
W ?= w1,w2,w3,startup
bench:
	bench/setup litplex litplex-rust litserve mosec floor
	bench/ratios --systems litplex,litplex-rust,litserve,mosec,floor $(W)

clean:
	rm -rf target $(VENV) .demo dist
