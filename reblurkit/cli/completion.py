"""Completion of the command line by the shell."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterable, Mapping

from reblurkit.cli.class_help import known_names
from reblurkit.cli.trainer import run_lightning_cli
from reblurkit.cli.words import TRAINER_COMMANDS
from reblurkit.models import list_models

_SCRIPT = """\
_reblurkit() {{
    local choices='' word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}"
    case "$COMP_CWORD:${{COMP_WORDS[1]}}:$before:$word" in
{cases}
    esac
    COMPREPLY=($(compgen -W "$choices" -- "$word"))
}}
complete -o default -F _reblurkit reblurkit
"""
_ZSH = "autoload -Uz compinit bashcompinit && compinit && bashcompinit\n"


def completion_script(shell: str, own: Mapping[str, Iterable[str]]) -> str:
    """A script for a shell: it completes commands, options, classes of this package, and files.

    Args:
        shell: ``bash`` or ``zsh``.
        own: The commands beside the Trainer's, and the options of each.
    """
    options = {command: _options(command) for command in TRAINER_COMMANDS} | dict(own)
    cases = [
        _case("1:*", options),
        *(
            _case(f"*:{command}:--{option}:*", known_names(option))
            for command in TRAINER_COMMANDS
            for option in ("model", "data")
        ),
        *(_case(f"*:{command}:--model:*", list_models("deblur")) for command in ("deblur", "adapt-video")),
        *(_case(f"*:{command}:*:-*", choices) for command, choices in options.items()),
    ]
    script = _SCRIPT.format(cases="\n".join(cases))
    return _ZSH + script if shell == "zsh" else script


def _case(pattern: str, choices: Iterable[str]) -> str:
    return f"        {pattern}) choices='{' '.join(choices)}' ;;"


def _options(command: str) -> list[str]:
    """The long options of a command of the Trainer's, as its help lists them."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        run_lightning_cli([command, "--help"])
    return sorted({*re.findall(r"^  (?:-\w[^-\n]*, |ARG:\s+)?(--[\w.-]+)", text.getvalue(), re.MULTILINE), "--help"})
