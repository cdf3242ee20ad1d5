# Everything runs in an environment of its own: `make demo` and `make test` need Python 3.11 and make, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(shell date +%Y%m%d-%H%M%S)
RUN ?= runs/demo-$(STAMP)
ROUNDS ?= 1
BASE ?= 3.10 3.11 3.12 3.13
TRAIN ?= 3.12
LEROBOT ?= 3.12 3.11
export OMP_NUM_THREADS ?= 1
# What is installed is compiled when it is imported, a third of it ever, in place of all of it at once; so that is kept.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test campaign lint dist pythons lerobot so101 bench docs clean

demo: $(VENV)/.installed-train ## the whole loop: train, export, run on a robot unlike the simulator, learn from its logs, run again
	$(BIN)/gipo-study loop --rounds $(ROUNDS) --out $(RUN)

test: $(VENV)/.installed-dev ## every test, with a smaller sample of each long campaign
	$(BIN)/python -m pytest -m "not campaign" -n 3 --dist worksteal # one more than two cores: many tests wait

campaign: $(VENV)/.installed-dev ## the full counts: kills, tasks, fuzzing
	$(BIN)/python -m pytest -m campaign --timeout 3600

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

dist: $(VENV)/.installed-dev ## sdist and wheel in dist/, checked; the wheel runs in an environment of its own
	rm -rf dist
	$(BIN)/python -m build --quiet
	$(BIN)/twine check --strict dist/*
	$(BIN)/python -m tests.dist dist

pythons: $(VENV)/.installed-dev ## base install and its tests on every Python, the training extra on 3.12 (torch may be 3 GB: TRAIN= leaves it out)
	$(BIN)/python -m tests.pythons build/pythons --base $(BASE) --train $(TRAIN)

lerobot: ## the real LeRobot (0.6.1 on Python 3.12, 0.4.4 on 3.11) beside this package, and the tests that need it
	$(PYTHON) -m tests.lerobot.environments .venv-lerobot --python $(LEROBOT)

so101: ## LeRobot's own driver moves a simulated SO-101 over emulated servos, and makes a film of it (Python 3.12)
	$(PYTHON) -m tests.lerobot.environments .venv-lerobot --python 3.12 --no-tests
	PYTHONPATH=. MUJOCO_GL=$${MUJOCO_GL-egl} .venv-lerobot/3.12/bin/python -m examples.so101.show runs/so101

bench: $(VENV)/.installed-dev ## one JSON line per benchmark, kept in benchmarks.jsonl
	$(BIN)/python -m benchmarks

docs: $(VENV)/.installed-docs ## the site, into site/: strict, and from local files alone
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) build dist site *.egg-info

# `train` is what the demo needs; `dev` adds the tests' tools and every extra, 3 GB of it LIBERO's assets.
$(VENV)/.installed-%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[$*]'
	touch $@
