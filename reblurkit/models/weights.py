"""Weights: official and own files into networks, and networks into files."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from reblurkit.core.downloads import RemoteFile
from reblurkit.core.files import whole_file
from reblurkit.core.tensor_files import save_tensors
from reblurkit.errors import ArgumentError, WeightsError
from reblurkit.models.full_size import FullSize
from reblurkit.models.registry import create_model, list_models
from reblurkit.models.weight_files import (
    Prefer,
    PublishedWeights,
    read_file,
    read_weights,
    shown,
    tensors_of,
    without_wrappers,
)

_COUNTERS = {"total_ops", "total_params"}  # that thop leaves in every layer that it has measured
_COMPARED = 3000  # tensors at most of a file that is compared with all networks: none of them has more
NO_CHECKPOINT = "is no Lightning checkpoint: it has no 'state_dict'"
CHOOSE = "choose one by `network=`"
OTHER_ARGUMENTS = "other arguments when it was trained"
_PART_SUFFIXES = {".pkl", ".pth", ".pt", ".safetensors"}


@dataclass(frozen=True)
class LoadReport:
    """What :func:`load_weights` did.

    Attributes:
        loaded: Number of tensors of the model that were set.
        missing: Names of the model's tensors that the file lacks.
        unexpected: Names in the file that the model has not.
        misshaped: The shape in the file and the shape in the model, by name; these are not loaded.
        taken: Where in the file the weights were, such as ``"ema"``; ``""``: at the top.
        left: What else the file holds, raw weights beside averaged ones or the reverse.
    """

    loaded: int
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    misshaped: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    taken: str = ""
    left: tuple[str, ...] = ()

    @property
    def choice(self) -> str:
        """What was taken of averaged and raw weights, in words; nothing where there was no choice."""
        return f"the weights {self.taken!r} were taken, not {_few(self.left)}" if self.left else ""

    @property
    def complete(self) -> bool:
        """Whether file and model have the same names and shapes."""
        return self.share == 1

    @property
    def share(self) -> float:
        """Tensors that fit, of all that the file or the model has."""
        return self.loaded / (self.loaded + len(self.missing) + len(self.unexpected) + len(self.misshaped))

    def __str__(self) -> str:
        shapes = [f"{shown(name)} {there} instead of {here}" for name, (there, here) in self.misshaped.items()]
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": shapes}
        rest = [f"{len(names)} {kind} ({_few(names)})" for kind, names in kinds.items() if names]
        text = ", ".join([f"{self.loaded} tensors fit", *rest])
        return f"{text}; {self.choice}" if self.choice else text


def load_weights(
    model: nn.Module,
    path: str | os.PathLike[str] | RemoteFile,
    strict: bool = True,
    *,
    network: str | None = None,
    prefer: Prefer = "ema",
) -> LoadReport:
    """Load weights in any layout that deblurring programs publish; a refused file leaves the model as it was.

    Read are files of ``torch.save``, whatever their name and the device they were saved on, safetensors, and arrays
    (``.npz``). The weights are found inside averages, named ``ema`` or with it (``params_ema``, ``state_dict_ema``),
    ``params``, ``state_dict``, ``model_state_dict``, ``model``, ``weights``, ``generator``, ``G`` or ``net``, in this
    order, also one inside the other; ``module.`` of DataParallel and ``_orig_mod.`` of ``torch.compile`` are taken off;
    of a Lightning checkpoint the submodule is taken that fits the model. Old running statistics of InstanceNorm layers
    that keep none, and the counters of thop, are left out. Files are untrusted: code in them is refused and never run.

    A model whose published weights have other names defines ``convert_state_dict(state) -> state``. It is called with
    the tensors by their names in the file, returns them by the model's own names, leaves alone what it does not
    know, and raises :class:`WeightsError` for files that it recognises and cannot use.

    Args:
        model: Any network, also inside ``FullSize``; stays on its device, in its dtype and mode.
        path: A file; or a folder of parts, of which ``encoder_lv1.pkl`` holds the tensors ``encoder_lv1.*``; or an
            address ``"https://.../file.pth#sha256=<64 hexadecimal digits>"``, or a :class:`RemoteFile`, which is
            downloaded once.
        strict: Refuse files that lack a tensor or have others. Otherwise all that fits is loaded, at least one.
        network: Dotted path of the network in the LightningModule that was saved; needed if several fit.
        prefer: ``"ema"`` or ``"raw"``: which to take where the file holds averaged and raw weights.

    Returns:
        What was loaded, from where in the file, and what does not fit.

    Raises:
        WeightsError: If the file is missing, damaged, holds code or weights that are NaN or infinite, or does not fit;
            the message names the registered model that it looks like.
        ArgumentError: If an address has no checksum, the path is empty, or ``model`` is no module.
        DownloadError: If the file cannot be downloaded.

    Example:
        >>> from reblurkit.models import create_model
        >>> load_weights(create_model("unet"), "https://example.org/unet.pth")
        Traceback (most recent call last):
        reblurkit.errors.ArgumentError: an address of weights must end in #sha256=..., the checksum of the file, but
        is https://example.org/unet.pth
    """
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"`model` must be an nn.Module, but is {model!r}; create_model(name) builds one")
    if isinstance(model, FullSize):
        model = model.network
    if not str(path):
        raise ArgumentError("the path of the weights is empty; write . for the parts in the folder you are in")
    path = _local(path)
    published, taken, left = _read_folder(path, prefer) if path.is_dir() else read_weights(path, prefer)
    if any(value.is_meta for value in model.state_dict().values() if isinstance(value, Tensor)):
        raise ArgumentError(f"{type(model).__name__} has no memory yet; call `model.to_empty(device='cpu')` first")
    try:
        fitting, report = _fit(model, published, network)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    report = replace(report, taken=taken, left=left)
    if not fitting or (strict and not report.complete):
        kind = type(model).__name__
        hint = f"; {kind} had {OTHER_ARGUMENTS}" if _is_resized(published, report) else _likeness(published)
        raise WeightsError(f"{path} does not fit {kind}: {report}{hint}")
    _check_numbers(model, fitting, path)
    model.load_state_dict(fitting, strict=False)
    return report


def save_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write a network's weights to a file that :func:`load_weights` and other programs read.

    The file appears under its name only when it is whole. Tensors that share memory, such as tied weights, are
    written once for each name.

    Args:
        model: Any network, on any device.
        path: A name that ends in ``.safetensors``, or in ``.pth`` for the layout ``{"params": ...}`` of BasicSR and
            its family (NAFNet, Restormer).

    Raises:
        ArgumentError: If the name ends in anything else, or the model is none or has no memory yet.
        WeightsError: If the file cannot be written.

    Example:
        >>> import tempfile
        >>> from reblurkit.models import ReblurNet, load_weights
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(ReblurNet(width=4), f"{folder}/reblur.safetensors")
        ...     load_weights(ReblurNet(width=4), f"{folder}/reblur.safetensors").loaded
        8
    """
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"`model` must be an nn.Module, whose weights are written, but is a {type(model).__name__}")
    path = Path(path)
    if path.suffix not in (".safetensors", ".pth"):
        raise ArgumentError(f"weights are written to a name that ends in .safetensors or .pth, but it is {path}")
    if any(value.is_meta for value in model.state_dict().values() if isinstance(value, Tensor)):
        raise ArgumentError(f"{type(model).__name__} is on the device 'meta' and has no weights that could be written")
    state = {
        name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, value in model.state_dict().items()
        if isinstance(value, Tensor)
    }
    if path.suffix == ".pth":
        save_tensors({"params": state}, path, make_folders=False)
        return
    try:
        # safetensors' own writer would make a file that only its owner may read
        with whole_file(path, make_folders=False, sync=True) as part:
            part.write_bytes(safetensors.torch.save(state))
    except OSError as error:
        raise WeightsError(f"{path} cannot be written: {error.strerror}") from error


