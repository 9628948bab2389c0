# make serve: a Flask application at http://127.0.0.1:$(PORT); make test: the whole suite.
# The virtual environment is made with PYTHON, or with the first Python >= 3.11 that is found.

PORT ?= 8000
PYTHON ?= $$(tools/find_python.sh)
SECONDS ?= 60
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
COMPILED := $(wildcard src/*.pyx src/fastwsgi/*.pxd src/platform/*.h) setup.py

.PHONY: serve test test-gevent build lint bench conformance index options abuse asan tsan fuzz cover annotate model package docs docs-test clean

serve: $(VENV)/built $(VENV)/has-examples
	@$(BIN)/fastwsgi --chdir examples --preload --bind 127.0.0.1:$(PORT) 'flask_notes:create_app()'

test: $(VENV)/built $(VENV)/has-test
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)
	$(if $(ARGS),,tools/test_gevent.sh $(BIN)/python)

# The functional suite in greenlets: of servers, and of the tests themselves.
test-gevent: $(VENV)/built $(VENV)/has-test
	tools/test_gevent.sh $(BIN)/python $(ARGS)

build: $(VENV)/built

lint: $(VENV)/built $(VENV)/has-lint
	tools/lint.sh $(BIN)

bench: $(VENV)/built $(VENV)/has-bench
	PYTHON=$(BIN)/python benchmarks/setup.sh && $(BIN)/python benchmarks/run.py $(ARGS)
	$(if $(ARGS),,$(BIN)/python benchmarks/instructions.py)

conformance: $(VENV)/built $(VENV)/has-test
	PYTHONPATH=tests $(BIN)/python -m conformance $(CORPORA)

index: | $(BIN)/python
	PYTHONPATH=tests $(BIN)/python -m conformance.index

options: $(VENV)/built
	$(BIN)/python tools/options_page.py && $(BIN)/python tools/man_page.py

abuse: $(VENV)/built $(VENV)/has-test
	$(BIN)/python tests/abuse $(ARGS)

asan: $(VENV)/built $(VENV)/has-test
	tools/asan.sh $(BIN)/python $(ARGS)

tsan: $(VENV)/built $(VENV)/has-test
	tools/tsan.sh $(BIN)/python $(TSAN_PYTHON) $(ARGS)

fuzz: $(VENV)/built $(VENV)/has-test
	$(BIN)/python tools/fuzz.py --seconds $(SECONDS) $(ARGS)

cover: $(VENV)/built $(VENV)/has-test $(VENV)/has-cover
	tools/cover.sh $(BIN) $(ARGS)

annotate: $(VENV)/built
	FASTWSGI_ANNOTATE=1 $(BIN)/python setup.py -q build_ext --inplace --force && ls build/plain/src/*.html

model:
	model/run.sh

package: $(VENV)/has-build $(VENV)/has-package
	PATH="$$PWD/$(BIN):$$PATH" python tools/package.py $(ARGS) && ls dist

docs: $(VENV)/has-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

docs-test: $(VENV)/built $(VENV)/has-test
	$(BIN)/python -m pytest tests/docs tests/deployment tests/process/test_from_nginx.py tests/process/test_proxies.py $(ARGS)

clean:
	rm -rf build dist $(VENV) src/*.egg-info src/fastwsgi/*.so

# Stamps: what is there already is not done again.

$(BIN)/python:
	python=$(PYTHON) && $$python -m venv $(VENV)

$(VENV)/has-%: pyproject.toml tools/requirements.py | $(BIN)/python
	$(BIN)/python tools/requirements.py $* | $(BIN)/pip install -q --disable-pip-version-check --prefer-binary -r /dev/stdin
	@touch $@

# The first time pip builds and installs in one go; from then on the installation is this tree.
INSTALL = $(BIN)/pip install -q --disable-pip-version-check --no-build-isolation --no-deps --editable .
REBUILD = $(BIN)/python setup.py -q build_ext --inplace

$(VENV)/built: $(COMPILED) $(VENV)/has-build
	$(if $(wildcard $(BIN)/fastwsgi),$(REBUILD),$(INSTALL))
	@touch $@
