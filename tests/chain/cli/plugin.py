"""Commands that another package might plug in."""

import typer

app = typer.Typer()
odd = "no typer app"


@app.callback()
def group() -> None:
    """A group with one verb."""


@app.command()
def greet() -> None:
    """Say hello."""
    typer.echo("hello")
