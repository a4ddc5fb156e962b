"""What the measurements on photos share: the blurs, the metrics of a photo, intervals over photos, the record."""

from __future__ import annotations

import json
import math
import platform
import subprocess
from contextlib import suppress

import torch
from scipy.stats import t as student

from reblurkit import __version__
from reblurkit.blur import MotionBlur, ShakeBlur
from reblurkit.errors import BackendError
from reblurkit.metrics import NIQE, PSNR, SSIM, DeepDistance, GradientStatistics

BLURS = {
    "motion": MotionBlur(12),
    "shake 9": ShakeBlur(9, 0.3),
    "shake 15": ShakeBlur(15, 0.5),
    "shake 25": ShakeBlur(25, 0.6),
}


def interval(values):
    """Mean, half-width of the 95 % interval over photos, and the least value."""
    values = torch.tensor(values, dtype=torch.float64)
    if len(values) < 2:
        return {"mean": values.mean().item(), "photos": len(values)}
    half = student.ppf(0.975, len(values) - 1) * values.std().item() / len(values) ** 0.5
    return {"mean": values.mean().item(), "interval": half, "least": values.min().item(), "photos": len(values)}


def value(metric, image, target=None):
    """A metric of one image."""
    metric.update(image, image if target is None else target)
    found = float(metric.compute())
    metric.reset()
    return found


def gradient_ratio(image, sharp):
    """Strength of an image's gradients over the sharp image's."""
    metric = GradientStatistics()
    metric.update(image, sharp)
    return float(metric.compute()["gradient_ratio"])


def measure_photo(network, blurry, sharp, niqe=None):
    """Metrics of what a network makes of a photo ``(1, 3, H, W)``; NIQE with a file of its model."""
    with torch.inference_mode():
        deblurred = network(blurry).clamp(0, 1)
    row = {"psnr": value(PSNR(), deblurred, sharp), "ssim": value(SSIM(), deblurred, sharp)}
    row["gradient_ratio"] = gradient_ratio(deblurred, sharp)
    with suppress(BackendError):  # the extra [perceptual] may not be installed
        row["deep_distance"] = value(DeepDistance(), deblurred, sharp)
    if niqe is not None:
        row["niqe"] = value(NIQE(niqe), deblurred)
    return row


def kept(run, name, settings, measure):
    """What was measured under a blur and kept in a folder, or is now by ``measure()``, and is then kept."""
    file = run / f"{name.replace(' ', '_')}.json"
    if not file.is_file():
        photos = measure()
        file.write_text(json.dumps({"settings": settings, "photos": photos}))
        print(f"{name}: {len(photos)} photos", flush=True)
        return photos
    record = json.loads(file.read_text())
    if record["settings"] != settings:
        raise SystemExit(f"{file} was measured with {record['settings']}, and not {settings}: take another --run")
    return record["photos"]


def middle(image, side=512):
    """The middle of an image ``(3, H, W)``, as a batch."""
    top, left = ((length - side) // 2 if length > side else 0 for length in image.shape[-2:])
    return image[None, :, top : top + side, left : left + side]


def photos_in(folder):
    """The photos of a folder, by name."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in {".jpg", ".png"})


def spaced(photos, limit):
    """At most so many of them, evenly spaced."""
    return photos[:: max(len(photos) // limit, 1)][:limit]


def table_of_differences(differences, unit):
    """Lines of a table of differences of PSNR, by what is compared; one photo or clip alone has no interval."""
    lines = [f"| difference of PSNR | mean, dB | 95 % interval | least {unit} |", "|---|---|---|---|"]
    for name, one in differences.items():
        half, least = (one.get(key, math.nan) for key in ("interval", "least"))
        lines.append(f"| {name} | {one['mean']:+.2f} | ± {half:.2f} | {least:+.2f} |")
    return lines


def origin():
    """Of which state of the package, and on what, a record is."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    hardware = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    versions = {"reblurkit": __version__, "torch": torch.__version__, "python": platform.python_version()}
    return {"commit": commit, "versions": versions, "hardware": hardware}


def write_record(path, record):
    """Write a record with its origin."""
    path.write_text(json.dumps(record | {"origin": origin()}, indent=1) + "\n")