def read_lightning_checkpoint(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Read a Lightning checkpoint onto the CPU, with ``weights_only=True``: code in the file is refused, not run.

    Raises:
        WeightsError: If there is no such file, or it is no Lightning checkpoint of nothing but weights.
    """
    checkpoint = read_file(path)
    if not isinstance(checkpoint, Mapping) or not isinstance(checkpoint.get("state_dict"), Mapping):
        raise WeightsError(f"{path} {NO_CHECKPOINT}")
    tensors_of(checkpoint["state_dict"], path)
    return checkpoint


def _local(path: str | os.PathLike[str] | RemoteFile) -> Path:
    if isinstance(path, str) and path.startswith(("http://", "https://")):
        url, _, checksum = path.partition("#")
        if not re.fullmatch(r"sha256=[0-9a-fA-F]{64}", checksum):
            raise ArgumentError(
                f"an address of weights must end in #sha256=..., the checksum of the file, but is {path}"
            )
        path = RemoteFile(url, checksum.removeprefix("sha256=").lower())
    return path.fetch("pass the path of a copy") if isinstance(path, RemoteFile) else Path(path)


def _read_folder(folder: Path, prefer: Prefer) -> PublishedWeights:
    parts = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix in _PART_SUFFIXES}
    if not parts:
        raise WeightsError(f"the folder {folder} holds no file of weights ({', '.join(sorted(_PART_SUFFIXES))})")
    read = {stem: read_weights(path, prefer) for stem, path in parts.items()}
    state = {f"{stem}.{name}": value for stem, part in read.items() for name, value in part.state.items()}
    return PublishedWeights(state, *next(iter(read.values()))[1:])


def _fit(
    model: nn.Module, published: Mapping[str, Tensor], network: str | None = None
) -> tuple[dict[str, Tensor], LoadReport]:
    """What of a file fits a model, by the model's names, and a report on the rest."""
    convert: Callable[[dict[str, Tensor]], Mapping[str, Tensor]] = getattr(model, "convert_state_dict", dict)
    published = convert(dict(published))
    # kept as variables, tied weights are one object
    tensors = {name: value for name, value in model.state_dict(keep_vars=True).items() if isinstance(value, Tensor)}
    own = without_wrappers({name: (name, value) for name, value in tensors.items()})
    state = _submodule(published, {name: value.shape for name, (_, value) in own.items()}, network)
    stale = _stale_statistics(model) | {name for name in state if name.rpartition(".")[2] in _COUNTERS}
    state = {name: value for name, value in state.items() if name not in stale - own.keys()}
    fitting = {name: value for name, value in state.items() if name in own and own[name][1].shape == value.shape}
    set_along = {id(own[name][1]) for name in fitting}
    report = LoadReport(
        loaded=len(fitting),
        missing=tuple(
            name
            for name, (_, value) in own.items()
            # BatchNorm's counter is not in old files, and safetensors writes tied weights once
            if name not in state and id(value) not in set_along and not name.endswith(".num_batches_tracked")
        ),
        unexpected=tuple(name for name in state if name not in own),
        misshaped={
            name: (tuple(value.shape), tuple(own[name][1].shape))
            for name, value in state.items()
            if name in own and name not in fitting
        },
    )
    return {own[name][0]: value for name, value in fitting.items()}, report


def _submodule(state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], network: str | None) -> dict[str, Tensor]:
    """The tensors of the part of a larger module that fits best, by their names in that part."""
    if network is None:
        whole = 2 * len(shapes)
        fits: Counter[str] = Counter()
        others: Counter[str] = Counter()  # which speak for another network of similar names
        for name, value in state.items():
            for start in (0, *(dot.end() for dot in re.finditer(r"\.", name))):
                if name[start:] in shapes:
                    fits[name[:start]] += 1 + (shapes[name[start:]] == value.shape)
                else:
                    others[name[:start]] += 1
        marks = {prefix: (fit == whole, fit - others[prefix]) for prefix, fit in fits.items()}
        most = max(marks.values(), default=None)
        best = [prefix for prefix, mark in marks.items() if mark == most]
        if len(best) > 1 and "" not in best and fits[best[0]] == whole:
            found = " and ".join(repr(prefix.removesuffix(".")) for prefix in best)
            raise WeightsError(f"several networks in it fit, {found}; {CHOOSE}")
        prefix = best[0] if best and "" not in best else ""
    else:
        prefix = f"{network}."
    part = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    if not part:
        found = _few(sorted({name.split(".")[0] for name in state}))
        raise WeightsError(f"it has nothing at {network!r}; it has: {found}")
    return part


