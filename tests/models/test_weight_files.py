"""Files of weights: every kind that is read, and every kind that must be refused in one line."""

from __future__ import annotations

import io
import pickle
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from reblurkit.errors import ArgumentError, WeightsError
from reblurkit.models import FullSize, ReblurNet, load_weights, save_weights, weight_files
from reblurkit.models.weight_files import read_state, read_weights, renamed_for
from tests.conftest import BatchNormNet, PlainNet

LEGACY = {"_use_new_zipfile_serialization": False}


def assert_same(state, expected):
    assert list(state) == list(expected)
    for name, value in expected.items():
        assert torch.equal(state[name], value), name
        assert state[name].dtype == value.dtype


def saved_on_cuda(state) -> bytes:
    """What torch before 1.6 wrote on a machine with a GPU."""
    buffer = io.BytesIO()
    torch.save(state, buffer, **LEGACY)
    content = buffer.getvalue()
    assert content.count(b"X\x03\x00\x00\x00cpu") == 1, "pickle writes a text once and refers to it"
    return content.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")


@pytest.mark.parametrize("name", ["a.pth", "a.pkl", "a.pt", "a.h5", "a.ckpt", "a.pth.tar", "a"])
@pytest.mark.parametrize("options", [{}, LEGACY], ids=["zip", "legacy"])
def test_files_of_torch_under_any_name(tmp_path, name, options):
    state = PlainNet().state_dict()
    torch.save(state, tmp_path / name, **options)
    assert_same(read_state(tmp_path / name), state)


def test_a_legacy_file_that_was_saved_on_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    state = PlainNet().state_dict()
    (tmp_path / "encoder_lv1.pkl").write_bytes(saved_on_cuda(state))
    with pytest.raises(RuntimeError, match="CUDA device"):
        torch.load(tmp_path / "encoder_lv1.pkl", weights_only=True)
    assert_same(read_state(tmp_path / "encoder_lv1.pkl"), state)


def test_arrays(tmp_path):
    np.savez(tmp_path / "a.npz", **{"g_net/a/weights": np.eye(2, dtype=np.float32), "b": np.arange(3)})
    assert_same(read_state(tmp_path / "a.npz"), {"g_net/a/weights": torch.eye(2), "b": torch.arange(3)})


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"params": state},
        lambda state: {"params": {"other": torch.zeros(1)}, "params_ema": state},
        lambda state: {"epoch": 3, "arch": "unet", "state_dict": state, "best_EPE": 1.5, "div_flow": 20},
        lambda state: {"meta": {"a": 1}, "optimizer": {"state": {0: torch.zeros(1)}}, "model": state},
        lambda state: {"generator": state},
        lambda state: {"G": state, "D": {"other": torch.zeros(1)}},
        lambda state: {"state_dict": {"net": {f"module.module.{name}": value for name, value in state.items()}}},
        lambda state: {"model": {f"module.{name}": value for name, value in state.items()}},
        lambda state: {f"_orig_mod.{name}": value for name, value in state.items()} | {"version": 2},
    ],
)
def test_what_training_programs_wrap_around(tmp_path, wrap):
    state = BatchNormNet().state_dict()
    torch.save(wrap(state), tmp_path / "a.pth")
    assert_same(read_state(tmp_path / "a.pth"), state)


@pytest.mark.parametrize(
    ("wrap", "taken", "left"),
    [
        (lambda ema, raw: {"ema": ema, "model": raw, "step": 3}, "ema", "model"),
        (lambda ema, raw: {"state_dict": raw, "state_dict_ema": ema}, "state_dict_ema", "state_dict"),
        (lambda ema, raw: {"params": raw, "params_ema": ema}, "params_ema", "params"),
        (lambda ema, raw: {"net": raw, "model_ema": {"module": torch.tensor(1), "state_dict": ema}},
         "model_ema.state_dict", "net"),
        (lambda ema, raw: {"checkpoint": 1, "G": raw, "G_ema": ema, "D": raw}, "G_ema", "G"),
        (lambda ema, raw: {"model": raw, "ema": {"decay": 0.99, "shadow": ema}}, "ema.shadow", "model"),
        (lambda ema, raw: {"swa": {"n_averaged": torch.tensor(3)} | {f"module.{k}": v for k, v in ema.items()},
                           "model": raw}, "swa", "model"),
    ],
)  # fmt: skip
def test_averaged_weights_are_preferred_and_said(tmp_path, wrap, taken, left):
    averaged, raw, network = PlainNet(), PlainNet(), PlainNet()
    torch.save(wrap(averaged.state_dict(), raw.state_dict()), tmp_path / "a.pth")
    report = load_weights(network, tmp_path / "a.pth")
    assert (report.taken, report.left) == (taken, (left,))
    assert f"; the weights {taken!r} were taken, not {left}" in str(report)
    assert_same(network.state_dict(), averaged.state_dict())
    report = load_weights(network, tmp_path / "a.pth", prefer="raw")
    assert (report.taken, report.left) == (left, (taken.split(".")[0],))
    assert_same(network.state_dict(), raw.state_dict())
    with pytest.raises(ArgumentError, match="`prefer` must be 'ema' or 'raw', but is 'best'"):
        load_weights(network, tmp_path / "a.pth", prefer="best")


