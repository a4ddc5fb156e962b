"""How the files of a data set become pairs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from reblurkit.core.special_files import read_text
from reblurkit.core.suggestions import did_you_mean, near_path
from reblurkit.data.images import SUFFIXES
from reblurkit.data.layouts import LAYOUTS, Layout, Split
from reblurkit.data.patterns import Captured, Pattern, common_wildcards, index_files, walk_files
from reblurkit.errors import ArgumentError, DatasetNotFoundError, PairingError, ReblurkitError

_BLURRY_ONLY = (
    "where there are blurry images alone, `reblurkit adapt-video` adapts a trained network to frames of a video, and "
    "Blur2BlurTranslator (UnpairedDataModule) translates the blur of photos; sharp photos alone are blurred by "
    "SyntheticBlurDataModule"
)
_LONGEST_LIST = 2**28  # bytes


class Pair(NamedTuple):
    """A blurry and a sharp file, and the blurry file's path below the root without suffix."""

    name: str
    blurry: Path
    sharp: Path


def find_pairs(
    root: Path,
    layout: str,
    *,
    split: str | None,
    blur: str | None = None,
    sharp: str | None = None,
    list_file: str | None = None,
) -> list[Pair]:
    """List the pairs of a data set, sorted by name.

    Args:
        root: The data set's folder.
        layout: A key of ``LAYOUTS``.
        split: A split of the layout or a folder's name; ``None``: the root has no split folders, or all pairs.
        blur: The blurry images' folder where it is not the layout's, or, with a wildcard in it, a whole pattern.
        sharp: The same for sharp images.
        list_file: A file that names the pairs, one a line: sharp file, white space, blurry file, both relative to the
            root and as the layout has them. ``{split}`` in its name stands for the split. Files that it does not name
            are left out.

    Raises:
        ArgumentError: If the layout or the split is unknown, or a path leads out of the root.
        DatasetNotFoundError: If the root, the list, a file that it names, or all images are missing.
        PairingError: If an image has no partner, two have the same name, or a line of the list names no pair.
    """
    if layout not in LAYOUTS:
        raise ArgumentError(
            f"unknown layout {layout!r}; known layouts: {', '.join(LAYOUTS)}{did_you_mean(layout, LAYOUTS)}"
        )
    try:
        return _find_pairs(root, layout, split, blur, sharp, list_file)
    except DatasetNotFoundError as error:
        if (blur, sharp, list_file) == (None, None, None):
            fitting = [repr(other) for other in LAYOUTS if other != layout and _fits(root, other, split, None, None)]
            if fitting:
                raise DatasetNotFoundError(f"{error}; it looks like the layout {' or '.join(fitting)}") from None
        others = {"train", "val", "test", *LAYOUTS[layout].splits} - {split}
        if _holds_images(root) and not any(_fits(root, layout, other, blur, sharp) for other in others):
            raise DatasetNotFoundError(f"{error}; {_BLURRY_ONLY}") from None
        raise


def _holds_images(root: Path) -> bool:
    return root.is_dir() and any(path.suffix.lower() in SUFFIXES for path in walk_files(root))


def _fits(root: Path, layout: str, split: str | None, blur: str | None, sharp: str | None) -> bool:
    try:
        return bool(_find_pairs(root, layout, split, blur, sharp, None))
    except ReblurkitError:
        return False


def _find_pairs(
    root: Path, layout: str, split: str | None, blur: str | None, sharp: str | None, list_file: str | None
) -> list[Pair]:
    if not root.is_dir():
        raise DatasetNotFoundError(
            f"no data set folder {root}" + (" (it is a file)" if root.is_file() else near_path(root))
        )
    preset = LAYOUTS[layout]
    part = _split(layout, preset, split)
    if list_file is not None:
        part = replace(part, list_file=list_file.replace("{split}", split or ""))
    patterns = (
        _pattern(preset.blurry, preset.blur_folder, blur, split, part),
        _pattern(preset.sharp, preset.sharp_folder, sharp, split, part),
    )
    for pattern in patterns:
        _check_below(root, pattern.text, "one is")
    if patterns[0].text == patterns[1].text:
        raise PairingError(f"{root}: blurry and sharp images are the same files, {patterns[0].text!r}")
    if part.list_file is not None:
        return sorted(_listed_pairs(root, root / part.list_file, patterns, preset.note))
    # One folder of sharp images for all splits: the others' are no partners of this one's.
    partial = split is not None and "{split}" in preset.blurry and "{split}" not in preset.sharp
    return sorted(_matching_pairs(root, patterns, part, preset.note, sharp_may_be_lonely=partial))


def _split(layout: str, preset: Layout, split: str | None) -> Split:
    if split is None:
        return Split()
    if "{split}" in preset.blurry:
        return preset.splits.get(split, Split(split))
    if split not in preset.splits:
        raise ArgumentError(
            f"layout {layout!r} has no split {split!r}; it has: {', '.join(preset.splits)}, or null for all pairs"
        )
    return preset.splits[split]


def _pattern(preset: str, folder: str, wanted: str | None, split: str | None, part: Split) -> Pattern:
    if wanted is not None and ("*" in wanted or "<" in wanted):
        text = wanted
    elif wanted is not None and "{folder}" not in preset:
        raise ArgumentError(f"images of the pattern {preset!r} lie in no folder of the name {wanted!r}; give a pattern")
    else:
        text = preset.replace("{folder}", wanted or folder)
    if split is None:
        text = text.replace("{split}/", "")
        if "{split}" in text:
            raise ArgumentError(f"a data set of the pattern {preset!r} cannot be read without a split; name one")
    return Pattern(text.replace("{split}", part.folder))


