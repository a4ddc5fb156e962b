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


_TYPE = """
zmodload zsh/zpty
zpty -b shell 'ZDOTDIR=$PWD TERM=dumb zsh -f -i'
zpty -w -n shell "PS1='ready ' RPS1=; source $1; print is ready"$'\\n'
zpty -r shell said $'*\\nis ready*'
zpty -w -n shell "$2"$'\\t'
zpty -r shell said "*$3*"  # waits for it
zpty -d shell
"""


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh")
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("reblurkit f", "reblurkit fit "),
        ("reblurkit deblur a.png --out", "--output "),
        ("reblurkit fit --trainer.max_ep", "--trainer.max_epochs "),
        ("reblurkit fit --model Deb", "DeblurTask "),
        ("reblurkit deblur phot", "photo.png "),
    ],
)
def test_what_zsh_completes(tmp_path, capsys, typed, completed):
    assert main(["completion", "zsh"]) == 0
    (tmp_path / "script.zsh").write_text(capsys.readouterr().out)
    (tmp_path / "photo.png").touch()
    command = ["zsh", "-f", "-c", _TYPE, "zsh", "script.zsh", typed, completed]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
