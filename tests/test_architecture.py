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
