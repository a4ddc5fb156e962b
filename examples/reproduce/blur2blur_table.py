"""The slides' table of Blur2Blur in small or in full: `python examples/reproduce/blur2blur.py --table`.

    python examples/reproduce/blur2blur.py --table --photos FOLDER --minutes 40        # small form, two CPU cores
    python examples/reproduce/blur2blur.py --table --photos FOLDER --full --minutes 7  # a slice of the full form, a GPU

Rows: two deblurring networks, each trained on known blur and used alone, trained on realistic blur (RSBlur) and on
shuffled degradations (BSRGAN) of the camera's sharp photos, behind Blur2Blur, and trained on pairs of the camera, the
bound; and CycleGAN and DualGAN, which do without. Each training is a stage with a run folder of its own: a call goes on
where the last one stopped and ends after so many minutes. Then it measures what has been trained, and says of each row
how many of its steps were made; a table with unfinished rows is no result.

Cameras are simulated from the photos, halved in size: the known one blurs by a disc of two pixels, the unknown one
along one axis (--unknown). DATA, below the output, holds trainA (left halves, blurry as the unknown camera) and
trainA_sharp (for the bound alone), trainB (right halves, sharp), trainC and trainD (these, blurry as the known camera,
and sharp), testA and testB (photos held out, blurry as the unknown camera, and sharp). Whoever has such folders passes
--data.

Fixed before the run: PSNR and SSIM of every held-out photo; a difference is to the same network alone, or to the first
network alone; its 95 % interval is Student's over photos. Nothing is chosen on held-out photos.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
import yaml
from blur2blur import BORDER, inner, interval, split, unknown_blur, value
from measuring import write_record
from torch.nn import functional as F

from reblurkit.blur import DefocusBlur
from reblurkit.data import PairedFolder, PhotoFolder, write_image
from reblurkit.metrics import PSNR, SSIM
from reblurkit.models import FullSize
from reblurkit.models.composed import Composed
from reblurkit.models.weights import read_lightning_checkpoint
from reblurkit.pictures import comparison_grid
from reblurkit.plugins import load_networks
from reblurkit.plugins.trained_network import load_translator

CONFIGS = Path(__file__).parents[1] / "configs" / "blur2blur_table"
# In this order, so that an early stop leaves whole comparisons.
TRAININGS = {"alone": "known", "realistic": "realistic", "shuffled": "shuffled", "bound": "target"}
TITLES = {
    "alone": "known blur alone",
    "realistic": "RealisticBlur (RSBlur)",
    "shuffled": "ShuffledDegradation (BSRGAN)",
    "blur2blur": "Blur2Blur",
    "bound": "pairs of the camera, the bound",
    "cyclegan": "CycleGAN",
    "dualgan": "DualGAN",
}


class Form(NamedTuple):
    """What differs between the small and the full form."""

    deblurrers: tuple[str, str]
    flags: dict[str, list[str]]
    """Of each network, and of ``all``, on top of the configurations."""
    steps: dict[str, int]
    """Of ``deblurrer``, ``blur2blur``, ``cyclegan``, ``dualgan``, as Lightning counts: two or three a batch of GANs."""


def model(name, class_path, **options):
    """Flags that replace a network."""
    return [f"--model.{name}={class_path}", *(f"--model.{name}.{key}={number}" for key, number in options.items())]


def small(width=1.0):
    """Networks of 0.1 million parameters or less, at full resolution; a smaller width shows that all runs."""
    wide = round(16 * width)
    rate = ["--model.optimizer.lr=1e-3"]
    judges = model("discriminator", "PatchGAN", width=wide, layers=1)
    generator = {"blocks": 1, "width": wide, "identity": "true"}
    rival = [*model("network", "ReblurNet", **generator), *judges]
    return Form(
        ("unet", "folded"),
        {
            "all": ["--trainer.precision=32-true", "--trainer.accelerator=cpu", "--data.num_workers=0"],
            "unet": [*model("network", "UNet", blocks=2, widths=[wide, 2 * wide, 3 * wide]), *rate],
            "folded": [*model("network", "FoldedUNet", widths=[2 * wide, 4 * wide], blocks=[1, 1]), *rate],
            "blur2blur": [*model("generator", "ReblurNet", **generator), *judges],
            "cyclegan": rival,
            "dualgan": rival,
        },
        {"deblurrer": 1500, "blur2blur": 3000, "cyclegan": 1200, "dualgan": 1800},
    )


FULL = Form(
    ("nafnet", "restormer"),
    {"all": [], **{name: [] for name in ("nafnet", "restormer", "blur2blur", "cyclegan", "dualgan")}},
    {"deblurrer": 30_000, "blur2blur": 60_000, "cyclegan": 60_000, "dualgan": 90_000},
)


class Stage(NamedTuple):
    """A training: its folder's name, its configurations, flags, and the steps it takes."""

    name: str
    configs: tuple[str, ...]
    flags: list[str]
    steps: int


