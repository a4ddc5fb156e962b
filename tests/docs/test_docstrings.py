"""What the docstring of a public name must say: arguments, shapes, ranges, units, errors, source.

The rules ask for what can be asked of every name alike; whether it is true, other tests say.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import textwrap

import docstring_parser
import pytest

PACKAGES = ("adaptation", "blur", "data", "errors", "inference", "losses", "metrics", "models", "pictures", "plugins")
IMAGES = {"image", "images", "blurry", "sharp", "deblurred", "pseudo_sharp", "preds", "target", "plain", "frames"}
SHAPE = re.compile(
    r"\(.*\b[BTCHW3N]\b.*\)|\(\d+,( \d+)?\)|[Ss]ame|[Ss]calar|shape|flow_next|[Aa] (list|module|mapping|batch)"
)
RANGE = re.compile(r"\[0, 1\]|[Ss]ame|any range|any values|any floating|[Hh]eld fixed|L_\*|receives the gradient")
# Arguments whose number means nothing without a unit, and how the unit is said.
UNITS = {
    "shutter": "second",
    "fps": "frames (a|per) second",
    "exposure": "frame interval|exposure_from|frames?",
    "max_flow": "pixel",
    "crop": "[Ss]ide|pixel|[Cc]rop",
    "tile": "[Ss]ide|pixel",
    "resize": "pixel|side",
    "lr": "[Ll]earning rate",
    "every_n_steps": "step",
    "steps": "[Ss]teps|N",
    "warmup": "[Ss]teps",
}
# Packages whose names carry out what a publication describes, unless they only serve others that do.
FROM_PAPERS = ("losses", "adaptation")
SOURCE = re.compile(r"\b(19|20)\d\d\b|[Ee]quation|Algorithm|Table|[Nn]ot from (a|the) paper|skimage\.|of the papers?\b")


def public():
    for package in PACKAGES:
        module = importlib.import_module(f"reblurkit.{package}")
        names = getattr(module, "__all__", None)
        if names is None:
            own = {name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__}
            names = sorted(name for name in own if not name.startswith("_"))
        for name in names:
            yield f"reblurkit.{package}.{name}", getattr(module, name)


NAMES = dict(public())
CALLABLES = {path: value for path, value in NAMES.items() if not path.startswith("reblurkit.errors")}


def told(value):
    return docstring_parser.parse(inspect.getdoc(value), style=docstring_parser.DocstringStyle.GOOGLE)


def arguments(value):
    """Name, annotation as it is written, for every argument that a caller names."""
    skipped = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(value).parameters.values()
    return {each.name: str(each.annotation) for each in parameters if each.kind not in skipped}


def is_record(value):
    return inspect.isclass(value) and (dataclasses.is_dataclass(value) or hasattr(value, "_fields"))


@pytest.mark.parametrize("path", NAMES)
def test_it_begins_with_a_sentence(path):
    text = told(NAMES[path])
    assert text.short_description.endswith((".", ":")), text.short_description


@pytest.mark.parametrize("path", NAMES)
def test_its_formulas_are_text_which_is_read_without_a_network(path):
    assert not re.search(r":math:|\.\. math::", NAMES[path].__doc__ or "")


@pytest.mark.parametrize("path", CALLABLES)
def test_its_arguments_are_told_and_no_others(path):
    value = CALLABLES[path]
    known = arguments(value)
    text = told(value)
    if is_record(value):  # its fields, in a list or in a sentence
        missing = [name for name in known if not re.search(rf"\b{name}\b", inspect.getdoc(value))]
        assert not missing, f"fields without a word: {missing}"
        return
    described = {each.arg_name.lstrip("*") for each in text.params if each.args[0] == "param"}
    assert set(known) <= described, f"without a word: {set(known) - described}"
    taken = set(inspect.signature(value).parameters)
    assert described <= taken, f"told, but not taken: {described - taken}"


@pytest.mark.parametrize("path", CALLABLES)
def test_tensors_have_shapes_images_ranges_and_numbers_units(path):
    value = CALLABLES[path]
    known = arguments(value)
    wrong = []
    for each in told(value).params:
        name, text, kind = each.arg_name, each.description or "", known.get(each.arg_name, "")
        if kind.split(" | ")[0] == "Tensor" and not SHAPE.search(text):
            wrong.append(f"{name} has no shape: {text}")
        if kind.split(" | ")[0] == "Tensor" and name in IMAGES and not RANGE.search(text):
            wrong.append(f"{name} has no range: {text}")
        if name in UNITS and not re.search(UNITS[name], text):
            wrong.append(f"{name} has no unit: {text}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", [path for path, value in CALLABLES.items() if inspect.isfunction(value)])
def test_what_a_function_returns_is_told(path):
    """In a section, or by a first line that is the thing itself: "The names that ..."."""
    value = CALLABLES[path]
    returns = str(inspect.signature(value).return_annotation)
    if returns == "None":
        return
    text = told(value)
    summary = inspect.getdoc(value).split("\n")[0]
    assert text.returns or not re.match(r"(Draw|Write|Load|Give|Put|Make|Compute|Find)\b", summary), summary
    if returns == "Tensor":
        assert SHAPE.search(inspect.getdoc(value)), "no shape of the result"


def raised(function):
    """Errors of this package that a function raises in its own lines."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError):
        return set()
    errors = importlib.import_module("reblurkit.errors")
    called = (
        node.exc.func for node in ast.walk(tree) if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
    )
    return {name.id for name in called if isinstance(name, ast.Name) and hasattr(errors, name.id)}


@pytest.mark.parametrize("path", CALLABLES)
def test_the_errors_that_it_raises_are_told(path):
    value = CALLABLES[path]
    ours = raised(value.__init__ if inspect.isclass(value) else value)
    documented = {each.type_name for each in told(value).raises}
    assert ours <= documented, f"raised, but not told: {ours - documented}"
    errors = importlib.import_module("reblurkit.errors")
    unknown = {name for name in documented if not hasattr(errors, name) and name not in dir(__builtins__)}
    assert not unknown, unknown


@pytest.mark.parametrize("path", [path for path in CALLABLES if path.split(".")[1] in FROM_PAPERS])
def test_the_source_is_told(path):
    value = CALLABLES[path]
    module = importlib.import_module(value.__module__)
    assert SOURCE.search(inspect.getdoc(value) + module.__doc__)


def test_networks_name_their_paper():
    networks = [
        value
        for path, value in CALLABLES.items()
        if path.startswith("reblurkit.models.") and inspect.isclass(value) and "nn" in str(value.__mro__)
    ]
    assert len(networks) > 15
    for value in networks:
        text = inspect.getdoc(value) + importlib.import_module(value.__module__).__doc__
        assert SOURCE.search(text) or "any network" in text.lower(), value
