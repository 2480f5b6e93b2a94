"""The command blocks of README.md and docs/: each says in a comment before it whether tests run it.

<!-- run -->                  tests/e2e/test_docs.py runs it, as it stands, on a devnet
<!-- not run: the reason -->  nobody does; its commands exist all the same, which is checked
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\S*)[^\n]*\n(?P<text>.*?)^(?P=indent)```",
    re.MULTILINE | re.DOTALL,
)
_MARK = re.compile(r"<!-- (?P<kind>run|not run: [^\n]+) -->\n\Z")
SHELLS = ("sh", "bash", "shell", "console", "")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block."""

    page: Path
    line: int
    language: str
    mark: str
    """`run`, `not run: …`, or empty."""
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"


def pages() -> list[Path]:
    """All that people read, but for decisions, which have nothing to run."""
    return [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text()
    for match in _FENCE.finditer(text):
        mark = _MARK.search(text[: match.start()])
        yield Block(
            page,
            text.count("\n", 0, match.start()) + 1,
            match["language"],
            mark["kind"] if mark else "",
            match["text"],
        )


def shell_blocks() -> list[Block]:
    return [block for page in pages() for block in blocks(page) if block.language in SHELLS]


def assay_commands(block: Block) -> Iterator[list[str]]:
    """The words of each `assay …` in a block, without what comes after a pipe or the like."""
    joined = block.text.replace("\\\n", " ")
    for line in joined.splitlines():
        for found in re.finditer(r"(?:^|[=|&(;] *|\$\()assay (?P<rest>[^\n]*)", line):
            words = shlex.split(_cut(found["rest"]), comments=True)
            yield words


def _cut(rest: str) -> str:
    """Up to the first shell operator outside of quotes."""
    quote = ""
    for at, character in enumerate(rest):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "|&;)>":
            return rest[:at]
    return rest