def stages(form, data, crop, batch):
    """All trainings of the table."""
    found = []
    sizes = [f"--data.crop={crop}", f"--data.batch_size={batch}"] if crop else []
    for kind, blur in TRAININGS.items():
        for network in form.deblurrers:
            root = data / "trainB" if blur in ("realistic", "shuffled") else data
            flags = [*sizes, f"--data.root={root}", *form.flags[network]]
            if root != data:
                flags.append(f"--data.val_root={root}")
            config = network if (CONFIGS / f"{network}.yaml").is_file() else "nafnet"
            found.append(Stage(f"{network}_{kind}", (config, f"on_{blur}"), flags, form.steps["deblurrer"]))
    for name in ("blur2blur", "cyclegan", "dualgan"):
        flags = [*sizes, f"--data.root={data}", "--trainer.limit_val_batches=0", *form.flags[name]]
        found.append(Stage(name, (name,), flags, form.steps[name]))
    first = [f"{network}_alone" for network in form.deblurrers]
    order = [*first, "blur2blur", "cyclegan", "dualgan"]
    found.sort(key=lambda stage: order.index(stage.name) if stage.name in order else len(order))
    return [stage._replace(flags=[*stage.flags, *form.flags["all"]]) for stage in found]


def newest(folder):
    """The newest checkpoint of a stage."""
    found = sorted(folder.glob("**/last*.ckpt"), key=lambda file: file.stat().st_mtime)
    return found[-1] if found else None


def steps_of(folder):
    """Steps that a stage has made."""
    checkpoint = newest(folder)
    return 0 if checkpoint is None else read_lightning_checkpoint(checkpoint)["global_step"]


def train(stage, folder, seed, seconds):
    """Train a stage, or go on with it, for so many seconds."""
    command = [sys.executable, "-m", "reblurkit", "fit"]
    for config in stage.configs:
        command += ["--config", str(CONFIGS / f"{config}.yaml")]
    command += [*stage.flags, f"--trainer.max_steps={stage.steps}", f"--seed_everything={seed}", f"--data.seed={seed}"]
    command += ["--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={folder}"]
    command += ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    if math.isfinite(seconds):
        command += [f"--trainer.max_time={time.strftime('00:%H:%M:%S', time.gmtime(max(seconds, 1)))}"]
    checkpoint = newest(folder)
    if checkpoint is not None:
        command += ["--ckpt_path", str(checkpoint)]
    command += ["--config", str(checkpointing(stage, folder))]
    subprocess.run(command, check=True)


def checkpointing(stage, folder):
    """A configuration whose checkpoints fall on the last step, after all optimizers of a batch, and not far apart."""
    callbacks = yaml.safe_load((CONFIGS / f"{stage.configs[0]}.yaml").read_text())["trainer"]["callbacks"]
    every = max(number for number in range(6, 301, 6) if stage.steps % number == 0)
    callbacks[-1]["init_args"]["every_n_train_steps"] = every
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "checkpointing.yaml"
    path.write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks}}))
    return path


def simulate(photos, unknown, data):
    """The folders of the simulated cameras."""
    blurry, sharp, held_out = split(photos)
    known = DefocusBlur(2.0, 2.0, linear=False)
    sets = {"trainA": [unknown(photo[None])[0] for photo in blurry], "trainA_sharp": [inner(photo) for photo in blurry]}
    sets |= {"trainB": sharp, "trainC": [inner(known(photo[None])[0]) for photo in sharp]}
    sets |= {"trainD": [inner(photo) for photo in sharp]}
    sets |= {"testA": [unknown(photo[None])[0] for photo in held_out], "testB": [inner(photo) for photo in held_out]}
    for name, images in sets.items():
        for number, image in enumerate(images):
            path = data / name / f"{number:03d}.png"
            if not path.exists():
                write_image(image, path)


