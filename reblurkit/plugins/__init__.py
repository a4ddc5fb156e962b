"""Everything that plugs into Lightning. Nothing outside this package and the command line imports it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reblurkit.plugins.callbacks.adaptation import TestTimeAdaptCallback
    from reblurkit.plugins.callbacks.auxiliary_optimizer import AuxiliaryOptimizer
    from reblurkit.plugins.callbacks.finite_loss import FiniteLoss
    from reblurkit.plugins.callbacks.flow_reblur import FlowReblurFinetuneCallback
    from reblurkit.plugins.callbacks.image_logger import ImageLogger, ImageWriter
    from reblurkit.plugins.callbacks.motion_logger import MotionLogger
    from reblurkit.plugins.callbacks.translation_watch import TranslationWatch
    from reblurkit.plugins.datamodules.folders import DemoDataModule, PairedDataModule, VideoDataModule
    from reblurkit.plugins.datamodules.unpaired import UnpairedDataModule
    from reblurkit.plugins.mixins.adversarial import AdversarialLossMixin
    from reblurkit.plugins.mixins.reblur import ReblurLossMixin, strip_reblur
    from reblurkit.plugins.tasks.blur2blur import Blur2BlurTranslator
    from reblurkit.plugins.tasks.deblur import DeblurTask, WeightedLoss
    from reblurkit.plugins.tasks.kernel_wizard import KernelWizardTask
    from reblurkit.plugins.tasks.reblur import ReblurTask

_HOME = {
    "AdversarialLossMixin": "mixins.adversarial",
    "AuxiliaryOptimizer": "callbacks.auxiliary_optimizer",
    "Blur2BlurTranslator": "tasks.blur2blur",
    "DeblurTask": "tasks.deblur",
    "DemoDataModule": "datamodules.folders",
    "FiniteLoss": "callbacks.finite_loss",
    "FlowReblurFinetuneCallback": "callbacks.flow_reblur",
    "ImageLogger": "callbacks.image_logger",
    "ImageWriter": "callbacks.image_logger",
    "MotionLogger": "callbacks.motion_logger",
    "KernelWizardTask": "tasks.kernel_wizard",
    "PairedDataModule": "datamodules.folders",
    "ReblurLossMixin": "mixins.reblur",
    "TranslationWatch": "callbacks.translation_watch",
    "UnpairedDataModule": "datamodules.unpaired",
    "VideoDataModule": "datamodules.folders",
    "WeightedLoss": "tasks.deblur",
    "ReblurTask": "tasks.reblur",
    "TestTimeAdaptCallback": "callbacks.adaptation",
    "strip_reblur": "mixins.reblur",
}
__all__ = [
    "AdversarialLossMixin",
    "AuxiliaryOptimizer",
    "Blur2BlurTranslator",
    "DeblurTask",
    "DemoDataModule",
    "FiniteLoss",
    "FlowReblurFinetuneCallback",
    "ImageLogger",
    "ImageWriter",
    "KernelWizardTask",
    "MotionLogger",
    "PairedDataModule",
    "ReblurLossMixin",
    "ReblurTask",
    "TestTimeAdaptCallback",
    "TranslationWatch",
    "UnpairedDataModule",
    "VideoDataModule",
    "WeightedLoss",
    "strip_reblur",
]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(importlib.import_module(f"reblurkit.plugins.{_HOME[name]}"), name)
    raise AttributeError(f"module 'reblurkit.plugins' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
