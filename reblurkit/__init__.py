"""reblurkit: deblurring by reblurring, as plug-ins for PyTorch Lightning.

Entry points and submodules are imported on first use, so that ``import reblurkit`` itself costs next to nothing.

Example:
    >>> import reblurkit
    >>> "ReblurLossMixin" in dir(reblurkit)
    True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reblurkit import adaptation, blur, data, losses, metrics, models, plugins
    from reblurkit.plugins.callbacks.adaptation import TestTimeAdaptCallback
    from reblurkit.plugins.callbacks.flow_reblur import FlowReblurFinetuneCallback
    from reblurkit.plugins.mixins.reblur import ReblurLossMixin, strip_reblur
    from reblurkit.plugins.tasks.blur2blur import Blur2BlurTranslator

__version__ = "0.1.0"
__all__ = [
    "Blur2BlurTranslator",
    "FlowReblurFinetuneCallback",
    "ReblurLossMixin",
    "TestTimeAdaptCallback",
    "__version__",
    "adaptation",
    "blur",
    "data",
    "losses",
    "metrics",
    "models",
    "plugins",
    "strip_reblur",
]

_ENTRY_POINTS = {
    "Blur2BlurTranslator": "reblurkit.plugins.tasks.blur2blur",
    "FlowReblurFinetuneCallback": "reblurkit.plugins.callbacks.flow_reblur",
    "ReblurLossMixin": "reblurkit.plugins.mixins.reblur",
    "TestTimeAdaptCallback": "reblurkit.plugins.callbacks.adaptation",
    "strip_reblur": "reblurkit.plugins.mixins.reblur",
}


def __getattr__(name: str) -> object:
    if name in _ENTRY_POINTS:
        return getattr(importlib.import_module(_ENTRY_POINTS[name]), name)
    if name in __all__:
        return importlib.import_module(f"reblurkit.{name}")
    raise AttributeError(f"module 'reblurkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
