# Every command brings what it needs. `make help` lists them.
PYTHON := .venv/bin/python
RUN := $(PYTHON) -m

.PHONY: help demo demo-cluster test test-fast cluster cluster-down images update update-lock verify \
  format setup bench-operator bench-serving bench-streaming bench-batch torture-batch \
  torture-batch-short torture-batch-cluster

help: ## This list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

demo: ## Predictions on this machine, without a cluster
	@tools/setup.sh demo
	@$(RUN) tools.demo.here

demo-cluster: cluster ## The same on a cluster: images, Helm chart, kubectl apply
	@$(RUN) tools.demo.cluster

test: setup ## Everything this machine can run
	@$(RUN) tools.test

test-fast: setup ## Unit and transition tests, under a minute
	@$(RUN) pytest -q -n 2 --dist loadfile tests/unit tests/transitions tests/golden

cluster: setup ## A Kubernetes: kind with Docker, $KUBECONFIG, or one built here
	@$(RUN) tools.cluster up

cluster-down: setup ## Take it away, leaving nothing
	@$(RUN) tools.cluster down

update: setup ## Everything generated
	@$(RUN) tools.generated update
	@FOURWAYS_UPDATE_GOLDEN=1 $(RUN) pytest -q tests/golden

update-lock: setup ## Newer dependencies
	@$(RUN) tools.generated lock

verify: setup ## Format, lint, types, layers, and that everything generated is up to date
	@$(PYTHON) -m ruff format --check --quiet .
	@$(PYTHON) -m ruff check --quiet .
	@$(PYTHON) -m mypy
	@.venv/bin/lint-imports
	@$(RUN) tools.generated verify

format: setup ## Format and fix what can be fixed
	@$(PYTHON) -m ruff format --quiet .
	@$(PYTHON) -m ruff check --fix --quiet .

bench-operator: setup ## kubectl apply -> CronJob exists, on the cluster
	@$(RUN) benchmarks.operator_latency

bench-serving: setup ## Our model server beside its peers, on this machine
	@$(RUN) benchmarks.serving

bench-streaming: setup ## One stream worker beside the bare stages: Kafka to PostgreSQL
	@$(RUN) benchmarks.streaming

bench-batch: setup ## A batch worker beside its peers: Parquet to PostgreSQL and to Parquet
	@$(RUN) benchmarks.batch

torture-batch: setup ## Batch workers killed, told to end, their store restarted: 25 times each
	@$(RUN) tools.torture.batch

torture-batch-short: setup ## The same, a few of each
	@$(RUN) tools.torture.batch --short

torture-batch-cluster: cluster ## The same on the cluster: containers killed, pods deleted
	@$(RUN) tools.torture.cluster

setup:
	@tools/setup.sh dev
