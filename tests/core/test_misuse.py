"""What a function of the package cannot take is told by an error of the package."""

from __future__ import annotations

import importlib
import inspect

import pytest
import torch
from lightning.pytorch import LightningDataModule

from reblurkit.adaptation import AdaptOptions, adapt_to_blur, match_histogram
from reblurkit.blur import PhotoBlur, estimate_blur_kernel, kernel_similarity
from reblurkit.data import DemoPhotos
from reblurkit.errors import ArgumentError
from reblurkit.losses import LayerFeatures
from reblurkit.models import ReblurNet
from reblurkit.plugins import DeblurTask, WeightedLoss

IMAGE = torch.rand(1, 3, 8, 8)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: match_histogram(IMAGE, IMAGE, bins="many"), "histogram bins"),
        (lambda: match_histogram(IMAGE, IMAGE, bins=float("inf")), "histogram bins"),
        (lambda: match_histogram(IMAGE, IMAGE, bins=float("nan")), "histogram bins"),
        (lambda: match_histogram(IMAGE * float("nan"), IMAGE), "`image`"),
        (lambda: match_histogram(IMAGE, IMAGE * float("nan"), bins=None), "`reference`"),
        (lambda: DemoPhotos("val"), "`split`"),
        (lambda: DemoPhotos(blur="motion"), "`blur`"),
        (lambda: DemoPhotos(crop=float("nan")), "`crop`"),
        (lambda: DemoPhotos(crops_per_photo=-1), "`crops_per_photo`"),
        (lambda: LayerFeatures("unet", ["down1"]), "`network`"),
        (lambda: estimate_blur_kernel(IMAGE, IMAGE, size="9"), "`size`"),
        (lambda: PhotoBlur.of(IMAGE, IMAGE, size=float("nan")), "`size`"),
        (lambda: PhotoBlur(IMAGE[0]), "`kernels`"),
        (lambda: kernel_similarity(IMAGE, None), "kernels"),
        (lambda: adapt_to_blur(ReblurNet(width=4), IMAGE, lr="1"), "`lr`"),
        (lambda: adapt_to_blur(ReblurNet(width=4), IMAGE, least_agreement=float("nan")), "`least_agreement`"),
        (lambda: AdaptOptions(steps=2.0), "`steps`"),
        (lambda: AdaptOptions(tile=True), "`tile`"),
        (lambda: DeblurTask(ReblurNet(width=4), reblur_every=0), "`reblur_every`"),
        (lambda: DeblurTask(ReblurNet(width=4), reblur_warmup=float("nan")), "`reblur_warmup`"),
    ],
)
def test_misuse_is_told(call, named):
    with pytest.raises(ArgumentError, match=named):
        call()


#: What else a class needs, where it needs something.
NEEDED = {
    "AtRest": (["val/psnr"],),
    "DeblurTask": (ReblurNet(width=4),),
    "Deblurrer": (ReblurNet(width=4),),
    "FlowReblurFinetuneCallback": ([],),
    "ReblurLoss": (ReblurNet(width=4), ReblurNet(width=4)),
    "ReblurTask": (ReblurNet(width=4),),
    "UnpairedFolder": ("nowhere",),
    "VideoFolder": ("nowhere",),
}


def _is_checked(each):
    # Who takes a tuple or a weighted loss checks it, and a data module its data sets, when they are made.
    return inspect.isclass(each) and not issubclass(each, (tuple, WeightedLoss, LightningDataModule))


def numbers_of_classes():
    """Every class of the package's public modules with every argument that is a number or a pair of them."""
    modules = ("adaptation", "blur", "data", "inference", "losses", "metrics", "models", "plugins")
    found = {}
    for module in (importlib.import_module(f"reblurkit.{name}") for name in modules):
        names = getattr(module, "__all__", ["Deblurrer"])
        found |= {name: getattr(module, name) for name in names if _is_checked(getattr(module, name))}
    for name, each in sorted(found.items()):
        for argument, parameter in inspect.signature(each).parameters.items():
            if str(parameter.annotation) in {"float", "float | None", "tuple[float, float]"}:
                yield pytest.param(each, argument, id=f"{name}-{argument}")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e300])
@pytest.mark.parametrize(("made", "argument"), list(numbers_of_classes()))
def test_a_number_that_is_none_is_told_when_it_is_given(made, argument, value):
    with pytest.raises(ArgumentError, match=argument):
        made(*NEEDED.get(made.__name__, ()), **{argument: value})
