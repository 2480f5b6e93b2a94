"""Whether a command line that stands in a page or a unit is one that `assay` takes."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import typer

from chain.cli.main import build_app


@cache
def _assay() -> Any:
    return typer.main.get_command(build_app())


def check_command(words: Sequence[str]) -> None:
    """Assert that the verb and each option exist, and that no required option is left out."""
    command, place = _assay(), "assay"
    left = [str(word) for word in words]
    while left and hasattr(command, "commands"):
        if command.invoke_without_command and left[0].startswith("-"):
            break  # a noun that is a verb as well
        name = left.pop(0)
        assert name in command.commands, f"{place} has no {name!r}: {' '.join(map(str, words))}"
        command, place = command.commands[name], f"{place} {name}"
    known = {name for item in command.params for name in (*item.opts, *item.secondary_opts)}
    given = {word.partition("=")[0] for word in left if word.startswith("-") and word != "-"}
    assert given <= known | {"--help"}, f"{place} has no {given - known}"
    if "--help" in given:
        return
    for item in command.params:
        if item.required and item.param_type_name == "option":
            assert given & set(item.opts), f"{place} needs {item.opts[0]}"
