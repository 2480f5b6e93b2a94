"""Commands that another package might plug in."""

import typer

app = typer.Typer()
odd = "neither an app nor a function"


@app.callback()
def group() -> None:
    """A group with one verb."""


@app.command()
def greet() -> None:
    """Say hello."""
    typer.echo("hello")
