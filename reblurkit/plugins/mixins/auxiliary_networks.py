"""What the mixins that train a second network share: they sit in one LightningModule and use one callback."""

from __future__ import annotations

from functools import partial
from typing import Any

import lightning.pytorch as L
import torch
from torch import nn

from reblurkit.core.calls import find_network
from reblurkit.errors import ArgumentError, PluginError
from reblurkit.plugins.callbacks.auxiliary_optimizer import AuxiliaryOptimizer, OptimizerFactory, SchedulerFactory
from reblurkit.plugins.mixins.own_names import OwnNames


def check_factories(optimizer: object, scheduler: object) -> None:
    """Raise ArgumentError for an optimizer or a scheduler where a function that builds one is wanted."""
    for name, factory in {"optimizer": optimizer, "scheduler": scheduler}.items():
        if factory is not None and not callable(factory):
            raise ArgumentError(
                f"`{name}` must be a function that builds one, but is a {type(factory).__name__} object; "
                f"write {name}=lambda {'parameters' if name == 'optimizer' else 'optimizer'}: ..."
            )


class AuxiliaryNetworks(OwnNames):
    """Base of mixins that train a network of their own beside a network of the user's LightningModule."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a base-class order in which the mixin's hooks would never be called."""
        super().__init_subclass__(**kwargs)
        order = cls.__mro__
        if L.LightningModule in order:
            for base in order[order.index(L.LightningModule) :]:
                if issubclass(base, AuxiliaryNetworks):
                    raise PluginError(
                        f"{cls.__name__} must name {base.__name__} before LightningModule: "
                        f"class {cls.__name__}({base.__name__}, LightningModule)"
                    )

    def _check_host(self, method: str, attribute: str, optimizer: object, scheduler: object) -> None:
        """Check that ``method`` can register a network as ``self.<attribute>``, before one is built."""
        if not isinstance(self, L.LightningModule):
            raise PluginError(
                f"{type(self).__name__} must also derive from lightning.pytorch.LightningModule "
                f"(`import lightning`, not `import pytorch_lightning`)"
            )
        if "_modules" not in self.__dict__:
            raise PluginError(f"call `super().__init__()` before `self.{method}()`")
        if hasattr(self, attribute):
            raise PluginError(
                f"{type(self).__name__} has an attribute `{attribute}` already; is {method} called twice?"
            )
        check_factories(optimizer, scheduler)

    def _add_auxiliary(
        self,
        attribute: str,
        module: nn.Module,
        network: str,
        optimizer: OptimizerFactory | None,
        scheduler: SchedulerFactory | None,
        every: int = 1,
    ) -> None:
        """Register ``module`` as ``self.<attribute>``, to be trained beside the network at the dotted path."""
        beside = find_network(self, network)
        setattr(self, attribute, module)
        if "_auxiliary" not in self.__dict__:
            # Kept for the module's lifetime: a fresh callback per entry point would save an empty state after `test`.
            self._auxiliary = AuxiliaryOptimizer()
            self._auxiliary_paths: dict[str, str] = {}
        self._auxiliary_paths[attribute] = network
        self._auxiliary.add(
            attribute,
            module,
            beside=beside,
            optimizer=optimizer or partial(torch.optim.Adam, lr=1e-4),
            scheduler=scheduler,
            every=every,
        )

    def _is_fitting(self) -> bool:
        """Whether a Trainer is training this module, in which case the callback must be attached."""
        try:
            fitting = bool(self.trainer.training)
        except RuntimeError:  # not attached to a Trainer
            return False
        if fitting and not self._auxiliary.attached:
            raise PluginError(
                f"{type(self).__name__}.configure_callbacks must return what `super().configure_callbacks()` returns, "
                f"with your callbacks appended: {', '.join(self._auxiliary_paths)} would not be trained"
            )
        return fitting

    def configure_callbacks(self) -> list[L.Callback]:
        """Attach the callback that trains the networks; an override must extend what this returns."""
        inherited = super().configure_callbacks()
        callbacks = [inherited] if isinstance(inherited, L.Callback) else list(inherited)
        if "_auxiliary" in self.__dict__:
            for attribute, path in self._auxiliary_paths.items():
                self._auxiliary.update(attribute, getattr(self, attribute), find_network(self, path))
            callbacks.append(self._auxiliary)
        return callbacks

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note in the checkpoint where the user's network sits, for :func:`reblurkit.plugins.strip_reblur`."""
        super().on_save_checkpoint(checkpoint)
        if "_auxiliary" in self.__dict__:
            checkpoint.setdefault("reblurkit", {})["network"] = next(iter(self._auxiliary_paths.values()))
