"""The formats that are read: good files of each, and what reads them."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.torch
import scipy.io
import torch
import yaml
from PIL import Image
from tifffile import imwrite

from reblurkit.cli.report.runs import find_runs
from reblurkit.data.images import ImageKind, image_kind, image_size, read_image, write_image
from reblurkit.data.video_reading import VideoFile
from reblurkit.metrics.niqe_model import PristineModel
from reblurkit.models import UNet, load_weights
from reblurkit.plugins import load_networks
from tests.fuzz import names, servers
from tests.fuzz.hostile import NETWORK, SMALL, network_state, run_folder, state


class Format(NamedTuple):
    """A format.

    Attributes:
        suffix: Of its files.
        read: Reads one, by whatever way users do.
        samples: Good files.
        share: How often it is chosen to be mutated; less where a reading takes long.
    """

    suffix: str
    read: Callable[[Path], object]
    samples: Callable[[Path], list[bytes]]
    share: float = 1.0


def formats() -> dict[str, Format]:
    """All formats by name; those that need an extra only where it is installed."""
    known = {
        "names": Format(".json", names.read, lambda folder: [], 0),
        "downloads": Format(".json", servers.read, lambda folder: [], 0),
        "png": Format(".png", _picture, lambda folder: [*_pillow("PNG"), *_written(folder, ".png")]),
        "jpg": Format(".jpg", _picture, lambda folder: _pillow("JPEG")),
        "webp": Format(".webp", _picture, lambda folder: _pillow("WEBP")),
        "bmp": Format(".bmp", _picture, lambda folder: _pillow("BMP")),
        "tif": Format(".tif", _picture, lambda folder: [*_pillow("TIFF"), *_tiffs(folder)]),
        "avif": Format(".avif", _picture, lambda folder: _pillow("AVIF"), 0.3),
        "mat": Format(
            ".mat", PristineModel.load, _mats, 0.01
        ),  # each in a process of its own: half a second, and nothing that stays is as safe
        "npz": Format(".npz", PristineModel.load, lambda folder: [_npz(mu_pris_param=1, cov_pris_param=36)]),
        "arrays": Format(".npz", _weights, lambda folder: [_arrays()], 0.5),
        "pth": Format(".pth", _weights, _pths),
        "safetensors": Format(".safetensors", _weights, lambda folder: [safetensors.torch.save(network_state())]),
        "ckpt": Format(".ckpt", _checkpoint, _checkpoints),
        "config": Format(".yaml", _configuration, _configurations),
        "metrics": Format(".csv", _run, lambda folder: [b"epoch,step,val/psnr\n0,1,3.5\n0,2,4.5\n"], 0.3),
    }
    try:
        import av  # noqa: F401
    except ImportError:
        return known
    return known | {"mp4": Format(".mp4", _video, lambda folder: [_film(folder, ".mp4")], 0.3),
                    "mkv": Format(".mkv", _video, lambda folder: [_film(folder, ".mkv")], 0.3)}  # fmt: skip


def _picture(path: Path) -> None:
    image_size(path)
    image_kind(path)
    read_image(path)


def _weights(path: Path) -> None:
    load_weights(UNet(**SMALL), path, strict=False)


def _checkpoint(path: Path) -> None:
    run = _beside(path)
    shutil.copy(path, run / "last.ckpt")
    load_networks(checkpoint=str(run / "last.ckpt"))


def _configuration(path: Path) -> None:
    run = _beside(path)
    shutil.copy(path, run / "config.yaml")
    _run_of(run)
    load_networks(checkpoint=str(run / "good.ckpt"))


def _run(path: Path) -> None:
    run = _beside(path)
    shutil.copy(path, run / "metrics.csv")
    _run_of(run)


def _run_of(folder: Path) -> None:
    runs, errors = find_runs(folder)
    if errors and not runs:
        raise errors[0]


def _beside(path: Path) -> Path:
    """The folder of a run with a good checkpoint, for one file of which another is put."""
    run = path.parent / "run"
    if not run.is_dir():
        model = {"class_path": "DeblurTask", "init_args": {"network": NETWORK}}
        run_folder(run, model).rename(run / "good.ckpt")
    model = {"class_path": "DeblurTask", "init_args": {"network": NETWORK}}
    (run / "config.yaml").write_text(yaml.safe_dump({"model": model}))
    (run / "metrics.csv").write_text("epoch,step,val/psnr\n0,1,3\n")
    return run


def _video(path: Path) -> None:
    video = VideoFile("film", path)
    video.read(0, min(2, len(video)))


def _pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _pillow(kind: str) -> list[bytes]:
    """Pictures of several modes."""
    pictures = [Image.fromarray(_pixels(20, 24, 3)), Image.fromarray(_pixels(20, 24))]
    exif = Image.Exif()
    exif.update({274: 6, 306: "2024:01:01 00:00:00"})
    if kind in ("PNG", "WEBP", "TIFF", "AVIF"):
        pictures.append(Image.fromarray(_pixels(20, 24, 4)))
    if kind in ("PNG", "BMP"):
        pictures.append(pictures[0].quantize(16))
    files = []
    for picture in pictures:
        file = io.BytesIO()
        picture.save(file, kind, **({} if kind == "BMP" else {"exif": exif}))
        files.append(file.getvalue())
    return files


def _written(folder: Path, suffix: str) -> list[bytes]:
    path = folder / f"deep{suffix}"
    write_image(torch.rand(3, 20, 24), path, ImageKind(16, exif=None, dpi=(72.0, 72.0)))
    return [path.read_bytes()]


def _tiffs(folder: Path) -> list[bytes]:
    deep = _pixels(20, 24, 3).astype(np.uint16) * 257
    files = []
    for number, options in enumerate(({}, {"compression": "zlib"}, {"tile": (16, 16)}, {"planarconfig": "separate"})):
        path = folder / f"{number}.tif"
        array = deep.transpose(2, 0, 1) if "planarconfig" in options else deep
        imwrite(path, array, photometric="rgb", **options)
        files.append(path.read_bytes())
    return files


def _mats(folder: Path) -> list[bytes]:
    arrays = {"mu_prisparam": np.arange(36.0)[None], "cov_prisparam": np.eye(36)}
    files = []
    for compressed in (False, True):
        scipy.io.savemat(folder / "a.mat", arrays, do_compression=compressed)
        files.append((folder / "a.mat").read_bytes())
    return files


def _npz(**rows: int) -> bytes:
    file = io.BytesIO()
    np.savez(file, **{name: np.eye(36)[:count] for name, count in rows.items()})
    return file.getvalue()


def _arrays() -> bytes:
    file = io.BytesIO()
    np.savez(file, **{name: value.numpy() for name, value in network_state().items()})
    return file.getvalue()


def _saved(content: object, **options: bool) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def _pths(folder: Path) -> list[bytes]:
    files = [{"params": network_state()}, {"ema": network_state(), "model": network_state(), "epoch": 3}]
    return [_saved(each, _use_new_zipfile_serialization=new) for each in files for new in (True, False)]


def _checkpoints(folder: Path) -> list[bytes]:
    noted = {"config": "config.yaml", "measured": {"psnr": 30.0}, "files": {"a": {"b": torch.zeros(2)}}}
    content = {"state_dict": state(), "pytorch-lightning_version": "2.6.0", "reblurkit": noted, "epoch": 1}
    return [_saved(content), _saved(content, _use_new_zipfile_serialization=False)]


def _configurations(folder: Path) -> list[bytes]:
    full = {"network": NETWORK, "reblur_net": {"class_path": "ReblurNet", "init_args": {"width": 4}}, "weights": None}
    model = {"class_path": "reblurkit.DeblurTask", "init_args": full}
    alone = {"class_path": "reblurkit.models.deblur.unet.UNet", "init_args": SMALL}
    others = {"trainer": {"max_epochs": 3}, "data": {"class_path": "DemoDataModule"}, "seed_everything": 0}
    configs = [{"model": model, **others}, {"model": {"class_path": "DeblurTask", "init_args": {"network": alone}}}]
    return [yaml.safe_dump(each).encode() for each in configs]


def _film(folder: Path, suffix: str) -> bytes:
    import av

    path = folder / f"film{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for index in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(_pixels(32, 32, 3), index, 0))))
        container.mux(stream.encode(None))
    return path.read_bytes()
