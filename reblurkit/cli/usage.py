"""What is wrong with a command line of the Trainer's, in one line and in the words of the command line."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from reblurkit.cli.class_help import known_classes
from reblurkit.cli.missing_files import configurations
from reblurkit.cli.words import TRAINER_COMMANDS
from reblurkit.core.suggestions import did_you_mean, near_module
from reblurkit.core.yaml_files import read_yaml
from reblurkit.errors import PluginError, ReblurkitError
from reblurkit.plugins.found_config import misfit

# Lines of jsonargparse's messages that repeat the input or list alternatives nobody meant.
_NOISE = re.compile(
    r"Parser key|Does not validate against|Subtypes:|Errors:|Expected a <class 'NoneType'>|Given value|"
    r"Expected a path but|Problem with given class_path|Subclass types expect|a class path \(str\)|a dict with|$"
)
_IMPORT = re.compile(r"Expected a dot import path string: (\S+)")
_LIKE_NUMBER = re.compile(r"[-+]?(nan|inf(inity)?|[\d.,]+(e[-+]?\d*)?)", re.IGNORECASE)
_SHAPES = re.compile(
    r"\((?P<there>[\d, ]+)\) (?:in the file and|instead of) \((?P<here>[\d, ]+)\)"  # as weights say it
)
_LONG = re.compile(r"\S{200,}")
_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "list": "a list"}
_EXPECTED = re.compile(
    rf"Expected a (?:<class '({'|'.join(_KINDS)})'>|typing\.Literal\[(.+?)\]|"
    r"dot import path string: .+?(?= Expected |$))"
)
_LISTS = {"Callback": "trainer.callbacks", "Logger": "trainer.logger"}
_REFUSED_IN_LIST = re.compile(rf"\.? Not a valid subclass of ({'|'.join(_LISTS)})$")  # by a constructor
_OPTIMIZER = "torch.optim.Adam"  # what the recipes of this package take
_EXAMPLE = (
    "name them in a file (--config FILE) or as --model DeblurTask --model.network my_net.MyNet --data PairedDataModule "
    "--data.root FOLDER"
)


def one_line(message: str) -> str:
    """The gist of a parser's complaint: the option, the class, and what is wrong with it; the input only in part."""
    return _LONG.sub(lambda match: f"{match[0][:100]}...", _gist(message))


def _gist(message: str) -> str:
    lines = [line.strip(" -") for line in message.splitlines()]
    reasons = [*dict.fromkeys(line for line in lines if not _NOISE.match(line))]
    keys = [*dict.fromkeys(re.findall(r'Parser key "(.+?)"', message))]
    classes = re.findall(r"Problem with given class_path '(.+?)'", message)
    if not reasons:
        return re.sub(r'^Parser key "(.+?)":', r"--\1:", " ".join(line for line in lines if line))
    key = ".".join(keys)
    given = re.search(r"(?:Got|Given) value: ?(.*)", message)
    reason = _explained(" ".join(reasons), key, classes[-1] if classes else "", given[1] if given else "")
    if match := _REFUSED_IN_LIST.search(reason):
        key, reason = key or _LISTS[match[1]], reason.removesuffix(match[0])
        classes = classes or _refusing(reason, given[1] if given else "")
    return ": ".join([*([f"--{key}"] if key else []), *classes[-1:], reason])


def unknown_options(words: Sequence[str], parser: ArgumentParser) -> str:
    """What to say of options that a parser does not know, with near ones; empty if it knows all.

    Args:
        words: The command line, with its command.
        parser: The parser of all commands.
    """
    options = [option for option in _options(parser, words[0]) if option.startswith("--")]
    written = [option for option in options if not option.endswith("+")]
    groups = {option.rpartition(".")[0] for option in options if not option.endswith(".help")}
    classes = tuple(f"{option}." for option in options if option not in groups)  # may have arguments of their own
    unknown = []
    for word in words[1:]:
        name = word.partition("=")[0].rstrip("+")
        if word.startswith("--") and name not in options and not name.startswith(classes):
            part, _, argument = name.removeprefix("--").rpartition(".")
            unknown.append(f"unknown option {name}{_elsewhere(argument, part) or did_you_mean(name, written)}")
    return " ".join(unknown)


def unknown_keys(message: str, words: Sequence[str], parser: ArgumentParser) -> str:
    """What to say of keys of configuration files that look like options mistyped; empty if none does.

    Args:
        message: The parser's complaint.
        words: The command line, with its command.
        parser: The parser of all commands.
    """
    options = [option.removeprefix("--") for option in _options(parser, words[0]) if option.startswith("--")]
    options = [option for option in options if not option.endswith(("+", ".help"))]  # which are no keys
    known = {option.partition(".")[0] for option in options}
    for path in configurations(words):
        try:
            content = read_yaml(Path(path).read_text(encoding="utf-8"))
        except yaml.YAMLError:  # which is the complaint
            continue
        for key in content if isinstance(content, Mapping) else ():
            near = _elsewhere(str(key), "") or did_you_mean(str(key), known, cutoff=0.75)
            if key not in {*known, *TRAINER_COMMANDS} and near:
                return f"unknown key {key} in {path}{near}"
    if match := re.search(r"does not accept option '([\w.]+)'", message):
        part, _, argument = match[1].rpartition(".")
        near = _elsewhere(argument, part) or did_you_mean(match[1], options)
        if near:
            return f"unknown key {match[1]}{near}"
    return ""


