"""Every configuration and command line of a page is understood by the parser that it is meant for."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import torch
import yaml

from reblurkit.cli import main
from reblurkit.cli.commands import command_parser
from reblurkit.cli.words import TRAINER_COMMANDS
from tests.docs.pages import ROOT, Block, blocks, commands

COMMANDS = list(commands())
TRAINING = [each for each in COMMANDS if each[1].startswith(tuple(f"reblurkit {name}" for name in TRAINER_COMMANDS))]
OTHERS = [each for each in COMMANDS if each not in TRAINING]
MODEL = {"class_path": "DeblurTask", "init_args": {"network": {"class_path": "UNet"}}}
DATA = {"class_path": "DemoDataModule"}
NETWORK = """from torch import nn


class MyNet(nn.Module):
    def __init__(self, width=32):
        super().__init__()
"""


def identity(value):
    return str(value) if isinstance(value, Block) else f"{value[0]} {value[1][:40]}"


@pytest.fixture
def named_files(world):
    """Files that command lines name; what is in them does not matter to a parser."""
    for name in ("my_net.pth", "official.pth", "last.ckpt", "CHECKPOINT"):
        torch.save({"state_dict": {}}, name)
    best = Path("lightning_logs/version_0/checkpoints/best.ckpt")
    best.parent.mkdir(parents=True)
    torch.save({"state_dict": {}}, best)
    (world / "my_net.py").write_text(NETWORK)
    for name in ("config.yaml", "run.yaml"):
        (world / name).write_text(yaml.safe_dump({"model": MODEL, "data": DATA}))
    return world


def print_configuration(words):
    """Parse as the command does, without building anything; a complaint is on stderr."""
    with pytest.raises(SystemExit) as done:
        main([*words, "--print_config"])
    assert done.value.code in (0, None)


@pytest.mark.parametrize("block", blocks("yaml"), ids=identity)
def test_a_configuration_is_parsed_by_fit(named_files, block, capsys):
    given = yaml.safe_load(block.code)
    if not given.keys() & {"model", "data", "trainer"}:  # arguments of DeblurTask alone
        given = {"model": {**MODEL, "init_args": {**MODEL["init_args"], **given}}}
    (named_files / "page.yaml").write_text(yaml.safe_dump({"model": MODEL, "data": DATA} | given))
    print_configuration(["fit", "--config", "page.yaml"])
    understood = yaml.safe_load(capsys.readouterr().out)
    for section in given:
        for name, value in given[section].get("init_args", {}).items():
            assert name in understood[section]["init_args"], f"{section}.{name}: {value}"


@pytest.mark.parametrize("command", TRAINING, ids=identity)
def test_a_training_command_is_parsed(named_files, command, capsys):
    words = shlex.split(command[1])[1:]
    print_configuration(words)
    assert yaml.safe_load(capsys.readouterr().out)["model"]["class_path"]


@pytest.mark.parametrize("command", OTHERS, ids=identity)
def test_a_command_line_names_what_there_is(command):
    words = shlex.split(command[1])
    match words:
        case ["reblurkit", *rest]:
            assert command_parser(rest).parse_args(rest).run
        case ["python", "-m", "pip", "install", *what]:
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            asked = re.findall(r"\[([\w,]+)\]", " ".join(what))
            assert {extra for each in asked for extra in each.split(",")} <= set(extras)
        case ["python", "-m", module, *_]:
            path = ROOT / module.replace(".", "/")
            assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
        case ["python", script, *options]:
            text = (ROOT / script).read_text()
            assert all(f'"{option}"' in text for option in options if option.startswith("--"))
        case ["nox", "-s", *sessions]:
            tree = ast.parse((ROOT / "noxfile.py").read_text())
            assert set(sessions) <= {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        case ["export", *variables]:
            assert all("=" in variable for variable in variables)
        case _:
            pytest.fail(f"{command[0]}: {words[0]} is no command that these pages use; say here how it is checked")


def test_commands_within_a_sentence_have_options_that_there_are():
    pages = {block.page for block, _ in COMMANDS} | {block.page for block in blocks("python")}
    checked = 0
    for page in pages:
        for words in re.findall(r"`reblurkit (deblur|adapt-video|report|demo)( [^`]+)`", page.read_text()):
            known = command_parser([words[0]])._subparsers._group_actions[0].choices[words[0]]._option_string_actions
            for option in re.findall(r"--[\w-]+", words[1]):
                assert option in known, f"{page}: {option}"
                checked += 1
    assert checked > 10
