# Each target does all the set-up it needs; a second set-up returns at once.
PY := .venv/bin/python
DATA ?=

.PHONY: demo test check setup lint format bench-data

demo: setup  ## raw logs to recommendations from the live endpoint; DATA=folder for your own logs
	.venv/bin/recsys demo $(if $(DATA),--data $(DATA))

test: setup  ## the test suite
	$(PY) -m pytest

check: setup lint  ## format, lint, types, import direction, tests
	$(PY) -m pytest

lint: setup
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

format: setup
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

bench-data:  ## data path and loader against DuckDB, Polars and a torch DataLoader; needs some 10 GB of disk
	@RECSYS_EXTRAS=1 bash scripts/setup.sh
	$(PY) -m benchmarks.etl
	$(PY) -m benchmarks.append
	$(PY) -m benchmarks.loader

setup:
	@bash scripts/setup.sh
