"""Verbs and nouns that other packages contribute through entry points."""

import inspect
from importlib import metadata

import typer

from chain.cli.output import stderr


def add_plugins(app: typer.Typer, group: str, prefix: str) -> None:
    """Mount what entry points of `group` name: typer applications as nouns, functions as verbs.

    A broken one is told on standard error, by its full name after `prefix`, and left out.
    """
    for entry in sorted(metadata.entry_points(group=group), key=lambda entry: entry.name):
        try:
            plugin = entry.load()
        except (ImportError, AttributeError) as error:
            stderr.print(f"{prefix} {entry.name} is not available: {error}", markup=False)
            continue
        if isinstance(plugin, typer.Typer):
            app.add_typer(plugin, name=entry.name)
        elif inspect.isfunction(plugin):
            app.command(entry.name)(plugin)
        else:
            stderr.print(
                f"{prefix} {entry.name} is not available: "
                f"{entry.value} is neither a typer app nor a function",
                markup=False,
            )
