"""Completion as bash does it."""

from __future__ import annotations

import contextlib
import shutil
import subprocess

import pytest

from reblurkit.cli import main

_ASK = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_reblurkit
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "reblurkit"
    with path.open("w") as file, contextlib.redirect_stdout(file):
        assert main(["completion", "bash"]) == 0
    return path


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["f"], {"fit"}),
        (["de"], {"demo", "deblur"}),
        (["deblur", "a.png", "--out"], {"--output"}),
        (["fit", "--trainer.max_ep"], {"--trainer.max_epochs"}),
        (["test", "--ckpt"], {"--ckpt_path"}),
        (["fit", "--model", "Deb"], {"DeblurTask"}),
        (["fit", "--data", "Pai"], {"PairedDataModule"}),
        (["deblur", "a.png", "--model", "nafnet-width3"], {"nafnet-width32"}),
        (["deblur", "a"], {""}),  # left to the names of files
    ],
)
def test_what_bash_offers(script, words, expected):
    command = ["bash", "-c", _ASK, "bash", str(script), "reblurkit", *words]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert set(said.stdout.splitlines()) == expected


def test_zsh_gets_the_same_by_its_bridge(script, capsys):
    assert main(["completion", "zsh"]) == 0
    first, _, rest = capsys.readouterr().out.partition("\n")
    assert first.endswith("&& bashcompinit")
    assert rest == script.read_text()
