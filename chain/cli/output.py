"""How every verb speaks: one place for JSON, tables, errors and exit codes."""

import json
import sys
from typing import Annotated, Any, Final, NoReturn

import typer
from rich.console import Console

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of text.")]

stdout = Console(soft_wrap=True, highlight=False)
stderr = Console(stderr=True, soft_wrap=True, highlight=False)


def emit(as_json: bool, value: Any, text: Any = None) -> None:
    """Print `value` as JSON, or `text` (a string or anything rich can show) for people.

    Without `text` a mapping is shown as `name: value` lines.
    """
    if as_json:
        sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
        sys.stdout.flush()
    elif text is not None:
        stdout.print(text, markup=False) if isinstance(text, str) else stdout.print(text)
    elif isinstance(value, dict):
        width = max((len(name) for name in value), default=0)
        for name, item in value.items():
            stdout.print(f"{name.replace('_', ' '):<{width}}  {item}", markup=False)
    else:
        stdout.print(str(value), markup=False)


def fail(as_json: bool, reason: str, detail: str, code: int = EXIT_FAILED) -> NoReturn:
    """End the command with a reason on standard error."""
    if as_json:
        sys.stderr.write(
            json.dumps({"reason": reason, "detail": detail}, ensure_ascii=False) + "\n"
        )
    else:
        stderr.print(f"error: {reason}: {detail}", markup=False)
    raise typer.Exit(code)
