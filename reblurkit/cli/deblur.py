"""Image and video files in, deblurred image files out."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from torch import Tensor

from reblurkit.cli.adaptation_lines import adaptation_line
from reblurkit.core.file_locks import claimed
from reblurkit.core.memory import is_out_of_memory
from reblurkit.core.special_files import special_kind
from reblurkit.core.suggestions import near_path
from reblurkit.core.terminal import printable
from reblurkit.data.frames import FrameFiles, Frames, natural_order
from reblurkit.data.images import SUFFIXES, ImageKind, write_image
from reblurkit.data.patterns import result_names, walk_files
from reblurkit.data.unread import unread_files, unread_line
from reblurkit.data.video_reading import VIDEO_SUFFIXES, VideoFile
from reblurkit.data.video_writing import video_suffix, write_video
from reblurkit.errors import ArgumentError, DatasetNotFoundError, ImageFileError, ReblurkitError
from reblurkit.inference import Deblurrer
from reblurkit.pictures.files import save_picture
from reblurkit.pictures.grid import comparison_grid

Existing = Literal["refuse", "skip", "overwrite"]


class Outcome(NamedTuple):
    """What :func:`deblur_files` did.

    Attributes:
        written: Number of images.
        skipped: Number of images that existed already.
        failed: What failed, each with the reason.
        unread: Pictures and videos in the folders whose kinds are not read.
        elsewhere: Number of images that other runs into the same folder were writing, and which are left to them.
    """

    written: int
    skipped: int
    failed: list[str]
    unread: list[Path]
    elsewhere: int = 0


def deblur_files(
    inputs: Sequence[str],
    output: str,
    deblurrer: Deblurrer,
    *,
    existing: Existing = "refuse",
    strip: bool = False,
    video: bool = False,
    compare: bool = False,
    report: Callable[[str], None] | None = None,
) -> Outcome:
    """Deblur image files, folders of them, and videos.

    Images become PNG files of the same name; those of a folder keep their place below it, and those of a video go to a
    folder of the video's name. Names that differ in nothing but the suffix keep it: ``a.jpg.png``. Files of 16 bits
    stay at 16 bits. The EXIF orientation is applied; alpha, colour profile, resolution, and what EXIF says of the
    scene, such as date and place, are carried over. Several runs may share one folder: each image is written by one of
    them, and with ``"skip"`` each goes on with what no other has done or begun. For a network of several frames a
    folder of images is a video, whose first and last frame are repeated beyond its ends.

    Args:
        inputs: Image files, video files (extra ``[video]``), and folders that hold any of them at any depth.
        output: Folder, which may lie in one of the inputs, and is then not read.
        deblurrer: The networks.
        existing: What to do about files that exist already: ``"refuse"`` before anything is computed, ``"skip"`` them
            to go on with an interrupted run, or ``"overwrite"`` them. Inputs are never overwritten.
        strip: Write plain RGB values and nothing beside them.
        video: Write a video beside the frames of each video file, with its times and its sound, see
            :func:`reblurkit.data.video_writing.write_video`.
        compare: Write a picture of before and after, with an enlarged detail, beside each result: ``NAME_compare.jpg``;
            of an adapted image also what the network makes without adaptation.
        report: Called with a line for each image that the deblurrer has adapted to.

    Returns:
        What was done. Inputs that cannot be read or processed, or whose result cannot be written, are listed, and
        the others go on.

    Raises:
        ArgumentError: If two images would become one file, an existing file or input would be overwritten, or the
            output is named like a file.
        ReblurkitError: If nothing can be deblurred: what was wrong with the first input.
    """
    if existing not in get_args(Existing):
        raise ArgumentError(f"`existing` must be refuse, skip or overwrite, but is {existing!r}")
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise ArgumentError(f"`output` must be a folder, but {folder} is a file")
    if not folder.exists() and folder.suffix.lower() in SUFFIXES | VIDEO_SUFFIXES:
        raise ArgumentError(
            f"`output` must be a folder, in which each image keeps its name, but {folder} is named like a file"
        )
    sources, failures, found = _open(inputs, folder, deblurrer.frames, video)
    _check_targets(sources, found, existing, compare)
    folders = [path for path in map(Path, inputs) if path.is_dir()]
    unread = unread_files(file for path in folders for file in _visible(path, folder))
    written = skipped = elsewhere = 0
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("Deblurring", total=sum(len(source.targets) for source in sources))
        for source in sources:
            with claimed(_claim(source, folder)) as mine:
                if not mine and existing == "skip":
                    elsewhere += len(source.targets)
                    progress.advance(task, len(source.targets))
                    continue
                wanted = [i for i, target in enumerate(source.targets) if existing != "skip" or not target.exists()]
                left_out = len(source.targets) - len(wanted)
                skipped += left_out
                progress.update(
                    task, description=f"Deblurring {escape(printable(str(source.origin)))}", advance=left_out
                )
                try:
                    if not mine:
                        raise ArgumentError(f"another run is writing {source.targets[0]}; choose another `output`")
                    if existing == "refuse":
                        _refuse_existing(source, compare)  # once more: another run may have begun at the same time
                    before = deblurrer.corrected
                    for index, image in deblurrer.each_frame(source.frames, wanted):
                        _write(source, index, image, strip)
                        adapts = bool(deblurrer.options.steps)
                        if compare:
                            _write_comparison(source, index, _stages(deblurrer.plain, image, adapts))
                        if report is not None and adapts:
                            report(f"{_frame_name(source, index)}: {adaptation_line(deblurrer.changes[-1])}")
                        if report is not None and deblurrer.corrected > before:
                            report(f"{_frame_name(source, index)}: has one blur, corrected to agree with it")
                        written += 1
                        progress.advance(task)
                    if source.video is not None and not (existing == "skip" and source.video.exists()):
                        assert isinstance(source.frames, VideoFile)
                        write_video(source.targets, source.frames, source.video)
                except Exception as error:  # whatever is wrong with one input, the others go on
                    failures.append(_Failure(source.origin, _typed(error)))
            if source.frames.damage is not None:
                failures.append(_Failure(source.origin, ImageFileError(source.frames.damage)))
    if failures and not written and not skipped and not elsewhere:
        raise _first(failures)
    return Outcome(written, skipped, [str(failure) for failure in failures], unread, elsewhere)


def _write(source: _Source, index: int, image: Tensor, strip: bool) -> None:
    kind, target = source.frames.kind(index), source.targets[index]
    write_image(image, target, ImageKind(kind.bits) if strip else kind)


def _claim(source: _Source, folder: Path) -> Path:
    """What a run claims in the output folder, so that of several runs into it one alone writes a source's files."""
    return folder / source.targets[0].relative_to(folder).as_posix().replace("/", ":")


