"""``{options} deblur``: the options of a command, from its parser."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
from unittest.mock import patch

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from reblurkit.cli.commands import command_parser
from reblurkit.cli.words import TRAINER_COMMANDS

_WIDTH = "96"  # characters of a line of the Trainer's help


class Options(SphinxDirective):
    """A table of a command's arguments; of the Trainer's commands what ``--help`` prints."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The nodes of the table."""
        command = self.arguments[0]
        if command in TRAINER_COMMANDS:
            return [nodes.literal_block(text := trainer_help(command), text, language="text")]
        parser = command_parser([command])
        (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
        return self.parse_text_to_nodes(options_table(commands.choices[command]))


def options_table(parser: argparse.ArgumentParser) -> str:
    """The arguments of a parser as a table in Markdown."""
    lines = ["| argument | meaning |", "|---|---|"]
    formatter = argparse.HelpFormatter(parser.prog)
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        name = action.option_strings[-1] if action.option_strings else formatter._format_args(action, action.dest)
        values = formatter._format_args(action, action.dest.upper()) if action.option_strings else ""
        meaning = formatter._expand_help(action).replace("|", "\\|") if action.help else ""
        meaning = re.sub(r"(?<!`)--[\w-]+", r"`\g<0>`", meaning)  # or the hyphens would become a dash
        required = "; required" if action.required and action.option_strings else ""
        argument = f"{name} {values}".strip().replace("|", "\\|")
        lines.append(f"| `{argument}` | {meaning}{required} |")
    return "\n".join(lines)


def trainer_help(command: str) -> str:
    """What ``reblurkit fit --help`` prints, without the usage, which names the same options."""
    from reblurkit.cli.trainer import run_lightning_cli

    printed = io.StringIO()
    narrow = patch.dict(os.environ, {"COLUMNS": _WIDTH})
    with narrow, contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        run_lightning_cli([command, "--help"])
    _, found, options = printed.getvalue().partition("\noptions:\n")
    if not found:
        raise RuntimeError(f"`reblurkit {command} --help` lists no options")
    return options


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx."""
    app.add_directive("options", Options)
    return {"parallel_read_safe": True}
