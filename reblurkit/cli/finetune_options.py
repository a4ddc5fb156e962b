"""The options of fine-tuning on clips."""

from __future__ import annotations

from dataclasses import dataclass

from reblurkit.core.numbers import check_not_negative, check_rate
from reblurkit.core.suggestions import did_you_mean
from reblurkit.errors import ArgumentError

BLURS = ("kernel", "line", "warp")

# Motion is known from a frame to its neighbours, at 1; the blur models suppose that it goes on evenly beyond.
_LONGEST = 2


@dataclass(frozen=True)
class FinetuneOptions:
    """How to fine-tune; the defaults are the paper's (section 3.4), except for crop and batch, which are free there.

    Attributes:
        exposure: Half-length of the exposure in frame intervals.
        labelled: Root of the labelled data that goes on beside; None only with ``unsupervised``.
        layout: Its layout.
        split: Its split; None: not divided.
        unsupervised: Adapt by the unlabelled clips alone.
        steps: Optimizer steps.
        lr: Learning rate of both networks.
        weight: alpha of equation 10.
        blur: ``kernel``, ``line`` or ``warp``.
        flow: Name of the flow network.
        frames: 3, or 2 for steady motion.
        crop: Side of the crops in pixels.
        batch_size: Crops of clips, and labelled crops, in a step.
        workers: Processes that read.
        seed: Crops and order are a function of it.

    Raises:
        ArgumentError: If an option is out of range, or there is no labelled data and ``unsupervised`` is off.
    """

    exposure: float
    labelled: str | None = None
    layout: str = "folders"
    split: str | None = "train"
    unsupervised: bool = False
    steps: int = 200
    lr: float = 1e-4
    weight: float = 0.1
    blur: str = "kernel"
    flow: str = "raft-small"
    frames: int = 3
    crop: int = 128
    batch_size: int = 8
    workers: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the options."""
        from reblurkit.models.flow.pretrained import PRETRAINED  # heavy, and `--help` wants the defaults

        if self.labelled is None and not self.unsupervised:
            raise ArgumentError(
                "labelled data must go on beside: the self-supervised loss alone leads to degenerate solutions, as "
                "many images blur to the observed one (Reblur2Deblur, section 3.4); give `labelled`, or "
                "`unsupervised` to do without all the same"
            )
        if self.labelled is not None and self.unsupervised:
            raise ArgumentError("`unsupervised` does without labelled data; leave out `labelled`")
        if self.blur not in BLURS:
            near = did_you_mean(self.blur, BLURS)
            raise ArgumentError(f"`blur` must be one of {', '.join(BLURS)}, but is {self.blur!r}{near}")
        check_span_of_exposure(self.exposure)
        numbers = {"steps": self.steps, "crop": self.crop, "batch_size": self.batch_size}
        for name, number in numbers.items():
            if number < 1:
                raise ArgumentError(f"`{name}` must be at least 1, but is {number}")
        if self.frames not in (2, 3):
            raise ArgumentError(f"`frames` must be 3, or 2 for steady motion, but is {self.frames}")
        if self.flow not in PRETRAINED:
            near = did_you_mean(self.flow, PRETRAINED)
            raise ArgumentError(f"`flow` must be one of {', '.join(PRETRAINED)}, but is {self.flow!r}{near}")
        check_not_negative(weight=self.weight, workers=self.workers, seed=self.seed)
        check_rate(lr=self.lr)


def check_span_of_exposure(exposure: float, given: str = "") -> None:
    """Check that an exposure is one that motion between neighbouring frames can tell about.

    Args:
        exposure: Half-length of the exposure in frame intervals.
        given: The options that it was computed from, for the message.

    Raises:
        ArgumentError: If it is not.

    Example:
        >>> check_span_of_exposure(4.5, "--window 9 and --stride 1")
        Traceback (most recent call last):
        reblurkit.errors.ArgumentError: --window 9 and --stride 1 make an `exposure` of 4.5; half of the time the shutter is open in frame intervals must be above 0 and at most 2 (0.5 in video whose shutter is always open; 1 in the paper)
    """  # noqa: E501
    if 0 < exposure <= _LONGEST:
        return
    what = "half of the time the shutter is open in frame intervals"
    range_ = f"must be above 0 and at most {_LONGEST} (0.5 in video whose shutter is always open; 1 in the paper)"
    if given:
        raise ArgumentError(f"{given} make an `exposure` of {exposure:.4g}; {what} {range_}")
    raise ArgumentError(f"`exposure`, {what}, {range_}, but is {exposure}")