def _comparison(target: Path) -> Path:
    return target.with_name(f"{target.stem}_compare.jpg")


def _stages(plain: Tensor | None, image: Tensor, adapts: bool) -> dict[str, Tensor]:
    """What the network made by itself, where that is known, and the result, by their titles."""
    if plain is None:
        return {"after": image}
    titles = ("without adaptation", "adapted") if adapts else ("the network's", "corrected")
    return dict(zip(titles, (plain[0], image), strict=True))


def _write_comparison(source: _Source, index: int, after: dict[str, Tensor]) -> None:
    before = {"before": source.frames.read(index, index + 1)[0]}
    grid = comparison_grid([before | after], width=720 if len(after) == 1 else 560, detail=240, gained=True)
    save_picture(grid, _comparison(source.targets[index]), quality=92)


def _frame_name(source: _Source, index: int) -> str:
    name = " ".join(str(source.origin).split())
    return name if len(source.targets) == 1 else f"{name}, {source.targets[index].stem}"


class _Failure(NamedTuple):
    """An input that could not be read or processed."""

    origin: Path
    error: ReblurkitError

    def __str__(self) -> str:
        text = " ".join(str(self.error).split())
        is_named = str(self.origin) in re.split(r"[:;,]? ", text)
        return text if is_named else f"{' '.join(str(self.origin).split())}: {text}"


def _typed(error: Exception) -> ReblurkitError:
    if isinstance(error, ReblurkitError):
        return error
    reason = "there is not enough memory for it" if is_out_of_memory(error) else f"{type(error).__name__}: {error}"
    typed = ImageFileError(reason)
    typed.__cause__ = error
    return typed


def _first(failures: Sequence[_Failure]) -> ReblurkitError:
    others = f" (and {len(failures) - 1} more failed)" if len(failures) > 1 else ""
    error = type(failures[0].error)(f"{failures[0]}{others}")
    error.__cause__ = failures[0].error
    return error


class _Source(NamedTuple):
    """A video, or an image as a video of one frame."""

    origin: Path
    frames: Frames
    targets: list[Path]  # of each frame
    video: Path | None = None  # of all frames together


def _open(
    inputs: Sequence[str], output: Path, length: int, video: bool
) -> tuple[list[_Source], list[_Failure], list[Path]]:
    """The inputs that can be read, the others, and all files that were found, none of which may be overwritten."""
    sources: dict[str, _Source] = {}  # an input given twice is one
    failures: list[_Failure] = []
    found: list[Path] = []
    files: dict[Path, list[Path]] = {}
    for path in map(Path, inputs):
        try:
            files[path] = _files(path, output)
        except Exception as error:
            failures.append(_Failure(path, _typed(error)))
            continue
        found += files[path]
    names = result_names(found)
    for path in files:
        for group in _groups(files[path], together=length > 1 and path.is_dir()):
            try:
                source = _source(_frames(group), path if path.is_dir() else path.parent, output, names, video)
                sources.setdefault(os.path.abspath(source.origin), source)
            except Exception as error:
                failures.append(_Failure(group[0] if len(group) == 1 else group[0].parent, _typed(error)))
    if failures and not sources:
        raise _first(failures)
    return list(sources.values()), failures, found


