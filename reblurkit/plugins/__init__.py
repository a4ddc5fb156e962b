"""Everything that plugs into Lightning. Nothing outside this package and the command line imports it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reblurkit.plugins.adversarial_mixin import AdversarialLossMixin
    from reblurkit.plugins.auxiliary_optimizer import AuxiliaryOptimizer
    from reblurkit.plugins.blur2blur import Blur2BlurTranslator
    from reblurkit.plugins.datamodules import DemoDataModule, PairedDataModule, VideoDataModule
    from reblurkit.plugins.finite_loss import FiniteLoss
    from reblurkit.plugins.flow_reblur import FlowReblurFinetuneCallback
    from reblurkit.plugins.image_logger import ImageLogger, ImageWriter
    from reblurkit.plugins.kernel_wizard_task import KernelWizardTask
    from reblurkit.plugins.motion_logger import MotionLogger
    from reblurkit.plugins.reblur_mixin import ReblurLossMixin, strip_reblur
    from reblurkit.plugins.reblur_task import ReblurTask
    from reblurkit.plugins.tasks import DeblurTask, WeightedLoss
    from reblurkit.plugins.test_time_adapt import TestTimeAdaptCallback
    from reblurkit.plugins.translation_watch import TranslationWatch
    from reblurkit.plugins.unpaired_data import UnpairedDataModule

_HOME = {
    "AdversarialLossMixin": "adversarial_mixin",
    "AuxiliaryOptimizer": "auxiliary_optimizer",
    "Blur2BlurTranslator": "blur2blur",
    "DeblurTask": "tasks",
    "DemoDataModule": "datamodules",
    "FiniteLoss": "finite_loss",
    "FlowReblurFinetuneCallback": "flow_reblur",
    "ImageLogger": "image_logger",
    "ImageWriter": "image_logger",
    "MotionLogger": "motion_logger",
    "KernelWizardTask": "kernel_wizard_task",
    "PairedDataModule": "datamodules",
    "ReblurLossMixin": "reblur_mixin",
    "TranslationWatch": "translation_watch",
    "UnpairedDataModule": "unpaired_data",
    "VideoDataModule": "datamodules",
    "WeightedLoss": "tasks",
    "ReblurTask": "reblur_task",
    "TestTimeAdaptCallback": "test_time_adapt",
    "strip_reblur": "reblur_mixin",
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
