# Everything is installed into $(VENV); `make help` lists the targets.
PYTHON ?= python3
VENV ?= .venv
OUT ?= runs/quickstart
BIN := $(VENV)/bin
# Two files at a time; the tests of one file run in order and share fixtures.
TEST := $(BIN)/pytest --numprocesses 2 --dist loadfile
HERE := not faults and not wheel and not recipes and not cluster

.PHONY: help quickstart format lint test test-slow coverage test-faults test-wheel test-recipes test-cluster soak audit bench bench-gpu reproduction reproduction-medium clean

help:
	@echo "make quickstart [OUT=runs/quickstart]  install, run the main job on bundled digits, print the report's path"
	@echo "make test                              format, lint, types, imports, all tests except those of the next five lines: a quarter of an hour; CI runs all"
	@echo "make test-slow                         whole sweeps, browsers, simulations of intervals: a quarter of an hour"
	@echo "make test-faults                       killed processes, lost servers, broken disks and clocks: ten minutes"
	@echo "make test-wheel                        the quickstart from an installed wheel, in an empty environment: five minutes"
	@echo "make test-recipes                      docs/recipes.md with Lightning, timm, transformers, Flower, in an environment of its own: five minutes"
	@echo "make test-cluster                      ray up on three machines made of namespaces: Linux, root, SSH's server, rsync"
	@echo "make coverage                          tests of the first two lines, and which lines of code they run"
	@echo "make soak                              2 000 pairs while something is killed every few seconds: half an hour"
	@echo "make audit                             known vulnerabilities of everything that is installed; needs pypi.org"
	@echo "make bench                             every benchmark that needs no GPU, and docs/performance.md: an hour and a half"
	@echo "make bench-gpu                         training (also with Ray Tune's fractions of a GPU) and paths on an idle GPU, and docs/performance.md: eight minutes"
	@echo "make reproduction                      small twins of the presets and REPAIR's tables (needs CIFAR-10, MNIST, a text corpus.txt), docs/reproduction.md and docs/repair.md"
	@echo "make reproduction-medium               medium twins, by docs/protocols.md: about two hours on two cores; docs/reproduction.md"
	@echo "make format                            rewrite the code in the house format"
	@echo "make clean                             remove the virtual environment and caches; runs/ stays"

$(VENV)/run.stamp: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "lmc-tune needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name one with: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

quickstart: $(VENV)/run.stamp
	@$(BIN)/lmc-tune sweep quickstart --out $(OUT)

format: $(VENV)/dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(TEST) -m "not slow and $(HERE)"

test-slow: $(VENV)/dev.stamp
	$(TEST) -m "slow and $(HERE)"

coverage: $(VENV)/dev.stamp
	$(TEST) -m "$(HERE)" --cov --cov-report=term

test-faults: $(VENV)/dev.stamp
	$(TEST) -m faults

test-wheel: $(VENV)/dev.stamp
	$(BIN)/pytest -m wheel

# Flower holds typer, click and others to versions that users of lmc-tune need not have, and other tests warn of.
$(VENV)/recipes.stamp: pyproject.toml
	$(PYTHON) -m venv $(VENV)/recipes
	$(VENV)/recipes/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,recipes]'
	@touch $@

test-recipes: $(VENV)/recipes.stamp
	$(VENV)/recipes/bin/pytest -m recipes tests/test_recipes.py tests/averaging/test_causal.py

test-cluster: $(VENV)/dev.stamp
	$(BIN)/pytest -m cluster

soak: $(VENV)/dev.stamp
	$(BIN)/python -m tests.faults.soak

# Strict: a package that the service does not know, or a service that does not answer, must not count as clean.
audit: $(VENV)/dev.stamp
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check 'pip-audit>=2.10,<3'
	$(BIN)/python -m pip list --disable-pip-version-check --format=freeze --exclude-editable | sed 's/+.*//' > $(VENV)/audited.txt
	$(VENV)/audit/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off --requirement $(VENV)/audited.txt

bench: $(VENV)/run.stamp
	for name in startup sweep throughput paths layers scaling tracking reports memory page; do \
		$(BIN)/python -m benchmarks.$$name || exit 1; \
	done

bench-gpu: $(VENV)/run.stamp
	$(BIN)/python -m benchmarks.gpu

# The twins of one size, and the page.
define reproduced
	for name in $(basename $(notdir $(wildcard search_spaces/*_$(1).yaml))); do \
		$(BIN)/lmc-tune sweep $$name --out runs/$$name && \
		$(BIN)/python -m lmc_tune.analysis.reproduction --take runs/$$name || exit 1; \
	done
endef

reproduction: $(VENV)/run.stamp
	$(call reproduced,small)
	$(BIN)/python -m benchmarks.repair

reproduction-medium: $(VENV)/run.stamp
	$(call reproduced,medium)

clean:
	rm -rf $(VENV) .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
