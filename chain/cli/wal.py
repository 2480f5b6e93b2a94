"""`assay wal`: look at a validator's vote log without touching it."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from chain.cli.output import EXIT_FAILED, JsonOption, emit, errors_reported
from consensus.journal import Watermark, decode_record
from consensus.messages import Proposal
from consensus.values import Certificate, Vote
from consensus.wal import WAL_NAME, Inspection, inspect
from consensus.wire import DecodeError

app = typer.Typer(help="Look at a validator's vote log.", no_args_is_help=True)
SHOWN_DIGEST_BYTES: Final = 8


@app.callback()
def group() -> None:
    """Look at a validator's vote log."""


@app.command("inspect")
def inspect_command(
    file: Annotated[Path, typer.Argument(help=f"The log ({WAL_NAME}), or the directory it is in.")],
    as_json: JsonOption = False,
) -> None:
    """What the log says, group by group, and whether a validator may vote with it.

    Reads only, also beside a running node. Exit code 1 if the log is damaged; a torn tail is none.
    """
    with errors_reported(as_json):
        data = (file / WAL_NAME if file.is_dir() else file).read_bytes()
    inspection = inspect(data)
    report = _report(inspection)
    emit(as_json, report, _text(report))
    if inspection.damage is not None:
        raise typer.Exit(EXIT_FAILED)


def _report(inspection: Inspection) -> dict[str, Any]:
    groups = [
        {
            "offset": group.offset,
            "bytes": group.size,
            "records": [describe(record) for record in group.records],
        }
        for group in inspection.groups
    ]
    return {
        "chain_id": inspection.chain_id,
        "signing_key": None if inspection.signing_key is None else inspection.signing_key.hex(),
        "epoch": inspection.epoch,
        "bytes": inspection.size,
        "groups": groups,
        "records": sum(len(group.records) for group in inspection.groups),
        "torn_tail_bytes": inspection.torn_bytes,
        "damage": inspection.damage,
        "may_vote": inspection.damage is None,
    }


def describe(record: bytes) -> dict[str, Any]:
    """One record as JSON shows it; a record that does not decode says why."""
    try:
        value = decode_record(record)
    except DecodeError as error:
        return {"record": "unreadable", "bytes": len(record), "why": str(error)}
    if isinstance(value, Vote | Certificate):
        body = value.body
        shown: dict[str, Any] = {
            "record": "vote" if isinstance(value, Vote) else "certificate",
            "kind": body.kind.name.lower(),
            "epoch": body.epoch,
            "view": body.view,
            "block": _short(body.digest),
        }
        if isinstance(value, Vote):
            return shown | {"signer": value.signer}
        return shown | {"signers": list(value.signers)}
    if isinstance(value, Proposal):
        block = value.block
        return {
            "record": "proposal",
            "epoch": block.epoch,
            "view": block.view,
            "height": block.height,
            "proposer": block.proposer,
            "block": _short(block.digest()),
        }
    if isinstance(value, Watermark):
        return {
            "record": "watermark",
            "votes_above_view": value.votes_above,
            "knows_lane": value.knows_lane,
            "handed_on": value.handed_on,
        }
    header = value.header
    return {
        "record": "own batch",
        "epoch": header.epoch,
        "lane": header.lane,
        "sequence": header.sequence,
        "batch": _short(header.digest()),
    }


def _short(digest: bytes) -> str:
    return digest[:SHOWN_DIGEST_BYTES].hex()


def _text(report: dict[str, Any]) -> str:
    lines = [
        f"chain {report['chain_id']}, key {report['signing_key']}, epoch {report['epoch']}",
        f"{report['bytes']} bytes, {len(report['groups'])} groups, {report['records']} records",
    ]
    for group in report["groups"]:
        for record in group["records"]:
            fields = ", ".join(f"{name} {value}" for name, value in record.items())
            lines.append(f"  at {group['offset']:>8}: {fields}")
    torn = report["torn_tail_bytes"]
    if torn:
        lines.append(f"torn tail of {torn} bytes: never sent, cut off at the next start")
    lines.append(
        "whole: a validator may vote with it"
        if report["damage"] is None
        else f"damaged: {report['damage']}"
    )
    return "\n".join(lines)