def test_averages_without_tensors_are_none(tmp_path):
    raw, network = PlainNet(), PlainNet()
    torch.save({"ema": {"decay": 0.99, "updates": torch.tensor(7)}, "model": raw.state_dict()}, tmp_path / "a.pth")
    report = load_weights(network, tmp_path / "a.pth")
    assert (report.taken, report.left, report.choice) == ("model", (), "")
    assert_same(network.state_dict(), raw.state_dict())


def test_counters_of_thop_are_left_out(tmp_path):
    state, network = BatchNormNet().state_dict(), BatchNormNet()
    layers = {name.rpartition(".")[0] for name in state} | {""}
    counters = {f"{layer}.total_{what}".lstrip("."): torch.zeros(1) for layer in layers for what in ("ops", "params")}
    for wrap in (lambda names: names, lambda names: {f"network.{name}": value for name, value in names.items()}):
        torch.save({"state_dict": wrap(state | counters)}, tmp_path / "a.pth")
        assert load_weights(network, tmp_path / "a.pth").complete
        assert_same(network.state_dict(), state)


def test_compiled_networks_on_either_side(tmp_path):
    state = PlainNet().state_dict()
    for name, content in (("plain", state), ("compiled", {f"network._orig_mod.{k}": v for k, v in state.items()})):
        torch.save({"state_dict": content}, tmp_path / name)
        plain, compiled = PlainNet(), torch.compile(PlainNet())
        load_weights(plain, tmp_path / name)
        load_weights(compiled, tmp_path / name)
        assert_same(plain.state_dict(), state)
        assert_same(renamed_for(state, compiled.state_dict()), state)


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (exec, (f"open({str(self.path)!r}, 'w').close()",))


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_code_is_refused_and_not_run(tmp_path, kind):
    path, canary = tmp_path / "a.pth", tmp_path / "canary"
    content = {"state_dict": {"weight": torch.zeros(1)}, "callbacks": Canary(canary)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(content, 2))
    else:
        torch.save(content, path, **(LEGACY if kind == "legacy" else {}))
    with pytest.raises(
        WeightsError, match=r"a.pth cannot be read .*: it holds code or objects \((exec|torch.storage.*)\)"
    ):
        load_weights(PlainNet(), path)
    assert not canary.exists()
    if kind != "pickle":
        torch.load(path, weights_only=False)
        assert canary.exists(), "the file is dangerous"


def test_code_in_arrays_is_refused_and_not_run(tmp_path):
    np.savez(tmp_path / "a.npz", weight=np.array([Canary(tmp_path / "canary")], dtype=object))
    with pytest.raises(WeightsError, match=r"a.npz cannot be read"):
        read_state(tmp_path / "a.npz")
    assert not (tmp_path / "canary").exists()


def test_a_whole_module_is_refused(tmp_path):
    torch.save(nn.Conv2d(1, 1, 1), tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"objects \(torch.nn.modules.conv.Conv2d\).* `state_dict\(\)` alone"):
        read_state(tmp_path / "a.pth")


