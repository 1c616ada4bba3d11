# make demo   everything from nothing: environment, simulated cells, training, prediction, score, pictures
# make test   style, types, imports, tests and their coverage (sets the environment up where needed)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# `DETECTRON2=git` builds upstream's main at the commit below (needs a C++ compiler and access to GitHub).
DETECTRON2 ?= wheel
DETECTRON2_COMMIT := fd27788985af0f4ca800bca563acdb700bb890e2
STAMP := $(VENV)/.installed-$(DETECTRON2)
DEV_STAMP := $(VENV)/.installed-dev
DOCS_STAMP := $(VENV)/.installed-docs
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help install dev demo test lint docs clean

help:  ## This list
	@awk -F':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## Make .venv with pinned versions (DETECTRON2=git builds upstream's main instead of the wheel)

$(STAMP): pyproject.toml setup.py constraints.txt cellseg_d2/detectron2_wheel.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name one: make install PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	rm -f $(VENV)/.installed-*
	$(PIP) install --quiet --no-compile --constraint constraints.txt --editable '.[zarr]'
	$(MAKE) --no-print-directory detectron2-$(DETECTRON2)
	$(BIN)/python -c 'import detectron2, torch; print("Detectron2", detectron2.__version__, "on PyTorch", torch.__version__)'
	@touch $@

dev: $(DEV_STAMP)  ## The same, with what tests and checks need

$(DEV_STAMP): $(STAMP)
	$(PIP) install --quiet --no-compile --constraint constraints.txt --editable '.[test,lint]'
	@touch $@

$(DOCS_STAMP): $(STAMP)
	$(PIP) install --quiet --no-compile --constraint constraints.txt --editable '.[docs]'
	@touch $@

.PHONY: detectron2-wheel detectron2-git
detectron2-wheel:
	$(BIN)/cellseg-d2 install-detectron2 --force

detectron2-git:
	$(PIP) install --no-build-isolation 'git+https://github.com/facebookresearch/detectron2.git@$(DETECTRON2_COMMIT)'

DEMO := output/demo
# One well's looks are shared by its images; the test images come from wells of their own.
demo: install  ## Simulated cells, training, prediction, score and pictures, end to end on the CPU
	$(BIN)/python tools/make_simulated.py --output $(DEMO)/simulated --overwrite --images-per-type 16 --test-per-type 3 --workers 2
	$(BIN)/python tools/convert_to_coco.py --csv $(DEMO)/simulated/train.csv --images $(DEMO)/simulated/train \
	    --output datasets/simulated --val-fraction 0.15
	$(BIN)/python tools/infer.py --input $(DEMO)/simulated/test --output $(DEMO)/before
	$(BIN)/python tools/evaluate.py --predictions $(DEMO)/before/submission.csv \
	    --ground-truth $(DEMO)/simulated/test.csv --json $(DEMO)/score_before.json
	DETECTRON2_DATASETS=datasets $(BIN)/python tools/train_net.py \
	    --config-file configs/quickstart/cells_effnet_lite0_FPN.yaml OUTPUT_DIR $(DEMO)/run
	$(BIN)/python tools/infer.py --config-file $(DEMO)/run/config.yaml --input $(DEMO)/simulated/test --output $(DEMO)/prediction
	$(BIN)/python tools/visualize.py comparison --images $(DEMO)/simulated/test --ground-truth $(DEMO)/simulated/test.csv \
	    --predictions $(DEMO)/prediction/submission.csv --output $(DEMO)/pictures
	$(BIN)/python tools/evaluate.py --predictions $(DEMO)/prediction/submission.csv \
	    --ground-truth $(DEMO)/simulated/test.csv --json $(DEMO)/score.json
	$(BIN)/python tools/report.py --run $(DEMO)/run --predictions $(DEMO)/prediction/submission.csv \
	    --ground-truth $(DEMO)/simulated/test.csv --images $(DEMO)/simulated/test --output $(DEMO)/report.html
	@echo
	@echo "before training $(DEMO)/before/overlay/, score in $(DEMO)/score_before.json: the model that comes with the project"
	@echo "submission      $(DEMO)/prediction/submission.csv"
	@echo "score           $(DEMO)/score.json"
	@echo "report          $(DEMO)/report.html"
	@echo "loss curves     $(DEMO)/run/curves.png"
	@echo "side by side    $(DEMO)/pictures/sheet.png (image | truth | prediction)"
	@echo "trained model   $(DEMO)/run/model_best.pth"

test: lint  ## Check style, types and imports, run the tests, and demand that they cover 95 % of the modules without PyTorch
	rm -f .coverage
	@# One thread a process, two cores; a file's tests stay together, so that what they share is made once.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -q tests \
	    --durations=25 --durations-min=5 --cov --cov-report=
	@$(MAKE) --no-print-directory coverage

.PHONY: coverage
coverage:  ## What the last run of the tests left uncovered of the modules without PyTorch
	@$(BIN)/coverage report --show-missing --skip-covered --fail-under=95

lint: dev  ## Check style, types, and that imports point downward
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs: $(DOCS_STAMP)  ## Build the documentation site into build/site; a warning is an error
	$(BIN)/python -m sphinx -W --keep-going -q -d build/doctrees -c docs . build/site
	@echo "build/site/index.html"

clean:  ## Remove the environment, the site and the demo's output
	rm -rf $(VENV) output build *.egg-info