def _matching_pairs(
    root: Path, patterns: tuple[Pattern, Pattern], part: Split, note: str, *, sharp_may_be_lonely: bool
) -> list[Pair]:
    """All pairs of files that match the patterns."""
    blurry_files, sharp_files = (_files(root, pattern, part, note) for pattern in patterns)
    wildcards = common_wildcards(*patterns)
    both = {path for path, _ in blurry_files} & {path for path, _ in sharp_files}
    if both:
        raise PairingError(f"{root}: some files are both blurry and sharp images{_some(map(str, both))}")
    index_files(blurry_files, patterns[0].wildcards - patterns[0].places)  # refuses two files of one name
    sharp_of = index_files(sharp_files, wildcards)
    partners = {path: sharp_of.get(tuple(captured[name] for name in wildcards)) for path, captured in blurry_files}
    lonely_blurry = [path for path, sharp in partners.items() if sharp is None]
    lonely_sharp = [] if sharp_may_be_lonely else sorted(set(sharp_of.values()) - set(partners.values()))
    if lonely_blurry or lonely_sharp:
        raise PairingError(
            f"{root}: {len(lonely_blurry)} of {len(partners)} images of {patterns[0].text!r} have no partner"
            f"{_some(path.name for path in lonely_blurry)}, {len(lonely_sharp)} of {len(sharp_of)} of "
            f"{patterns[1].text!r} have none{_some(path.name for path in lonely_sharp)}; pairs need equal names"
        )
    return [_pair(root, blurry, sharp) for blurry, sharp in partners.items() if sharp is not None]


def _files(root: Path, pattern: Pattern, part: Split, note: str) -> list[tuple[Path, dict[str, str]]]:
    files = [(path, captured) for path, captured in pattern.files(root) if _belongs(captured, part)]
    if not files:
        nearest = root
        for name in pattern.folder.split("/"):
            nearest = nearest / name if (nearest / name).is_dir() else nearest
        raise DatasetNotFoundError(
            f"no images match {pattern.text!r} in {root}; {nearest} holds: {_content(nearest)}; name the folders by "
            "`blur` and `sharp`, as 'NAME' in each split's folder or as patterns ('{split}/blur/*'); a root that is "
            "not divided has the split null" + (f"; {note}" if note else "")
        )
    return files


def _belongs(captured: Captured, part: Split) -> bool:
    video = captured.get("video", "")
    return video not in part.without and (part.only is None or video in part.only)


def _listed_pairs(root: Path, file: Path, patterns: tuple[Pattern, Pattern], note: str) -> list[Pair]:
    """The pairs that a list names; each must be one of the layout, so that swapped columns are found."""
    if not file.is_file():
        raise DatasetNotFoundError(
            f"no list of pairs {file}; {root} holds: {_content(root)}; name another by `list_file`, or take all pairs "
            "with the split null" + (f"; {note}" if note else "")
        )
    try:
        # Editors of Windows begin files with a mark.
        lines = read_text(file, largest=_LONGEST_LIST, encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise PairingError(f"{file} must be a list of pairs in UTF-8, but is another kind of file") from error
    except OSError as error:
        raise PairingError(f"cannot read the list of pairs {file}: {error.strerror or error}") from error
    wildcards = common_wildcards(*patterns)
    pairs = []
    for number, line in enumerate(lines, 1):
        names = line.split()
        if not names:
            continue
        place = f"line {number} of {file}"
        for name in names:
            _check_below(root, name, f"{place} has")
        captured = [pattern.match(Path(name)) for pattern, name in zip(patterns, reversed(names), strict=False)]
        if len(names) != 2 or not _agree(captured, wildcards):
            raise PairingError(
                f"{place} must name a sharp image like {patterns[1].text!r} and its blurry one like "
                f"{patterns[0].text!r}, but is {line.strip()[:200]!r}"
            )
        pairs.append(_pair(root, root / names[1], root / names[0]))
    missing = [path for pair in pairs for path in (pair.blurry, pair.sharp) if not path.is_file()]
    if missing or not pairs:
        raise DatasetNotFoundError(
            f"{file} names {len(pairs)} pairs, {len(missing)} of whose files are not in {root}"
            f"{_some(path.relative_to(root).as_posix() for path in missing)}"
        )
    return pairs


def _agree(captured: list[dict[str, str] | None], wildcards: list[str]) -> bool:
    blurry, sharp = captured if len(captured) == 2 else (None, None)
    return blurry is not None and sharp is not None and all(blurry[name] == sharp[name] for name in wildcards)


def _pair(root: Path, blurry: Path, sharp: Path) -> Pair:
    return Pair(blurry.relative_to(root).with_suffix("").as_posix(), blurry, sharp)


def _check_below(root: Path, name: str, what: str) -> None:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ArgumentError(f"folders and files of a data set lie below its root {root}, but {what}: {name!r}")


def _content(root: Path) -> str:
    return ", ".join(sorted(entry.name for entry in root.iterdir())[:8]) or "nothing"


def _some(names: Iterable[str]) -> str:
    first = sorted(names)[:3]
    return f" ({', '.join(first)}{', ...' if len(first) == 3 else ''})" if first else ""
