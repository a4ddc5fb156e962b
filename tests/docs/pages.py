"""The pages that people read, and the blocks of code in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / ".github" / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


class Block(NamedTuple):
    page: Path
    line: int
    code: str

    def __str__(self):
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(language, pages=PAGES):
    """All blocks of a language, without the indentation that lists or examples give them."""
    found = []
    for page in pages:
        text = page.read_text()
        for match in re.finditer(rf"^( *)```{language}\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL):
            lines = match[2].splitlines()
            margin = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
            code = "\n".join(line[margin:] for line in lines)
            found.append(Block(page, text[: match.start()].count("\n") + 1, code))
    return found


# What may stand before a command, or around it: launchers, and a shell's loop.
LAUNCHER = re.compile(r"^(srun |torchrun .*?-m )(?=reblurkit)")
SHELL = re.compile(r"^(#|for .*do$|done|wait$)")


def commands(pages=PAGES):
    """All command lines with their block: joined where a backslash continues them, without comments and launchers."""
    for block in blocks("bash", pages):
        for line in re.sub(r"\\\n\s*", " ", block.code).splitlines():
            for part in re.sub(r"\s#.*", "", line).split("&&"):
                command = LAUNCHER.sub("", part.partition(">")[0].strip().rstrip(" &"))
                if command and not SHELL.match(command):
                    yield block, command
