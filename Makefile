# Set-up, tests and checks of execnet_c. `make tag` and `make test` need Python (3.10 or newer, with its headers),
# a C compiler and pip; they work in a virtual environment of their own.
#
#   make quick          between two edits: a few tests of each file, in less than a minute once all is built
#   make test           before a change goes in: everything but what is in check-deep, in less than eight minutes on two CPUs
#   make check-deep     sanitizers, the tests' own test by mutants, portable back ends, other programs that use execnet, what
#                       execnet itself does, long tests. CI runs this after `make test`
#
#   PYTHON=python3.12   the interpreter to build for        VENV=.venv   where its environment goes
#   CC=clang            the compiler                        PYTEST_ARGS  more for pytest, as "-k serializer"
#   TSAN_TESTS="..."    the Python tests that run under the thread sanitizer; ON_OURS: in pytest-xdist on this package
#   ASAN_TESTS=         all Python tests under the address sanitizer, not only those of check-deep; those that limit or count
#                       memory, or need the build of all others, are skipped and say so
#   PROOFS=required     fail where CBMC cannot be had, instead of saying so
#   SANITIZERS=required fail where the sanitizers cannot run, instead of saying so
#   PAIRINGS="C-C"      the cores to run the Python tests over, near end and far end; all four of C and Python if not set
#   USERS=              without the tests of other programs that use execnet, and without installing those
#   SEEDS=20000         how many new seeds `make test-sim` tries
#   LANES=4             how many pieces of these run beside one another: two more than there are CPUs, if not set
#   PARTS="1.2 2.2"     the Python tests in two parts, each with half the files; five if not set
#   LOUD=yes            what all pieces say, not only those that fail (it is in VENV/logs in any case)
#   RESULTS=DIR         where `make bench` writes its numbers, table and plots (in the environment, if not set)
#   BENCH_ARGS          more for benchmarks/run.py, as "--only round-trips --peers execnet_c execnet"

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=
SANITIZERS ?=
USERS ?= yes
SEEDS ?= 20000
PARTS ?= 1.5 2.5 3.5 4.5 5.5
LANES ?= $(shell echo $$(($$(nproc 2>/dev/null || echo 2) + 2)))
export LOUD
RESULTS ?= $(VENV)/bench
BENCH_ARGS ?=
PAIRINGS ?= C-C Python-Python C-Python Python-C
ON_OURS ?= test_serializer.py test_serializer_refused.py test_xspec.py test_unmeant.py test_source.py test_channel.py test_gateway.py \
	test_group.py test_callback.py test_errors.py
ASAN_TESTS ?= test_serializer.py test_serializer_hostile.py test_serializer_refused.py test_serializer_changed.py test_core_frames.py \
	test_conformance.py test_channel.py test_callback.py test_callback_order.py test_threads.py test_tagging_answers.py --depth test
TSAN_TESTS ?= test_threads.py test_free_threaded.py test_interpreters.py test_callback.py test_callback_order.py test_channel_lives.py \
	test_tagging_models.py

BIN := $(abspath $(VENV))/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# One stamp a step, all inside the environment, so that removing it removes them. The first one carries the
# interpreter's version, with a "t" if it is the free-threaded one: another PYTHON means a new environment.
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d.%d" % sys.version_info[:3] + sys.abiflags)' 2>/dev/null)
MADE := $(VENV)/.made-for-$(VERSION)
PACKAGE := $(VENV)/.package
WEIGHTS := $(VENV)/.weights
TEST_NEEDS := $(VENV)/.test-needs
USER_NEEDS := $(VENV)/.user-needs
BENCH_NEEDS := $(VENV)/.bench-needs
LINT_NEEDS := $(VENV)/.lint-needs
TSAN := $(VENV)/tsan
ASAN := $(VENV)/asan
DEBUG := $(VENV)/debug
LIMITS := $(VENV)/limits/pingpong $(VENV)/limits/bandwidth

