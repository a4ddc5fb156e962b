"""``reblurkit report``: the page of one or several runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from skimage.data import coffee

from reblurkit.cli import main
from reblurkit.cli.report.charts import metric_chart, thin
from reblurkit.cli.report.runs import Point, find_runs


class Page(HTMLParser):
    """Headings, tables, pictures and charts of a page; complains of tags that are not closed in order."""

    EMPTY = frozenset({"meta", "img", "br", "link"})

    def __init__(self, text):
        super().__init__()
        self.open, self.headings, self.cells, self.images, self.charts = [], [], [], 0, 0
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        if tag in ("td", "th"):
            self.cells.append("")
        if tag in ("h2", "h3"):
            self.headings.append("")
        self.images += tag == "img"
        self.charts += tag == "svg"
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & {*self.open}:
            self.cells[-1] += data
        elif {"h2", "h3"} & {*self.open}:
            self.headings[-1] += data


def log(folder, psnrs, *, test=None, width=8, pictures=2):
    """A run folder, its log written by Lightning's own logger."""
    logger = CSVLogger(str(folder.parent), name="", version=folder.name)
    for epoch, psnr in enumerate(psnrs):
        logger.log_metrics({"train/loss": 1 / (epoch + 1), "epoch": epoch}, step=10 * epoch)
        logger.log_metrics({"val/psnr": psnr, "val/reblur_psnr": 30.0, "epoch": epoch}, step=10 * epoch + 9)
        if epoch in (0, len(psnrs) - 1)[:pictures]:
            (folder / "images").mkdir(exist_ok=True)
            Image.fromarray(coffee()[:60, :90]).save(folder / "images" / f"val-epoch={epoch}.png")
    if test is not None:
        logger.log_metrics({"test/psnr": test}, step=99)
    logger.save()
    (folder / "config.yaml").write_text(
        f"model: {{class_path: DeblurTask, init_args: {{width: {width}, name: '<b>&'}}}}\nseed_everything: 0\n"
    )


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log(tmp_path / "logs" / "version_2", [20.0, 24.0, 22.5], test=22.0)
    log(tmp_path / "logs" / "version_10", [20.0, 23.0], width=16)
    return tmp_path


