"""Trains the networks in the box, measures them on photos that no one trained on, and writes weights and card.

    python examples/reproduce/pretrained.py --photos TRAIN --test TEST --pairs PAIRS --run runs/base --minutes 60
    python examples/reproduce/pretrained.py --photos TRAIN --test TEST --pairs PAIRS --run runs/base --write

TRAIN and TEST are folders of sharp photos, PAIRS one of files `blur_NAME.png` and `sharp_NAME.png`. The recipe is in
`examples/configs/pretrained`: L1, then PSNR, then L1 + the reblurring loss, with M_R beside; then PSNR, as frames of
video are blurred, and as scenes in which things move; then M_R alone. A run stops after so many minutes and goes on
where it was when it is called again; `--write` measures and writes, whatever has been reached: the mean of the weights
after the third, fourth and fifth stage. `--first STAGE` leaves out the stages before, and goes on from the networks in
the box; `--write` then takes these for what the run has not trained.

Fixed before the run: photos are the unit; each is measured under each of four blurs that follow from its number, and as
it is. Nothing is chosen on them. The card holds means, their 95 % intervals over photos, and the worst photo.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import platform
import subprocess
import sys
import time
from pathlib import Path

import torch
import yaml
from measuring import BLURS, gradient_ratio, interval, value

from reblurkit import __version__
from reblurkit.adaptation import adapt
from reblurkit.blur import CameraNoise
from reblurkit.data import PhotoFolder, read_image
from reblurkit.data.synthetic import SyntheticPairs
from reblurkit.metrics import NIQE, PSNR, SSIM
from reblurkit.models import FoldedUNet, ReblurNet, load_pretrained, load_weights, save_pretrained
from reblurkit.models import pretrained as box
from reblurkit.models.weights import read_lightning_checkpoint, save_weights

CONFIGS = Path(__file__).parents[1] / "configs" / "pretrained"
STAGES = ("base_l1", "base_psnr", "base_reblur", "base_video", "base_scenes", "reblur_net")
AVERAGED = ("base_reblur", "base_video", "base_scenes")  # the deblurring network is the mean of what these made
THREADS = 2
OFTEN = 100  # steps: of so many a call loses what it has made, at most


def train(stage, photos, run, until=math.inf, weights=None):
    """Train a stage to its end, or go on with it; returns its checkpoint, or None where time was up before."""
    folder = run / stage
    command = ["fit", "--config", str(CONFIGS / f"{stage}.yaml"), "--data.root", str(photos)]
    command += ["--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", str(folder)]
    command += ["--trainer.callbacks+=ModelCheckpoint", f"--trainer.callbacks.every_n_train_steps={OFTEN}"]
    if found := checkpoints(folder):
        command += ["--ckpt_path", str(found[-1])]
    if weights is not None:
        command += ["--model.weights", str(weights)]
    with subprocess.Popen([sys.executable, "-m", "reblurkit", *command]) as training:
        try:
            status = training.wait(None if until == math.inf else max(until - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            training.terminate()  # no interrupt: what runs in the background may ignore that
            return None
    if status:
        raise SystemExit(status)
    return checkpoints(folder)[-1]


def checkpoints(folder):
    """A stage's checkpoints, the newest last; files that begin with a dot are not whole yet."""
    return sorted(folder.glob("**/[!.]*.ckpt"), key=lambda file: file.stat().st_mtime)


def newest(run, stages):
    """The newest checkpoint of each of these stages that has one."""
    return {stage: files[-1] for stage in stages if (files := checkpoints(run / stage))}


