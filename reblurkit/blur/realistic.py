"""Blur as a real camera's pictures have it, made from sharp photos: the synthetic rival of RSBlur."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reblurkit.blur.arguments import check_image
from reblurkit.blur.camera import Camera, photograph
from reblurkit.blur.light import from_light, to_light
from reblurkit.blur.motion import MotionBlur
from reblurkit.blur.random_blur import DrawnBlur, RandomBlur, draw_seed, seeds_of
from reblurkit.core.numbers import check_span, is_number, shown
from reblurkit.errors import ArgumentError, ShapeError

_DEMOSAICING = 2  # pixels that it looks to every side
_SATURATED = 1 - 0.5 / 255


class RealisticBlur(DrawnBlur):
    """Motion blur with what a camera does to it: saturated lights, noise before demosaicing, colours, rounding.

    After Rim et al., *Realistic Blur Synthesis for Learning Image Deblurring* (ECCV 2022), the data set RSBlur. In
    linear light the image is blurred along a random motion, and so is the mask of its saturated pixels; that, times a
    random number from ``saturation``, is added, and the sum cut off at 1: lights leave streaks as bright as themselves.
    Then the picture is taken: the camera's colours, Bayer mosaic, inverse white balance, shot and read noise, white
    balance, demosaicing, colours back; saturated pixels have no noise. Last come the curve of sRGB and 8 bits.

    Different from the authors: single images are blurred by ``motion``, where they average video frames, for which
    ``(B, T, 3, H, W)`` serve here too; the camera is a random mixture of four (Brooks et al., *Unprocessing Images for
    Learned Raw Denoising*, 2019), where they measured one; shot noise is Gaussian, not Poisson, the same to the eye for
    the thousands of electrons of its defaults; the curve is sRGB's alone. Defaults of the noise are theirs for
    RealBlur.

    It has noise of its own, so go without ``CameraNoise``: ``SyntheticBlurDataModule(root, blur=[RealisticBlur()],
    noise=False)``. What happens to an image follows from its row of draws, whatever else is in the batch; on another
    kind of device the same row gives other noise of the same distribution.

    Args:
        motion: The motion; default ``MotionBlur()``. Whether it says ``linear`` makes no difference.
        saturation: Least and largest factor of the blurred mask.
        shot: Standard deviation of the shot noise of a raw value of 1, times the root of a number between 0.5 and 1.5
            of the image.
        read: Standard deviation of the read noise, times a number between 0.5 and 1.5 of the image.
        seed: Makes the sequence of this object's draws reproducible; default: the global random state.

    Shape:
        ``(B, 3, H, W)`` in [0, 1] to the same shape, whole multiples of 1/255. Clips ``(B, T, 3, H, W)`` of consecutive
        frames are averaged instead of blurred, to ``(B, 3, H, W)``.

    Raises:
        ArgumentError: If an option is out of range, or the input no tensor of floating point.
        ShapeError: If the input is no batch of RGB images or clips.

    Example:
        >>> RealisticBlur(seed=0)(torch.rand(2, 3, 32, 40)).shape
        torch.Size([2, 3, 32, 40])
    """

    def __init__(
        self,
        motion: RandomBlur | None = None,
        saturation: tuple[float, float] = (0.25, 1.75),
        shot: float = 0.0094,
        read: float = 3e-5,
        seed: int | None = None,
    ) -> None:
        super().__init__(seed)
        motion = MotionBlur() if motion is None else motion
        if not isinstance(motion, RandomBlur):
            raise ArgumentError(f"`motion` must be a random blur, such as MotionBlur(), but is {shown(motion)}")
        for name, value in (("shot", shot), ("read", read)):
            if not is_number(value) or not 0 <= value <= 1:
                raise ArgumentError(f"`{name}` must be a number in [0, 1], but is {shown(value)}")
        check_span(0, saturation=saturation)
        self.motion = motion
        self.saturation = (saturation[0], saturation[1])
        self.shot = shot
        self.read = read
        self._motion_shape = motion.draw(1, torch.Generator()).shape[1:]

    @property
    def border(self) -> int:
        """That of the motion, and what demosaicing looks at."""
        return self.motion.border + _DEMOSAICING

    def forward(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Blur with new draws; clips are averaged.

        Args:
            image: ``(B, 3, H, W)`` or ``(B, T, 3, H, W)`` in [0, 1].
            generator: Source of the draws for this call, on the CPU; default: this object's own.
        """
        _check(image)
        return self.blur(image, self.draw(len(image), generator))

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw motions and seeds: ``(count, n)`` float64, flattened motions with a seed behind."""
        generator = generator or self._generator
        rows = [
            torch.cat([self.motion.draw(1, generator).double().flatten(), draw_seed(generator)]) for _ in range(count)
        ]
        return torch.stack(rows)

    def blur(self, image: Tensor, drawn: Tensor) -> Tensor:
        """Blur and photograph; see the class for clips."""
        _check(image)
        if len(drawn) != len(image):
            raise ShapeError(f"expected one draw an image, {len(image)}, but came {len(drawn)}")
        frames = image if image.ndim == 5 else image[:, None]
        wide = torch.promote_types(image.dtype, torch.float32)
        frames = frames.to(wide)
        light = to_light(frames.flatten(0, 1)).view_as(frames)
        exposed = torch.cat([light, (frames >= _SATURATED).to(wide)], 2)
        if image.ndim == 5:
            exposed = exposed.mean(1)
        else:
            motions = drawn[:, :-1].reshape(-1, *self._motion_shape)
            exposed = self.motion.blur_values(exposed[:, 0], motions.to(exposed))
        pictures = [
            self._picture(each[:3], each[3:], torch.Generator().manual_seed(seed))
            for each, seed in zip(exposed, seeds_of(drawn[:, -1]), strict=True)
        ]
        return (from_light(torch.stack(pictures)) * 255).round().div(255).to(image.dtype)

    def _picture(self, light: Tensor, saturated: Tensor, generator: torch.Generator) -> Tensor:
        """A picture of light, ``(3, H, W)`` in [0, 1]."""
        camera = Camera.drawn(generator)
        factor, shot, read = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
        least, largest = self.saturation
        light = (light + (least + (largest - least) * factor) * saturated).clamp(0, 1)
        picture = photograph(light, camera, self.shot * math.sqrt(0.5 + shot), self.read * (0.5 + read), generator)
        return torch.where(light >= 1, 1, picture.clamp(0, 1))

    def extra_repr(self) -> str:
        """The options, for ``repr``."""
        return f"saturation={self.saturation}, shot={self.shot}, read={self.read}, seed={self.seed}"


def _check(image: Tensor) -> None:
    """Check that these are RGB images or clips."""
    is_clip = isinstance(image, Tensor) and image.ndim == 5 and image.numel() > 0
    check_image(image.flatten(0, 1) if is_clip else image)
    if image.shape[-3] != 3:
        raise ShapeError(
            f"expected RGB images (B, 3, H, W) or clips (B, T, 3, H, W), but the shape is {tuple(image.shape)}"
        )
