"""Where data sets keep their blurry and sharp images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Split:
    """One part of a data set.

    Args:
        folder: What ``{split}`` stands for in the layout's patterns.
        only: The videos that belong to it, what ``<video>`` stands for; None: all.
        without: Videos that do not belong to it.
        list_file: File below the root that names the pairs; see :func:`reblurkit.data.pairing.find_pairs`.
    """

    folder: str = ""
    only: frozenset[str] | None = None
    without: frozenset[str] = frozenset()
    list_file: str | None = None


@dataclass(frozen=True)
class Layout:
    """A data set's folder structure.

    Patterns are relative to the root, see :class:`reblurkit.data.patterns.Pattern`. ``{split}`` stands for the split's
    folder, ``{folder}`` for the blurry or sharp folder's name. Two files are a pair if all wildcards without a name,
    and those with a name that both patterns have, stand for the same; a sharp file may serve several blurry ones.

    Args:
        blurry: Pattern of the blurry images.
        sharp: Pattern of the sharp images.
        blur_folder: Default name of the blurry images' folder.
        sharp_folder: Default name of the sharp images' folder.
        splits: The splits; where the patterns have ``{split}``, any other name is a folder's.
        note: What a user whose images were not found should know.
    """

    blurry: str
    sharp: str
    blur_folder: str
    sharp_folder: str
    splits: Mapping[str, Split] = field(default_factory=dict)
    note: str = ""


# Su et al., Deep Video Deblurring for Hand-held Cameras (2017): the ten videos that the authors name for tests.
_DVD_TEST = frozenset(["720p_240fps_2", *(f"IMG_{number:04}" for number in (3, 21, 30, 31, 32, 33, 37, 39, 49))])
# Wang et al., EDVR (2019): the clips of the training set that most papers test on.
_REDS4 = frozenset({"000", "011", "015", "020"})


def _realblur(kind: str, folder: str) -> Layout:
    """Rim et al., Real-World Blur Dataset (2020): the lists name 3758 pairs for training and 980 for tests."""
    test = Split(list_file=f"RealBlur_{kind}_test_list.txt")
    return Layout(
        f"{folder}/<scene>/{{folder}}/blur_<number>",
        f"{folder}/<scene>/{{folder}}/gt_<number>",
        "blur",
        "gt",
        {"train": Split(list_file=f"RealBlur_{kind}_train_list.txt"), "val": test, "test": test},
    )


LAYOUTS = {
    # MMagic's GoPro, and most people's own data
    "folders": Layout("{split}/{folder}/**/*", "{split}/{folder}/**/*", "blur", "sharp"),
    # the form NAFNet, Restormer and other BasicSR users convert GoPro, HIDE and RealBlur to
    "input-target": Layout("{split}/{folder}/**/*", "{split}/{folder}/**/*", "input", "target"),
    # GOPRO_Large as released: a folder per video, no validation split
    "gopro": Layout("{split}/*/{folder}/*", "{split}/*/{folder}/*", "blur_gamma", "sharp", {"val": Split("test")}),
    "reds": Layout(
        "{split}/{split}_{folder}/<video>/<frame>",
        "{split}/{split}_{folder}/<video>/<frame>",
        "blur",
        "sharp",
        {"reds4": Split("train", only=_REDS4), "train-without-reds4": Split("train", without=_REDS4)},
        "REDS has no public sharp images of its test split: test on 'val' or 'reds4'",
    ),
    "realblur": _realblur("J", "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"),
    "realblur-r": _realblur("R", "RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref"),
    "rsblur": Layout(
        "RSBlur/<scene>/<image>/{folder}/<blurry>",
        "RSBlur/<scene>/<image>/{folder}/<sharp>",
        "real_blur",
        "gt",
        {name: Split(list_file=f"RSBlur_real_{name}.txt") for name in ("train", "val", "test")},
        "the root holds the folder RSBlur and the lists of the authors' repository, datalist/RSBlur/*.txt",
    ),
    # HIDE as released: one folder of sharp images for both splits, test images in test-close-ups and test-long-shot
    "hide": Layout("{split}/<part/><name>", "{folder}/<name>", "", "GT", {"val": Split("test")}),
    "dvd": Layout(
        "quantitative_datasets/<video>/{folder}/<frame>",
        "quantitative_datasets/<video>/{folder}/<frame>",
        "input",
        "GT",
        {"train": Split(without=_DVD_TEST), "val": Split(only=_DVD_TEST), "test": Split(only=_DVD_TEST)},
    ),
    "bsd": Layout(
        "{split}/*/{folder}/RGB/*",
        "{split}/*/{folder}/RGB/*",
        "Blur",
        "Sharp",
        {"val": Split("valid")},
        "the root is the folder of one exposure time, such as BSD_3ms24ms",
    ),
    "lai": Layout(
        "{folder}/<scene>_<shake>_<number>",  # manmade_01_kernel_02, manmade_01_gyro_02
        "{folder}/<scene>",
        "uniform",
        "ground_truth",
        {"val": Split(), "test": Split()},
        "the real images of this set have no ground truth",
    ),
    "kohler": Layout(
        "<blurry/>Blurry<image>_<kernel>",
        "<sharp/>GroundTruth<image>_<kernel>_{folder}",
        "",
        "100",  # the middle one: all trajectories have 198 to 200 frames
        {"val": Split(), "test": Split()},
    ),
}
