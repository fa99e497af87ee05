# The course's commands. `make` alone prints them. Needed: Python 3.11 or newer, and make.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
COURSE := $(BIN)/python -m shared
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help run test lint format lab bench notebooks check badges clean constraints colab-check

help:  ## print this list
	@echo "make COMMAND   (the first one sets up $(VENV), which takes a few minutes)"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(READY)  ## the whole course, ending in the leaderboard   [SOURCE=… PROFILE=tiny|colab|full SEED=…]
	@$(COURSE) run $(if $(SOURCE),--source '$(SOURCE)') $(if $(PROFILE),--profile '$(PROFILE)') $(if $(SEED),--seed '$(SEED)')

# A file or a lesson stays in one process, so that what its tests share is made once. Two processes
# with one thread each do more than one with two: most tests wait for something half of the time.
test: $(READY) lint  ## lint, every test, every notebook against the outputs it shows   [WORKERS=2]
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

lint: $(READY)  ## ruff alone
	$(BIN)/ruff check .
	$(BIN)/ruff format --check shared tests
	$(BIN)/ruff format --check --line-length 88 week*

format: $(READY)  ## let ruff lay out the code (for authors; lessons are laid out by hand)
	$(BIN)/ruff format .

lab: $(READY)  ## open JupyterLab at the course's front page
	JUPYTER_CONFIG_PATH=$(CURDIR)/.jupyter $(BIN)/jupyter lab --LabApp.default_url=/lab/tree/README.md

bench: $(READY)  ## speed, size and errors, from curation to the service under load (hours)   [SOURCE=records.jsonl.gz WRITE=1 SIZES=50000,…]
	$(BIN)/python tests/benchmarks/curation.py $(SOURCE) $(if $(SIZES),--sizes $(SIZES)) $(if $(WRITE),--write)
	$(BIN)/python tests/benchmarks/ladder.py $(SOURCE) $(if $(WRITE),--write)
	$(BIN)/python tests/benchmarks/frontier.py $(if $(WRITE),--write)
	$(BIN)/python tests/benchmarks/open_model.py $(if $(WRITE),--write)
	$(BIN)/python tests/benchmarks/retrieval.py $(if $(WRITE),--write)
	$(BIN)/python tests/benchmarks/retrieval_open_model.py $(if $(WRITE),--write)
	$(BIN)/python tests/benchmarks/compression.py $(if $(WRITE),--write)
	$(BIN)/python tests/benchmarks/understanding.py $(if $(WRITE),--write)
	$(BIN)/python tests/benchmarks/serving.py $(if $(WRITE),--write)
	@if command -v wrk >/dev/null; then $(BIN)/python tests/benchmarks/serving_wrk.py $(if $(WRITE),--write); fi
	@$(if $(WRITE),$(BIN)/python tests/benchmarks/report.py)

notebooks: $(READY)  ## execute the lessons in place and record what the run took (for authors)
	@$(COURSE) notebooks

check: $(READY)  ## is everything here that the course needs?
	@$(COURSE) check

badges: $(READY)  ## point badges and setup cells at your fork   [REPOSITORY=https://github.com/you/name]
	@$(COURSE) badges $(if $(REPOSITORY),--repository '$(REPOSITORY)')

clean:  ## remove the set-up and every result; the lessons stay as they are
	rm -rf $(VENV) .colab-311 .colab-313 runs build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find shared tests week* -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf

# The stamp is written last, so its existence means that the set-up finished. A set-up that was cut
# off leaves .unfinished behind, and the next one starts from nothing instead of trusting the pieces.
$(READY): requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "The course needs Python 3.11 or newer, as in: make run PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "This Python has no venv module (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@echo "Setting up $(VENV) (the first time this takes a few minutes: torch alone is large) …"
	@if [ -e $(VENV)/.unfinished ]; then rm -rf $(VENV); fi
	@mkdir -p $(VENV) && touch $(VENV)/.unfinished && $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements.txt -e '.[cluster]' -c constraints.txt
	@rm $(VENV)/.unfinished && touch $@
	@echo "Ready: $$($(BIN)/python --version) with $$(grep -c '^[a-z]' requirements.txt) packages and what they need."

# torch stays where CI has a CPU build of it; CUDA's own packages follow from torch and are left out.
constraints: $(READY)  ## pin the versions CI runs anew from requirements.txt   [UPGRADE=1 for the newest]
	@echo 'torch==2.13.0' | $(BIN)/uv pip compile requirements.txt pyproject.toml --extra cluster - --quiet --no-annotate \
	  --python-version 3.11 --python-platform linux --only-binary :all: $(if $(UPGRADE),--upgrade) \
	  --custom-compile-command 'make constraints   (UPGRADE=1 moves everything but torch to the newest)' -o constraints.txt
	@grep -vE '^(nvidia|cuda|triton)' constraints.txt > constraints.tmp && mv constraints.tmp constraints.txt

colab-check:  ## run the tests with Colab's versions (builds two more environments)
	@tests/colab/check.sh
