"""Trained networks at work on images of any size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor, nn

from reblurkit.adaptation.batch import adapt_call, chosen_parameters
from reblurkit.adaptation.options import AdaptOptions
from reblurkit.core.calls import check_two_networks, finest_scale, frame_inputs, stack_length
from reblurkit.data.frames import Frames
from reblurkit.errors import ArgumentError, ReblurkitError, ShapeError
from reblurkit.models.full_size import FullSize

_CHUNK = 8  # frames of a video that are read together


class Deblurrer:
    """A trained deblurring network, with what reblurring can do for it when it is used.

    Args:
        network: The deblurring network; put into evaluation mode and on the device.
        translator: A trained generator of :class:`reblurkit.Blur2BlurTranslator`, or the translator itself: turns the
            images' blur into that which the network knows.
        reblur_net: The reblurring network M_R that was trained with ``network``, for ``steps``.
        steps: Steps of adaptation to each image by Algorithm 1 of Nah et al., *Clean Images are Hard to Reblur*
            (2021), see :func:`reblurkit.adaptation.adapt`; behind a translator, ``network`` adapts to the translated
            image.
        lr: Learning rate of the adaptation.
        tile: Side of the tiles in which images are processed, and gradients taken, see
            :class:`reblurkit.models.FullSize`; None: whole.
        device: Where to compute; default a GPU where there is one.

    Attributes:
        network: The deblurring network.
        frames: Frames that it takes at once, 1 for images.
        not_adapted: Images whose adaptation became NaN or infinite, and which kept the plain output.

    Raises:
        ArgumentError: If the arguments do not go together, or there is no such device.

    Example:
        >>> from reblurkit.models import UNet
        >>> Deblurrer(UNet(blocks=1, widths=(8, 8, 8)), tile=64, device="cpu")(torch.rand(1, 3, 99, 70)).shape
        torch.Size([1, 3, 99, 70])
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        translator: nn.Module | None = None,
        reblur_net: nn.Module | None = None,
        steps: int = 0,
        lr: float = AdaptOptions.lr,
        tile: int | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        self.options = AdaptOptions(steps=steps, lr=lr, tile=tile)
        self.device = _device(device)
        self.network = network
        self.frames = stack_length(network)
        self.not_adapted = 0
        if steps and reblur_net is None:
            raise ArgumentError("adaptation needs the reblurring network that was trained with the network")
        if steps and self.frames > 1:
            raise ArgumentError(
                f"adaptation is for networks of single images, but {type(network).__name__} takes {self.frames} frames"
            )
        if steps and reblur_net is not None:
            check_two_networks(network, reblur_net, "reblurring")
            chosen_parameters(network, self.options.parameters)
        self._deblur = self._ready(FullSize(network, tile=tile))
        self._translator = None if translator is None else self._ready(FullSize(translator, tile=tile))
        self._reblur_net = None if reblur_net is None else self._ready(FullSize(reblur_net))

    def __call__(self, blurry: Tensor) -> Tensor:
        """Deblur images ``(B, 3, H, W)``, or stacks of frames ``(B, T, 3, H, W)``, to ``(B, 3, H, W)`` in [0, 1].

        Args:
            blurry: In [0, 1], on any device.

        Returns:
            The deblurred images, clamped, on the CPU.

        Raises:
            ShapeError: If a network cannot process the size.
            ArgumentError: If the network makes anything but finite floating point values.
        """
        with torch.inference_mode():
            image = blurry.to(self.device)
            if self._translator is not None:
                image = self._translator(image.flatten(0, -4)).clamp(0, 1).view_as(image)
            plain: Tensor | None = None if self.options.steps else self._deblur(image)
        deblurred = self._adapt(image) if plain is None else plain
        expected = (len(image), 3, *image.shape[-2:])
        if deblurred.shape != expected:
            raise ShapeError(f"the network must make images of shape {expected}, but made {tuple(deblurred.shape)}")
        if not deblurred.is_floating_point():
            raise ArgumentError(f"the network must make floating point values in [0, 1], but made {deblurred.dtype}")
        if not deblurred.isfinite().all():
            raise ArgumentError("the networks made NaN or infinite values of it")
        return deblurred.float().clamp(0, 1).cpu()

    def _adapt(self, image: Tensor) -> Tensor:
        assert self._reblur_net is not None
        call = adapt_call(self._deblur, self._reblur_net, (image,), {}, self.options)
        self.not_adapted += int((~call.losses.isfinite().all(1)).sum())
        return finest_scale(call.output)

    def each_frame(self, video: Frames, wanted: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        """Deblur frames of a video, or an image as a video of one frame, reading as few at a time as will do.

        Args:
            video: The video.
            wanted: The frames to deblur, in order.

        Yields:
            The index of each, and the deblurred frame ``(3, H, W)``.

        Raises:
            ArgumentError: If a network fails, for want of memory too.
            ReblurkitError: If a frame cannot be read, see :meth:`__call__` for more.
        """
        for _, group in groupby(wanted, lambda index: index // _CHUNK):
            indices = list(group)
            for index, stack in zip(indices, frame_stacks(self.network, video, indices), strict=True):
                try:
                    image = self(stack)[0]
                except ReblurkitError:
                    raise
                except Exception as error:  # whatever a network raises
                    raise _explained(error, video) from error
                yield index, image

    def _ready(self, network: FullSize) -> FullSize:
        return network.to(self.device).eval()


def frame_stacks(network: nn.Module, video: Frames, indices: Sequence[int]) -> list[Tensor]:
    """What a network needs to deblur some frames of a video.

    Args:
        network: A network of single frames, or of several.
        video: The video.
        indices: The frames, in order; all between the first and the last are read.

    Returns:
        For each frame ``(1, 3, H, W)``, or the stack around it, ``(1, T, 3, H, W)``.
    """
    reach = stack_length(network) // 2
    first, last = max(indices[0] - reach, 0), min(indices[-1] + reach, len(video) - 1)
    frames = video.read(first, last + 1)[None]
    return [frame_inputs(network, frames, [index - first]) for index in indices]


def _explained(error: Exception, frames: Frames) -> ReblurkitError:
    height, width = frames.size
    scarce = isinstance(error, torch.OutOfMemoryError | MemoryError) or "not enough memory" in str(error)
    what = "there is not enough memory; `tile` 512 needs less" if scarce else f"{type(error).__name__}: {error}"
    return ArgumentError(f"cannot process {width} x {height} pixels: {what}")


def _device(name: str | torch.device | None) -> torch.device:
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).tolist()
    except Exception as error:  # of as many kinds as there are devices
        reason = str(error).splitlines()[0][:200]
        raise ArgumentError(
            f"the device must be one that torch has here, such as cpu, but is {name}: {reason}"
        ) from error
    return device