def reached(checkpoint):
    """Steps and whole epochs that a run has made."""
    saved = read_lightning_checkpoint(checkpoint)
    epochs = saved["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    return {"steps": saved["global_step"], "epochs": epochs}


def measure(network, pairs, niqe):
    """Rows of metrics, one a pair: of the blurry photo and of the deblurred one."""
    rows = []
    for blurry, sharp in pairs:
        with torch.inference_mode():
            deblurred = network(blurry[None]).clamp(0, 1)
        row = {"psnr": value(PSNR(), deblurred, sharp[None]), "ssim": value(SSIM(), deblurred, sharp[None])}
        row |= {"psnr_blurry": value(PSNR(), blurry[None], sharp[None])}
        row |= {"ssim_blurry": value(SSIM(), blurry[None], sharp[None])}
        if niqe is not None:
            row |= {"niqe": value(NIQE(niqe), deblurred), "niqe_blurry": value(NIQE(niqe), blurry[None])}
        rows.append(row)
    return rows


def gains(rows):
    """Means and intervals of what deblurring changes."""
    names = [name for name in rows[0] if not name.endswith("_blurry")]
    return {name: interval([row[name] - row[f"{name}_blurry"] for row in rows]) for name in names}


def results(network, test, pairs, niqe):
    """All that the card says about quality."""
    photos, found = PhotoFolder(test), {}
    for name, blur in BLURS.items():
        data = SyntheticPairs(photos, [blur], CameraNoise(shot=0.01), seed=1)
        found[name] = gains(measure(network, ((item["blurry"], item["sharp"]) for item in data), niqe))
    with torch.inference_mode():
        sharp = [value(PSNR(), network(item["sharp"][None]).clamp(0, 1), item["sharp"][None]) for item in photos]
    found["sharp photos, PSNR after"] = interval(sharp)
    if pairs is not None:
        files = sorted(Path(pairs).glob("blur_*.png"))
        real = [(read_image(file), read_image(file.with_name(file.name.replace("blur_", "sharp_")))) for file in files]
        found["real pairs"] = gains(measure(network, real, niqe))
    return found


def adapted(network, reblur_net, test, niqe):
    """What five steps of adaptation change, with the paper's learning rate: each photo under one blur."""
    photos = SyntheticPairs(PhotoFolder(test), list(BLURS.values()), CameraNoise(shot=0.01), seed=1)
    changes = {"psnr": [], "gradient_ratio": [], "niqe": []}
    for photo in photos:
        blurry, sharp = photo["blurry"][None], photo["sharp"][None]
        with torch.inference_mode():
            before = network(blurry).clamp(0, 1)
        after = adapt(network, reblur_net, blurry, steps=5, lr=3e-6).image.clamp(0, 1)
        changes["psnr"].append(value(PSNR(), after, sharp) - value(PSNR(), before, sharp))
        changes["gradient_ratio"].append(gradient_ratio(after, sharp) - gradient_ratio(before, sharp))
        if niqe is not None:
            changes["niqe"].append(value(NIQE(niqe), after) - value(NIQE(niqe), before))
    return {
        name: {**interval(values), "lower": sum(change < 0 for change in values)}
        for name, values in changes.items()
        if values
    }


def sources(photos):
    """Licences of the training photos and how many of each; authors where the list beside the photos names them."""
    table = Path(photos) / "SOURCES.csv"
    if not table.is_file():
        return {}
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    licences = sorted({row["licence"] for row in rows})
    return {
        licence: {
            "photos": sum(row["licence"] == licence for row in rows),
            "sources": sorted({row["repository_or_package"] for row in rows if row["licence"] == licence}),
            "authors": sorted({row["author_if_stated"] for row in rows if row["licence"] == licence} - {""}),
        }
        for licence in licences
    }


def seconds(network):
    """Of one 1280 x 720 image on the CPU, the better of two."""
    torch.set_num_threads(THREADS)
    image, times = torch.rand(1, 3, 720, 1280), []
    with torch.inference_mode():
        for _ in range(3):
            start = time.perf_counter()
            network(image)
            times.append(time.perf_counter() - start)
    return round(min(times[1:]), 2)


def hardware():
    """A GPU's name, or the number of CPU threads."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"


def averaged(network, files, part="network"):
    """A network with the mean of the weights in these checkpoints, of its own where one is None; as it is shipped.

    Each stage learns its own blur, and forgets a little of the others'. The mean keeps nearly the best of each
    (Wortsman et al., *Model soups*, 2022).
    """
    own = {name: value.clone() for name, value in network.state_dict().items()}
    sums = {name: torch.zeros_like(value) for name, value in own.items()}
    for file in files:
        network.load_state_dict(own)
        if file is not None:
            load_weights(network, file, network=part)
        for name, tensor in network.state_dict().items():
            sums[name] += tensor / len(files)
    network.load_state_dict({name: tensor.half().float() for name, tensor in sums.items()})
    return network.eval()


def finished(checkpoints, first):
    """The deblurring network as it is shipped, and whose weights it is the mean of."""
    parents = {stage: checkpoints[stage] for stage in AVERAGED if stage in checkpoints}
    if first == STAGES[0]:
        network = FoldedUNet(**recipe("base_reblur")["model"]["init_args"]["network"].get("init_args", {}))
    else:
        network = load_pretrained().network
        parents = {"the network in the box of before": None} | parents
    return averaged(network, list(parents.values())), list(parents)


def recipe(stage):
    """A stage's configuration."""
    return yaml.safe_load((CONFIGS / f"{stage}.yaml").read_text())


def continued(before, history):
    """What the card says of how the pair was trained, where that went on from the pair in the box."""
    both = {key: before[key] | history[key] for key in ("trained", "recipe")}
    both["limits"] = history["limits"] or before["limits"]
    both["hardware"] = f"{before['hardware']}; then {history['hardware']}"
    both["training data"] = before["training data"]
    if history["training data"] != before["training data"]:
        both["training data of the stages after"] = history["training data"]
    return both


def write(checkpoints, arguments):
    """Measure the pair of the last stages' checkpoints, and write weights and card."""
    options = recipe("base_reblur")["model"]["init_args"]
    parts = {
        "network": {"name": "folded-unet", "arguments": options["network"].get("init_args", {})},
        "reblur_net": {"name": "reblur-n2", "arguments": options["reblur_net"]["init_args"]},
    }
    if arguments.first == STAGES[0]:
        if "base_reblur" not in checkpoints:
            raise SystemExit(f"{arguments.run} has no checkpoint of base_reblur yet: train on, or name a --first")
        reblur_net, before = ReblurNet(**parts["reblur_net"]["arguments"]), None
    else:
        if not checkpoints:
            raise SystemExit(f"{arguments.run} has no checkpoint: train first, or name another --run")
        _, reblur_net, before = load_pretrained()
    history = {
        "hardware": arguments.hardware,
        "trained": {stage: reached(file) for stage, file in checkpoints.items()},
        "training data": sources(arguments.photos),
        "recipe": {stage: recipe(stage) for stage in checkpoints},
        "limits": arguments.limits,
    }
    if before is not None:
        history = continued(before, history)
    network, parents = finished(checkpoints, arguments.first)
    last = [checkpoints[stage] for stage in ("base_reblur", "reblur_net") if stage in checkpoints][-1:]
    reblur_net = averaged(reblur_net, last or [None], "reblur")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    card = {
        **parts,
        "version": __version__,
        "commit": commit,
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        **history,
        "weights": f"the mean of those of: {', '.join(parents)}",
        "results": {
            "statistic": "change from blurry to deblurred: mean, half-width of the 95 % interval over photos, least",
            **results(network, arguments.test, arguments.pairs, arguments.niqe),
            "five steps of adaptation": adapted(network, reblur_net, arguments.test, arguments.niqe),
        },
        "seconds for 1280 x 720": {"threads": THREADS, "seconds": seconds(network)},
    }
    save_pretrained(arguments.output, "base", network, reblur_net, card)
    print(json.dumps({key: card[key] for key in ("trained", "results", "seconds for 1280 x 720")}, indent=2))


def positive(text):
    """A number of minutes."""
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"must be more than 0, but is {text}")
    return number


