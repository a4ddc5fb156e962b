"""``{public} reblurkit.losses``: the documentation of public names, one a line, from their docstrings."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective


class PublicNames(SphinxDirective):
    """Documents names of a package, each by what it is."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """The nodes of all names."""
        package = importlib.import_module(self.arguments[0])
        lines = ["```{eval-rst}"]
        for name in self.content:
            lines += [f".. {_directive(getattr(package, name))}:: {self.arguments[0]}.{name}", ""]
        return self.parse_text_to_nodes("\n".join([*lines, "```"]))


def _directive(value: Any) -> str:
    if not inspect.isclass(value):
        return "autofunction"
    return "autoexception" if issubclass(value, Exception) else "autoclass"


def _resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, contents: nodes.TextElement) -> nodes.Node | None:
    """Link a name to where its object is documented, under whatever path a docstring knows it."""
    wanted = _object(node.get("reftarget", ""))
    if wanted is None:
        return None
    python = env.domains.python_domain
    for name in python.objects:
        if _object(name) is wanted:
            return python.resolve_xref(env, node["refdoc"], app.builder, node["reftype"], name, node, contents)
    return None


def _object(path: str) -> Any:
    """What a dotted path of this package names, None if nothing."""
    if not path.startswith("reblurkit."):
        return None
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return None


def _skip(app: Sphinx, what: str, name: str, value: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what nobody calls, and a NamedTuple's fields: its docstring tells them, Python calls them numbers."""
    field = "Alias for field number" in (getattr(value, "__doc__", None) or "")
    return True if field or name == "extra_repr" else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx."""
    app.add_directive("public", PublicNames)
    app.connect("missing-reference", _resolve)
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True}
