"""Every command block that people read says whether it is run, and names commands that exist."""

import re
from pathlib import Path

import pytest

from tests.commands import check_command
from tests.pages import SHELLS, Block, assay_commands, blocks, pages, shell_blocks


def test_there_are_blocks_to_look_at() -> None:
    assert len(shell_blocks()) > 15
    assert sum(block.mark == "run" for block in shell_blocks()) > 5


@pytest.mark.parametrize("block", shell_blocks(), ids=lambda block: block.place)
def test_a_command_block_says_whether_it_is_run(block: Block) -> None:
    assert block.mark, (
        f"{block.place}: put <!-- run --> or <!-- not run: why --> on the line before the block, "
        "or name its language if it is no command"
    )


@pytest.mark.parametrize("block", shell_blocks(), ids=lambda block: block.place)
def test_each_assay_command_of_a_block_exists_with_its_options(block: Block) -> None:
    for words in assay_commands(block):
        check_command(words)


def test_no_command_hides_in_an_indented_block() -> None:
    hidden = [
        f"{page.name}: {line}"
        for page in pages()
        for line in without_fences(page)
        if re.match(r"    (assay|make|python|pip|curl) ", line)
    ]
    assert hidden == []


def without_fences(page: Path) -> list[str]:
    text = page.read_text()
    for block in blocks(page):
        text = text.replace(block.text, "")
    return text.splitlines()


def test_a_block_that_is_no_command_names_its_language() -> None:
    known = {"python", "toml", "json", "text", "yaml", "js", "proto", *SHELLS}
    found = [block for page in pages() for block in blocks(page)]
    assert [block.place for block in found if block.language not in known] == []
