"""The time of a Blur2Blur training step beside its arithmetic, and of translating a 720p image.

python -m tests.benchmarks.translation_step                  # CPU, writes docs/results/translation_step_cpu.*
python -m tests.benchmarks.translation_step --device cuda    # GPU
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from reblurkit.blur import ShakeBlur
from reblurkit.losses import MultiScalePerceptualLoss
from reblurkit.models import VGGFeatures
from reblurkit.models.vgg import VGG
from reblurkit.plugins import Blur2BlurTranslator
from tests.benchmarks.contract import Run, interleaved, machine, peak_memory, summary, write

ROOT = Path(__file__).parents[2]
FORWARD = "generator forward"
STEP = "training step"
EXPLANATION = """\
The paper's networks: MIMO-UNet, PatchGAN on three scales, VGG-16 features (random weights: time and arithmetic are the
same), gradient penalty, batch 1 of 256x256, known blur by `ShakeBlur`. Times are medians in milliseconds with first and
third quartile; both rows ran in turns in one process. Arithmetic is counted by `torch.utils.flop_counter`. *Overhead*
is the ratio of the times over the ratio of the arithmetic; 1 is a step whose operations run as fast as the generator's.

Made by `python -m tests.benchmarks.translation_step`."""


class Bare(Blur2BlurTranslator):
    """The training step without a Trainer."""

    def prepare(self) -> None:
        """Build what a Trainer would."""
        networks = (self.generator, self.discriminator)
        self.both = [torch.optim.Adam(network.parameters(), self.lr, betas=(0.5, 0.999)) for network in networks]

    def optimizers(self, use_pl_optimizer: bool = True) -> Any:
        """Both."""
        return self.both

    def lr_schedulers(self) -> Any:
        """None."""
        return []

    def manual_backward(self, loss: Tensor, *_: Any, **__: Any) -> None:
        """As it is."""
        loss.backward()


def random_vgg(name: VGG, layers: list[str]) -> nn.Module:
    """VGG's layers with random weights: nothing is downloaded."""
    with torch.device("meta"):
        from torchvision import models

        state = getattr(models, name)(init_weights=False).features.state_dict()
    path = Path(torch.hub.get_dir()) / "random_vgg.pth"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({f"features.{key}": torch.randn(value.shape) / 50 for key, value in state.items()}, path)
    try:
        return VGGFeatures(name, layers, path)
    finally:
        path.unlink()


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    torch.manual_seed(0)
    layers = ["relu2_2", "relu3_3", "relu4_1", "relu4_3", "conv5_1"]
    perceptual = MultiScalePerceptualLoss(
        random_vgg("vgg16", layers), layer_weights=[1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0], reduction="sum"
    )
    translator = Bare(perceptual=perceptual, known_blur=ShakeBlur(21, 0.5)).to(device)
    translator.prepare()
    crops = torch.rand(2, 1, 3, options.crop, options.crop, device=device)
    batch = {"blurry": crops[0], "sharp": crops[1]}
    image = torch.rand(1, 3, 720, 1280, device=device)

    def forward(images: Tensor) -> None:
        with torch.no_grad():
            translator.generator(images)

    runs: dict[str, Run] = {
        FORWARD: partial(forward, crops[0]),
        STEP: partial(translator._step, batch, crops[0]),
    }
    results: dict[str, Any] = {"machine": machine(device), "crop": options.crop}
    times = interleaved(runs, options.repeats, device)
    for name, run in runs.items():
        with FlopCounterMode(display=False) as counter:
            run()
        results[name] = summary(times[name]) | {"gigaflops": counter.get_total_flops() / 1e9}
        results[name]["memory"] = peak_memory(run, device)
    ratios = {key: results[STEP][key] / results[FORWARD][key] for key in ("median", "gigaflops")}
    results["overhead"] = ratios["median"] / ratios["gigaflops"]
    large = interleaved({"720p": partial(forward, image)}, max(options.repeats // 3, 1), device)
    results["720p"] = summary(large["720p"])
    write(results, report(results), options.output or ROOT / "docs" / "results" / f"translation_step_{device.type}")


def report(results: dict[str, Any]) -> str:
    """The page."""
    lines = ["# The training step of Blur2Blur", "", EXPLANATION, "", "| | ms | GFLOP | MB |", "|---|---|---|---|"]
    for name in (FORWARD, STEP):
        row = results[name]
        lines.append(f"| {name} | {_ms(row)} | {row['gigaflops']:.1f} | {row['memory']:.0f} |")
    times, work = (results[STEP][key] / results[FORWARD][key] for key in ("median", "gigaflops"))
    lines += ["", f"Time {times:.2f}x, arithmetic {work:.2f}x: overhead {results['overhead']:.2f}."]
    lines += ["", f"Translating an image of 1280x720: {_ms(results['720p'])} ms.", ""]
    lines += [f"- {name}: {value}" for name, value in results["machine"].items()]
    return "\n".join(lines) + "\n"


def _ms(row: dict[str, float]) -> str:
    return f"{row['median']:.0f} ({row['q1']:.0f} to {row['q3']:.0f})"


if __name__ == "__main__":
    main()
