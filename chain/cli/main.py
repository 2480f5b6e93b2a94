"""Puts the command `assay` together from its nouns."""

import importlib
import importlib.util
from typing import Final

import typer

from chain.cli import bench
from chain.cli.plugins import add_plugins

PLUGIN_GROUP: Final = "assay.commands"
NOUNS: Final = (
    "keys",
    "genesis",
    "config",
    "node",
    "devnet",
    "tx",
    "session",
    "query",
    "receipt",
    "sim",
    "wal",
)
"""Modules of `chain.cli` that export `app`, a typer application mounted under the module's name."""
VERBS: Final = ("infer", "gateway", "mcp")
"""Modules of `chain.cli` that export `command`, a function mounted under the module's name."""


def build_app() -> typer.Typer:
    """The whole command line: our nouns, then what other packages plug in."""
    app = typer.Typer(
        name="assay",
        help="An AI chain that validates each inference result inside consensus.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=True,
    )
    for name in NOUNS + VERBS:
        if importlib.util.find_spec(f"chain.cli.{name}") is None:
            continue
        module = importlib.import_module(f"chain.cli.{name}")
        if name in VERBS:
            app.command(name)(module.command)
        else:
            app.add_typer(module.app, name=name)
    app.add_typer(bench.build_app(), name="bench")
    add_plugins(app, PLUGIN_GROUP, "assay")
    return app


def main() -> None:
    """Entry point of the command `assay`."""
    build_app()()
