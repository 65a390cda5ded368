"""`tcmoa train` with a small `tiny`, for tests that start it by torchrun."""

import sys

import tcmoa.config
import tcmoa.initial_model
from tcmoa_runtime.cli import run
from training_runs import SMALL

if __name__ == "__main__":
    for module in (tcmoa.initial_model, tcmoa.config):
        module.PRESETS = {"tiny": SMALL}
    sys.exit(run(["train", *sys.argv[1:]]))
