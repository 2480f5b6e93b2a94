"""How every verb speaks: one place for JSON, tables, errors and exit codes."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer
from rich.console import Console

from chain.genesis import GenesisError
from chain.keys import MnemonicError
from chain.keystore import KeystoreError
from chain.light import LightError
from chain.readable import ReadableError
from chain.receipts import ReceiptInvalid
from chain.rejections import Rejection
from chain.store import StoreError
from chain.tls import TlsError
from consensus.epochs import BoundaryInvalid

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of text.")]

stdout = Console(soft_wrap=True, highlight=False)
stderr = Console(stderr=True, soft_wrap=True, highlight=False)

_OPERATOR_ERRORS: Final = {
    GenesisError: "BAD_GENESIS",
    KeystoreError: "BAD_KEY",
    MnemonicError: "BAD_MNEMONIC",
    StoreError: "BAD_STORE",
    TlsError: "BAD_CERTIFICATE",
    ReadableError: "UNREADABLE",
    BoundaryInvalid: "BAD_BOUNDARY",
    LightError: "BAD_VALIDATORS",
}


def emit(as_json: bool, value: Any, text: Any = None) -> None:
    """Print `value` as JSON, or `text` (a string or anything rich can show) for people.

    Without `text` a mapping is shown as `name: value` lines.
    """
    if as_json:
        sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
        sys.stdout.flush()
    elif isinstance(text, str):
        stdout.print(text, markup=False)
    elif text is not None:
        stdout.print(text)
    elif isinstance(value, dict):
        width = max((len(name) for name in value), default=0)
        for name, item in value.items():
            stdout.print(f"{name.replace('_', ' '):<{width}}  {item}", markup=False)
    else:
        stdout.print(str(value), markup=False)


def fail(as_json: bool, reason: str, detail: str, code: int = EXIT_FAILED) -> NoReturn:
    """End the command with a reason on standard error."""
    if as_json:
        report = {"reason": str(reason), "detail": detail}
        sys.stderr.write(json.dumps(report, ensure_ascii=False) + "\n")
    else:
        stderr.print(f"error: {reason}: {detail}", markup=False)
    raise typer.Exit(code)


def save_report(
    as_json: bool,
    report: Any,
    output: Path | None,
    plots: Path | None,
    draw: Callable[[Any, Path], object],
) -> None:
    """Write a report, and what `draw` makes of it, where the options ask for them. `draw` may need
    the extra `plots`."""
    try:
        if output is not None:
            output.write_text(json.dumps(report, indent=2) + "\n")
        if plots is not None:
            draw(report, plots)
    except ImportError as error:
        fail(as_json, "NOT_INSTALLED", f"{error}: install the extra `plots`")
    except OSError as error:
        fail(as_json, "FILE", str(error), EXIT_USAGE)


@contextmanager
def errors_reported(as_json: bool) -> Iterator[None]:
    """End the command with one clear line for whatever the operator or a peer did wrong."""
    try:
        yield
    except (Rejection, ReceiptInvalid) as error:
        fail(as_json, error.reason, error.detail)
    except tuple(_OPERATOR_ERRORS) as error:
        known = next(kind for kind in type(error).__mro__ if kind in _OPERATOR_ERRORS)
        fail(as_json, _OPERATOR_ERRORS[known], str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        fail(as_json, "FILE", f"{where}{error.strerror or error}", EXIT_USAGE)
