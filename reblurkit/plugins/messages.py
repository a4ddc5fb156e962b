"""Which of Lightning's messages a user of the command line sees."""

from __future__ import annotations

import logging
import warnings

_ADVICE = (
    # For people who write Lightning programs; a user of the command line cannot act on it.
    ".*does not have many workers.*",
    ".*tensorboardX. has been removed.*",
    ".*LeafSpec.*is deprecated.*",
    ".*is smaller than the logging interval.*",
)


def hide_advice() -> None:
    """Hide hints and deprecations that are addressed to programmers; real warnings stay."""
    for message in _ADVICE:
        warnings.filterwarnings("ignore", message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return "Tip:" not in str(record.msg) and "TPU available" not in str(record.msg)
