"""What the reblurring loss adds: Tables 1, 2 and 4 of *Clean Images are Hard to Reblur*, from a trained network on.

    python examples/reproduce/reblur_loss.py --plan
    python examples/reproduce/reblur_loss.py --photos TRAIN --test TEST --run runs/reblur_loss --minutes 8
    python examples/reproduce/reblur_loss.py --photos TRAIN --test TEST --niqe FILE --run runs/reblur_loss --measure
    python examples/reproduce/reblur_loss.py --test TEST --niqe FILE --trained L1_FILE REBLUR_FILE

All variants go on from one network for as many steps, on the same crops in the same order: L1 alone, and L1 + L_Reblur
with the forms of M_R below. "L1, as long" takes as many steps as fit into the time of the paper's M_R. A call trains
for so many minutes, variant by variant, and the next call goes on; `--seeds 2` trains twice, `--variants` chooses some.
`--small` is for two CPU cores: L1 and an M_R that has learned, in half an hour; `--variants` adds to it. TRAIN and TEST
are folders of sharp photos. `--network FILE` starts from another U-Net (Table S1) than the network in the box, and
`--reblur N2_FILE` or `--reblur N2_FILE N1_FILE` has the paper's M_R (Table S3, of two blocks and of one) start learned,
too. `--trained` measures two U-Nets that were trained elsewhere: nothing is trained. A run measures on one TEST, and
keeps what it has measured.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import re
import time
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import lightning as L
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from measuring import BLURS, interval, measure_photo, middle, spaced, write_record

from reblurkit.blur import CameraNoise
from reblurkit.data import PhotoFolder
from reblurkit.data.synthetic import SyntheticPairs
from reblurkit.models import ReblurNet, UNet, load_pretrained, load_weights
from reblurkit.models.weights import read_lightning_checkpoint
from reblurkit.pictures import comparison_grid
from reblurkit.plugins import DeblurTask, SyntheticBlurDataModule


class Variant(NamedTuple):
    """A form of the reblurring loss."""

    reblur_net: dict[str, int]
    """Arguments of ReblurNet."""
    sharpness: str = "pseudo"
    """What M_R must preserve."""
    every: int = 1
    """Steps of which the first one reblurs."""
    weight: float = 1.0
    """lambda of equation 6."""
    frozen: bool = False
    """M_R judges and does not learn."""
    learned: bool = False
    """Folded, M_R goes on from that of the box, else from that of `--reblur`; or it learns anew."""


PAPERS, FOLDED = {"blocks": 2}, {"blocks": 2, "width": 48, "fold": 2}
VARIANTS = {
    "L1": None,
    "n = 1": Variant({"blocks": 1}),
    "n = 2": Variant(PAPERS),
    "n = 2, real S": Variant(PAPERS, "real"),
    "n = 2, every 7th": Variant(PAPERS, every=7),
    "folded": Variant(FOLDED),
    "folded, every 2nd": Variant(FOLDED, every=2),
    "n = 1, learned": Variant({"blocks": 1}, learned=True),
    "n = 2, learned": Variant(PAPERS, learned=True),
    "n = 2, learned, real S": Variant(PAPERS, "real", learned=True),
    "n = 2, learned, every 7th": Variant(PAPERS, every=7, learned=True),
    "n = 2, learned, frozen, every 3rd": Variant(PAPERS, every=3, frozen=True, learned=True),
    "n = 2, learned, frozen, every 3rd, weight 1.25": Variant(PAPERS, every=3, weight=1.25, frozen=True, learned=True),
    "folded, learned": Variant(FOLDED, learned=True),
    "folded, learned, every 2nd": Variant(FOLDED, every=2, learned=True),
    "folded, learned, every 2nd, weight 1.5": Variant(FOLDED, every=2, weight=1.5, learned=True),
    "folded, learned, frozen, weight 1.5": Variant(FOLDED, weight=1.5, frozen=True, learned=True),
    "L1, as long": None,
}
BASE, LONG = "L1", "L1, as long"
PAPER, PAPER_LEARNED, BOX_LEARNED = "n = 2", "n = 2, learned", "folded, learned"
TRAINED = (BASE, "+ L_Reblur")  # networks that were trained elsewhere
SIZES = {
    "full": {"steps": 3000, "batch_size": 48, "crop": 192, "average": 0.999},
    "small": {"steps": 120, "batch_size": 4, "crop": 128, "average": 0.98},
}
LR, WARMUP = 1e-4, 0.2  # share of the steps in which M_R learns alone
PLAN = f"""Hypothesis: with L_Reblur, NIQE falls and gradients become stronger, and PSNR loses at most 0.3 dB.
Statistic: a photo's change from {BASE!r}, averaged over the blurs {", ".join(BLURS)};
  mean over photos with its 95 % interval (Student's), and seconds a step. Both directions are published.
  Of several trainings, which have the seeds 0, 1, ..., a photo's changes from that of the same seed are averaged.
Settings: Adam {LR}, mean of weights, M_R alone in the first {WARMUP:.0%} of the steps where it learns anew.
  {SIZES}
Photos: TRAIN trains, TEST measures; no setting is chosen on TEST."""


def start(arguments):
    """The network that all variants go on from."""
    return load_pretrained().network.train() if arguments.network is None else unet(arguments.network)


def unet(file):
    """The paper's U-Net with weights of a file."""
    network = UNet()
    load_weights(network, file)
    return network


def trained(checkpoint, arguments):
    """The network of a variant."""
    network = start(arguments)
    load_weights(network, checkpoint, network="network")
    return network


def reblurring_network(variant, arguments):
    """The M_R of a variant, as it starts."""
    if variant.learned and variant.reblur_net == FOLDED:
        reblur_net = load_pretrained().reblur_net
    else:
        reblur_net = ReblurNet(**variant.reblur_net)
        if variant.learned:
            load_weights(reblur_net, file_of(variant, arguments))
    return reblur_net.train().requires_grad_(not variant.frozen)


def file_of(variant, arguments):
    """Where a learned M_R of the paper's starts from; None if that was not named."""
    files = arguments.reblur or []
    place = (2, 1).index(variant.reblur_net["blocks"])
    return files[place] if place < len(files) else None


class Clock(L.Callback):
    """Ends a call after its minutes, and counts the seconds of a training's steps over all calls."""

    def __init__(self, until):
        self.until, self.seconds, self.began = until, 0.0, None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        """Another step begins."""
        self.began = time.perf_counter()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        """A step has ended."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds += time.perf_counter() - self.began
        trainer.should_stop = time.monotonic() > self.until

    def state_dict(self):
        """Kept in the checkpoint."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict):
        """Go on counting."""
        self.seconds = state_dict["seconds"]


def checkpoint_of(name, seed, arguments):
    """Where a variant is kept."""
    return arguments.run / re.sub(r"\W+", "_", f"{name}, seed {seed}" if seed else name) / "last.ckpt"


def steps_of(checkpoint):
    """How many steps a variant has made."""
    return read_lightning_checkpoint(checkpoint)["global_step"] if checkpoint.is_file() else 0


def train(name, seed, steps, size, arguments, until):
    """Train a variant, or go on with it."""
    checkpoint = checkpoint_of(name, seed, arguments)
    L.seed_everything(seed)
    options = {"optimizer": partial(torch.optim.Adam, lr=LR), "scheduler": _constant}
    if (variant := VARIANTS[name]) is not None:
        options |= {"reblur_net": reblurring_network(variant, arguments), "reblur_sharpness": variant.sharpness}
        options |= {"reblur_every": variant.every, "reblur_weight": variant.weight}
        options["reblur_warmup"] = 0 if variant.learned else round(WARMUP * steps / variant.every)
    task = DeblurTask(start(arguments), **options)
    data = SyntheticBlurDataModule(
        arguments.photos,
        blur=list(BLURS.values()),
        noise=CameraNoise(shot=0.01, jpeg_share=0.15),
        sharp_share=0.1,
        batch_size=size["batch_size"],
        crop=size["crop"],
        cache=True,
        num_workers=arguments.workers,
        seed=seed,
    )
    trainer = L.Trainer(
        max_steps=steps,
        precision="bf16-mixed" if torch.cuda.is_available() else 32,
        logger=False,
        limit_val_batches=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[
            Clock(until),
            EMAWeightAveraging(decay=size["average"]),
            ModelCheckpoint(checkpoint.parent, filename="last", enable_version_counter=False),
        ],
    )
    (arguments.run / "settings.json").write_text(json.dumps(settings_of(size, arguments)[1]))
    trainer.fit(task, data, ckpt_path=checkpoint if checkpoint.is_file() else None, weights_only=True)
    print(f"{name}, seed {seed}: {trainer.global_step} of {steps} steps", flush=True)


def _constant(optimizer):
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def seconds_a_step(checkpoint):
    """Seconds of a variant's mean step."""
    saved = read_lightning_checkpoint(checkpoint)
    (clock,) = (state for key, state in saved["callbacks"].items() if key.startswith("Clock"))
    return clock["seconds"] / saved["global_step"]


def wanted_steps(name, seed, size, found, arguments):
    """Steps of a variant; those of the last follow from the others' seconds, and are not known before."""
    if name != LONG:
        return size["steps"]
    if arguments.as_long is not None:
        return round(size["steps"] * arguments.as_long)
    if not {(paper(arguments), seed), (BASE, seed)} <= found.keys():
        return math.inf
    return round(size["steps"] * seconds_a_step(found[paper(arguments), seed]) / seconds_a_step(found[BASE, seed]))


def paper(arguments):
    """The variant with the paper's M_R whose time L1 may take, too."""
    return PAPER_LEARNED if arguments.small else PAPER


def measure(networks, arguments):
    """Every network on every photo under every blur: rows of metrics by name, seed and photo, averaged over blurs."""
    measured, files = {}, dict(zip(TRAINED, arguments.trained or (), strict=False))
    for (name, seed), network in networks.items():
        kept = checkpoint_of(name, seed, arguments).with_name("measured.json")
        wanted = {"test": absolute(arguments.test), "niqe": absolute(arguments.niqe)}
        wanted["weights"] = absolute(files.get(name))
        record = json.loads(kept.read_text()) if kept.is_file() else {}
        photos = record.pop("photos", None)
        if record != wanted:
            photos = measure_network(network.eval(), arguments)
            kept.parent.mkdir(exist_ok=True)
            kept.write_text(json.dumps(wanted | {"photos": photos}))
        measured.setdefault(name, {})[seed] = photos
        print(f"{name}, seed {seed} measured", flush=True)
    return measured


def absolute(path):
    """A path as a record keeps it."""
    return None if path is None else str(Path(path).resolve())


def measure_network(network, arguments):
    """Rows of one network, by photo."""
    photos, rows = PhotoFolder(arguments.test), {}
    for blur in BLURS.values():
        pairs = SyntheticPairs(photos, [blur], CameraNoise(shot=0.01), seed=1)
        for item in pairs:
            blurry, sharp = (middle(item[key]) for key in ("blurry", "sharp"))
            row = measure_photo(network, blurry, sharp, arguments.niqe)
            rows.setdefault(item["name"], []).append(row)
    return {
        photo: {metric: sum(row[metric] for row in each) / len(each) for metric in each[0]}
        for photo, each in rows.items()
    }


@torch.inference_mode()
def draw(networks, arguments, photos=3, blur="shake 9"):
    """Draw some photos of the test, evenly spaced, under one of the blurs."""
    pairs, rows = SyntheticPairs(PhotoFolder(arguments.test), [BLURS[blur]], CameraNoise(shot=0.01), seed=1), []
    for item in (pairs[index] for index in spaced(range(len(pairs)), photos)):
        blurry, sharp = (middle(item[key], 320) for key in ("blurry", "sharp"))
        outputs = {name: network(blurry)[0] for (name, seed), network in networks.items() if seed == 0}
        rows.append({"blurry": blurry[0], **outputs, "sharp": sharp[0]})
    comparison_grid(rows, width=260, detail=96).save(arguments.run / "reblur_loss.png")


def positive(word):
    """A finite number above 0."""
    if not 0 < float(word) < math.inf:
        raise ValueError
    return float(word)


def whole(word):
    """A whole number above 0."""
    if int(word) < 1:
        raise ValueError
    return int(word)


def main():
    """Print the plan, train for a while, or measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", action="store_true", help="print what is measured, and how; do nothing")
    parser.add_argument("--photos", help="folder of sharp training photos")
    parser.add_argument("--test", help="folder of sharp photos to measure on")
    parser.add_argument("--niqe", help="file of NIQE's pristine model (.npz or .mat)")
    parser.add_argument("--network", help="weights of a U-Net to start from (default: the network in the box)")
    parser.add_argument("--reblur", nargs="+", metavar="FILE", help="weights of the paper's M_R of two blocks, of one")
    parser.add_argument("--run", type=Path, default=Path("runs/reblur_loss"))
    parser.add_argument("--minutes", type=positive, default=8, help="train so long in this call (default: 8)")
    parser.add_argument("--small", action="store_true", help="few steps, from an M_R that has learned")
    parser.add_argument("--as-long", type=positive, metavar="TIMES", help=f"steps of {LONG!r}, in those of {BASE}")
    parser.add_argument("--seeds", type=whole, help="train so many times (default: once), or measure so many (all)")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, metavar="NAME", help=f"{BASE} and these alone")
    parser.add_argument("--measure", action="store_true", help="measure what has been trained to the end")
    parser.add_argument("--workers", type=int, default=0, help="processes that read (default: 0)")
    parser.add_argument("--trained", nargs=2, metavar=("L1_FILE", "REBLUR_FILE"), help="weights of two U-Nets")
    arguments = parser.parse_args()
    if arguments.plan:
        print(PLAN)
        return
    if arguments.test is None or (arguments.photos is None and arguments.trained is None):
        parser.error("--photos and --test are needed, or --test and --trained, or --plan")
    files = arguments.reblur or []
    if len(files) > 2 or not all(Path(file).is_file() for file in files):
        parser.error(f"--reblur takes files of weights, one or two, but came {' '.join(files)}")
    asked_for = arguments.variants or (() if arguments.small else VARIANTS)
    if arguments.as_long is not None and not arguments.measure and LONG not in asked_for:
        parser.error(f"--as-long is for {LONG!r}, which is not trained here: name it by --variants")
    arguments.run.mkdir(parents=True, exist_ok=True)
    if arguments.trained is not None:
        networks = {(name, 0): unet(file) for name, file in zip(TRAINED, arguments.trained, strict=True)}
        record = {"networks": [Path(file).stem for file in arguments.trained]}
    else:
        size = SIZES["small" if arguments.small else "full"]
        names = chosen_names(arguments, parser)
        kept, wanted = settings_of(size, arguments)
        if differing := [key for key, value in kept.items() if value != wanted[key]]:
            parser.error(
                f"{arguments.run} holds a training with {differing[0]} {kept[differing[0]]}, and not "
                f"{wanted[differing[0]]}: go on with that, or take another --run"
            )
        found = train_all(names, size, arguments)
        if not arguments.measure:
            return
        if (BASE, 0) not in found:
            parser.error(f"{BASE!r} has not been trained to the end in {arguments.run}: call again without --measure")
        found = {key: checkpoint for key, checkpoint in found.items() if (BASE, key[1]) in found}
        networks = {key: trained(checkpoint, arguments) for key, checkpoint in found.items()}
        record = {
            "size": size,
            "started from": arguments.network or "the network in the box",
            "steps": {name: fmean(steps_of(found[key]) for key in found if key[0] == name) for name, _ in found},
            "seconds a step": {
                name: fmean(seconds_a_step(found[key]) for key in found if key[0] == name) for name, _ in found
            },
        }
    write(record, measure(networks, arguments), arguments)
    draw(networks, arguments)


def chosen_names(arguments, parser):
    """The variants of a call, in order; to measure, all there are."""
    if arguments.variants is not None:
        needed = {paper(arguments)} if LONG in arguments.variants and arguments.as_long is None else set()
        names = tuple(name for name in VARIANTS if name in {BASE, *arguments.variants} | needed)
    elif arguments.small and not arguments.measure:
        return BASE, PAPER_LEARNED if arguments.reblur else BOX_LEARNED
    else:
        names = tuple(VARIANTS)
    if arguments.measure:
        return names
    starts = [name for name in names if (form := VARIANTS[name]) and form.learned and form.reblur_net != FOLDED]
    nameless = [name for name in starts if file_of(VARIANTS[name], arguments) is None]
    if nameless and arguments.variants is not None:
        blocks = VARIANTS[nameless[0]].reblur_net["blocks"]
        parser.error(f"{nameless[0]!r} starts from weights of the paper's M_R, n = {blocks}: name them by --reblur")
    return tuple(name for name in names if name not in nameless)


def settings_of(size, arguments):
    """What the trainings of a run began with, and what this call says."""
    file = arguments.run / "settings.json"
    kept = json.loads(file.read_text()) if file.is_file() else {}
    wanted = size | {name: absolute(getattr(arguments, name)) for name in ("network", "photos")}
    wanted |= dict(zip(("reblur", "reblur of one block"), map(absolute, arguments.reblur or ()), strict=False))
    # Some variants only need an M_R that has learned.
    return {key: kept[key] for key in wanted if key in kept}, kept | wanted


def train_all(names, size, arguments):
    """Train variants for the minutes of this call; the checkpoints of those that have reached their end."""
    found, until = {}, time.monotonic() + 60 * arguments.minutes
    for seed in range(arguments.seeds or (seeds_of_run(arguments) if arguments.measure else 1)):
        for name in names:
            checkpoint, steps = checkpoint_of(name, seed, arguments), wanted_steps(name, seed, size, found, arguments)
            if steps_of(checkpoint) < steps < math.inf and not arguments.measure and time.monotonic() < until:
                train(name, seed, steps, size, arguments, until)
            if steps_of(checkpoint) >= steps:
                found[name, seed] = checkpoint
    return found


def seeds_of_run(arguments):
    """How many seeds have a checkpoint."""
    return next(seed for seed in itertools.count() if not checkpoint_of(BASE, seed, arguments).is_file())


def changes_by_photo(metric, trainings, base):
    """Of each photo, averaged over seeds."""
    rows = [(photos, base[seed]) for seed, photos in trainings.items()]
    return [fmean(photos[name][metric] - without[name][metric] for photos, without in rows) for name in rows[0][0]]


def write(record, rows, arguments):
    """Write changes from L1 as a table, and everything as numbers."""
    metrics = list(next(iter(rows[BASE][0].values())))
    changes, heads = {}, [f"{BASE} and", "trainings", *metrics, "NIQE lower on", "gradients stronger on"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, trainings in rows.items():
        if name == BASE:
            continue
        by_photo = {metric: changes_by_photo(metric, trainings, rows[BASE]) for metric in metrics}
        changes[name] = {metric: interval(values) for metric, values in by_photo.items()}
        cells = [str(len(trainings))]
        cells += [f"{one['mean']:+.3f} ± {one.get('interval', math.nan):.3f}" for one in changes[name].values()]
        photos = len(by_photo["gradient_ratio"])
        cells.append(f"{sum(value < 0 for value in by_photo['niqe'])} of {photos}" if "niqe" in metrics else "")
        cells.append(f"{sum(value > 0 for value in by_photo['gradient_ratio'])} of {photos}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    if "networks" in record:
        how = f"`--trained` networks: {', '.join(record['networks'])}."
    else:
        how = f"Started from {record['started from']}, {record['size']['steps']} steps."
    seconds = [f"{name} {one:.2f}" for name, one in record.get("seconds a step", {}).items()]
    parts = ["# What the reblurring loss adds", f"`python examples/reproduce/reblur_loss.py`: {how}", PLAN]
    parts += ["\n".join(lines)] + ([f"Seconds a step: {', '.join(seconds)}."] if seconds else [])
    (arguments.run / "reblur_loss.md").write_text("\n\n".join(parts) + "\n")
    record = {"plan": PLAN, **record, f"change from {BASE}": changes, "photos": rows}
    write_record(arguments.run / "reblur_loss.json", record)
    print("\n".join(parts[3:]))


if __name__ == "__main__":
    main()