def required_options(message: str, command: str) -> str:
    """A complaint about missing options that names them as they are written."""
    missing = re.match(r"the following arguments are required: (.+)", message)
    if missing is None:
        return message
    names = " and ".join(f"--{name.removeprefix(f'{command}.')}" for name in missing[1].split(", "))
    return f"{command} needs {names}; {_EXAMPLE}"


def with_flags(message: str, options: Mapping[str, Any]) -> str:
    """A message in which arguments of model, data and Trainer, in backticks, are named by their options.

    Args:
        message: It may name arguments of the Python classes.
        options: ``model``, ``data`` and ``trainer`` as the parser has read them.
    """
    flags: dict[str, list[str]] = {}
    for part in ("model", "data", "trainer"):
        given = options.get(part) or {}
        for name in vars((given if part == "trainer" else given.get("init_args")) or Namespace()):
            flags.setdefault(name, []).append(f"--{part}.{name}")

    def named(match: re.Match[str]) -> str:
        return flags[match[1]][0] if len(flags.get(match[1], ())) == 1 else match[0]

    return re.sub(r"`(\w+)`", named, message)


@contextmanager
def errors_by_flags(options: Mapping[str, Any]) -> Iterator[None]:
    """Errors that leave this block speak of options, see :func:`with_flags`."""
    try:
        yield
    except ReblurkitError as error:
        raise type(error)(f"{with_flags(str(error), options)}{_likely_option(str(error), options)}") from error
    except RuntimeError as error:
        if "Error(s) in loading state_dict" in str(error) and (likely := _likely_option(misfit(error), options)):
            reason = f"the checkpoint does not fit the networks: {misfit(error)}{likely}"
            raise PluginError(f"{options.get('ckpt_path')}: {reason}") from error
        raise
    except ValueError as error:
        if refused := _refused_number(str(error), options):
            raise PluginError(refused) from error
        if "Does not validate against" not in str(error) and "Parser key" not in str(error):
            raise
        # a constructor's refusal, wrapped by the parser
        reason = one_line(str(error))
        raise PluginError(f"{with_flags(reason, options)}{_likely_option(reason, options)}") from error


def _likely_option(message: str, options: Mapping[str, Any]) -> str:
    """Of weights of other shapes, the option that has the number that differs; empty if none or several have."""
    match = _SHAPES.search(message)
    if match is None:
        return ""
    there, here = ([int(size) for size in match[place].split(",") if size.strip()] for place in ("there", "here"))
    differing = {(old, new) for old, new in zip(there, here, strict=False) if old != new}
    if len(there) != len(here) or len(differing) != 1:
        return ""
    ((old, new),) = differing
    found = [key for key, value in _leaves(options.get("model"), "--model") if type(value) is int and value == new]
    if part := re.search(r"\b(network|reblur)\.|does not fit (ReblurNet)\b", message):
        place = "--model.network" if part[1] == "network" else "--model.reblur"
        found = [key for key in found if key.startswith(place)]
    return f"; the file may be of {found[0]} {old}" if len(found) == 1 else ""


def _refused_number(message: str, options: Mapping[str, Any]) -> str:
    """What an optimizer of torch's refuses, by its option; empty if it is another complaint."""
    match = re.fullmatch(r"Invalid (\w+)(?: (?:rate|value|parameter.*))?: (.+)", message)
    if match is None:
        return ""
    name = {"learning": "lr", "epsilon": "eps", "beta": "betas"}.get(match[1], match[1])
    given = dict(_leaves(options.get("model"), "--model"))
    found = [key for key, value in given.items() if key.endswith(f".{name}") and match[2] in str(value)]
    return f"{found[0]} must be a number of at least 0, but is {match[2]}" if found and name != "betas" else ""


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """The options below one, as they are written on the command line, with their values."""
    if not isinstance(value, Namespace | Mapping):
        yield key, value
        return
    for name, child in (vars(value) if isinstance(value, Namespace) else value).items():
        yield from _leaves(child, key if name == "init_args" else f"{key}.{name}")


def _options(parser: ArgumentParser, command: str) -> Iterator[str]:
    yield from parser._option_string_actions
    for action in parser._actions:
        if isinstance(action.choices, Mapping) and command in action.choices:
            yield from action.choices[command]._option_string_actions


