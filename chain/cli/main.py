"""Puts the command `assay` together from its nouns."""

import importlib
import importlib.util
import sys
from typing import Final

import typer

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
    "gateway",
    "validator",
    "query",
    "market",
    "provider",
    "receipt",
    "light",
    "sim",
    "wal",
)
"""Modules of `chain.cli` that export `app`, a typer application mounted under the module's name."""
BUILT: Final = ("model", "bench")
"""Modules whose `build_app` puts a noun together with verbs that other packages plug in."""
VERBS: Final = ("infer", "mcp")
"""Modules of `chain.cli` that export `command`, a function mounted under the module's name."""


def build_app(only: str | None = None) -> typer.Typer:
    """The whole command line, our nouns and then what other packages plug in; or `only` the one of
    our nouns and verbs of that name, so that a command imports no more than it needs."""
    app = typer.Typer(
        name="assay",
        help="An AI chain that validates each inference result inside consensus.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=True,
    )
    app.callback()(_assay)
    for name in NOUNS + BUILT + VERBS if only is None else (only,):
        if importlib.util.find_spec(f"chain.cli.{name}") is None:
            continue
        module = importlib.import_module(f"chain.cli.{name}")
        if name in VERBS:
            app.command(name)(module.command)
        elif name in BUILT:
            app.add_typer(module.build_app(), name=name)
        else:
            app.add_typer(module.app, name=name)
    if only is None:
        add_plugins(app, PLUGIN_GROUP, "assay")
    return app


def _assay() -> None:
    """Without a callback an application of one verb would be that verb."""


def main() -> None:
    """Entry point of the command `assay`."""
    asked = sys.argv[1] if len(sys.argv) > 1 else ""
    build_app(asked if asked in NOUNS + BUILT + VERBS else None)()
