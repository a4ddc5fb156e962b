"""Distance of deep features, without learned heads."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from reblurkit.metrics.per_image import PerImageMetric
from reblurkit.models.efficientnet import EfficientNetLiteFeatures


class DeepDistance(PerImageMetric):
    """How far two images are apart in the features of EfficientNet-Lite0, per image, then the mean; lower is better.

    At every position of the feature maps of the five stages the vector of channels is scaled to length 1; the distance
    is the squared distance of the two images' vectors, averaged over positions, summed over stages: 0 for equal
    images, at most 20.

    The recipe is that of Zhang et al., *The Unreasonable Effectiveness of Deep Features as a Perceptual Metric* (CVPR
    2018), on another network and without weights learned from people's judgements, so it is not LPIPS: do not compare
    values of the two. The weights come with the extra ``[perceptual]``; nothing is downloaded.

    Shape:
        ``update(preds, target)`` with ``(B, 3, H, W)``, clamped to [0, 1], sides at least 32; ``compute()`` returns a
        float64 scalar.

    Raises:
        BackendError: If the extra is not installed.

    Example:
        >>> distance, image = DeepDistance(), torch.rand(1, 3, 32, 32)
        >>> distance.update(image, image)
        >>> distance.compute()
        tensor(0., dtype=torch.float64)
    """

    higher_is_better = False

    def __init__(self) -> None:
        super().__init__()
        # In a tuple, torch does not see it: a frozen network belongs neither into checkpoints nor into the parameters
        # that are counted, averaged or turned to bfloat16.
        self._features = (EfficientNetLiteFeatures(),)

    def per_image(self, preds: Tensor, target: Tensor) -> Tensor:
        """The distance of each image."""
        features = self._features[0].to(preds.device)
        with torch.autocast(preds.device.type, enabled=False):
            maps = [features(image.clamp(0, 1).float()) for image in (preds, target)]
        distances = [_unit(one) - _unit(other) for one, other in zip(*maps, strict=True)]
        return torch.stack([each.square().sum(1).mean((1, 2)) for each in distances]).sum(0)


def _unit(features: Tensor) -> Tensor:
    return F.normalize(features.double(), dim=1)