def main():
    """Train for a while, or measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", required=True, help="folder of sharp training photos")
    parser.add_argument("--test", required=True, help="folder of sharp photos to measure on")
    parser.add_argument("--pairs", help="folder of real pairs to measure on")
    parser.add_argument("--niqe", help="file of NIQE's pristine model (.npz or .mat)")
    parser.add_argument("--run", type=Path, default=Path("runs/base"), help="run folder (default: runs/base)")
    parser.add_argument("--first", choices=STAGES, default=STAGES[0], help="stage to begin with (default: the first)")
    parser.add_argument("--minutes", type=positive, help="train so long in this call (default: to the end)")
    parser.add_argument("--write", action="store_true", help="measure and write what has been reached")
    parser.add_argument("--output", default=Path(box.__file__).parent, help="where to write (default: the package)")
    parser.add_argument("--hardware", default=hardware(), help="what it was trained on (default: this machine)")
    parser.add_argument("--limits", nargs="*", default=[], help="sentences for the card: where the pair fails")
    arguments = parser.parse_args()
    stages = STAGES[STAGES.index(arguments.first) :]
    if not arguments.write:
        until = math.inf if arguments.minutes is None else time.monotonic() + 60 * arguments.minutes
        weights = None if arguments.first == STAGES[0] else "base"
        for stage in stages:
            if stage == "reblur_net":  # M_R learns beside the network that is shipped
                arguments.run.mkdir(parents=True, exist_ok=True)
                weights = arguments.run / "finished.safetensors"
                save_weights(finished(newest(arguments.run, stages), arguments.first)[0], weights)
            weights = train(stage, arguments.photos, arguments.run, until, weights)
            if weights is None:
                return
        return
    write(newest(arguments.run, stages), arguments)


if __name__ == "__main__":
    main()
