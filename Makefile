# Every command installs what it needs. `make help` lists the commands.
PYTHON := .venv/bin/python
RUN := $(PYTHON) -m

# Tests start hundreds of Python processes. With byte code kept, each starts in a third of the time.
test test-fast test-long verify: export PYTHONDONTWRITEBYTECODE =
test test-fast test-long verify: export PYTHONPYCACHEPREFIX = $(CURDIR)/.pycache

.PHONY: help demo demo-cluster test test-fast test-long cluster cluster-down images update update-lock verify \
  format setup bench-models bench-operator bench-serving bench-start bench-wake bench-overload bench-streaming bench-batch torture-batch \
  torture-batch-short torture-batch-cluster torture-device torture-device-short torture-kills \
  torture-requests torture-stream torture-security

help: ## List the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

demo: ## Run the examples on this machine, without a cluster
	@tools/setup.sh demo
	@$(RUN) tools.demo.here

demo-cluster: cluster ## Run the examples on a cluster: images, Helm chart, kubectl apply
	@$(RUN) tools.demo.cluster

test: setup ## Run all tests that this machine can run
	@$(RUN) tools.test

test-fast: setup ## Run unit and transition tests, in less than a minute
	@$(RUN) tools.test fast

test-long: setup ## Run the tests that repeat others at length, which `make test` leaves out
	@$(RUN) tools.test long

cluster: setup ## Provide a cluster: kind with Docker, $KUBECONFIG, or one built locally
	@$(RUN) tools.cluster up

cluster-down: setup ## Remove the cluster and everything it created
	@$(RUN) tools.cluster down

images: setup ## Build the images and push them to a registry: REGISTRY=registry.example.com/team [TAG=…]
	@$(RUN) tools.push_images "$(REGISTRY)" --tag "$(TAG)"

update: setup ## Regenerate everything generated
	@$(RUN) tools.generated update
	@FOURWAYS_UPDATE_GOLDEN=1 $(RUN) pytest -q tests/golden

update-lock: setup ## Update the dependencies
	@$(RUN) tools.generated lock

verify: setup ## Check format, lint, types, layers, and that generated files are up to date
	@$(PYTHON) -m ruff format --check --quiet .
	@$(PYTHON) -m ruff check --quiet .
	@$(PYTHON) -m mypy
	@.venv/bin/lint-imports
	@$(RUN) tools.generated verify

.PHONY: audit docs install-yaml image-list
install-yaml: setup ## Render the chart as one file for kubectl apply: REGISTRY=… DIGESTS="operator=sha256:… …"
	@$(RUN) tools.install_yaml --registry "$(REGISTRY)" $(addprefix --digest ,$(DIGESTS)) --out dist/install.yaml
	@echo dist/install.yaml

image-list: setup ## List the images that an installation pulls, for air-gapped clusters: REGISTRY=…
	@$(RUN) tools.install_yaml --registry "$(REGISTRY)" --images

audit: setup ## Look for known vulnerabilities of the locked packages, at PyPI
	@.venv/bin/pip-audit --strict --disable-pip --require-hashes --requirement requirements.lock

docs: setup ## Build the docs as a site, in .site
	@.venv/bin/zensical build -f mkdocs.yml --clean

format: setup ## Format the code and apply automatic fixes
	@$(PYTHON) -m ruff format --quiet .
	@$(PYTHON) -m ruff check --fix --quiet .

bench-models: setup ## Serve more than 20 models of many exporters, from the file to the first answer
	@$(RUN) benchmarks.models

bench-operator: setup ## Measure the time from kubectl apply to the CronJob, on the cluster
	@$(RUN) benchmarks.operator_latency

bench-serving: setup ## Compare the model server with its peers, on this machine
	@$(RUN) benchmarks.serving

.PHONY: bench-gateway-auth
bench-gateway-auth: setup ## Measure lookups of a gateway that asks for API keys, beside one that does not
	@$(RUN) benchmarks.gateway_auth

bench-start: setup ## Measure a model server's start, to its first answer, and its memory, beside FastAPI
	@$(RUN) benchmarks.serving.start

bench-wake: setup ## Measure 1,000 wakes from zero, beside the start of the model server alone
	@$(RUN) benchmarks.wake

bench-overload: setup ## Measure goodput at 1 to 10 times the model server's capacity
	@$(RUN) benchmarks.overload

bench-streaming: setup ## Compare one stream worker with the bare stages: Kafka to PostgreSQL
	@$(RUN) benchmarks.streaming

bench-batch: setup ## Compare a batch worker with its peers: Parquet to PostgreSQL and to Parquet
	@$(RUN) benchmarks.batch

torture-batch: setup ## Kill and terminate batch workers and restart their store, 25 times each
	@$(RUN) tools.torture.batch

torture-batch-short: setup ## The same with a few repetitions each
	@$(RUN) tools.torture.batch --short

torture-stream: setup ## Disturb broker and store of a stream worker, 10 times each, loaded and quiet
	@$(RUN) tools.torture.stream

torture-security: setup ## What authors of deployments must not reach, and callers without permission
	@$(RUN) tools.torture.authors
	@.venv/bin/pytest -q -n0 tests/unit/test_secret_audience.py tests/unit/test_author_limits.py \
	  tests/unit/test_cli_secrets.py tests/unit/test_edge_sign.py \
	  tests/unit/test_agent_gateway.py tests/unit/test_agent_features.py tests/unit/test_gateway_stream.py \
	  tests/unit/test_database_addresses.py tests/embedded/test_store_roles.py tests/transitions/test_guards.py \
	  tests/embedded/test_sources_query.py
	@FOURWAYS_CANARIES=350 $(RUN) pytest -q -n0 tests/unit/test_canaries.py tests/transitions/test_canaries.py
	@$(RUN) tools.torture.callers

.PHONY: torture-tables
torture-tables: setup ## Read some 700 tables of 24 writers, in batch and as events
	@$(RUN) tools.torture.tables

torture-batch-cluster: cluster ## The same on the cluster: kill containers, delete pods
	@$(RUN) tools.torture.cluster

torture-device: setup ## Cut a device's power and damage its files, in some thousand states
	@$(RUN) tools.torture.device

torture-kills: setup ## Kill servers, workers and databases and rotate Secrets under 150 requests/s; agents and stream workers at random moments
	@$(RUN) tools.torture.kills
	@FOURWAYS_KILLS=50 $(RUN) pytest -q tests/embedded/test_edge_kills.py
	@FOURWAYS_KILLS=10 $(RUN) pytest -q tests/embedded/test_streaming_kafka.py

torture-requests: setup ## Send servers 100,000 damaged bodies and 10,000 damaged requests
	@$(RUN) tools.torture.requests

torture-device-short: setup ## The same with a few states of each kind
	@$(RUN) tools.torture.device --short

setup:
	@tools/setup.sh dev
