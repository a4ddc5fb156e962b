"""Packages whose names are imported when they are first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable

_Face = tuple[Callable[[str], object], Callable[[], list[str]], list[str]]


def attach_stub(package: str, file: str) -> _Face:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package, by the imports in the stub ``__init__.pyi`` beside it.

    The stub is the one list of a package's public names; editors and type checkers read it as it is.

    Args:
        package: ``__name__`` of the package.
        file: Its ``__file__``.
    """
    homes: dict[str, str] = {}
    with open(f"{file}i") as stub:
        for line in stub:
            match line.split():
                case ["from", module, "import", name, "as", _]:
                    homes[name] = module

    def __getattr__(name: str) -> object:  # noqa: N807  # becomes the package's own
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if homes[name] == package:
            return importlib.import_module(f"{package}.{name}")
        return getattr(importlib.import_module(homes[name]), name)

    def __dir__() -> list[str]:  # noqa: N807  # becomes the package's own
        return sorted(homes)

    return __getattr__, __dir__, sorted(homes)
