# One command per task. PYTHON chooses the interpreter, 3.11 or newer.
PYTHON ?= python3
VENV ?= .venv
OLDEST ?= .venv-oldest
AUDIT ?= .venv-audit
BIN = $(VENV)/bin

.PHONY: demo install reference test check docs lint types test-oldest audit format clean

install: $(VENV)/installed

# The environment, with the exact versions of constraints.txt. pip would compile on one core; files
# for other Pythons, which packages hold too, cannot be compiled. timm and open_clip come without
# torchvision, which has no build for a torch without CUDA: tests have placeholders for what they
# name of it.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --no-deps timm \
		open_clip_torch ftfy
	$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	touch $@

# Everything once, on synthetic images, with the model that ships with the package.
demo: install
	$(BIN)/featurecache demo

# Official tables of public data sets, in a wheel that is not installed: the tests count their labels
# if FEATURECACHE_REFERENCE names this folder.
REFERENCE ?= $(HOME)/.cache/featurecache-reference
reference: install
	$(BIN)/pip download --quiet --no-deps --dest $(REFERENCE) torchxrayvision==1.5.7

# All tests. Real images and weights are used if FEATURECACHE_DATA and FEATURECACHE_MODELS name
# folders that hold them. Tests are distributed by file, because the tests of a file share fixtures. A
# worker that crashes is not replaced: xdist would wait forever for the rest of its file.
# Compiled before, for the processes that tests start: Python may be told to write no bytecode.
test: install
	$(BIN)/python -m compileall -qq featurecache
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder \
		--max-worker-restart 0

# Documentation, types, lint, format and layers.
check: docs types lint

types: install
	$(BIN)/mypy

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

# The documentation, from docs/ into docs/_build/html, with the notebooks executed. A broken link or
# reference fails, and so does an error in a notebook.
docs: install
	$(BIN)/sphinx-build -W --keep-going -n -q docs docs/_build/html

# What reads checkpoints or runs their networks, with the oldest transformers that pyproject.toml
# allows. One process, because imports and checkpoints take most of the time.
OF_TRANSFORMERS = checkpoint clip families features loading lora medclip preprocessing trainable \
	unimodal
test-oldest: $(OLDEST)/installed
	$(OLDEST)/bin/python -m pytest -q $(OF_TRANSFORMERS:%=tests/encoders/test_%.py)

# It has what the environment has, and on top of that the oldest transformers with what that needs.
PURELIB = -c "import sysconfig; print(sysconfig.get_path('purelib'))"
$(OLDEST)/installed: $(VENV)/installed
	$(PYTHON) -m venv $(OLDEST)
	echo "import site; site.addsitedir('$$($(BIN)/python $(PURELIB))')" \
		> "$$($(OLDEST)/bin/python $(PURELIB))/base.pth"
	grep -vE '^(transformers|huggingface_hub|tokenizers|typer)==' constraints.txt > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/pip install --quiet --constraint $(OLDEST)/constraints.txt 'transformers==5.0.0'
	touch $@

# Published vulnerabilities of the exact versions of constraints.txt. Where PyPI cannot be asked, it
# says NOT AUDITED, and the script's exit code is 3.
audit: $(AUDIT)/installed
	$(AUDIT)/bin/python tests/dependencies/vulnerabilities.py constraints.txt

# Of its own, for it brings much that the environment has no use for.
$(AUDIT)/installed: Makefile constraints.txt
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/pip install --quiet --constraint constraints.txt 'pip-audit==2.10.1'
	touch $@

format:
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(OLDEST) $(AUDIT) .mypy_cache .pytest_cache .ruff_cache .hypothesis docs/_build
