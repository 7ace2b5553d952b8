PYTHON ?= python3
PROFILE ?= $(if $(filter notebooks,$(MAKECMDGOALS)),paper,sample)
# The book is rendered from a copy, so that Sphinx looks at nothing else and the tree stays clean
COPY = rm -rf _build/$(1) && mkdir -p _build/$(1) && cp -r _config.yml _toc.yml book _build/$(1)
RENDER = exec .venv/bin/jupyter-book build --all -q --path-output . $(STRICT) _build/$(1) >/dev/null
# In an environment of its own, at the versions of tools/NAME.txt
TESTED_WITH = $(PYTHON) -m venv --clear _build/$(1) && _build/$(1)/bin/pip install -qq --no-compile \
	-c tools/$(1).txt -e '.[chapters,test]' ipykernel jupytext papermill && _build/$(1)/bin/pytest $(2)

# Refused before anything is installed or trained
UNKNOWN := $(foreach v,$(.VARIABLES),$(if $(findstring command,$(origin $v)),$(filter-out CHAPTERS FRESH FULL PROFILE PYTHON URL,$v)))
ifneq ($(strip $(UNKNOWN)),)
$(error no variable $(strip $(UNKNOWN)); allowed: CHAPTERS, FRESH, FULL, PROFILE, PYTHON, URL)
endif
ifneq ($(filter-out 1,$(FULL)),)
$(error FULL is $(FULL); allowed: 1)
endif
ifneq ($(filter-out 1,$(FRESH)),)
$(error FRESH is $(FRESH); allowed: 1)
endif
export GINV_FRESH ?= $(FRESH)
ifneq ($(filter notebooks,$(MAKECMDGOALS)),)
ifneq ($(PROFILE),paper)
$(error PROFILE is $(PROFILE); allowed: paper)
endif
endif
ifneq ($(filter book,$(MAKECMDGOALS)),)
ifeq ($(filter paper-1 sample-1 quick-1,$(PROFILE)-$(words $(PROFILE))),)
$(error PROFILE is $(PROFILE); allowed: paper, sample, quick)
endif
endif

.PHONY: help book html test attack lowest colab ship compare notebooks tune bench publish-url clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

book: .venv/ready  ## train, execute all chapters or CHAPTERS (PROFILE=paper: on all test images, quick: small runs; FRESH=1: train all), render; all under _build/
	@exec .venv/bin/python tools/execute.py --anew --render _build/book $(PROFILE) -- $$CHAPTERS
	@$(call RENDER,book)
	@echo "Open _build/html/index.html"

html: .venv/ready  ## render the committed notebooks without executing them
	@$(call COPY,pages)
	@$(call RENDER,pages)
	@echo "Open _build/html/index.html"

test: STRICT = -n -W --keep-going
test: .venv/ready  ## everything that .ci/run checks
	@.venv/bin/ruff check -q
	@.venv/bin/ruff format -q --check
	@.venv/bin/mypy
	@$(call COPY,pages)
	@$(call RENDER,pages)
	@.venv/bin/pytest

attack: .venv/ready  ## kill, starve and confuse trainings that share a store, 200 times
	@exec .venv/bin/python tests/runs/attack.py

lowest:  ## the package's tests with every dependency at its declared minimum
	@$(call TESTED_WITH,lowest,tests/science tests/runs)

colab:  ## notebooks opened alone, with the versions of Colab
	@$(call TESTED_WITH,colab,tests/book/test_alone.py)

ship: .venv/ready  ## put the trained networks that pages use from the store into data/runs
	@.venv/bin/python tools/ship.py

compare: .venv/ready  ## after make book: what moved from the committed results
	@.venv/bin/python tools/compare.py _build/book/book/results

notebooks: .venv/ready  ## refresh what is not up to date of notebooks and book/results, or CHAPTERS, at the paper profile
	@exec .venv/bin/python tools/execute.py --stale . paper -- $$CHAPTERS

tune: .venv/ready  ## redo the search for nu, ginv/runs/nu_sweep.csv, and the runs of book/*.yaml
	@.venv/bin/python tools/tune.py
	@for grid in price controls initialisation fronts; do \
	  .venv/bin/python -m ginv.runs.grid book/$$grid.yaml book/results/$$grid.csv || exit; done

bench: .venv/ready  ## measure what all costs: book/results/bench.csv; FULL=1: the paper's chapters, too, most of an hour
	@.venv/bin/python tools/bench.py $(if $(FULL),--full)

publish-url: .venv/ready  ## URL=https://github.com/OWNER/NAME: put the public address everywhere
	@.venv/bin/python tools/publish.py $${URL:+"$$URL"}

clean:  ## remove the environment and all that was built; trained runs stay in the store
	@rm -rf .venv _build

# --no-compile: a module's bytecode is made when it is first imported, and most of what torch brings never is
.venv/ready: pyproject.toml
	@echo "Installing into .venv (a few minutes, the first time)"
	@$(PYTHON) -m venv .venv
	@.venv/bin/pip install -qq --no-compile --disable-pip-version-check -e '.[book,test]'
	@touch $@
