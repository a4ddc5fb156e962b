"""Which module may import which: no circles, nothing from above, Lightning in plug-ins and command line only."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the lowest to the highest; a module imports from its own package and from those before it.
LAYERS = (
    "errors",
    "core",
    "models",
    "blur",
    "losses",
    "metrics",
    "data",
    "adaptation",
    "pictures",
    "inference",
    "plugins",
    "cli",
    "__main__",
)


def module_files():
    files = {}
    for path in (ROOT / "reblurkit").rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


MODULES = module_files()


def imports(module):
    """All modules that one imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
    return found


def layer(module):
    return LAYERS.index(module.split(".")[1])


def test_no_module_imports_itself_by_way_of_others():
    graph = {module: imports(module) & MODULES.keys() - {module} for module in MODULES}
    TopologicalSorter(graph).prepare()  # raises on a circle, and names it


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {"reblurkit"}))
def test_nothing_is_imported_from_above(module):
    own = {name for name in imports(module) if name.startswith("reblurkit.")}
    assert [name for name in own if layer(name) > layer(module)] == []


@pytest.mark.parametrize("module", sorted(MODULES))
def test_lightning_is_imported_by_plug_ins_and_the_command_line_only(module):
    if not module.startswith(("reblurkit.plugins", "reblurkit.cli")):
        assert [name for name in imports(module) if name.split(".")[0] in {"lightning", "pytorch_lightning"}] == []


def writes(module):
    """Lines that write a file, other than one that gets its name when it is whole."""
    unfinished = {"partial", "part", "file", "data"}  # names of what `whole_file` gives, open files, bytes in memory
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        words = [word.id for word in ast.walk(node) if isinstance(word, ast.Name)]
        modes = [mode.value for mode in node.args if isinstance(mode, ast.Constant) and isinstance(mode.value, str)]
        opens = node.func.attr == "open" and any(mode[:1] in ("w", "x", "a") and len(mode) < 4 for mode in modes)
        saves = node.func.attr in {"write_text", "write_bytes", "savez"} or (
            node.func.attr == "save" and len(node.args) > 0 and ast.unparse(node.func) != "safetensors.torch.save"
        )
        if (opens or saves) and not unfinished & set(words):
            yield f"{module}:{node.lineno}: {ast.unparse(node)}"


def test_files_are_written_whole():
    allowed = {"reblurkit.core.memory": 1}  # a switch of the kernel's below /proc
    found = {module: lines for module in sorted(MODULES) if (lines := list(writes(module)))}
    assert {module: len(lines) for module, lines in found.items()} == allowed, found
