# Everything runs in the host's own environment, which `make host` keeps in the user's cache folder (scripts/host.py).
PYTHON3 ?= python3
HOST = $(PYTHON3) scripts/host.py
# Expanded when a recipe runs, so that the host is there by then; its progress goes to stderr, not in here.
PYTHON = $$($(HOST) --python)

.PHONY: help host demo test fuzz soak bench bench-draft bench-motion models train-tiny

help:  ## show what there is to make
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/'

host:  ## get ComfyUI and its packages, and link the pack into it
	@$(HOST)

demo: host  ## animate a picture with a real video, into output/demo/
	@$(PYTHON) scripts/demo.py

test: host  ## lint, unit tests and the end-to-end test against a running ComfyUI
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m pytest -n 2 --dist loadfile tests

fuzz: host  ## give every node odd values, by widget and by link: 3,000 of them, about ten minutes
	@$(PYTHON) scripts/fuzz.py

soak: host  ## run 500 prompts in one host, every third canceled, and watch its memory
	@$(PYTHON) scripts/soak.py

bench: host  ## measure speed and memory
	@$(PYTHON) scripts/bench.py

bench-motion: host  ## measure Pose to Tracks on real clips, virtual cameras and stage clips
	@$(PYTHON) scripts/bench_motion.py

bench-draft: host  ## measure the draft shot, and draw docs/draft.jpg anew
	@$(PYTHON) scripts/bench_draft.py --sheet docs/draft.jpg

models: host  ## list the model files that nodes and workflows can use (scripts/models.py get NAME downloads one)
	@$(PYTHON) scripts/models.py

# What was broken off goes on where it was. Figures, and what differs from the weights that ship: weights/README.md.
train-tiny: host  ## train the tiny family anew, into weights/: about eight hours on two quiet cores, reckoned by its parts
	$(PYTHON) scripts/train_vae.py train
	$(PYTHON) scripts/train_vae.py export
	$(PYTHON) scripts/train_vae.py train --run runs/vae-decoder --start weights/vae/aa_tiny_vae.safetensors \
		--decoder 128 96 48 32 --decoder-blocks 3 3 2 --no-encoder --steps 3000 --cooldown 0.5 --seed 1
	$(PYTHON) scripts/train_vae.py export --run runs/vae-decoder
	$(PYTHON) scripts/train.py tiny-cpu --resume
	cp runs/tiny-cpu/base/base.safetensors weights/diffusion_models/aa_tiny_base.safetensors
	cp runs/tiny-cpu/joint/adapter.safetensors weights/animate_anywhere/aa_tiny_adapter.safetensors
	$(PYTHON) scripts/train_pose_motion.py train --run runs/tiny-cpu/pose_motion \
		$(if $(wildcard runs/tiny-cpu/pose_motion/checkpoint.safetensors),--resume)
