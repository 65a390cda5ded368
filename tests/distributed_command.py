"""`tcmoa train` with a small `tiny`, for tests that start it by torchrun."""

import sys

import tcmoa.config
import tcmoa.train
from tcmoa_runtime.cli import run
from training_runs import SMALL

if __name__ == "__main__":
    for module in (tcmoa.train, tcmoa.config):
        module.PRESETS = {"tiny": SMALL}
    sys.exit(run(["train", *sys.argv[1:]]))