def _files(path: Path, output: Path) -> list[Path]:
    """The image and video files that an input stands for."""
    suffixes = SUFFIXES | VIDEO_SUFFIXES
    if path.is_file():
        if path.suffix.lower() not in suffixes:
            raise ArgumentError(
                f"{path} must be an image or a video, by a name that ends in one of {', '.join(sorted(suffixes))}"
            )
        return [path]
    if not path.is_dir():
        kind = special_kind(path)
        raise DatasetNotFoundError(f"no file or folder {path}" + (f": it is {kind}" if kind else near_path(path)))
    if os.path.realpath(output) == os.path.realpath(path):
        raise ArgumentError(f"the folder {path} is both input and `output`; choose another `output`")
    visible = _visible(path, output)
    files = [file for file in visible if file.suffix.lower() in suffixes and special_kind(file) is None]
    if not files:
        unread = unread_files(visible)
        raise DatasetNotFoundError(
            f"no image or video in {path}: looked for {', '.join(sorted(suffixes))} files"
            + (f"; {unread_line(unread)}" if unread else "")
        )
    return files


def _visible(folder: Path, output: Path) -> list[Path]:
    """The files below a folder that are not hidden, and are no results of an earlier run."""
    return [
        file
        for file in walk_files(folder)
        if not any(part.startswith(".") for part in file.relative_to(folder).parts)
        and _is_outside(file, folder, output)
    ]


def _groups(files: Sequence[Path], *, together: bool) -> Iterator[list[Path]]:
    """Each file for itself; or, for a network of several frames, the images of a folder as the frames of a video."""
    for _, group in groupby(sorted(files, key=lambda file: (file.parent, file.name)), lambda file: file.parent):
        paths = sorted(group, key=lambda file: natural_order(file.name))
        frames = [path for path in paths if together and path.suffix.lower() in SUFFIXES]
        yield from [frames] if frames else []
        yield from ([path] for path in paths if path not in frames)


def _is_outside(file: Path, root: Path, output: Path) -> bool:
    """Whether a file is none of the results of an earlier run, where those lie inside an input folder."""
    results = Path(os.path.realpath(output))  # Path.resolve raises on links that lead back to themselves
    inside = results.is_relative_to(os.path.realpath(root))
    return not (inside and Path(os.path.realpath(file)).is_relative_to(results))


def _frames(paths: list[Path]) -> Frames:
    is_video = paths[0].suffix.lower() in VIDEO_SUFFIXES
    return VideoFile(paths[0].stem, paths[0]) if is_video else FrameFiles(paths[0].stem, paths)


def _source(frames: Frames, root: Path, output: Path, names: Mapping[Path, Path], video: bool) -> _Source:
    """A video and where its deblurred frames go, by its place below a folder."""

    def place(path: Path, suffix: str = "") -> Path:
        name = names[path]
        return output / name.with_name(f"{name.name}{suffix}").relative_to(root)

    if isinstance(frames, FrameFiles):
        origin = frames.paths[0] if len(frames) == 1 else frames.paths[0].parent
        return _Source(origin, frames, [place(path, ".png") for path in frames.paths])
    assert isinstance(frames, VideoFile)
    origin = frames.path
    targets = [place(origin) / f"{frames.frame_name(index)}.png" for index in range(len(frames))]
    return _Source(origin, frames, targets, place(origin, video_suffix(frames)) if video else None)


def _check_targets(sources: Sequence[_Source], found: Sequence[Path], existing: Existing, compare: bool) -> None:
    inputs = {os.path.realpath(path) for path in found}
    taken: dict[Path, Path] = {}
    for source in sources:
        for target in _all_files(source, compare):
            if (other := taken.setdefault(target, source.origin)) is not source.origin:
                advice = "rename one, deblur them into two folders, or give the folder that holds both"
                raise ArgumentError(f"{other} and {source.origin} would both be written to {target}; {advice}")
            if os.path.realpath(target) in inputs:
                raise ArgumentError(f"the input {target} would be overwritten; choose another `output`")
            if target.is_dir():
                raise ArgumentError(f"{target} is a folder, where a file is to be written; choose another `output`")
        if existing == "refuse":
            _refuse_existing(source, compare)


def _refuse_existing(source: _Source, compare: bool) -> None:
    for target in _all_files(source, compare):
        if target.exists():
            raise ArgumentError(f"{target} exists already; choose another `output`, or `existing` skip or overwrite")


def _all_files(source: _Source, compare: bool) -> list[Path]:
    comparisons = map(_comparison, source.targets) if compare else ()
    return [*source.targets, *([source.video] if source.video else []), *comparisons]