def fails(capsys, *words):
    capsys.readouterr()
    assert main(["report", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_two_runs_beside_each_other(work, capsys):
    assert main(["report", "logs"]) == 0
    assert "reblurkit: report: report.html" in capsys.readouterr().err
    text = (work / "report.html").read_text()
    page = Page(text)
    assert page.headings[:1] == ["Results"]
    assert page.cells[:3] == ["metric", "version_2", "version_10"]
    rows = {row[0]: row[1:] for row in zip(*[iter(page.cells[3:12])] * 3, strict=True)}
    assert rows["test/psnr (dB) ↑"] == ("22.00", "")
    assert rows["val/psnr (dB) ↑"] == ("22.50best 24.00 at step 19", "23.00")
    assert rows["val/reblur_psnr (dB)"] == ("30.00", "30.00")
    assert re.search(r'<span class="wins">23\.00</span>', text)
    assert text.count('class="wins"') == 1
    assert page.charts == 3  # train/loss, val/psnr, val/reblur_psnr
    assert page.images == 4
    assert page.cells[12:] == ["option", "version_2", "version_10", "model.init_args.width", "8", "16"]
    assert "&lt;b&gt;&amp;" in text
    assert not re.search(r'(src|href)="(?!data:|#)|url\((?!#)', text)  # needs nothing else


def test_runs_of_different_kinds_are_compared_by_class(work):
    text = "model: {{class_path: {}, init_args: {{{}}}}}\ntrainer:\n  callbacks: [{}]\n"
    stop = "{class_path: a.Stop, init_args: {rate: 1}}"
    keep = [f"{{class_path: b.Keep, init_args: {{rate: {rate}}}}}" for rate in (2, 3, 4)]
    first, second = (Path("logs") / name / "config.yaml" for name in ("version_2", "version_10"))
    first.write_text(text.format("One", "blocks: 5, alpha: 1", ", ".join([stop, keep[0], keep[2]])))
    second.write_text(text.format("Two", "blocks: 6, beta: 1", ", ".join(keep[1:])))
    assert main(["report", "logs"]) == 0
    page = Page(Path("report.html").read_text())
    cells = page.cells[page.cells.index("option") :]
    assert [*zip(*[iter(cells)] * 3, strict=True)] == [
        ("option", "version_2", "version_10"),
        ("model.class_path", "One", "Two"),
        ("model.init_args.blocks", "5", "6"),
        ("trainer.callbacks.Keep.init_args.rate", "2", "3"),  # whatever else is in the list
        ("model.init_args.alpha", "1", ""),
        ("trainer.callbacks.Stop.class_path", "a.Stop", ""),
        ("trainer.callbacks.Stop.init_args.rate", "1", ""),
        ("model.init_args.beta", "", "1"),
    ]


def test_the_header_names_each_run_once(work, monkeypatch):
    assert main(["report", "logs/version_2"]) == 0
    head = Path("report.html").read_text().partition("<h2>")[0]
    assert re.findall(r"<li>(.*)</li>", head) == [
        '<span class="dot" style="background: #1f77b4"></span><code>logs/version_2</code>'
    ]
    monkeypatch.chdir(work / "logs" / "version_2")
    assert main(["report", "."]) == 0
    assert "<code>logs/version_2</code></li>" in Path("report.html").read_text()


def test_one_run_and_a_report_that_is_made_again(work):
    assert main(["report", "logs/version_2", "--output", "pages/one.html"]) == 0
    page = Page((work / "pages" / "one.html").read_text())
    assert page.cells[:2] == ["metric", "logs/version_2"]
    assert "Options that differ" not in page.headings
    assert main(["report", "logs/version_10", "logs/version_10", "--output", "pages/one.html"]) == 0
    assert Page((work / "pages" / "one.html").read_text()).cells[:2] == ["metric", "logs/version_10"]


def test_a_real_training_with_a_test_run(work):
    class Task(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def training_step(self, batch):
            self.log("train/loss", self.weight.sum())
            return self.weight.sum()

        def validation_step(self, batch):
            self.log("val/psnr", 20 - self.weight.sum())

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    loader = torch.utils.data.DataLoader(torch.zeros(4, 1))
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = L.Trainer(max_epochs=3, log_every_n_steps=1, logger=CSVLogger("mine"), **quiet)
    trainer.fit(Task(), loader, loader)
    [run], errors = find_runs(work / "mine")
    assert not errors
    assert [point.step for point in run.metrics["train/loss"]] == list(range(12))
    assert [point.step for point in run.metrics["val/psnr"]] == [3, 7, 11]
    assert main(["report", "mine"]) == 0
    assert Page((work / "report.html").read_text()).charts == 2


def only(folder, **metrics):
    logger = CSVLogger(str(folder.parent), name="", version=folder.name)
    logger.log_metrics({name.replace("_", "/", 1): value for name, value in metrics.items()}, step=1)
    logger.save()


def test_runs_that_have_only_trained_or_only_been_measured(work):
    only(work / "runs" / "trained", train_loss=0.5)
    only(work / "runs" / "tested", test_psnr=30.0)
    only(work / "runs" / "tested_too", test_psnr=31.0)
    assert main(["report", "runs/trained", "runs/tested", "runs/tested_too"]) == 0
    page = Page((work / "report.html").read_text())
    assert page.cells == ["metric", "tested", "tested_too", "test/psnr (dB) ↑", "30.00", "31.00"]
    assert main(["report", "runs/trained"]) == 0
    assert Page((work / "report.html").read_text()).cells[:1] == ["metric"]
    assert Page((work / "report.html").read_text()).cells[3] == "0.5"


def test_long_curves_are_thinned_to_means():
    values = np.random.default_rng(0).normal(size=1000)
    thinned = thin([Point(step, value) for step, value in enumerate(values)])
    assert [point.step for point in thinned] == list(range(4, 1000, 5))
    np.testing.assert_allclose([point.value for point in thinned], values.reshape(200, 5).mean(1))
    points = [Point(step, 1.0) for step in range(200)]
    assert thin(points) == points
    assert thin([]) == []


def test_values_that_are_not_finite(work):
    log(work / "nan" / "version_0", [float("nan"), float("inf"), 21.0])
    log(work / "nan" / "version_1", [float("nan")] * 2)
    assert main(["report", "nan"]) == 0
    page = Page((work / "report.html").read_text())
    assert page.cells[3:6] == ["val/psnr (dB) ↑", "21.00", "not finite"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["nowhere"], "no run folder nowhere"),
        (["empty"], "no run in empty: looked for metrics.csv with a column 'step'"),
        (["board"], "and found TensorBoard's logs; train with `--trainer.logger CSVLogger"),
        (["broken"], "cannot read broken/metrics.csv, line 2, column val/psnr: could not convert"),
        (["yaml"], "cannot read yaml/config.yaml: "),
        (["logs", "--output", "notes.html"], "notes.html exists and is no report; choose another --output"),
        (["logs", "--output", "/dev/zero"], "/dev/zero exists and is no report; choose another --output"),
        (["logs", "--output", "pipe"], "pipe exists and is no report; choose another --output"),
        (["logs", "--output", "empty"], "empty exists and is no report; choose another --output"),
        (["logs", "--output", "notes.html/a.html"], "cannot write notes.html/a.html"),
        ([], "required: RUN"),
    ],
)
def test_bad_input_ends_in_one_line(work, capsys, words, expected):
    for name in ("empty", "board", "broken", "yaml", "picture/images"):
        (work / name).mkdir(parents=True)
    os.mkfifo(work / "pipe")
    (work / "board" / "events.out.tfevents.1").write_text("")
    (work / "broken" / "metrics.csv").write_text("epoch,step,val/psnr\n0,1,many\n")
    for name in ("yaml", "picture"):
        (work / name / "metrics.csv").write_text("epoch,step,val/psnr\n0,1,2\n")
    (work / "yaml" / "config.yaml").write_text("a: [")
    (work / "picture" / "images" / "val-epoch=0.png").write_text("no picture")
    (work / "notes.html").write_text("mine")
    assert expected in fails(capsys, *words)
    assert (work / "notes.html").read_text() == "mine"
    assert not (work / "report.html").exists()


def test_what_fails_is_listed_and_the_others_shown(work, capsys):
    broken = {
        "text": ("metrics.csv", "epoch,step,val/psnr\n0,1,many\n"),
        "yaml": ("config.yaml", "a: 2020-13-45"),
        "bomb": (
            "config.yaml",
            "a: &a [1,1,1,1,1,1,1,1,1]\n"
            + "".join(
                f"{after}: &{after} [{', '.join(['*' + before] * 9)}]\n"
                for before, after in zip("abcdefgh", "bcdefghi", strict=True)
            ),
        ),
        "cycle": ("config.yaml", "a: &x [*x]"),
        "picture": ("images/val-epoch=0.png", "no picture"),
    }
    for name, (file, text) in broken.items():
        (work / "logs" / name / "images").mkdir(parents=True)
        (work / "logs" / name / "metrics.csv").write_text("epoch,step,val/psnr\n0,1,2\n")
        (work / "logs" / name / file).write_text(text)
    (work / "logs" / "comparison.png").write_text("no picture")
    assert main(["report", "logs", "nowhere"]) == 1
    said = capsys.readouterr().err
    for line in (
        "cannot read logs/text/metrics.csv, line 2",
        "cannot read logs/yaml/config.yaml: YAMLError: month must be in 1..12",
        "cannot read logs/bomb/config.yaml: YAMLError: it stands for more than 100000 values",
        "cannot read logs/cycle/config.yaml: YAMLError: the alias 'x' stands for nothing, or for itself",
        "cannot read image logs/picture/images/val-epoch=0.png",
        "cannot read image logs/comparison.png",
        "no run folder nowhere",
    ):
        assert f"reblurkit: failed: {line}" in said
    assert Page((work / "report.html").read_text()).cells[:4] == ["metric", "picture", "version_2", "version_10"]


def test_runs_inside_runs_and_behind_links(work):
    log(work / "demo", [20.0, 21.0])
    log(work / "demo" / "demo", [22.0, 23.0])
    (work / "demo" / "linked").symlink_to(work / "logs" / "version_10")
    assert main(["report", "demo"]) == 0
    text = (work / "report.html").read_text()
    assert {"demo", "demo/demo", "logs/version_10"} <= {cell.split("/", 1)[-1] for cell in Page(text).cells[1:4]} | {
        *Page(text).cells[1:4]
    }
    assert text.count("#1f77b4") > 3
    assert text.count("#d95f02") > 3


def test_a_report_is_replaced_only_when_it_is_whole(work, monkeypatch, capsys):
    assert main(["report", "logs"]) == 0
    before = (work / "report.html").read_bytes()

    def full(self, text, **_):
        self.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        assert "cannot write report.html: No space left on device" in fails(capsys, "logs")
    assert (work / "report.html").read_bytes() == before
    assert not list(work.glob(".*.html"))
    (work / "notes.md").write_text('mine: <meta name="generator" content="reblurkit report">')
    assert "notes.md exists and is no report" in fails(capsys, "logs", "--output", "notes.md")


def test_values_that_no_axis_can_show():
    assert metric_chart({"a": [Point(0, 1e308), Point(1, -1e308), Point(2, 1.0)]}, {"a": "black"}).startswith("<svg")


@pytest.mark.parametrize(
    "values", [[], [1.0], [float("nan")], [1e16, 1e16 + 4], [9e99, -9e99], [1e-20, 2e-20], [0.0, 0.0]]
)
def test_charts_of_any_values(values):
    svg = metric_chart({"a": [Point(step, value) for step, value in enumerate(values)]}, {"a": "black"})
    assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    assert "nan" not in svg
    assert "inf" not in svg


def test_a_chart_puts_values_where_they_belong():
    points = [Point(0, 10.0), Point(50, float("nan")), Point(100, 20.0)]
    svg = ElementTree.fromstring(metric_chart({"a": points}, {"a": "black"}))
    name = "{http://www.w3.org/2000/svg}"
    labels = {
        text.text: float(text.get("x")) for text in svg.iter(f"{name}text") if text.get("text-anchor") == "middle"
    }
    low, high = ((float(dot.get("cx")), float(dot.get("cy"))) for dot in svg.iter(f"{name}circle"))
    assert low[0] == labels["0"]
    assert high[0] == labels["100"]
    assert low[1] > high[1]
    (line,) = (path.get("d") for path in svg.iter(f"{name}path") if path.get("stroke") == "black")
    assert line.count("M") == 2  # a gap where there is no number


def test_a_report_needs_no_library_for_charts(work):
    code = "import sys\nfrom reblurkit.cli import main\nassert main(['report', 'logs']) == 0\nprint(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "matplotlib" not in set(said.stdout.split())
