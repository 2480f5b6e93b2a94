"""`assay bench …`: measurements an operator can repeat on a machine of their own.

chain's own verbs are added in `build_app`; other packages add theirs through the entry points group
`assay.bench`, each a function that becomes the verb of its entry's name.
"""

from typing import Final

import typer

from chain.cli.bench_ledger import ledger
from chain.cli.plugins import add_plugins

PLUGIN_GROUP: Final = "assay.bench"


def build_app() -> typer.Typer:
    """The group with all its verbs."""
    app = typer.Typer(no_args_is_help=True)
    app.callback()(measurements)
    app.command("ledger")(ledger)
    add_plugins(app, PLUGIN_GROUP, "assay bench")
    return app


def measurements() -> None:
    """Measure what this machine gives: ratios inside one run, and what they were taken on."""