def _explained(reason: str, key: str, class_path: str, given: str) -> str:
    """A reason with what was meant, or what to write."""
    if kinds := _expected(reason):
        near = did_you_mean(given, re.findall(r"'(.+?)'", " ".join(kinds)))
        return (
            f"expected {', or '.join(kinds)}, but came {given if _LIKE_NUMBER.fullmatch(given) else repr(given)}{near}"
        )
    if (match := _IMPORT.search(reason)) and _LIKE_NUMBER.fullmatch(match[1]):
        return f"expected a number, such as 0.0001, but came {match[1]!r}"
    if match := _IMPORT.search(reason):
        classes = known_classes()
        near = did_you_mean(match[1], classes)
        if "Expected a <class 'float'>" in reason and match[1].isalnum() and (not near or match[1] in classes):
            return f"expected a number, such as 0.0001, but came {match[1]!r}"
        return f"unknown class {match[1]}" + (
            near or "; one of another package is named by its dotted path, such as my_net.MyNet"
        )
    if match := re.match(r"Not a valid subclass of (\w+)\.?(?: Got value: (.+))?", reason):
        came = f", but came {match[2]}" if match[2] else ""
        return f"expected a {match[1]}: a class such as my_net.MyNet, or its class_path and init_args{came}"
    if match := re.match(r"Unexpected config: ?(.*)", reason):
        return f"a configuration must say what model, data and trainer are, but is {match[1] or 'empty'}"
    if match := re.match(r"(?:Invalid content in sub-config file )?(\S+\.py|\S*/\S*): ", reason):
        file = match[1]
        module = file.removesuffix(".py").strip("./").replace("/", ".")
        return f"{file} is a file; name the class in it by its dotted path, such as {module}.MyNet"
    if match := re.search(r"module '(\S+)' has no attribute '(\w+)'", reason):
        return reason + did_you_mean(match[2], vars(sys.modules.get(match[1], sys)))
    if match := re.search(r"No module named '(\S+)'", reason):
        return reason + near_module(ModuleNotFoundError(reason, name=match[1]))
    if match := re.search(r"Option '(\w+)[\w.]*' is not accepted", reason):
        if match[1] == "class_path":
            return "beside class_path there are other keys; arguments of the class belong below init_args"
        known = _arguments(class_path)
        near = _elsewhere(match[1], key, known) or did_you_mean(match[1], known)
        return f"Option '{match[1]}' is not accepted{near}"
    if key and (match := re.match(r"the following arguments are required: (.+)", reason)):
        return f"{' and '.join(f'--{key}.{name}' for name in match[1].split(', '))} must be given"
    return reason


def _expected(reason: str) -> list[str]:
    """The kinds of value that are taken, in words, where a value is of another kind; empty for other complaints."""
    found = _EXPECTED.findall(reason)
    words = [_KINDS.get(kind) or (f"one of {choices}" if choices else "a class") for kind, choices in found]
    names_class = "a class" in words and not any(choices for _, choices in found)
    if names_class or re.sub(r"\.? ?Got value:.*", "", _EXPECTED.sub("", reason)).strip():
        return []
    return [*dict.fromkeys(word for word in words if word != _KINDS["int"] or _KINDS["float"] not in words)]


def _refusing(reason: str, given: str) -> list[str]:
    """The class, of those in a list that was given, whose constructor has refused an argument; empty if unknown."""
    words = re.findall(r"\w+", reason)
    having = [
        (path, value)
        for path, arguments in re.findall(r"class_path='([\w.]+)'((?:(?!class_path=).)*)", given)
        for name, value in re.findall(r"(\w+)='?([^,']*)", arguments)
        if name in words
    ]
    paths = {path for path, _ in having}
    if len(paths) > 1:  # and have it of another value
        paths = {path for path, value in having if value == words[-1]}
    return [*paths] if len(paths) == 1 else []


def _elsewhere(name: str, key: str, known: Iterable[str] = ("optimizer",)) -> str:
    """A question that names the option that an argument is of, where it was given to another part.

    Args:
        name: The argument.
        key: The part that it was given to; empty: to none.
        known: The arguments of that part's class.
    """
    parts = {
        "--trainer": "lightning.pytorch.Trainer",
        "--data": "reblurkit.PairedDataModule",
        "--model": "reblurkit.DeblurTask",
        f"--model.optimizer {_OPTIMIZER} --model.optimizer": _OPTIMIZER,
    }
    if key == "model" and "optimizer" not in known:  # a module with optimizers of its own
        return ""
    found = [f"{part}.{name}" for part, path in parts.items() if part != f"--{key}" and name in _arguments(path)]
    return f"; did you mean {' or '.join(found)}?" if found else ""


def _arguments(class_path: str) -> Iterable[str]:
    module, _, name = class_path.rpartition(".")
    try:
        return inspect.signature(getattr(importlib.import_module(module), name)).parameters
    except (ImportError, AttributeError, ValueError):
        return ()
