"""Files that are not there are named before anything is imported that takes seconds."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from reblurkit.core.special_files import read_text, special_kind
from reblurkit.core.suggestions import near_path
from reblurkit.errors import ArgumentError, DatasetNotFoundError, WeightsError

_CONFIGURATIONS = ("--config", "-c")
_WEIGHTS = ("--ckpt_path", "--start_from", "--checkpoint", "--translator", "--weights")
_PLACES = ("inputs", "clips", "runs", "output", "checkpoint", "config", "weights", "translator", "labelled")
_WORDS_OF_LIGHTNING = {"best", "last", "hpc", "registry"}


def check_current_folder() -> None:
    """Check that the folder that the user is in is still there.

    Raises:
        ArgumentError: If it is not.
    """
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise ArgumentError("the folder you are in has been deleted; go to another one") from error


def check_named_files(words: Sequence[str]) -> None:
    """Check the files that options name.

    Raises:
        WeightsError: If one of weights is not there.
        ArgumentError: If a configuration is not there, or is no text or no YAML.
    """
    for name, value in _options(words):
        if "://" in value or value.startswith("registry:") or os.path.exists(value):
            continue
        if name in _WEIGHTS and value not in _WORDS_OF_LIGHTNING:
            raise WeightsError(
                f"{value} cannot be read as a file of weights: No such file or directory{near_path(value)}"
            )
        # a configuration may also be written out on the command line
        if name in _CONFIGURATIONS and Path(value).suffix in (".yaml", ".yml", ".json"):
            raise ArgumentError(f"{name} {value}: there is no such file{near_path(value)}")
    for path in configurations(words):
        try:
            text = read_text(Path(path))
        except UnicodeDecodeError as error:
            raise ArgumentError(f"--config must be a YAML file, but {path} is no text") from error
        except OSError as error:
            raise ArgumentError(f"--config {path} cannot be read: {error.strerror or error}") from error
        _check_yaml(path, text)


def _check_yaml(path: str, text: str) -> None:
    import yaml  # not for `--help`

    from reblurkit.core.yaml_files import check_colons, check_yaml, yaml_error_line

    try:
        check_yaml(text)
        check_colons(text)
    except yaml.YAMLError as error:
        raise ArgumentError(f"--config must be a YAML file, but {path} is none: {yaml_error_line(error)}") from error


def configurations(words: Sequence[str]) -> list[str]:
    """The configuration files that a command line names and that are there, pipes and the like, too."""
    return [value for name, value in _options(words) if name in _CONFIGURATIONS and _is_there(value)]


def _is_there(path: str) -> bool:
    return os.path.isfile(path) or special_kind(path) not in (None, "a folder")


def check_inputs(options: argparse.Namespace) -> None:
    """Check that there is something to work on, of which some may be missing, and that results have a folder.

    Raises:
        DatasetNotFoundError: If no input is there.
        ArgumentError: If the name of a file or folder is none, or empty as from a variable of a script that is not set,
            or a file has the name of the folder for the results.
    """
    for name in _PLACES:
        value = getattr(options, name, None)
        if value == "" or (isinstance(value, list) and "" in value):
            shown = f"--{name}" if isinstance(value, str) else name.removesuffix("s").upper()
            raise ArgumentError(f"{shown} is an empty word; write . for the folder you are in")
        if any("\0" in each for each in (value if isinstance(value, list) else [value or ""])):
            raise ArgumentError(f"no file has a name with a null character, as one given for `{name}`")
    inputs = getattr(options, "inputs", None) or getattr(options, "clips", None) or []
    if inputs and not any(Path(path).exists() for path in inputs):
        more = f" (and {len(inputs) - 1} more failed)" if len(inputs) > 1 else ""
        raise DatasetNotFoundError(f"no file or folder {inputs[0]}{more}{near_path(inputs[0])}")
    output = getattr(options, "output", None)
    if inputs and output and os.path.exists(output) and not os.path.isdir(output):
        raise ArgumentError(f"`output` must be a folder, but {output} is a file")


def _options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    for word, following in pairwise([*words, ""]):
        name, equals, value = word.partition("=")
        if name in (*_CONFIGURATIONS, *_WEIGHTS) and (value := value if equals else following):
            yield name, value
