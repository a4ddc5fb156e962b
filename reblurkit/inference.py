"""Trained networks at work on images of any size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor, nn

from reblurkit.adaptation.batch import adapt_call, chosen_parameters
from reblurkit.adaptation.changes import AdaptationChange, BlurAdaptationChange, blur_changes_of, changes_of
from reblurkit.adaptation.options import AdaptOptions
from reblurkit.adaptation.own_blur import AdaptToBlurOptions, adapt_to_blur
from reblurkit.blur.consistency import make_consistent, may_be_consistent
from reblurkit.core.calls import check_two_networks, finest_scale, frame_inputs, stack_length
from reblurkit.core.checks import FirstBatchCheck, check_images
from reblurkit.core.memory import free_memory, is_out_of_memory, peak_memory
from reblurkit.data.frames import Frames
from reblurkit.errors import ArgumentError, ReblurkitError, ShapeError
from reblurkit.models.full_size import FullSize
from reblurkit.models.multi_scale import MultiScale

_CHUNK = 8  # frames of a video that are read together
_PROBE = 256  # side of the image that shows what a pixel takes
_IMAGES = 60  # bytes that a pixel takes outside tiles: of the image, its result, and sums of tiles
_SHARE = 0.7  # of free memory that is used: what is measured is no promise


class Deblurrer:
    """A trained deblurring network, with what reblurring can do for it when it is used.

    Args:
        network: The deblurring network; put into evaluation mode and on the device.
        translator: A trained generator of :class:`reblurkit.Blur2BlurTranslator`, or the translator itself: turns the
            images' blur into that which the network knows.
        reblur_net: The reblurring network M_R that was trained with ``network``, for ``steps``.
        steps: Steps of adaptation to each image by Algorithm 1 of Nah et al., *Clean Images are Hard to Reblur*
            (2021), see :func:`reblurkit.adaptation.adapt`; behind a translator, ``network`` adapts to the translated
            image. None: 0, with ``to_blur`` 20.
        lr: Learning rate of the adaptation. None: 3e-6, with ``to_blur`` 1e-4.
        to_blur: Adapt to each photo's own blur instead, by :func:`reblurkit.adaptation.adapt_to_blur`, which needs no
            reblurring network.
        scales: Let the network work at so many sizes of the image, each half of the one before, for blur longer than it
            knows, see :class:`reblurkit.models.MultiScale`. Adaptation adapts it for all of them.
        consistent: Correct the result where the photo has one blur, until it agrees with the photo when reblurred, by
            :func:`reblurkit.blur.make_consistent`. Photos of less than 256 pixels a side stay as they are; so do
            videos, in which a correction of one frame and not of the next would be seen.
        tile: Side of the tiles in which images are processed, and gradients taken, see
            :class:`reblurkit.models.FullSize`; None: whole; ``"auto"``: whole, or the largest tiles that memory holds.
        device: Where to compute; default a GPU where there is one.

    Attributes:
        network: The deblurring network, with several ``scales`` a ``MultiScale`` around it.
        frames: Frames that it takes at once, 1 for images.
        not_adapted: Images whose adaptation became NaN or infinite, and which kept the plain output.
        judged: Images that ``consistent`` judged: all but small ones and frames of videos.
        corrected: Those of them of which it corrected any region.
        changes: What the adaptation did to each image, in order.
        plain: What the network made by itself of the last images: without adaptation, but corrected, where it adapts;
            uncorrected where ``consistent`` corrected any; else None.

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
        steps: int | None = None,
        lr: float | None = None,
        to_blur: bool = False,
        scales: int = 1,
        consistent: bool = False,
        tile: int | Literal["auto"] | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        self._finds_tile = tile == "auto"
        tile = None if tile == "auto" else tile
        usual_steps, usual_lr = (AdaptToBlurOptions.steps, AdaptToBlurOptions.lr) if to_blur else (0, AdaptOptions.lr)
        steps, lr = usual_steps if steps is None else steps, usual_lr if lr is None else lr
        self.options = AdaptOptions(steps=steps, lr=lr, tile=tile)
        self.device = _device(device)
        network = network if scales == 1 and isinstance(scales, int) else MultiScale(network, scales)
        self.network = network
        self.frames = stack_length(network)
        self.not_adapted = 0
        self.judged = self.corrected = 0
        self.changes: list[AdaptationChange | BlurAdaptationChange] = []
        self.plain: Tensor | None = None
        self._to_blur, self._consistent = to_blur, consistent
        for name, choice in {"to_blur": to_blur, "consistent": consistent}.items():
            if not isinstance(choice, bool):
                raise ArgumentError(f"`{name}` must be true or false, but is {choice!r}")
        if consistent and self.frames > 1:
            raise ArgumentError(
                f"`consistent` is for networks of single images, but {type(network).__name__} takes {self.frames} "
                "frames"
            )
        if to_blur and reblur_net is not None:
            raise ArgumentError("adaptation to a photo's blur needs no reblurring network; leave out `reblur_net`")
        if to_blur and not steps:
            raise ArgumentError("adaptation to a photo's blur takes at least 1 of `steps`, but is asked for 0")
        if steps and reblur_net is None and not to_blur:
            raise ArgumentError("adaptation needs the reblurring network that was trained with the network")
        if steps and self.frames > 1:
            raise ArgumentError(
                f"adaptation is for networks of single images, but {type(network).__name__} takes {self.frames} frames"
            )
        if steps and reblur_net is not None:
            check_two_networks(network, reblur_net, "reblurring")
        self._deblur = self._ready(FullSize(network, tile=tile))
        if steps:
            chosen_parameters(network, self.options.parameters)
        self._translator = None if translator is None else self._ready(FullSize(translator, tile=tile))
        self._reblur_net = None if reblur_net is None else self._ready(FullSize(reblur_net))
        self._networks = [self._deblur, *([] if self._translator is None else [self._translator])]
        self._check_range = FirstBatchCheck()
        self._cost: float | None = None  # bytes that a pixel of a tile takes

    def __call__(self, blurry: Tensor) -> Tensor:
        """Deblur images ``(B, 3, H, W)``, or stacks of frames ``(B, T, 3, H, W)``, to ``(B, 3, H, W)`` in [0, 1].

        Of an image without colour, three equal channels, the result has none: the mean of the network's.

        Args:
            blurry: Floating point in [0, 1], on any device; the range is checked of the first batch.

        Returns:
            The deblurred images, clamped, on the CPU.

        Raises:
            ShapeError: If the tensor has another shape, or a network cannot process the size.
            ArgumentError: If it holds anything but floating point values near [0, 1], or the network makes anything but
                finite floating point values.
        """
        deblurred = self._uncorrected(blurry)
        if not self._consistent or not may_be_consistent(blurry):
            return deblurred
        photo = blurry.to(self.device, torch.float32).clamp(0, 1)
        found = make_consistent(photo, deblurred.to(self.device))
        corrected = int(found.accepted.flatten(1).any(1).sum())
        self.judged += len(photo)
        self.corrected += corrected
        if self.plain is not None:  # what adaptation changed is seen beside it
            self.plain = make_consistent(photo, self.plain.to(self.device)).image.cpu()
        elif corrected:
            self.plain = deblurred
        return found.image.cpu()

    def _uncorrected(self, blurry: Tensor) -> Tensor:
        self.plain = None
        self._check(blurry)
        deblurred = self._in_largest_tiles(blurry) if self._finds_tile else self._deblurred(blurry)
        grey = (blurry == blurry[..., :1, :, :]).flatten(1).all(1).cpu()
        if self.plain is not None:
            self.plain = _grey_where(grey, self.plain)
        return _grey_where(grey, deblurred)

    def _check(self, blurry: Tensor) -> None:
        is_stack = isinstance(blurry, Tensor) and blurry.ndim == 5
        check_images(blurry=blurry.flatten(0, 1) if is_stack else blurry)
        wanted = f"(B, {self.frames}, 3, H, W)" if self.frames > 1 else "(B, 3, H, W)"
        if is_stack != (self.frames > 1) or blurry.shape[-3] != 3 or (is_stack and blurry.shape[1] != self.frames):
            raise ShapeError(
                f"{type(self.network).__name__} deblurs images of shape {wanted}, but came {tuple(blurry.shape)}"
            )
        self._check_range(blurry=blurry)

    def _deblurred(self, blurry: Tensor, adapts: bool = True) -> Tensor:
        adapts = adapts and self.options.steps > 0
        with torch.inference_mode():
            image = blurry.to(self.device)
            if self._translator is not None:
                image = self._translator(image.flatten(0, -4)).clamp(0, 1).view_as(image)
            plain: Tensor | None = None if adapts else self._deblur(image)
        adapt = self._adapt_to_blur if self._to_blur else self._adapt
        deblurred = adapt(image) if plain is None else plain
        expected = (len(image), 3, *image.shape[-2:])
        if deblurred.shape != expected:
            raise ShapeError(f"the network must make images of shape {expected}, but made {tuple(deblurred.shape)}")
        if not deblurred.is_floating_point():
            raise ArgumentError(f"the network must make floating point values in [0, 1], but made {deblurred.dtype}")
        if not deblurred.isfinite().all():
            advice = "; adaptation may have led there: take a smaller learning rate"
            advice = advice if self.options.steps and not self._to_blur else ""
            raise ArgumentError(f"the networks made NaN or infinite values of it{advice}")
        return deblurred.float().clamp(0, 1).cpu()

    def _adapt(self, image: Tensor) -> Tensor:
        assert self._reblur_net is not None
        call = adapt_call(self._deblur, self._reblur_net, (image,), {}, self.options)
        self.not_adapted += int((~call.losses.isfinite().all(1)).sum())
        self.changes += changes_of(call, image)
        self.plain = call.plain.float().clamp(0, 1).cpu()
        return finest_scale(call.output)

    def _adapt_to_blur(self, image: Tensor) -> Tensor:
        steps, lr, tile = self.options.steps, self.options.lr, self.options.tile
        adapted = adapt_to_blur(self.network, image, steps=steps, lr=lr, tile=tile)
        self.not_adapted += int((~adapted.losses.isfinite().all(1)).sum())
        self.changes += blur_changes_of(adapted)
        self.plain = adapted.plain.float().clamp(0, 1).cpu()
        return adapted.image

    def _in_largest_tiles(self, blurry: Tensor) -> Tensor:
        for tile in self._tiles(blurry):
            self._use_tile(tile)
            try:
                return self._deblurred(blurry)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
        raise MemoryError

    def _tiles(self, blurry: Tensor) -> Iterator[int | None]:
        """Sides of tiles, from the largest that should fit; None: whole."""
        multiple = math.lcm(*(network.multiple for network in self._networks))
        shortest = max(max(network.overlap + multiple, network.smallest) for network in self._networks)
        shortest += -shortest % multiple
        height, width = blurry.shape[-2:]
        if self._cost is None and max(height, width) > max(_PROBE, shortest):
            self._cost = self._measured(blurry[:1, ..., : max(_PROBE, shortest), : max(_PROBE, shortest)])
        free = free_memory(self.device)
        if free is None or self._cost is None:
            yield None
            largest = max(height, width) // 2
        else:
            usable = _SHARE * free
            if self._cost * height * width * len(blurry) <= usable:
                yield None
            spare = (usable / len(blurry) - _IMAGES * height * width) / self._cost
            largest = min(math.isqrt(max(int(spare), 0)), max(height, width))
        tile = largest - largest % multiple
        while tile > shortest:
            yield tile
            tile = tile * 3 // 4 - tile * 3 // 4 % multiple
        yield shortest

    def _measured(self, probe: Tensor) -> float | None:
        """Bytes that a pixel of a tile takes; None if the system does not say, or the probe is too large already."""
        counted = self.not_adapted
        self._use_tile(None)
        try:
            with peak_memory(self.device) as peak:
                self._deblurred(probe, adapts=not self._to_blur)  # to a blur it takes crops, whatever the tiles
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return None
        self.not_adapted = counted
        return None if peak.taken is None else max(peak.taken, 1) / math.prod(probe.shape[-2:])

    def _use_tile(self, tile: int | None) -> None:
        self.options = replace(self.options, tile=tile)
        for network in self._networks:
            network.tile = tile

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
        deblur = self._uncorrected if self._consistent and len(video) > 1 else self
        for _, group in groupby(wanted, lambda index: index // _CHUNK):
            indices = list(group)
            for index, stack in zip(indices, frame_stacks(self.network, video, indices), strict=True):
                try:
                    image = deblur(stack)[0]
                except ReblurkitError:
                    raise
                except Exception as error:  # whatever a network raises
                    raise self._explained(error, video) from error
                yield index, image

    def _explained(self, error: Exception, frames: Frames) -> ReblurkitError:
        height, width = frames.size
        tile = self.options.tile
        what = f"{type(error).__name__}: {error}"
        if is_out_of_memory(error):
            less = "`tile` 512 needs less" if tile is None else f"tiles of {tile} are too large, smaller ones need less"
            what = f"there is not enough memory; {less}"
        return ArgumentError(f"cannot process {width} x {height} pixels: {what}")

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


def _grey_where(grey: Tensor, images: Tensor) -> Tensor:
    """Images ``(B, 3, H, W)``: the mean of their channels where ``grey`` ``(B,)`` is true, the others as they are."""
    return torch.where(grey[:, None, None, None], images.mean(1, keepdim=True), images) if grey.any() else images


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
