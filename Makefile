# The environment lives in .venv/. Needed: python3 >= 3.11 with venv, and make.
# ARGS goes to the command: make demo ARGS="--system nav2d"   make test ARGS="tests/infra -x"
PYTHON    ?= python3
INSTALLER ?= uv# uv (fetched with a pinned hash) or pip
ARGS      ?=
MINUTES   ?= 60# of fuzzing
BENCH     ?= machine align plan decide latency

VENV  := .venv
BIN   := $(VENV)/bin
PEERS := .venv-peers# other stream processors, for bench-peers alone
MUTMUT := .venv-mutmut# mutation testing, for mutate alone; it sees the packages of $(VENV)
GATE  := planner/gate.py,planner/latch.py,planner/projection.py
LOCK   = $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes \
         --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' --quiet
OURS   = pyproject.toml requirements/build.in

.DEFAULT_GOAL := help
.PHONY: help demo test check fuzz coverage-gate mutate bench bench-peers bench-learning bench-partial bench-compute bench-transfer bench-encoders bench-inverse bundles lock clean

help: ## say what there is
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

demo: $(VENV)/run.stamp ## set up what is needed, run the whole loop, write a report
	@$(BIN)/rehearse demo $(ARGS)

test: $(VENV)/dev.stamp ## run all tests
	@$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(VENV)/dev.stamp ## lint, format, types, and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

fuzz: $(VENV)/dev.stamp ## every decoder on damaged input, for MINUTES=60 in all
	@$(BIN)/python -m tests.fuzz --minutes $(MINUTES) $(ARGS)

coverage-gate: $(VENV)/dev.stamp ## every branch of the gate is taken by its own tests, or it fails
	@$(BIN)/coverage run --rcfile=/dev/null --branch --include='$(GATE)' \
	  -m pytest -q -n 0 tests/planner/test_gate.py tests/planner/test_gate_properties.py tests/planner/test_latch.py tests/planner/test_projection.py
	@$(BIN)/coverage report --rcfile=/dev/null --show-missing --fail-under=100

mutate: $(VENV)/dev.stamp $(MUTMUT)/stamp ## break the gate in every small way; who survives is in tests/planner/mutants.md (ARGS="planner.gate*")
	@$(MUTMUT)/bin/mutmut run --max-children 2 $(ARGS) && $(MUTMUT)/bin/mutmut results

bench: $(VENV)/run.stamp ## the figures of this machine
	@for name in $(BENCH); do $(BIN)/rehearse bench $$name $(ARGS) || exit $$?; done

bench-peers: $(VENV)/run.stamp $(PEERS)/stamp ## other stream processors beside the aligner, on its work
	@$(BIN)/python -m tests.bench.bench_peers --python $(PEERS)/bin/python $(ARGS)

bench-learning: $(VENV)/dev.stamp ## learning from acting, beside published learners (ARGS="--task pendulum --seeds 0"; hours)
	@$(BIN)/python -m tests.bench.bench_learning $(ARGS)

bench-compute: $(VENV)/dev.stamp ## an update by device, precision and compilation (ARGS="--device cuda --compile")
	@$(BIN)/python -m tests.bench.bench_compute $(ARGS)

bench-partial: $(VENV)/dev.stamp ## beliefs of hidden velocities, beside a Kalman filter (ARGS="--seeds 0 --report page.html")
	@$(BIN)/python -m tests.bench.bench_partial $(ARGS)

bench-transfer: $(VENV)/dev.stamp ## from simulator to a changed plant: before, randomised, adapted (ARGS="--system nav2d")
	@$(BIN)/python -m tests.bench.bench_transfer $(ARGS)

bench-encoders: $(VENV)/dev.stamp ## encoders, each beside what it has to be better than (ARGS="--only crowd --seeds 0")
	@$(BIN)/python -m tests.bench.bench_encoders $(ARGS)

bench-inverse: $(VENV)/dev.stamp ## rewards of a pendulum learned from demonstrations, beside cloning (ARGS="--seeds 0 --shown 4")
	@$(BIN)/python -m tests.bench.bench_inverse $(ARGS)

bundles: $(VENV)/dev.stamp ## train the shipped models again (TRACE=load.parquet OUT=folder; half an hour)
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh models/exploration/bundles.sh $(TRACE) $(OUT)

lock: $(VENV)/dev.stamp ## pin the newest versions that fit (LOCK_ARGS=--upgrade) with their hashes
	$(LOCK) $(OURS) --extra import --extra train --extra control --extra cloud --extra mlflow --extra dev $(LOCK_ARGS) -o requirements/dev.txt
	$(LOCK) $(OURS) -c requirements/dev.txt $(LOCK_ARGS) -o requirements/run.txt
	$(LOCK) requirements/peers.in $(LOCK_ARGS) -o requirements/peers.txt
	$(LOCK) requirements/mutmut.in $(LOCK_ARGS) -o requirements/mutmut.txt

clean: ## remove the environment, caches, and what runs left in .rehearse/
	@if [ -x $(BIN)/rehearse ]; then $(BIN)/rehearse broker stop >/dev/null 2>&1 || true; fi
	rm -rf $(VENV) $(PEERS) $(MUTMUT) mutants tests/bench/kafka-streams/target .rehearse build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache \
	       .import_linter_cache .hypothesis .coverage htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A dev environment is a superset of the run environment: it satisfies both stamps.
$(VENV)/run.stamp: requirements/run.txt pyproject.toml | $(VENV)/python.stamp
	@sh requirements/install.sh $(BIN) $(INSTALLER) requirements/run.txt
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt pyproject.toml | $(VENV)/python.stamp
	@sh requirements/install.sh $(BIN) $(INSTALLER) requirements/dev.txt
	@touch $(VENV)/run.stamp $@

$(PEERS)/stamp: requirements/peers.txt | $(VENV)/run.stamp
	@echo "setup: installing other stream processors into $(PEERS) (once)"
	@$(PYTHON) -m venv --clear $(PEERS)
	@if [ -x $(BIN)/uv ]; then VIRTUAL_ENV=$(PEERS) $(BIN)/uv pip install --quiet --require-hashes -r $<; \
	  else $(PEERS)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $<; fi
	@touch $@

$(MUTMUT)/stamp: requirements/mutmut.txt | $(VENV)/dev.stamp
	@echo "setup: installing mutmut into $(MUTMUT) (once)"
	@$(PYTHON) -m venv --clear $(MUTMUT)
	@if [ -x $(BIN)/uv ]; then VIRTUAL_ENV=$(MUTMUT) $(BIN)/uv pip install --quiet --require-hashes -r $<; \
	  else $(MUTMUT)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $<; fi
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	  >"$$($(MUTMUT)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/ours.pth"
	@touch $@

$(VENV)/python.stamp:
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit( \
	  f"Python 3.11 or later is needed, {sys.executable} is {v.major}.{v.minor}: make PYTHON=/path/to/python3")'
	@echo "setup: making the environment $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV) || { \
	  echo "setup: python3 lacks venv; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@touch $@
