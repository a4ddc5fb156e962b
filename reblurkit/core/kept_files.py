"""What objects read from files when they are built, kept in checkpoints, so that these need no other file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from reblurkit.errors import ReblurkitError

Content = Mapping[str, Tensor]


@dataclass
class KeptFiles:
    """The contents of files, by the paths that a configuration gives them.

    Args:
        contents: What a checkpoint brings.
        restoring: Objects are built for a checkpoint, which will set the weights of all networks that it trains.
        needed: Files that are neither kept nor there are an error; without, the objects that want them are not used.

    Attributes:
        used: What has been asked for, to be kept in checkpoints.
    """

    contents: dict[str, Content] = field(default_factory=dict)
    restoring: bool = False
    needed: bool = True
    used: dict[str, Content] = field(default_factory=dict)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Objects that are built in this block find their files here, and leave here what they read."""
        token = _in_use.set(self)
        try:
            yield
        finally:
            _in_use.reset(token)


def kept_contents(checkpoint: Mapping[str, Any]) -> dict[str, Content]:
    """What a checkpoint keeps of files."""
    noted = checkpoint.get("reblurkit")
    files = noted.get("files") if isinstance(noted, Mapping) else None
    return dict(files) if isinstance(files, Mapping) else {}


_in_use: ContextVar[KeptFiles | None] = ContextVar("kept_files", default=None)


def is_restoring() -> bool:
    """Whether an object is being built for a checkpoint that will set the weights of trained networks."""
    kept = _in_use.get()
    return kept is not None and kept.restoring


def files_are_needed() -> bool:
    """Whether an object that is being built will be used: not where a checkpoint's networks are all that is wanted."""
    kept = _in_use.get()
    return kept is None or kept.needed


def read_or_kept(key: str, read: Callable[[], Content]) -> Content | None:
    """The content of a file; None where it is not there and not needed.

    Args:
        key: Path of the file and what it is for.
        read: Reads it.

    Raises:
        ReblurkitError: If it is needed, and neither kept nor readable.
    """
    kept = _in_use.get()
    if kept is None:
        return read()
    if key not in kept.contents:
        try:
            kept.contents[key] = {name: value.detach().cpu().clone() for name, value in read().items()}
        except ReblurkitError:
            if kept.needed:
                raise
            return None
    kept.used[key] = kept.contents[key]
    return kept.used[key]