def load_photos(folder, limit, crop):
    """Photos of a folder, shrunk to half their size, with sides that divide by 4; those with room for two crops."""
    photos = [F.interpolate(item["sharp"][None], scale_factor=0.5, mode="area")[0] for item in PhotoFolder(folder)]
    photos = [photo[:, : photo.shape[1] // 4 * 4, : photo.shape[2] // 4 * 4] for photo in photos[:limit]]
    room = crop + 2 * BORDER
    return [photo for photo in photos if photo.shape[1] >= room and photo.shape[2] >= 2 * room]


def rows_of(form, folder):
    """The networks of the table by row, those that have been trained at all, with steps made and wanted."""
    rows = {}

    def add(key, network, *names):
        progress = [(steps_of(folder / name), wanted(name)) for name in names]
        rows[key] = network, progress

    def wanted(name):
        return form.steps["deblurrer" if name.split("_")[0] in form.deblurrers else name]

    deblurrers = {name: network_of(folder / name) for name in names_of(form)}
    generator = newest(folder / "blur2blur")
    translator = None if generator is None else load_translator(str(generator))
    for network in form.deblurrers:
        for kind in ("alone", "realistic", "shuffled", "blur2blur", "bound"):
            if kind == "blur2blur":
                alone = deblurrers[f"{network}_alone"]
                if translator is not None and alone is not None:
                    add((network, kind), Composed(translator, alone), f"{network}_alone", "blur2blur")
            elif (deblurrer := deblurrers.get(f"{network}_{kind}")) is not None:
                add((network, kind), deblurrer, f"{network}_{kind}")
    for kind in ("cyclegan", "dualgan"):
        network = network_of(folder / kind)
        if network is not None:
            add(("", kind), network, kind)
    return rows


def names_of(form):
    """The stages that train a deblurring network."""
    return [f"{network}_{kind}" for network in form.deblurrers for kind in TRAININGS]


def network_of(folder):
    """The trained network of a stage, None if there is none yet."""
    checkpoint = newest(folder)
    return None if checkpoint is None else load_networks(checkpoint=str(checkpoint)).network


@torch.inference_mode()
def measure(rows, data, shown=2):
    """PSNR and SSIM of every held-out photo by row; the versions of the first photos, for pictures."""
    pairs = PairedFolder(data, "folders", split=None, blur="testA", sharp="testB")
    networks = {key: FullSize(network.eval()) for key, (network, _) in rows.items()}
    scores = {key: [] for key in [("", "blurry"), *rows]}
    pictures = []
    for number in range(len(pairs)):
        blurry, sharp = pairs[number]["blurry"][None], pairs[number]["sharp"][None]
        images = {("", "blurry"): blurry} | {key: net(blurry).clamp(0, 1) for key, net in networks.items()}
        for key, image in images.items():
            scores[key].append({"psnr": value(PSNR(), image, sharp), "ssim": value(SSIM(), image, sharp)})
        if number < shown:
            pictures.append({**{key: image[0] for key, image in images.items()}, ("", "sharp"): sharp[0]})
    return scores, pictures


def summarise(scores, progress, deblurrers):
    """Means over photos, and the difference to the network alone, with intervals."""
    table = []
    for (network, kind), photos in scores[0].items():
        reference = (network or deblurrers[0], "alone")
        row = {"network": network, "row": TITLES.get(kind, kind)}
        for metric in ("psnr", "ssim"):
            values = [
                sum(run[network, kind][photo][metric] for run in scores) / len(scores) for photo in range(len(photos))
            ]
            row[metric] = interval(values)
            if kind != "alone" and reference in scores[0]:
                others = [
                    sum(run[reference][photo][metric] for run in scores) / len(scores) for photo in range(len(photos))
                ]
                row[f"{metric} - alone"] = interval([a - b for a, b in zip(values, others, strict=True)])
        made = progress.get((network, kind), [])
        row["steps"] = [list(each) for each in made]
        row["finished"] = all(done >= wanted for done, wanted in made)
        table.append(row)
    return table


def markdown(table, settings):
    """The table, with a warning where a row is unfinished."""
    told = ", ".join(f"{name} {setting}" for name, setting in settings.items())
    command = "`python examples/reproduce/blur2blur.py --table --photos FOLDER`"
    lines = ["# The table of Blur2Blur", "", f"{command}: {told}", ""]
    if settings["share of the steps"] < 1 or not all(row["finished"] for row in table):
        lines += ["**A rehearsal, or unfinished: rows with few steps show that it runs, nothing more.**", ""]
    lines += [
        "| network | trained on | PSNR, dB | SSIM | PSNR - alone | steps made of wanted |",
        "|---|---|---|---|---|---|",
    ]
    for row in table:
        psnr, ssim = ("{:.2f} ± {:.2f}".format(*row["psnr"]), "{:.3f} ± {:.3f}".format(*row["ssim"]))
        change = "{:+.2f} ± {:.2f}".format(*row["psnr - alone"]) if "psnr - alone" in row else ""
        steps = ", ".join(f"{done} of {wanted}" for done, wanted in row["steps"])
        lines.append(f"| {row['network']} | {row['row']} | {psnr} | {ssim} | {change} | {steps} |")
    return "\n".join(lines) + "\n"


def main(arguments):
    """Train for a while, measure what there is, write and draw it."""
    parser = argparse.ArgumentParser(
        prog="blur2blur.py --table", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", help="folder of sharp photos")
    parser.add_argument("--data", type=Path, help="folders trainA to testB of real cameras, instead of photos")
    parser.add_argument("--output", type=Path, default=Path("runs/blur2blur_table"))
    parser.add_argument("--full", action="store_true", help="NAFNet, Restormer and the paper's generator, for a GPU")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="of training in this call (default: to the end)"
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--limit", type=int, default=40, help="photos that are used")
    parser.add_argument("--unknown", default="gaussian:0.3:1", help="gaussian:ACROSS:ALONG or shake:SIZE:STRENGTH")
    parser.add_argument("--steps", type=float, default=1.0, help="share of the steps, to rehearse; no result")
    parser.add_argument("--width", type=float, default=1.0, help="share of the small networks' width, to rehearse")
    options = parser.parse_args(arguments)
    if (options.photos is None) == (options.data is None):
        parser.error("give --photos, sharp photos to simulate cameras with, or --data, folders of real ones")
    end = time.monotonic() + 60 * options.minutes
    form = FULL if options.full else small(options.width)
    # Whole batches of two and three optimizers, and checkpoints at the last step.
    form = form._replace(steps={name: max(int(n * options.steps) // 6, 1) * 6 for name, n in form.steps.items()})
    crop, batch = (None, None) if options.full else (64, 4)
    data = options.data or options.output / "data"
    if options.photos is not None:
        simulate(load_photos(options.photos, options.limit, crop or 256), unknown_blur(options.unknown), data)

    scores, progress = [], {}
    for seed in range(options.seeds):
        folder = options.output / f"seed{seed}"
        for stage in stages(form, data, crop, batch):
            left = end - time.monotonic()
            if steps_of(folder / stage.name) < stage.steps and left > 10:
                train(stage, folder / stage.name, seed, left)
        rows = rows_of(form, folder)
        if scores and rows.keys() != scores[0].keys() - {("", "blurry")}:
            break  # of a later seed that is not trained yet
        found, pictures = measure(rows, data)
        scores.append(found)
        for key, (_, made) in rows.items():
            progress.setdefault(key, []).extend(made)
        for network in form.deblurrers:
            shown = [{kind: image for (of, kind), image in row.items() if of in ("", network)} for row in pictures]
            comparison_grid(shown, width=200, detail=64).save(options.output / f"seed{seed}_{network}.png")
    table = summarise(scores, progress, form.deblurrers)
    settings = {"form": "full" if options.full else "small", "seeds": len(scores), "unknown": options.unknown}
    settings |= {"photos held out": len(next(iter(scores[0].values()))), "share of the steps": options.steps}
    results = {"settings": settings, "table": table, "photos": [by_name(run) for run in scores]}
    write_record(options.output / "table.json", results)
    (options.output / "table.md").write_text(markdown(table, settings))
    print(markdown(table, settings))


def by_name(scores):
    """A run's scores with rows named in one word."""
    return {" ".join(key).strip(): photos for key, photos in scores.items()}
