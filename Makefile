# One word for each habit.  `make demo` and `make test` need nothing but python3 >= 3.11 with venv, make and git.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SEEDS ?= 300
# Tests share the machine with whatever else it does: a failure is tried twice more, and said.
AGAIN := --reruns 2 --rerun-show-tracebacks -rR --durations 12
# They mostly wait: two files at once take little more than half of the time; each has servers of its own.
TWO := -n 2 --dist loadfile --no-loadscope-reorder
# The batch systems that start in seconds are everybody's.
QUICK_GRIDS := tests/grids/test_slurm.py tests/grids/test_sge.py
SECONDS ?= 60
export PYTHONDONTWRITEBYTECODE := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test servers test-grids check format lint types unit sim chaos proof fuzz bench bless protos sbom audit clean

help: ## list what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## make the environment in .venv (every other word does it when needed)

$(VENV)/.ready: setup.cfg pyproject.toml
	@$(call install,dev$(COMMA)examples)
	@touch $(VENV)/.demo $@

# The demonstration needs nothing of what development does.
$(VENV)/.demo: setup.cfg pyproject.toml
	@$(call install,examples)
	@touch $@

COMMA := ,
define install
echo "setting up $(VENV) (once; a minute or two)"; \
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "IceProd P2P needs Python 3.11 or newer; found: $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }; \
test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed: install your system's python3-venv package and try again"; exit 2; }; \
$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$(1)]'
endef

demo: $(VENV)/.demo ## a real production on three sites of this machine, from submission to verified checksums
	@$(BIN)/iceprod demo $(DEMO_OPTIONS)

test: servers check ## everything the README promises, with real processes and servers (installs those when root, Debian)
	PYTHONHASHSEED=0 $(BIN)/python -m pytest tests/simulation --seeds $(SEEDS) -n $$(nproc) $(AGAIN)
	$(BIN)/python -m pytest tests/integration tests/people --ignore tests/integration/chaos $(TWO) $(AGAIN)
	$(BIN)/python -m pytest tests/security tests/transfers tests/acceptance $(AGAIN)
	$(BIN)/python -m pytest $(QUICK_GRIDS) $(TWO) $(AGAIN)

servers:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then tests/install.sh && tests/transfers/install.sh && tests/grids/install.sh slurm sge; fi

test-grids: $(VENV)/.ready ## every grid plugin on real batch systems of its own (installs them when root, Debian)
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then tests/grids/install.sh; fi
	$(BIN)/python -m pytest tests/grids $(GRIDS_LEFT_OUT) $(TWO) $(AGAIN)

check: $(VENV)/.ready lint types unit ## the fast loop: format, lint, types, layers, unit and property tests

format: $(VENV)/.ready ## put every file into the house's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --config setup.cfg

types: $(VENV)/.ready
	$(BIN)/mypy

unit: $(VENV)/.ready
	$(BIN)/python -m pytest tests/unit tests/property tests/tidy -m 'not slow' -n $$(nproc) $(if $(CI),$(AGAIN))

sim: $(VENV)/.ready ## replay fault histories: make sim SEEDS=10000, or SEED=17 for one with its story
	PYTHONHASHSEED=0 $(BIN)/python -m tests.simulation --seeds $(SEEDS) --jobs $$(nproc) $(if $(SEED),--seed $(SEED))

fuzz: $(VENV)/.ready ## throw random input at what reads untrusted text: make fuzz SECONDS=7200
	$(BIN)/python -m fuzz --seconds $(SECONDS)

chaos: $(VENV)/.ready ## real processes, killed, paused and cut off for minutes: make chaos CHAOS_SECONDS=600 CHAOS_MEMBERS=5
	CHAOS_SECONDS=$(or $(CHAOS_SECONDS),300) CHAOS_ROUNDS=$(or $(CHAOS_ROUNDS),10) $(BIN)/python -m pytest -s --timeout 7200 tests/integration/chaos

proof: $(VENV)/.ready ## what PySyncObj as shipped loses and this does not: make proof ROUNDS=5
	$(BIN)/python -m tests.integration.chaos.proof --rounds $(or $(ROUNDS),5)

bench: $(VENV)/.ready ## measure; the tables go to docs/performance.md
	$(BIN)/python -m benchmarks

bless: $(VENV)/.ready ## write what the ledger's scenarios give now into tests/golden/scenarios; then read the diff
	ICEPROD_BLESS=1 $(BIN)/python -m pytest -q tests/unit/ledger/test_scenarios.py

protos: $(VENV)/.ready ## regenerate iceprod_p2p/wire/pb from protos/
	$(BIN)/python protos/generate.py

sbom: $(VENV)/.ready ## the bill of materials of a release, as CycloneDX: artefacts/sbom.json
	@mkdir -p artefacts && $(BIN)/python -m release.sbom artefacts/sbom.json

audit: $(VENV)/.ready ## look for known vulnerabilities in what is installed (offline: against release/advisories.json)
	@$(BIN)/python -m release.audit

clean: ## remove the environment and everything made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache artefacts demo-data
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
