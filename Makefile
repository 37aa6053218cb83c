# Mondrian's workshop. `make` alone lists what one can do.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
BIN := .venv/bin

# pyright's wrapper asks the network whether it is the newest; the lock decides that.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## build the development environment, .venv
	@scripts/environment dev

.PHONY: run
run: ## start the service on the embedded model and stream a first analysis
	@scripts/environment run
	@exec $(BIN)/python scripts/run.py

.PHONY: test
test: setup ## run the tests (ARGS goes to pytest)
	@scripts/test $(ARGS)

.PHONY: soak
soak: setup ## run the long tests
	@$(BIN)/python -m pytest -m soak $(ARGS)

.PHONY: bench
bench: setup ## measure beside the bare engine and mlx_vlm.server (ARGS="--quick", "--help")
	@$(BIN)/python -m bench $(ARGS)

.PHONY: check
check: setup ## check style, types, imports, protos, stubs and tracked files
	@scripts/check

.PHONY: format
format: setup ## put Python and protos into their format
	@$(BIN)/ruff check --fix --select I .
	@$(BIN)/ruff format .
	@$(BIN)/buf format --write protos

.PHONY: proto
proto: ## generate the stubs from protos/
	@scripts/environment proto
	@.venv-proto/bin/python scripts/protos.py generate

.PHONY: pages
pages: setup ## write docs/settings.md and docs/modules.md from the code
	@$(BIN)/python scripts/pages.py generate

.PHONY: model
model: ## train, export and score the embedded model (an hour or two)
	@scripts/environment model
	@cd models/mondrian-tiny && ../../.venv-model/bin/python -m mondrian_tiny.train $(ARGS)
	@cd models/mondrian-tiny && ../../.venv-model/bin/python -m mondrian_tiny.samples
	@cd models/mondrian-tiny && ../../.venv-model/bin/python -m mondrian_tiny.evaluate --pictures 1000 --card README.md

.PHONY: lock
lock: setup ## write the lock files anew, with the newest versions that fit
	@scripts/lock

.PHONY: clean
clean: ## remove the environments and all that was built
	@rm -rf .venv .venv-proto .venv-model build dist .hypothesis .pytest_cache .ruff_cache .import_linter_cache
