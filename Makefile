# Each target does all the set-up it needs; a second set-up returns at once.
PY := .venv/bin/python
DATA ?=

.PHONY: demo test check setup lint format bench-data bench-train bench-multitask bench-feedback bench-off-policy bench-generate bench-decoding bench-quality bench-serve bench-daily bench-gpu

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

bench-train: setup  ## training speed, embedding step, table memory; DATA=folder with ratings.parquet, PEERS and PEERS_VENV to compare
	$(PY) -m benchmarks.train $(if $(DATA),--data $(DATA)) $(if $(PEERS),--peers $(PEERS)) $(if $(PEERS_VENV),--peers-venv $(PEERS_VENV))
	$(PY) -m benchmarks.embeddings
	$(PY) -m benchmarks.table_memory

bench-multitask: setup  ## ways to share between the ranker's tasks, on the same split and seeds; DATA=folder, CONFIG=name
	$(PY) -m benchmarks.multitask --data $(DATA) --config $(CONFIG)

bench-feedback: setup  ## denoising (DATA=folder of ml-100k), debiasing (COAT=folder of coat), A/B interference; hours
	$(PY) -m benchmarks.denoise --data $(DATA)
	$(PY) -m benchmarks.denoise_world
	$(PY) -m benchmarks.debias --data $(COAT)
	$(PY) -m benchmarks.interference

bench-off-policy: setup  ## do off-policy estimates hold the truth (DATA=folder of obd_men), and what are trained models truly worth
	$(PY) -m benchmarks.off_policy $(if $(DATA),--data $(DATA))
	$(PY) -m benchmarks.policy_world --seeds 1 2 3

bench-generate: setup  ## a generator of semantic ids beside the retriever, and policies after both; DATA=folder, CONFIG=name; an hour
	$(PY) -m benchmarks.generate --data $(DATA) --config $(CONFIG)
	$(PY) -m benchmarks.generate --data $(DATA) --config $(CONFIG) --parent retriever

bench-decoding: setup  ## writing items as semantic ids in ONNX Runtime, beside exact top-k
	$(PY) -m benchmarks.decoding

bench-quality: setup  ## what each entry of benchmarks/quality reaches beside what is expected; DATA=folder of the data sets, ONLY=names, SEEDS=1
	$(PY) -m benchmarks.quality --data $(DATA) $(if $(ONLY),--only $(ONLY)) $(if $(SEEDS),--seeds $(SEEDS))

bench-serve:  ## the endpoint: speed, a soak with swaps of the model, capacity, hostile requests, kill -9, Redis away; RUN=runs/demo for smaller tables; an hour
	@RECSYS_EXTRAS=1 bash scripts/setup.sh
	$(PY) -m benchmarks.serve
	$(PY) -m benchmarks.hostile --requests 105000 --bundle benchmarks/out/data/serve-100000/bundle
	$(PY) -m benchmarks.crash --posts 20000
	$(PY) -m benchmarks.redis_away
	$(if $(RUN),$(PY) -m benchmarks.tables $(RUN))
	$(PY) -m benchmarks.rerank

bench-daily:  ## the daily run: faults in every step, from data to live, closed loop, forgetting, error memory (ML1M=folder); hours
	@RECSYS_EXTRAS=1 bash scripts/setup.sh
	$(PY) -m benchmarks.faults
	$(PY) -m benchmarks.data_to_live
	$(PY) -m benchmarks.closed_loop --days 14 --seeds 1 2 --policies frozen full
	$(PY) -m benchmarks.forget --seeds 20
	$(PY) -m benchmarks.error_memory $(if $(ML1M),--ml-1m $(ML1M))

bench-gpu: setup  ## training on a GPU beside its copy bandwidth and matrix products; exit code 2 without one
	$(PY) -m benchmarks.gpu

setup:
	@bash scripts/setup.sh
