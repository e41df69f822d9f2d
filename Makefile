## make suite   run the notebooks in order and leave runs/<time>/index.html
##              DATASET=fer2013 EPOCHS=3 ...   any parameter that a notebook declares
## make test    run all tests in two processes; ARGS="-k video" passes options on, ARGS="-n 0" keeps to one process
## make lab     open JupyterLab on the notebooks
## make venv    install only: .venv with requirements.txt and this package
## make clean   remove .venv and caches, keep data/, models/ and runs/
##
## PYTHON=python3.12 chooses the interpreter that a new .venv is made with (3.11 or newer).

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed
EACH_LINE := $(shell sed --version >/dev/null 2>&1 && echo -u || echo -l)

# Every variable of the command line is a parameter of the notebooks: make suite EPOCHS=3 -> -p epochs=3
given = $(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name)))
lower = $(shell echo $(1) | tr '[:upper:]' '[:lower:]')
parameters = $(foreach name,$(filter-out PYTHON ARGS,$(given)),-p '$(call lower,$(name))=$($(name))')

.PHONY: help suite test lab venv clean

help:
	@sed -n 's/^## \{0,1\}//p' Makefile

suite: $(STAMP)
	@$(BIN)/fer-tf suite $(parameters) $(ARGS)

test: $(STAMP)
	@$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

lab: $(STAMP)
	@$(BIN)/python -m jupyterlab notebooks

venv: $(STAMP)

# The stamp is written last, so an interrupted installation is taken up again. Of pip's output only the packages above
# one megabyte and the errors are shown; .venv/install.log has all of it.
$(STAMP): requirements.txt pyproject.toml
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed, but '$(PYTHON)' is: `'$(PYTHON)' --version 2>&1`." \
	    "Install one and name it: make PYTHON=python3.12 $(or $(MAKECMDGOALS),venv)"; exit 1; }
	@'$(PYTHON)' -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) lacks the venv module. On Debian or Ubuntu: sudo apt install python3-venv"; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || '$(PYTHON)' -m venv --clear .venv
	@echo "Installing into .venv (some minutes and a few GB of disk the first time)"
	@{ $(BIN)/python -m pip install -r requirements.txt && $(BIN)/python -m pip install --no-deps -e .; \
	   echo $$? > .venv/status; } 2>&1 | tee .venv/install.log | sed $(EACH_LINE) -n -e '/^Installing collected packages: fer-tf$$/d' \
	  -e 's/^ *Downloading \([^ ]*\) (\([0-9.]* MB\)).*/  downloading \2  \1/p' \
	  -e 's/^ *Using cached \([^ ]*\) (\([0-9.]* MB\)).*/  cached      \2  \1/p' \
	  -e 's/^Installing collected packages.*/  unpacking/p' -e '/^ERROR/p'
	@test "`cat .venv/status`" = 0 || { echo "Installation failed; .venv/install.log says more."; exit 1; }
	@touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache *.egg-info
	find fer_tf tests notebooks \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
