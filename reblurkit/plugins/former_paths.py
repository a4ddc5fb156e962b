"""Where the classes of this package stood when version 0.1.0 began: saved configurations name them by those paths."""

from __future__ import annotations

from typing import Any

_FORMER = {
    "adversarial_mixin": "mixins.adversarial",
    "auxiliary_optimizer": "callbacks.auxiliary_optimizer",
    "blur2blur": "tasks.blur2blur",
    "datamodules": "datamodules.folders",
    "finite_loss": "callbacks.finite_loss",
    "flow_reblur": "callbacks.flow_reblur",
    "image_logger": "callbacks.image_logger",
    "kernel_wizard_task": "tasks.kernel_wizard",
    "motion_logger": "callbacks.motion_logger",
    "reblur_task": "tasks.reblur",
    "tasks": "tasks.deblur",
    "test_time_adapt": "callbacks.adaptation",
    "translation_watch": "callbacks.translation_watch",
    "unpaired_data": "datamodules.unpaired",
}


def present_paths(value: Any) -> Any:
    """A configuration, or a part of one, in which every ``class_path`` names a class by where it stands now.

    Example:
        >>> present_paths({"model": {"class_path": "reblurkit.plugins.tasks.DeblurTask"}})
        {'model': {'class_path': 'reblurkit.plugins.tasks.deblur.DeblurTask'}}
    """
    if isinstance(value, list):
        return [present_paths(item) for item in value]
    if isinstance(value, dict):
        return {key: _present(item) if key == "class_path" else present_paths(item) for key, item in value.items()}
    return value


def _present(path: Any) -> Any:
    match str(path).split("."):
        case ["reblurkit", "plugins", module, name] if module in _FORMER:
            return f"reblurkit.plugins.{_FORMER[module]}.{name}"
    return path
