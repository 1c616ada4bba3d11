# make demo   everything from nothing: environment, simulated cells, training, prediction, score, pictures
# make test   the tests (sets the environment up where needed)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# `DETECTRON2=git` builds upstream's main at the commit below (needs a C++ compiler and access to GitHub).
DETECTRON2 ?= wheel
DETECTRON2_COMMIT := fd27788985af0f4ca800bca563acdb700bb890e2
STAMP := $(VENV)/.installed-$(DETECTRON2)
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help install demo test lint clean

help:  ## This list
	@awk -F':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## Make .venv with pinned versions (DETECTRON2=git builds upstream's main instead of the wheel)

$(STAMP): setup.py constraints.txt requirements-detectron2.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name one: make install PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	rm -f $(VENV)/.installed-*
	$(PIP) install --quiet --no-compile --constraint constraints.txt --editable '.[test,lint]'
	$(MAKE) --no-print-directory detectron2-$(DETECTRON2)
	$(BIN)/python -c 'import detectron2, torch; print("Detectron2", detectron2.__version__, "on PyTorch", torch.__version__)'
	@touch $@

# The wheel's tag names Python 3.10 only for the sake of its compiled `_C`, which nothing here needs and nobody can audit:
# it is removed, and so is the stray top-level package `tools`.
.PHONY: detectron2-wheel detectron2-git
detectron2-wheel:
	@site=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
	rm -rf "$$site"/detectron2 "$$site"/sal_detectron2-* && \
	$(PIP) install --quiet --no-deps --no-compile --require-hashes --only-binary=:all: --python-version 3.10 \
	    --target "$$site" -r requirements-detectron2.txt && \
	rm -rf "$$site"/tools "$$site"/detectron2/_C.*

detectron2-git:
	$(PIP) install --no-build-isolation 'git+https://github.com/facebookresearch/detectron2.git@$(DETECTRON2_COMMIT)'

test: install  ## Run the tests
	$(BIN)/python -m pytest -n 2 -q tests

lint: install  ## Check the style
	$(BIN)/ruff check .

clean:  ## Remove the environment and the demo's output
	rm -rf $(VENV) output build *.egg-info
