PYTHON ?= python

help: ## show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12
install: ## install the package with everything the tests need
	$(PYTHON) -m pip install -c constraints.txt -e ".[test]"
native: ## compile the native core in place, as installing does; without a C compiler torch measures
	$(PYTHON) gradlens/native/building.py
test: ## run the tests
	$(PYTHON) -m pytest -n auto --dist worksteal
lint: ## types and style
	$(PYTHON) -m ruff check gradlens analyses tests docs
	$(PYTHON) -m ruff format --check gradlens analyses tests docs
	$(PYTHON) -m mypy
bench: ## what the lens costs: ratios of interleaved steps, as a table and as JSON
	$(PYTHON) tests/bench_overhead.py
fuzz: ## damage 5,000 recordings and read them: a table of what became of each; five minutes
	$(PYTHON) -m tests.fuzz_recordings --mutations 5000
theory: ## how well the theory predicts whole networks: a table, and as JSON; an hour the first time
	$(PYTHON) -m tests.table_theory
norms-environment: ## the packages of the table of norms, in a virtual environment of their own: three gigabytes
	$(PYTHON) -m venv build/norms
	build/norms/bin/python -m pip install -c constraints.txt -e ".[hf]"
	build/norms/bin/python -m pip install --no-deps -r tests/norms_table/requirements.txt
norms: ## which norms of other packages the lens reads rightly: a table, and as JSON; an hour the first time
	build/norms/bin/python -m tests.table_norms
calibration: ## which faults the findings name, and whether healthy runs stay quiet: a table, and as JSON; an hour the first time
	$(PYTHON) -m tests.calibration
published: ## rebuild the published comparison
	gradlens compare pre-ln post-ln --out reports/build/pre-ln-vs-post-ln
reproduced: ## rebuild the published reproductions: two to three hours on two cores
	gradlens reproduce xu2019 --budget medium --out reports/build/xu2019
	gradlens reproduce xiong2020 --budget medium --out reports/build/xiong2020
.PHONY: help install native test lint bench fuzz theory norms norms-environment published reproduced