SOURCES := $(wildcard src/*/*.[ch] src/core/*/*.[ch] execnet_c/*.py execnet_c/*/*.py execnet_c/*.pyi execnet_c/py.typed)
C_FILES := $(wildcard src/*/*.[ch] src/core/*/*.[ch] tests/c/*.[ch] tests/proofs/*.[ch] tests/sim/*.[ch] benchmarks/limits/*.[ch])
INCLUDES := $(patsubst %,-I%,$(wildcard src/core/*))
STRICT := $(INCLUDES) -std=c11 -D_GNU_SOURCE -O2 -fPIC -Wall -Wextra -Werror
LOCKS := $(STRICT) -Wthread-safety -Wthread-safety-beta

.PHONY: tag quick test check-deep pieces-quick pieces-test pieces-deep test-c test-c-deep test-c-portable test-c-mutants test-models test-sim \
	test-sim-asan test-asan test-tsan test-asan-python test-tsan-python test-debug-python test-on-ours test-sanitizers test-address-sanitizer test-thread-sanitizer test-python test-docs \
	test-needs docs hosts lint lint-layout lint-python lint-core lint-warnings format bench bench-quick bench-limits clean

# Tests are many programs, and pytest reads its own files anew at each start where no bytecode is kept.
unexport PYTHONDONTWRITEBYTECODE

# The recipe on two gateways, then a whole text, with NLTK's tagger and with the one in C; a few of its lines. Not from here: here lies the source of the
# package, and what runs is to be the built one.
tag: $(PACKAGE) $(WEIGHTS)
	@echo "The recipe of the NLTK books: a sentence on two gateways, and what is known of it"
	@cd examples && $(BIN)/python tag_two_gateways.py
	@echo "A whole text over two gateways"
	@cd examples && $(BIN)/python tag_corpus.py --output $(abspath $(VENV))/tagged.txt
	@cd examples && if $(BIN)/python -c "import execnet_c.tagging" 2>/dev/null; then \
		$(BIN)/python tag_corpus.py --tagger c --output $(abspath $(VENV))/tagged-c.txt && \
		cmp $(abspath $(VENV))/tagged.txt $(abspath $(VENV))/tagged-c.txt && \
		echo "Both taggers have written the same, byte for byte."; \
	else \
		echo "execnet_c's own tagger is in C, which was not built here; left out"; \
	fi
	@echo "Some lines of $(VENV)/tagged.txt:"
	@sed -n '2p;102p;202p;302p;402p' $(VENV)/tagged.txt
	@echo
	@echo "Next, your own text; then over hosts, too (\"check\" says whether one is ready):"
	@echo "    cd examples"
	@echo "    $(BIN)/python tag_corpus.py /path/to/FILE"
	@echo "    $(BIN)/python -m execnet_c check ssh=user@host"
	@echo "    $(BIN)/python tag_corpus.py /path/to/FILE --tx '3*popen' --tx ssh=user@host"

# Each is many pieces, LANES of them at a time. DEPTH says which tests of Python they have (tests/conftest.py).
DEPTH = all

quick: $(PACKAGE) $(WEIGHTS) $(TEST_NEEDS)
	@$(call pieces,quick,PAIRINGS="C-C Python-Python" PARTS="1.3 2.3 3.3")

test: $(PACKAGE) $(WEIGHTS) $(TEST_NEEDS) | hosts
	@$(call pieces,test)

check-deep: test-needs
	@$(call pieces,deep)

pieces-quick pieces-test: test-c test-python
pieces-test: test-docs
pieces-deep: test-sanitizers test-c-deep test-proofs test-models test-sim test-sim-asan test-python $(if $(USERS),test-on-ours)

define pieces
rm -rf $(VENV)/logs/$(1); echo "$(LANES) pieces at a time; what they say is in $(VENV)/logs/$(1)"; \
$(MAKE) --no-print-directory -k -j$(LANES) -O DEPTH=$(1) $(2) pieces-$(1); result=$$?; \
echo; sh tests/piece.sh $(VENV)/logs/$(1) || result=1; exit $$result
endef

PIECE = sh $(abspath tests/piece.sh) $(abspath $(VENV))/logs/$(DEPTH)

test-c:
	@$(PIECE) C $(MAKE) -C tests/c run-plain $(if $(filter quick,$(DEPTH)),,run-plain-rings) CC="$(CC)"

test-c-deep: test-c-portable test-c-mutants

test-c-portable:
	@$(PIECE) C-portable $(MAKE) -C tests/c run-portable CC="$(CC)"

# With each line taken out without which somebody would sleep for ever: that the tests notice.
test-c-mutants:
	@$(PIECE) C-mutants $(MAKE) -C tests/c run-mutants CC="$(CC)"

# The models of the wake-up protocol, for the model checker spin.
test-models:
	@$(PIECE) models env CC="$(CC)" sh tests/models/run.sh $(abspath $(VENV))/models

# Proofs on the C sources, for the bounded model checker CBMC, which is fetched where there is none.
test-proofs:
	@$(PIECE) proofs env PROOFS="$(PROOFS)" sh tests/proofs/run.sh $(abspath $(VENV))/proofs

# The core on a simulated machine: 20000 runs that are always the same, and SEEDS new ones.
test-sim:
	@$(PIECE) sim $(MAKE) -s -C tests/sim run CC="$(CC)" SEEDS=$(SEEDS)

test-sim-asan:
	@$(PIECE) sim-asan $(MAKE) -s -C tests/sim run-asan CC="$(CC)"

test-asan:
	@$(PIECE) C-asan $(MAKE) -C tests/c run-asan run-asan-rings CC="$(CC)"

test-tsan:
	@$(PIECE) C-tsan $(MAKE) -C tests/c run-tsan run-tsan-rings CC="$(CC)"

# Python tests on extensions that were built for a sanitizer and with XC_ASSERT: see tests/sanitized.sh.
test-tsan-python: $(TSAN)/.made $(TEST_NEEDS)
	@CC="$(CC)" $(PIECE) Python-tsan sh tests/sanitized.sh tsan $(abspath $(TSAN)) $(BIN)/python $(TSAN_TESTS) $(PYTEST_ARGS)

test-asan-python: $(ASAN)/.made $(TEST_NEEDS)
	@CC="$(CC)" $(PIECE) Python-asan sh tests/sanitized.sh asan $(abspath $(ASAN)) $(BIN)/python $(ASAN_TESTS) $(PYTEST_ARGS)

# The same with XC_ASSERT alone, over all Python tests.
test-debug-python: $(DEBUG)/.made $(WEIGHTS) $(TEST_NEEDS) | hosts
	@CC="$(CC)" $(PIECE) Python-debug sh tests/sanitized.sh debug $(abspath $(DEBUG)) $(BIN)/python $(PYTEST_ARGS)

$(TSAN)/.made: SANITIZER = -fsanitize=thread
$(ASAN)/.made: SANITIZER = -fsanitize=address,undefined

# Environments of their own, and source trees, or other builds would find their objects.
$(TSAN)/.made $(ASAN)/.made $(DEBUG)/.made: $(MADE) pyproject.toml setup.py README.rst $(SOURCES)
	rm -rf $(@D)
	$(BIN)/python -m venv --without-pip $(@D)
	mkdir -p $(@D)/source
	cp -R pyproject.toml setup.py README.rst LICENSE src execnet_c $(@D)/source
	site="$$($(@D)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"; \
	CC="$(CC)" EXECNET_C_CFLAGS="$(SANITIZER) -DXC_DEBUG -O1 -g -fno-omit-frame-pointer" \
		$(PIP) install --no-deps --target "$$site" $(abspath $(@D))/source && \
		sed -i '1s|.*|#!$(abspath $(@D))/bin/python|' "$$site"/bin/* && mv "$$site"/bin/* $(@D)/bin
	ln -s ../users $(@D)/users
	touch $@

# Those that the compiler can build and this machine can run; all of them with SANITIZERS=required.
test-sanitizers: test-thread-sanitizer test-address-sanitizer

test-address-sanitizer: $(TEST_NEEDS)
	+@$(call with_sanitizer,address,test-asan-python test-asan)

test-thread-sanitizer: $(TEST_NEEDS)
	+@$(call with_sanitizer,thread,test-tsan-python test-tsan)

define with_sanitizer
dir=$$(mktemp -d); echo 'int main(void) { return 0; }' > $$dir/probe.c; \
if [ "$(SANITIZERS)" = required ] || { $(CC) -fsanitize=$(1) -o $$dir/probe $$dir/probe.c && \
   { $$dir/probe || setarch -R $$dir/probe; }; } 2>/dev/null; \
then rm -rf $$dir; $(MAKE) --no-print-directory -k $(2); \
else rm -rf $$dir; echo "$(2) left out: what $(CC) builds with -fsanitize=$(1) does not run here"; fi
endef

# A run of pytest for each pairing and part, the longest first.
test-python: $(foreach pairing,$(PAIRINGS),$(PARTS:%=test-pairing-$(pairing).%))

test-pairing-%: words = $(subst ., ,$*)
test-pairing-%: $(PACKAGE) $(WEIGHTS) $(TEST_NEEDS) | hosts
	@cd tests && EXECNET_C_TEST_PAIRING=$(word 1,$(words)) $(PIECE) $* \
		$(BIN)/pytest --depth $(DEPTH) --part $(word 2,$(words))/$(word 3,$(words)) $(PYTEST_ARGS)

# The pages build without a warning, and what they show is so.
test-docs: $(PACKAGE) $(WEIGHTS) $(TEST_NEEDS) | hosts
	@$(PIECE) docs sh -c '$(MAKE) --no-print-directory -s docs && $(BIN)/pytest docs $(PYTEST_ARGS)'

# Our own tests in the workers of a pytest-xdist that runs on this package.
test-on-ours: test-needs
	@cd tests && $(PIECE) on-ours $(BIN)/python -m pytest -p execnet_c.pytest_plugin -n 2 $(ON_OURS) $(PYTEST_ARGS)

test-needs: $(PACKAGE) $(WEIGHTS) $(TEST_NEEDS) $(if $(USERS),$(USER_NEEDS)) | hosts

# What the tests of ssh start: sshd, other login shells, network namespaces. Installed where that is ours to do, which is
# for root in a Debian container: with an init running, the package would start an sshd for the whole world. Elsewhere the
# tests say what they skip, or fail if CI=true.
HOST_NEEDS := sshd:openssh-server ssh:openssh-client tcsh:tcsh fish:fish ip:iproute2 nsenter:util-linux

hosts:
	@missing=; for need in $(HOST_NEEDS); do \
		PATH="$$PATH:/usr/sbin:/sbin" command -v $${need%%:*} >/dev/null || missing="$$missing $${need#*:}"; \
	done; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && [ -e /etc/debian_version ] && \
		[ ! -d /run/systemd/system ]; then \
		echo "installing for the tests of ssh:$$missing"; \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; } \
			>/dev/null || echo "could not be installed:$$missing"; \
	fi

lint: lint-layout lint-python lint-core lint-warnings

lint-layout: $(LINT_NEEDS)
	$(BIN)/clang-format --dry-run -Werror $(C_FILES)

lint-python: $(LINT_NEEDS)
	$(BIN)/ruff check .

# No warning from either compiler: the core and what of the tagger is like it without Python.h in reach and with their
# locks as annotated, of which a test makes sure that clang looks at them...
lint-core:
	printf '%s\n' src/core/*/*.c src/tagger/xt_*.c | xargs -P 2 -I FILE gcc $(STRICT) -c FILE -o /dev/null
	printf '%s\n' src/core/*/*.c src/tagger/xt_*.c | xargs -P 2 -I FILE clang $(LOCKS) -c FILE -o /dev/null
	clang $(LOCKS) -DXC_PORTABLE -DXC_DEBUG -fsyntax-only src/core/*/*.c src/tagger/xt_*.c
	CLANG="clang $(LOCKS)" sh tests/c/lock_mutants.sh src/core

# ... and what is for this PYTHON.
lint-warnings: INCLUDE = -I$(shell $(PYTHON) -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
lint-warnings:
	printf '%s\n' src/py/*.c src/tagger/xtpy_*.c | xargs -P 2 -I FILE gcc $(STRICT) $(INCLUDE) -c FILE -o /dev/null
	printf '%s\n' src/py/*.c src/tagger/xtpy_*.c | xargs -P 2 -I FILE clang $(LOCKS) $(INCLUDE) -c FILE -o /dev/null

docs: $(PACKAGE) $(TEST_NEEDS)
	$(BIN)/sphinx-build -q -W --keep-going -d $(VENV)/docs-read docs $(VENV)/docs
	@echo "$(abspath $(VENV))/docs/index.html"

format: $(LINT_NEEDS)
	$(BIN)/clang-format -i $(C_FILES)

# Less than ten minutes beside other libraries and what the system gives at best; less than one for the quick one, which
# says less. What `make bench RESULTS=benchmarks/results` writes is what the README shows.
bench: $(PACKAGE) $(WEIGHTS) $(BENCH_NEEDS) $(LIMITS)
	cd benchmarks && $(BIN)/python run.py --limits $(abspath $(VENV))/limits --results $(abspath $(RESULTS)) $(BENCH_ARGS)

bench-quick: $(PACKAGE) $(WEIGHTS) $(BENCH_NEEDS) $(LIMITS)
	cd benchmarks && $(BIN)/python run.py --quick --limits $(abspath $(VENV))/limits $(BENCH_ARGS)

# The C programs that show what the system gives at best.
bench-limits: $(LIMITS)

$(VENV)/limits/%: benchmarks/limits/%.c benchmarks/limits/common.h | $(MADE)
	mkdir -p $(@D)
	$(CC) $(STRICT) -o $@ $<

clean:
	@$(call only_an_environment)
	rm -rf $(VENV) build dist *.egg-info .pytest_cache tests/.pytest_cache tests/.hypothesis tests/c/build tests/sim/build
	find . -name __pycache__ -prune -exec rm -rf {} +

# VENV is about to be removed: refuse if it is anything but a virtual environment.
define only_an_environment
test ! -e $(VENV) -o -e $(VENV)/pyvenv.cfg || { echo "VENV=$(VENV) is no virtual environment; left as it is"; exit 1; }
endef

# pip --python fills an environment where Python has no ensurepip of its own (Debian without python3-venv).
$(MADE):
	@test -n "$(VERSION)" || { echo "PYTHON=$(PYTHON) does not run; name a Python, 3.10 or newer"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed, not $(VERSION)")'
	@$(call only_an_environment)
	@echo "Making a virtual environment in $(VENV) for Python $(VERSION)"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) >/dev/null || { rm -rf $(VENV) && $(PYTHON) -m venv --without-pip $(VENV) && \
		$(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }
	@touch $@

# What an earlier build has left in build/ would go into the wheel.
$(PACKAGE): $(MADE) pyproject.toml setup.py README.rst $(SOURCES)
	@echo "Compiling execnet_c ($(words $(filter %.c,$(SOURCES))) files of C; half a minute, perhaps)"
	@rm -rf build $(VENV)/wheel
	@$(PIP) wheel --no-deps --wheel-dir $(VENV)/wheel .
	@echo "Installing it in $(VENV), with NLTK and tqdm"
	@$(PIP) install --force-reinstall --no-deps $(VENV)/wheel/*.whl
	@$(PIP) install "$$(echo $(VENV)/wheel/*.whl)[nltk]"
	@cd examples && $(BIN)/python -W ignore -c "import execnet_c; print('Installed; it works with its core in', execnet_c.core)"
	@touch $@

# Only its data file is used; what its code needs stays away.
$(WEIGHTS): $(MADE)
	@echo "Installing the weights of the tagger"
	@$(PIP) install --no-deps textblob-aptagger
	@touch $@

# For a free-threaded Python some of it cannot be had, and some could only be built in a long time: each by itself then,
# in the newest version that is there for it.
$(TEST_NEEDS): $(MADE) pyproject.toml tests/needs.py | $(PACKAGE)
ifeq ($(findstring t,$(VERSION)),)
	$(PIP) install "$$(echo $(VENV)/wheel/*.whl)[test]"
else
	@$(BIN)/python tests/needs.py | while read -r need; do \
		$(PIP) install --only-binary :all: "$$need" 2>/dev/null || \
			echo "$$need is not to be had for $(PYTHON); the tests that need it say what they skip"; \
	done
endif
	touch $@

# The package itself stays out of there, or programs would run on an older build of it.
$(USER_NEEDS): $(MADE) pyproject.toml | $(PACKAGE)
	rm -rf $(VENV)/users
	$(PIP) install --no-warn-conflicts --target $(VENV)/users "$$(echo $(VENV)/wheel/*.whl)[users]" || \
		echo "other programs that use execnet could not be installed; their tests say what they skip"
	rm -rf $(VENV)/users/execnet_c* $(VENV)/users/bin/execnet-c*
	touch $@

# Each at one version: another one finds other faults.
$(LINT_NEEDS): $(MADE) Makefile
	$(PIP) install clang-format==14.0.6 ruff==0.17.6
	touch $@

$(BENCH_NEEDS): $(MADE) pyproject.toml | $(PACKAGE)
	$(PIP) install "$$(echo $(VENV)/wheel/*.whl)[bench]"
	touch $@
