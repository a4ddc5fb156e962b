"""Memory and time of large photos, whole and in tiles.

python -m tests.benchmarks.full_size                                # CPU
python -m tests.benchmarks.full_size --device cuda --size 4000 6000 # writes docs/results/full_size_cuda.{json,md}
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import torch

from reblurkit.models import FullSize, create_model
from tests.benchmarks.contract import interleaved, machine, peak_memory, summary, write

ROOT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--model", default="unet")
    parser.add_argument("--size", type=int, nargs=2, default=(1000, 1500), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--tiles", type=int, nargs="+", default=(1024, 512, 256), help="beside the whole photo")
    parser.add_argument("--no-whole", action="store_true", help="the whole photo does not fit")
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    device = options.device
    network = create_model(options.model).to(device).eval()
    photo = torch.rand(1, 3, *options.size, device=device)
    tiles = [*([] if options.no_whole else [None]), *options.tiles]
    runs = {
        "whole" if tile is None else f"tiles of {tile}": partial(deblur, FullSize(network, tile=tile), photo)
        for tile in tiles
    }
    memory = {name: peak_memory(run, device) for name, run in runs.items()}
    times = {name: summary(values) for name, values in interleaved(runs, options.repeats, device).items()}
    baseline = next(iter(times.values()))["median"]
    facts = machine(device)
    results: dict[str, Any] = {"machine": facts, "model": options.model, "size": list(options.size)}
    results |= {"peak MB": memory, "milliseconds": times}
    lines = [
        "# Large photos: memory and time\n",
        ", ".join(f"{key} {value}" for key, value in facts.items() if value is not None) + "\n",
        f"`{options.model}` on one photo of {options.size[0]} x {options.size[1]} pixels, float32, overlap 32. Memory "
        "is what a pass takes beyond weights and photo, output included.\n"
        "Made by `python -m tests.benchmarks.full_size`.\n",
        "| | peak MB | seconds (quartiles) | first / this |\n|---|---|---|---|",
    ]
    for name, time in times.items():
        median, low, high = (time[key] / 1000 for key in ("median", "q1", "q3"))
        share = baseline / time["median"]
        lines.append(f"| {name} | {memory[name]:.0f} | {median:.3g} ({low:.3g}-{high:.3g}) | {share:.3g} |")
    print("\n".join(lines))
    write(results, "\n".join(lines) + "\n", ROOT / "docs" / "results" / f"full_size_{device.type}")


@torch.no_grad()
def deblur(network: FullSize, photo: torch.Tensor) -> torch.Tensor:
    return network(photo)


if __name__ == "__main__":
    main()
