# Each target sets up what it needs in .venv, once.
#   make predict                        the sample in docs/sample
#   make predict INPUT=dir OUTPUT=dir   a folder of scans; FLAGS="--plan dense" adds flags
#   make training-kit DATA=dir          packed scans for a machine with a GPU: docs/training.md
#   make gpu-kit SCANS="scan..."         what a machine with a GPU needs to measure: python -m benchmark gpu --help
#   make check                          lint and the quick tests: 3 minutes on two cores, once .venv is set up
#   make test                           lint and all tests, in two processes: at most 15 minutes
#   make release                        a folder that installs without a network: docs/closed-networks.md
#   make soak | same | lint | image | card | doors | lock
PYTHON ?= python3
BIN := .venv/bin
SAMPLE := sample
RELEASE := release
GPU_KIT := .gpukit
# MB that one part of the training kit may have: a transfer of 64 MB carries it beside the tracked files.
PART ?= $(shell expr 60 - $$(git ls-files -z | du -cm --files0-from=- | tail -n 1 | cut -f 1))
TORCH = $(shell grep '^torch==' requirements/dev.txt)

.PHONY: predict check test training-kit gpu-kit gpu-kit-onnxruntime soak same lint format image card doors release lock clean

ifdef INPUT
predict: .venv/run
	@test -n "$(OUTPUT)" || { echo "error: give OUTPUT=dir as well" >&2; exit 2; }
	$(BIN)/python -m inference "$(INPUT)" "$(OUTPUT)" $(FLAGS)
else
predict: .venv/picture
	$(BIN)/python -m inference docs/sample $(SAMPLE) --json $(SAMPLE)/run.json $(FLAGS)
	$(BIN)/python -m benchmark picture docs/sample/HCC_048_0000.nii.gz $(SAMPLE)/HCC_048.nii.gz $(SAMPLE)/HCC_048.png
	@echo "labels:  $(SAMPLE)/HCC_048.nii.gz"
	@echo "picture: $(SAMPLE)/HCC_048.png"
endif

check: lint
	$(BIN)/python -m pytest -m "not slow"

# A slow machine that has other work takes up to three times as much processor time for a test as most_seconds allows.
test: lint
	$(BIN)/python -m pytest -o most_seconds=15 --durations=10 --numprocesses 2 --dist loadfile --no-loadscope-reorder \
		--max-worker-restart 0

# Four minutes of processor time, on all cores; what is packed already is kept. FROM=bn.pt adds weights to begin with.
training-kit: .venv/dev
	@test -n "$(DATA)" || { echo "error: give DATA=dir" >&2; exit 2; }
	$(BIN)/python -m training.pack .gpu --data "$(DATA)" --corrections training/corrections.json --synthetic 20 --part $(PART) $(if $(FROM),--from "$(FROM)")

# What a bare machine with a GPU needs for benchmark gpu, whose help has the command to run there. It lacks these wheels.
gpu-kit: .venv/dev
	@test -n "$(SCANS)" || { echo "error: give SCANS='X_0000.nii.gz ...', the largest first" >&2; exit 2; }
	$(BIN)/pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
		$(foreach n,28 27 17,--platform manylinux_2_$(n)_x86_64) --platform manylinux2014_x86_64 --dest $(GPU_KIT)/wheels \
		$(shell grep -oE '^(connected-components-3d|isal|nibabel|threadpoolctl|tqdm)==[^ ]+' requirements.txt)
	$(BIN)/python -m benchmark gpu-kit $(GPU_KIT) $(SCANS)

# ONNX Runtime for that machine, in parts like those of the training kit: its wheel has 256 MB.
gpu-kit-onnxruntime: .venv/dev
	rm -rf $(GPU_KIT)-onnxruntime
	$(BIN)/pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp --dest $(GPU_KIT)-onnxruntime \
		--platform manylinux_2_28_x86_64 $(shell grep -oE '^onnxruntime-gpu==[^ ]+' requirements/gpu.txt)
	cd $(GPU_KIT)-onnxruntime && ls *.whl > name && split --bytes $(PART)M --suffix-length 2 *.whl part_ && rm *.whl

# The long tests at their full length, and laws on many examples: about 25 minutes; the log is committed.
soak: .venv/dev
	SOAK=1 $(BIN)/python -m pytest -o faulthandler_timeout=0 -rP tests/inference/test_endurance.py tests/inference/test_laws.py | tee docs/soak.log

# Labels and records of this tree against those of the commit before it, or of BASE=commit; SCANS="..." adds scans.
same: .venv/dev
	BASE="$(BASE)" .ci/same $(SCANS)

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive inference
	$(BIN)/hadolint Dockerfile
	$(BIN)/shellcheck predict.sh requirements/*.sh training/recipe/train.sh .ci/run .ci/container .ci/regression .ci/release .ci/same \
		cluster/slurm.sbatch

format: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# With the labels that change from commit to commit: version, revision, date, base.
image:
	$(PYTHON) requirements/model_card.py labels | xargs -0 docker build -t viscera .

# The front matter of weights/README.md, after a change of weights or of scores.
card:
	$(PYTHON) requirements/model_card.py

# What XNAT reads of an image, in the Dockerfile, after a change of flags or of the version.
doors:
	$(PYTHON) requirements/doors.py

# PYTHONS="3.11 3.12" packs wheels for these versions, IMAGES="viscera:cpu viscera" images that are built already.
release: .venv/run
	@images="$(IMAGES)"; \
	if [ -z "$$images" ] && docker info >/dev/null 2>&1; then docker build -t viscera:cpu --target cpu . && images=viscera:cpu; fi; \
	[ -n "$$images" ] || echo "note: there is no Docker engine here, and the folder will hold no image" >&2; \
	$(BIN)/python requirements/release.py "$(RELEASE)" $(if $(PYTHONS),--pythons $(PYTHONS)) --images $$images

lock: .venv/dev
	$(BIN)/pip install --quiet uv
	PATH="$(CURDIR)/$(BIN):$$PATH" requirements/lock.sh

clean:
	rm -rf .venv $(SAMPLE)

.venv/run: requirements.txt requirements/environment.py
	$(PYTHON) requirements/environment.py .venv
	$(BIN)/pip install --quiet --require-hashes -r requirements.txt
	touch $@

# The one package more that pictures need, at the version of dev.txt.
.venv/picture: .venv/run requirements/dev.txt
	$(BIN)/pip install --quiet -c requirements/dev.txt matplotlib
	touch $@

# PyPI's torch brings CUDA, gigabytes of it; TORCH_INDEX=https://download.pytorch.org/whl/cpu does not. Torch has its
# packages come along, all others are in the lock: with theirs pip would add the torchvision that uv.toml leaves out.
.venv/dev: .venv/run requirements/dev.txt
	$(BIN)/pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	$(BIN)/pip install --quiet --no-deps -r requirements/dev.txt
	touch $@
