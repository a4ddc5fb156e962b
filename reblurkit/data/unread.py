"""Pictures and videos of kinds that are not read, pipes and devices: none is left out without a word."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

from reblurkit.core.special_files import special_kind

_RAW = {".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".kdc", ".mef", ".mrw", ".nef", ".nrw", ".orf", ".pef",
        ".raf", ".raw", ".rw2", ".sr2", ".srf", ".srw", ".x3f"}  # fmt: skip
_PICTURES = {".apng", ".dds", ".exr", ".gif", ".hdr", ".hif", ".ico", ".insp", ".j2k", ".jp2", ".jpx", ".jxl", ".jxr",
             ".mpo", ".pam", ".pbm", ".pcx", ".pfm", ".pgm", ".pnm", ".ppm", ".psd", ".qoi", ".svg", ".tga", ".wdp",
             ".xcf"}  # fmt: skip
_VIDEOS = {".3g2", ".asf", ".braw", ".divx", ".f4v", ".flv", ".insv", ".m1v", ".m2v", ".mjpg", ".mxf", ".ogv", ".r3d",
           ".rm", ".vob", ".wmv", ".y4m"}  # fmt: skip
_UNREAD = frozenset(_RAW | _PICTURES | _VIDEOS)
_SHOWN = 20


def unread_files(files: Iterable[Path]) -> list[Path]:
    """Those of some files that are pictures or videos of a kind that is not read, and what is no file at all."""
    return [
        path
        for path in files
        if not path.name.startswith(".") and (path.suffix.lower() in _UNREAD or special_kind(path) is not None)
    ]


def unread_line(files: list[Path]) -> str:
    """One line that names files."""
    others = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
    kinds = {path: special_kind(path) for path in files[:_SHOWN]}
    names = ", ".join(f"{path} ({kind})" if kind else str(path) for path, kind in kinds.items())
    return f"left out, because files of these kinds are not read: {names}{others}; convert them to PNG, TIFF or MP4"


def warn_unread(files: Iterable[Path]) -> None:
    """Warn of pictures and videos that are not read."""
    if unread := unread_files(files):
        warnings.warn(unread_line(unread), stacklevel=3)