def cut(content):
    return content[: len(content) // 2]


def program():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/constants.pkl", b"")
        archive.writestr("a/version", b"3")
    return buffer.getvalue()


def as_bytes(state, **options):
    buffer = io.BytesIO()
    torch.save(state, buffer, **options)
    return buffer.getvalue()


WRONG = "it is cut off, damaged, or no such file at all"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("none.pth", lambda state: None, "No such file or directory"),
        ("none.safetensors", lambda state: None, "No such file or directory"),
        ("empty.pth", lambda state: b"", WRONG),
        ("text.pth", lambda state: b"hello world\n" * 9, WRONG),
        ("text.safetensors", lambda state: b"hello world\n" * 9, WRONG),
        ("text.npz", lambda state: b"hello world\n" * 9, WRONG),
        ("cut.pth", lambda state: cut(as_bytes(state)), WRONG),
        ("cut.pkl", lambda state: cut(as_bytes(state, **LEGACY)), WRONG),
        ("head.pkl", lambda state: as_bytes(state, **LEGACY)[:60], WRONG),
        ("cut.safetensors", lambda state: cut(safetensors.torch.save(state)), WRONG),
        ("hdf.h5", lambda state: b"\x89HDF\r\n\x1a\n" + bytes(99), WRONG),
        ("program.pt", lambda state: program(), "it is a TorchScript program; save the module's `state_dict"),
        (
            "lfs.pth",
            lambda state: b"version https://git-lfs.github.com/spec/v1\noid",
            "it is the note that Git LFS leaves",
        ),
        ("page.pth", lambda state: b"\n<!DOCTYPE html><html>", "it is a web page"),
    ],
)
def test_files_that_are_none(tmp_path, name, content, reason):
    content = content(PlainNet().state_dict())
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError) as error:
        read_state(tmp_path / name)
    assert f"{name} cannot be read as a file of weights: {reason}" in str(error.value)
    assert "\n" not in str(error.value)
    assert "weights_only" not in str(error.value), "torch's advice to switch the protection off"


@pytest.mark.parametrize(
    ("content", "found"), [([1, 2], "list"), ({}, "nothing"), ({"params": {}, "epoch": 1}, "nothing"), ({"a": 1}, "a")]
)
def test_files_without_tensors(tmp_path, content, found):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=rf"a.pth must hold a dictionary of tensors, but holds {found}$"):
        read_state(tmp_path / "a.pth")


# --- writing


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter = nn.Linear(4, 4)
        self.leave = nn.Linear(4, 4)
        self.leave.weight = self.enter.weight
        self.register_buffer("strided", torch.rand(8, 2)[::2])
        self.register_buffer("flipped", torch.rand(3, 2).T)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("make", [BatchNormNet, Tied, lambda: PlainNet().to(torch.bfloat16)])
def test_round_trip(tmp_path, suffix, make):
    model = make()
    save_weights(model, tmp_path / f"a{suffix}")
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5)
    other = make()
    report = load_weights(other, tmp_path / f"a{suffix}")
    assert report.complete
    assert report.loaded == len(expected)
    assert_same(other.state_dict(), expected)
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]


def test_other_programs_read_the_files(tmp_path):
    state = BatchNormNet().state_dict()
    torch.manual_seed(0)
    model = BatchNormNet()
    model.load_state_dict(state)
    save_weights(model.to(memory_format=torch.channels_last), tmp_path / "a.pth")
    save_weights(model, tmp_path / "a.safetensors")
    assert_same(torch.load(tmp_path / "a.pth", weights_only=True)["params"], state)
    other = BatchNormNet()
    safetensors.torch.load_model(other, tmp_path / "a.safetensors")
    assert_same(other.state_dict(), state)
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "a.pth").stat().st_mode


