# The only commands to know. Each does all the set-up it needs in .venv, and none when nothing changed.
PYTHON ?= python3
CONFIG ?= serve_config.yaml
BIN := .venv/bin

.PHONY: help setup setup-dev setup-loadtest setup-rayllm serve test lint check loadtest compare demo-model clean

help:            ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/'

setup:
	@$(PYTHON) requirements/prepare.py

setup-dev:
	@$(PYTHON) requirements/prepare.py --dev

setup-loadtest:
	@$(PYTHON) requirements/prepare.py --loadtest

setup-rayllm:
	@$(PYTHON) requirements/prepare.py --rayllm

serve: setup     ## serve $(CONFIG) on this machine until Ctrl-C
	@$(BIN)/vllm-graph up $(CONFIG)

test: setup-dev  ## run every test, real vLLM among them; TESTS=tests/unit for one tier
	@$(BIN)/python -m pytest $(TESTS)

lint: setup-dev  ## style and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

check: lint test ## what CI runs

loadtest: setup setup-loadtest  ## a short load on a server that it starts; LOAD="--users 64 --mix chat" for another one
	@$(BIN)/python -m loadtests.short $(LOAD)

compare: setup setup-loadtest setup-rayllm  ## this project beside a bare vLLM server and ray.serve.llm (forty minutes); COMPARE=--short
	@$(BIN)/python -m loadtests.compare $(COMPARE)

demo-model: setup ## train the demo model again (about half an hour on two cores)
	@$(BIN)/python config/demo_model/training/train.py

clean:           ## remove the environment and caches
	rm -rf .venv .venv.* .mypy_cache .ruff_cache .pytest_cache .hypothesis
