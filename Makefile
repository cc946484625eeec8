# The two commands of the README: each sets everything up on a fresh machine.
PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test test-slurm lock clean

demo: $(READY)
	$(BIN)/python -m sweeps run demo -j 2
	$(BIN)/python -m analysis.report runs/demo -o runs/demo/report

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy flowzoo sweeps analysis
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist worksteal --durations=15 # for two cores: some tests wait

# On a real SLURM of one node: needs root, and apt where SLURM is not installed.
test-slurm: $(READY)
	FLOWZOO_SLURM=required OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slurm --durations=5

$(READY): requirements.lock pyproject.toml setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation \
		--config-settings editable_mode=compat -e . # found by its path, also from the folder above a clone named flowzoo
	touch $@

# After an edit of the dependencies in pyproject.toml.
lock: $(READY)
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --all-extras \
		pyproject.toml -o requirements.lock

clean:
	rm -rf .venv runs
