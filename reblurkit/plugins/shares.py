"""What of a batch counts where several processes share a data set."""

from __future__ import annotations

import lightning.pytorch as L
from torch.utils.data import DistributedSampler


def counted_images(module: L.LightningModule, size: int, batch_idx: int, dataloader_idx: int = 0) -> int:
    """Images of a batch of a validation or test that no process has measured before, the first ones of the batch.

    ``DistributedSampler``, which Lightning puts into every loader, repeats images so that all processes get as many:
    with three images and two processes one image comes twice.

    Args:
        module: The module that measures.
        size: Images in the batch.
        batch_idx: Place of the batch in its loader.
        dataloader_idx: Which loader.
    """
    try:
        trainer = module.trainer
    except RuntimeError:  # a step that is called without a Trainer
        return size
    loaders = trainer.test_dataloaders if trainer.testing else trainer.val_dataloaders
    loaders = list(loaders.values()) if isinstance(loaders, dict) else loaders
    loader = loaders[dataloader_idx] if isinstance(loaders, list | tuple) else loaders
    sampler = getattr(loader, "sampler", None)
    if loader is None or not isinstance(sampler, DistributedSampler):
        return size
    first = batch_idx * (loader.batch_size or 1)
    places = (sampler.rank + (first + image) * sampler.num_replicas for image in range(size))
    return sum(place < len(sampler.dataset) for place in places)  # type: ignore[arg-type]  # has a length, as sampled
