"""A history of generated images for a discriminator to look at."""

from __future__ import annotations

import torch
from torch import Tensor


class ImagePool:
    """Hands out images from a history of those that came, so that a discriminator does not forget.

    Shrivastava et al., *Learning from Simulated and Unsupervised Images through Adversarial Training* (2017), in the
    form of CycleGAN's program: until the pool is full an image is kept and returned; then it is returned with
    probability 1/2, and otherwise takes the place of a random one of the pool, which is returned instead.

    Args:
        size: Images that are kept; 0 returns images as they come.

    Example:
        >>> pool = ImagePool(1)
        >>> first, second = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
        >>> pool.exchange(first).mean(), len(pool.images)
        (tensor(0.), 1)
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: list[Tensor] = []

    def exchange(self, images: Tensor) -> Tensor:
        """Give images ``(B, C, H, W)`` and get as many; draws from torch's global random numbers, on the CPU."""
        return torch.stack([self._exchange(image.detach()) for image in images])

    def _exchange(self, image: Tensor) -> Tensor:
        if len(self.images) < self.size:
            self.images.append(image)
            return image
        if self.size == 0 or torch.rand(()) < 0.5:
            return image
        place = int(torch.randint(self.size, ()))
        kept, self.images[place] = self.images[place], image
        return kept.to(image)  # of a checkpoint it is on the CPU
