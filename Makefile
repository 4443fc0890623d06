# These commands set up everything on a machine with Python 3.11 and make; all are safe to repeat.
#   make render   install, then render configs/quickstart.yaml on the embedded model
#   make test     install, then run the linter and the tests
#   make docs     the documents as a site in out/site; a link that leads nowhere is an error

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin

.PHONY: render test docs install clean

render: install
	$(BIN)/python -m vidcfg.render configs/quickstart.yaml --overwrite

test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

docs: install
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[docs]'
	$(BIN)/python -m mkdocs build --strict --quiet
	@echo "out/site/index.html"

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[test]'
	touch $@

clean:
	rm -rf $(VENV) out