def test_a_failed_write_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    save_weights(PlainNet(), tmp_path / "a.pth")
    before = (tmp_path / "a.pth").read_bytes()

    def fails(content, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(WeightsError, match=r"a.pth cannot be written: No space left"):
        save_weights(PlainNet(), tmp_path / "a.pth")
    assert (tmp_path / "a.pth").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_names_that_are_refused(tmp_path):
    for name in ("a.pkl", "a", "a.ckpt"):
        with pytest.raises(ArgumentError, match=rf"ends in .safetensors or .pth, but it is .*{name}"):
            save_weights(PlainNet(), tmp_path / name)
    with pytest.raises(WeightsError, match="cannot be written: No such file or directory"):
        save_weights(PlainNet(), tmp_path / "missing" / "a.pth")
    assert not list(tmp_path.iterdir())


def test_a_download_that_was_cut_off_is_called_so(tmp_path):
    path = tmp_path / "cut.pth"
    torch.save(nn.Linear(100, 100).state_dict(), path)
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(WeightsError, match="it is cut off, damaged"):
        read_state(path)


def test_a_dictionary_that_contains_itself(tmp_path):
    content = {}
    content["state_dict"] = {"model": content}
    torch.save(content, tmp_path / "endless.pth")
    with pytest.raises(WeightsError, match="contains itself"):
        read_state(tmp_path / "endless.pth")


@pytest.mark.parametrize("name", ["x" * 100_000, "line\nline", "\x1b[31m"])
def test_names_in_a_file_cannot_spoil_the_message(tmp_path, name):
    torch.save({name: torch.zeros(1)}, tmp_path / "names.pth")
    with pytest.raises(WeightsError) as refusal:
        load_weights(PlainNet(), tmp_path / "names.pth")
    message = str(refusal.value).replace(str(tmp_path), "")
    assert message.isprintable()
    assert len(message) < 500


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda value: value.to_sparse(), "sparse"),
        (lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8), "quantized"),
        (lambda value: value.to("meta"), "without memory"),
        (lambda value: value.to(torch.complex64), "complex"),
        (lambda value: torch.full_like(value, torch.nan), "diverged"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_tensors_that_are_no_weights_leave_the_model_as_it_was(tmp_path, change, reason):
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = {name: value + 1 for name, value in model.state_dict().items()}
    state["1.bias"] = change(state["1.bias"])  # the last one: those before it would be set already
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match=reason):
        load_weights(model, tmp_path / "odd.pth")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_is_no_model(tmp_path):
    model = nn.Linear(2, 2)
    with pytest.raises(ArgumentError, match="`model` must be"):
        save_weights(model.state_dict(), tmp_path / "linear.pth")
    with pytest.raises(ArgumentError, match="has no weights that could be written"):
        save_weights(model.to("meta"), tmp_path / "linear.pth")
    with pytest.raises(ArgumentError, match="create_model"):
        load_weights("unet", tmp_path / "linear.pth")
    with pytest.raises(WeightsError, match="cannot be written"):
        save_weights(nn.Linear(2, 2), tmp_path / f"{'x' * 300}.pth")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("key", ["model_state_dict", "weights"])
def test_the_tutorials_own_checkpoint(tmp_path, key):
    saved, loaded = ReblurNet(width=4), ReblurNet(width=4)
    torch.save({"epoch": 3, key: saved.state_dict(), "loss": 0.1}, tmp_path / "checkpoint.pt")
    load_weights(loaded, tmp_path / "checkpoint.pt")
    assert torch.equal(loaded.layers[0].weight, saved.layers[0].weight)


def test_safetensors_under_another_name(tmp_path):
    saved, loaded = ReblurNet(width=4), ReblurNet(width=4)
    save_weights(saved, tmp_path / "weights.safetensors")
    (tmp_path / "weights.safetensors").rename(tmp_path / "weights.pth")
    load_weights(loaded, tmp_path / "weights.pth")
    assert torch.equal(loaded.layers[0].weight, saved.layers[0].weight)


def test_weights_of_a_network_inside_full_size(tmp_path):
    saved, wrapped = ReblurNet(width=4), FullSize(ReblurNet(width=4))
    save_weights(saved, tmp_path / "weights.pth")
    load_weights(wrapped, tmp_path / "weights.pth")
    assert torch.equal(wrapped.network.layers[0].weight, saved.layers[0].weight)


@pytest.mark.parametrize("new", [True, False])
def test_more_than_any_network_has_is_refused(tmp_path, monkeypatch, new):
    monkeypatch.setattr(weight_files, "_MOST", 20)
    path = tmp_path / "a.pth"
    hostile = {
        r"10\d records": {str(number): torch.zeros(1) for number in range(101)},
        "21 tensors": {str(number): torch.zeros(1) for number in range(21)},
        "names of up to 100001 letters": {"a." * 50_000 + "b": torch.zeros(1)},
        "GB of memory, of which": {"a": torch.zeros(1).expand(10**7, 10**7)},  # one number, repeated without end
    }
    for reason, state in hostile.items():
        torch.save(state, path, _use_new_zipfile_serialization=new)
        expected = "101 tensors" if not new and "records" in reason else reason
        with pytest.raises(WeightsError, match=expected):
            read_weights(path)


def test_an_archive_that_unpacks_to_more_than_memory_is_refused_before(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(10**6))
    monkeypatch.setattr(weight_files, "free_memory", lambda: 10**5)
    with pytest.raises(WeightsError, match="GB of memory, of which"):
        read_weights(tmp_path / "a.npz")