def _check_numbers(model: nn.Module, fitting: Mapping[str, Tensor], path: Path) -> None:
    """Refuse what torch would load without a word, of a training that diverged or of another kind of number."""
    tensors = model.state_dict()
    buffers = {name for name, _ in model.named_buffers(remove_duplicate=False)}  # masks hold infinity
    for name, value in fitting.items():
        if value.is_complex() and not tensors[name].is_complex():
            raise WeightsError(f"{path} does not fit {type(model).__name__}: {name} is complex")
        own = value.to(tensors[name].dtype)
        if own.isnan().any() or (name not in buffers and not own.isfinite().all()):
            what = "NaN" if own.isnan().any() else "infinity"
            raise WeightsError(f"{path} holds {what} in {name}: its training has diverged; take an earlier checkpoint")


def _stale_statistics(model: nn.Module) -> set[str]:
    """Names under which files of old versions of torch keep statistics of InstanceNorm layers that never used them."""
    layers = without_wrappers({f"{path}.": layer for path, layer in model.named_modules() if path})
    return {
        path + statistic
        for path, layer in layers.items()
        if isinstance(layer, nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d)
        for statistic in ("running_mean", "running_var", "num_batches_tracked")
    }


def _is_resized(published: Mapping[str, Tensor], report: LoadReport) -> bool:
    """Whether a file, or a network in a module, has the names of the model, and not its shapes.

    Deeper inside of larger networks there are blocks with the names of many a small one.
    """
    names = published.keys() | {name.partition(".")[2] for name in published}
    return bool(report.misshaped) and report.misshaped.keys() <= names and not (report.missing or report.unexpected)


def _likeness(published: Mapping[str, Tensor]) -> str:
    """The registered models that a file holds whole, and little else beside."""
    whole = {}
    for name in list_models() if len(published) <= _COMPARED else ():
        model = _without_memory(name)
        if model is not None:
            try:
                _, report = _fit(model, published)
            except WeightsError:  # recognised and refused
                continue
            if report.complete and report.loaded > 0.8 * len(published):
                whole[name] = report.loaded
    best = [f"create_model({name!r})" for name, loaded in whole.items() if loaded == max(whole.values())]
    return f"; it looks like the weights of {' or '.join(best)}" if best else ""


@cache
def _without_memory(name: str) -> nn.Module | None:
    try:
        with torch.device("meta"):
            return create_model(name)
    except Exception:  # one that wants memory, or a package that is not installed, cannot be compared
        return None


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names[:3])) + (", ..." if len(names) > 3 else "")
