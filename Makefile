# The commands a person and CI run. `make demo` and `make test` work in a fresh clone.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

# Stacks whose versions exclude each other live here, one environment each.
ENVS ?= .envs

.PHONY: gates arm64 vulkan npu litert test-litert executorch test-executorch demo test test-slow check format system clean

demo: .venv/core
	$(BIN)/vggt-edge reconstruct vggt_edge/assets/sample -o demo --size 112 --formats glb,html,colmap
	@echo "open demo/scene.html in a browser"

test: .venv/dev system
	$(BIN)/pytest -n 2

test-slow: .venv/dev system
	$(BIN)/pytest -m slow

check: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Chromium drives the tests of the HTML viewer; without it they are skipped, in CI they fail. The C
# compiler builds the kernels.
system:
	@if ! command -v cc >/dev/null; then \
	  if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	    apt-get update -q && apt-get install -y -q --no-install-recommends gcc libc6-dev; \
	  else echo "the fast kernels need a C compiler: please install gcc"; fi; fi
	@if ! command -v chromedriver >/dev/null; then \
	  if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	    apt-get update -q && apt-get install -y -q --no-install-recommends chromium chromium-driver; \
	  else echo "the viewer's tests need chromium and chromedriver: please install them"; fi; fi

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/core: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) torch
	$(PIP) --editable '.[video,heif]'
	@touch $@

.venv/dev: .venv/core
	$(PIP) --editable '.[dev]'
	@touch $@

# LiteRT's converter, quantizer and runtime, and this package: $(ENVS)/litert/bin/vggt-edge export
litert: $(ENVS)/litert/ready

$(ENVS)/litert/ready: pyproject.toml constraints-litert.txt
	$(PYTHON) -m venv $(ENVS)/litert
	$(ENVS)/litert/bin/pip install --quiet --constraint constraints-litert.txt torch
	$(ENVS)/litert/bin/pip install --quiet --constraint constraints-litert.txt --editable '.[litert]' pytest hypothesis
	@touch $@

test-litert: litert
	$(ENVS)/litert/bin/python -m pytest -p no:anyio tests/export

# ExecuTorch's compiler, runtime and quantizer: $(ENVS)/executorch/bin/vggt-edge export --target executorch
executorch: $(ENVS)/executorch/ready

$(ENVS)/executorch/ready: pyproject.toml constraints-executorch.txt
	$(PYTHON) -m venv $(ENVS)/executorch
	$(ENVS)/executorch/bin/pip install --quiet --constraint constraints-executorch.txt torch
	$(ENVS)/executorch/bin/pip install --quiet --constraint constraints-executorch.txt --editable '.[executorch]' pytest hypothesis
	@touch $@

# The slow tests too: every test that lowers is one, and no other environment can run them.
test-executorch: executorch
	$(ENVS)/executorch/bin/python -m pytest -p no:anyio -m "not gpu" tests/export

# What `vggt-edge check` runs in; a gate whose environment is missing is skipped and says so.
gates: litert executorch arm64 vulkan npu .venv/npu

# npu-numerics makes the network's ONNX in the environment that runs `check`.
.venv/npu: .venv/core
	$(PIP) --editable '.[npu]'
	@touch $@

arm64: $(ENVS)/arm64/ready
vulkan: $(ENVS)/vulkan/ready
npu: $(ENVS)/npu/ready

$(ENVS)/%/ready: envs/%.sh envs/debs.sh
	PYTHON="$(PYTHON)" sh envs/$*.sh $(ENVS)/$*
	@touch $@

clean:
	rm -rf .venv .envs demo out build *.egg-info
