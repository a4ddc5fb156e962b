"""Words and settings that several parts of the command line know; imports nothing heavy."""

from __future__ import annotations

import re

# Trainer entry points, handed to LightningCLI.
TRAINER_COMMANDS = {
    "fit": "train a network",
    "validate": "measure a network on the validation images",
    "test": "measure a network on the test images",
    "predict": "deblur the test images and write them as files",
}

NEGATIVE_NUMBER = re.compile(r"-(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$", re.IGNORECASE)  # argparse's own knows no exponents

# Sizes at which the network in the box deblurs, where nothing adapts: what adaptation brings was measured with one.
OWN_SCALES = 3
