"""Which of Lightning's messages a user of the command line sees."""

from __future__ import annotations

import logging
import warnings

from lightning.fabric.utilities import rank_zero_only

from reblurkit.cli.failures import tell

_ADVICE = (
    # For people who write Lightning programs; a user of the command line cannot act on it.
    ".*does not have many workers.*",
    ".*tensorboardX. has been removed.*",
    ".*LeafSpec.*is deprecated.*",
    ".*is smaller than the logging interval.*",
    ".*The dirpath has changed from.*",
)


_ROUTINE = ("Tip:", "GPU available: False", "TPU available", "Seed set to", "Loading `train_dataloader`")


@rank_zero_only
def say(message: str) -> None:
    """Print a line of news, once for all processes."""
    tell(message)


def hide_advice() -> None:
    """Hide hints and deprecations that are addressed to programmers, and routine news; real warnings stay."""
    for message in _ADVICE:
        warnings.filterwarnings("ignore", message)
    for name in ("lightning.pytorch", "lightning.fabric"):
        for handler in logging.getLogger(name).handlers:
            handler.addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return not any(routine in str(record.msg) for routine in _ROUTINE)
