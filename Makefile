# `make run` trains, checks and pushes a model, `make serve` serves it, and
# `make generate PROMPT="To be"` has it continue a text.

.DEFAULT_GOAL := help
.PHONY: help install run serve generate status report test test-long lint bench lock clean

# A name in pipeline/configs, or a YAML file.
CONFIG ?= shakespeare
PROMPT ?= To be

# Quotes, dollars and backquotes in a prompt reach the program as they are: $(value) does not expand
# them, and the shell reads the text from the environment, not from its command line.
export PROMPT_TEXT := $(value PROMPT)
unexport PROMPT

help:  ## Say what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s%s\n", $$1, $$2 }' Makefile

# Written last, so that an installation that broke off is taken up again.
INSTALLED := .venv/installed

install: $(INSTALLED)  ## Make .venv with everything in it; quick when nothing changed

$(INSTALLED): requirements.lock setup.py tools/environment.in tools/install.sh \
    tools/glibc_compat.py tools/glibc_compat.cc
	tools/install.sh
	touch $@

# `exec`: what stops make stops the program too, not a shell between them alone.
run: $(INSTALLED)  ## Run the whole pipeline (CONFIG=shakespeare)
	exec .venv/bin/gpt2-tfx run --config "$(CONFIG)"

serve: $(INSTALLED)  ## Serve what was pushed, by gRPC
	exec .venv/bin/gpt2-tfx serve --config "$(CONFIG)"

generate: $(INSTALLED)  ## Have the server continue a text (PROMPT="To be")
	@.venv/bin/gpt2-tfx generate --config "$(CONFIG)" -- "$$PROMPT_TEXT"

status: $(INSTALLED)  ## Say which versions are being served
	.venv/bin/gpt2-tfx status --config "$(CONFIG)"

report: $(INSTALLED)  ## Write output/report.html, a page about all runs
	.venv/bin/gpt2-tfx report --config "$(CONFIG)"

# Two processes for two cores, with a thread each; tests/conftest.py says how they share.
PYTEST := TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 OMP_NUM_THREADS=1 \
  .venv/bin/python -m pytest -n 2 --no-loadscope-reorder

test: $(INSTALLED)  ## Run the tests
	$(PYTEST) -m "not long"

test-long: $(INSTALLED)  ## Run those that take about a minute or more each
	$(PYTEST) -m long

lint: $(INSTALLED)  ## Check style and types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy .

bench: $(INSTALLED)  ## Measure what the README claims
	.venv/bin/python -m benchmarks

# Not by way of $(INSTALLED): when setup.py has changed, the lock comes before the installation.
.venv/bin/uv:
	tools/install.sh

# LOCK_OPTIONS=--upgrade takes newer versions; without it only what setup.py forces is changed.
lock: .venv/bin/uv  ## Write requirements.lock anew from setup.py
	.venv/bin/uv pip compile --quiet --generate-hashes --custom-compile-command 'make lock' \
	  --python-version 3.11 --python-platform x86_64-manylinux_2_39 --extra dev --extra kubeflow \
	  --output-file requirements.lock $(LOCK_OPTIONS) setup.py tools/environment.in

clean:  ## Delete the environment and all caches; output/ stays
	rm -rf .venv build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
