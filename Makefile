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
peers: ## the tools that `make bench` measures beside the lens, in a virtual environment of their own: two gigabytes
	$(PYTHON) -m venv build/peers
	build/peers/bin/python -m pip install -c constraints.txt -e ".[hf]" wandb trainscope==1.8.1
bench: ## what the lens costs, and other tools if `make peers` was run: ratios of interleaved steps, as a table and as JSON
	$(or $(wildcard build/peers/bin/python),$(PYTHON)) -m tests.bench_overhead
bench-gpu: ## the same on an accelerator in bfloat16, eager and compiled, with launches a step: at most eight minutes
	$(PYTHON) -m tests.bench_accelerator
bench-judge: ## what it takes to read, judge and report large recordings: seconds, memory, size of the PDF
	$(PYTHON) -m tests.bench_judge
fuzz: ## damage 5,000 recordings and read them: a table of what became of each; five minutes
	$(PYTHON) -m tests.fuzz_recordings --mutations 5000
kills: ## kill 100 runs while they are written and compacted: what was lost of each; three minutes
	$(PYTHON) -m tests.kill_recordings --kills 100
theory: ## how well the theory predicts whole networks: a table, and as JSON; an hour the first time
	$(PYTHON) -m tests.table_theory
norms-environment: ## the packages of the table of norms, in a virtual environment of their own: three gigabytes
	$(PYTHON) -m venv build/norms
	build/norms/bin/python -m pip install -c constraints.txt -e ".[hf]"
	build/norms/bin/python -m pip install --no-deps -r tests/norms_table/requirements.txt
norms: ## which norms of other packages the lens reads rightly: a table, and as JSON; an hour the first time
	build/norms/bin/python -m tests.table_norms
trackers: ## the tests of trackers with wandb and MLflow, in a virtual environment of their own: two and a half gigabytes
	$(PYTHON) -m venv build/trackers
	build/trackers/bin/python -m pip install -c constraints.txt -e ".[test,trackers]"
	build/trackers/bin/python -m pytest tests/integrations/test_trackers.py
calibration: ## which faults the findings name, and whether healthy runs stay quiet: a table, and as JSON; an hour the first time
	$(PYTHON) -m tests.calibration
	$(PYTHON) -m tests.calibration --set unseen
published: ## rebuild the published comparison
	gradlens compare pre-ln post-ln --out reports/build/pre-ln-vs-post-ln
reproduced: ## rebuild the published reproductions: two to three hours on two cores
	gradlens reproduce ba2016 --budget small --out reports/build/ba2016
	gradlens reproduce xu2019 --budget medium --out reports/build/xu2019
	gradlens reproduce xiong2020 --budget medium --out reports/build/xiong2020
package: ## wheel and sdist in build/dist, made and checked in a virtual environment of their own
	$(PYTHON) -m venv build/package
	build/package/bin/python -m pip install build twine
	build/package/bin/python -m build --outdir build/dist
	build/package/bin/python -m twine check --strict build/dist/*
docs: ## build the documentation as pages in docs/build, its examples run, its links checked; some minutes
	$(PYTHON) -m pip install -c constraints.txt -e ".[docs]"
	$(PYTHON) -m sphinx -W --keep-going -b html docs docs/build
pictures: ## make README's pictures from real commands
	$(PYTHON) docs/pictures.py
.PHONY: $(shell sed -n 's/^\([a-z-]*\):.*## .*/\1/p' $(MAKEFILE_LIST))
