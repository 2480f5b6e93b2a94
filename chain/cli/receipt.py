"""`assay receipt`: check a receipt offline, or write it in its other form."""

import enum
from pathlib import Path
from typing import Annotated, Any

import typer

from chain import light, receipt_files
from chain.cli.output import EXIT_USAGE, JsonOption, emit, errors_reported, fail
from chain.genesis import load as load_genesis
from chain.readable import render
from chain.receipts import Receipt, VerifiedReceipt, verify_receipt

app = typer.Typer(help="Check receipts offline.", no_args_is_help=True)


class Form(enum.StrEnum):
    """How a receipt is written."""

    JSON = "json"
    PROTOBUF = "protobuf"


def write(receipt: Receipt, path: Path, form: Form) -> None:
    """Write a receipt's file. Raises OSError."""
    if form is Form.JSON:
        path.write_bytes(receipt_files.dump_json(receipt))
    else:
        path.write_bytes(receipt_files.dump_protobuf(receipt))


def describe(verified: VerifiedReceipt) -> dict[str, Any]:
    """What a receipt proves, as the verbs print it."""
    ruled = verified.receipt.job_receipt
    result = verified.result
    return {
        "valid": True,
        "chain_id": verified.receipt.chain_id,
        "job": verified.job.hex(),
        "verdict": verified.status.name,
        "height": ruled.height,
        "model": ruled.model.hex(),
        "provider": None if ruled.provider is None else ruled.provider.hex(),
        "verifiers": [
            {
                "validator": word.validator,
                "engine_profile": word.engine_profile,
                "verdict": word.verdict.name,
                "thresholds": render(word.thresholds),
            }
            for word in ruled.verdicts
        ],
        "engine_profile": None if result is None else result.engine_profile,
        "text": None if result is None else result.text,
        "output_tokens": ruled.output_tokens,
        "price": sum(payment.amount for payment in ruled.payments),
        "signers": list(verified.signers),
        "signed_stake": verified.signed_stake,
        "total_stake": verified.total_stake,
    }


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="The receipt, JSON or protobuf.")],
    genesis: Annotated[Path, typer.Option(help="The genesis file that you trust.")],
    validators: Annotated[
        Path | None,
        typer.Option(help="A later set of validators that `assay light follow` has kept."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a receipt without a network: exit 0 if it is proven, 1 with the reason if not."""
    with errors_reported(as_json):
        trusted = load_genesis(genesis)
        later = None if validators is None else light.load(validators, trusted)
        shown = describe(verify_receipt(receipt_files.read(file), trusted, later))
        verdicts = ", ".join(
            f"validator {word['validator']} {word['verdict']} ({word['engine_profile']})"
            for word in shown["verifiers"]
        )
        text = "\n".join(
            [
                f"verified receipt: {file}",
                f"  job       {shown['job']}: {shown['verdict']} at height {shown['height']}",
                f"  answered  {shown['engine_profile'] or 'by nobody'}",
                f"  verdicts  {verdicts or 'none'}",
                f"  signed    {len(shown['signers'])} validators, {shown['signed_stake']} of "
                f"{shown['total_stake']} stake, chain {shown['chain_id']}",
                f"  text      {shown['text'] if shown['text'] is not None else '(no result)'}",
            ]
        )
        emit(as_json, shown, text)


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(help="The receipt, JSON or protobuf.")],
    output: Annotated[Path, typer.Option(help="Where to write it.")],
    form: Annotated[Form, typer.Option("--format", help="How to write it.")] = Form.JSON,
    as_json: JsonOption = False,
) -> None:
    """Write a receipt in its other form; this checks its consistency, not what it proves."""
    with errors_reported(as_json):
        if output.exists():
            fail(as_json, "FILE", f"{output} exists and is not overwritten", EXIT_USAGE)
        write(receipt_files.read(file), output, form)
        emit(as_json, {"file": str(output), "format": form.value})
