"""`assay infer`: ask a model, see its tokens come, get a verified receipt."""

import sys
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any

import typer

from assay.v1 import inference_pb2, node_pb2, transactions_pb2
from chain import receipt_files
from chain.asking import Answer
from chain.cli.calls import (
    AccountOption,
    HomeOption,
    KeyOption,
    NodesOption,
    PassphraseOption,
    open_genesis,
    open_key,
    parse_key,
    resolve_nodes,
    run_calls,
)
from chain.cli.output import JsonOption, emit, fail, stderr
from chain.dapp.answers import hear
from chain.dapp.client import AsyncClient, user_seed
from chain.dapp.events import Accepted, Event, Progress, Restarted, Tokens
from chain.dapp.following import NotSettledInTime
from chain.receipts import ReceiptInvalid

TIERS = {"standard": transactions_pb2.TIER_STANDARD, "critical": transactions_pb2.TIER_CRITICAL}
TEMPERATURE_SCALE = 1000
U32_MAX = (1 << 32) - 1
U64_MAX = (1 << 64) - 1


def command(  # noqa: PLR0913, PLR0917 - one parameter an option
    prompt: Annotated[str, typer.Argument(help="What to ask; '-' reads standard input.")],
    home: HomeOption = None,
    node: NodesOption = None,
    key: KeyOption = None,
    passphrase_file: PassphraseOption = None,
    account: AccountOption = "",
    genesis: Annotated[
        Path | None, typer.Option("--genesis", help="Genesis to check the receipt against.")
    ] = None,
    model: Annotated[str, typer.Option("--model", help="Name or id; default: the only one.")] = "",
    system: Annotated[str, typer.Option("--system", help="A system message.")] = "",
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue the text; no chat template.")
    ] = False,
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Most tokens to answer.")] = 128,
    temperature: Annotated[float, typer.Option("--temperature", help="0 is greedy.")] = 0.0,
    top_k: Annotated[int, typer.Option("--top-k", help="1 to 64; 0 means 64.")] = 0,
    top_p: Annotated[float, typer.Option("--top-p", help="Nucleus, to 1.")] = 1.0,
    logprob_ceiling: Annotated[
        float,
        typer.Option(
            "--logprob-ceiling", help="No token counts for more than e^-this; 0 is off, to 20."
        ),
    ] = 0.0,
    min_tokens: Annotated[
        int, typer.Option("--min-tokens", help="No end before so many tokens.")
    ] = 0,
    stop: Annotated[list[str] | None, typer.Option("--stop", help="Stop here; up to 4.")] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="A seed of your own, to repeat an answer.")
    ] = None,
    seed_from_chain: Annotated[
        bool, typer.Option("--seed-from-chain", help="Seed from the beacon: the default.")
    ] = False,
    max_price: Annotated[
        int | None, typer.Option("--max-price", help="Grain; default: what offers ask.")
    ] = None,
    tier: Annotated[str, typer.Option("--tier", help="standard or critical.")] = "standard",
    provider: Annotated[
        str, typer.Option("--provider", help="Only this account may answer (address or hex).")
    ] = "",
    answer_within: Annotated[
        float, typer.Option("--answer-within", help="Seconds a provider has; 0: the default.")
    ] = 0.0,
    receipt: Annotated[
        Path | None, typer.Option("--receipt", help="File to write the receipt to.")
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait in all.")] = 600.0,
    as_json: JsonOption = False,
) -> None:
    """Ask a model: tokens as they come, then the committee's verdicts and a receipt.

    If a node fails or falls silent the next one is asked, with the same transaction.

    Exit code 0 if the answer was verified, 1 if it was rejected, refunded or refused.
    """
    if seed is not None and seed_from_chain:
        fail(as_json, "USAGE", "--seed and --seed-from-chain exclude each other", 2)
    if tier not in TIERS:
        fail(as_json, "USAGE", f"--tier {tier}: give one of {', '.join(TIERS)}", 2)
    numbers = (
        ("--max-tokens", max_tokens, U32_MAX),
        ("--temperature", temperature, U32_MAX / TEMPERATURE_SCALE),
        ("--top-k", top_k, U32_MAX),
        ("--top-p", top_p, 1),
        ("--logprob-ceiling", logprob_ceiling, U32_MAX / TEMPERATURE_SCALE),
        ("--min-tokens", min_tokens, U32_MAX),
        ("--max-price", max_price or 0, U64_MAX),
        ("--answer-within", answer_within, U32_MAX / 1000),
    )
    for name, value, limit in numbers:
        if not 0 <= value <= limit:  # also true of "not a number"
            fail(as_json, "USAGE", f"{name} is {value}, allowed are 0 to {limit:,}", 2)
    text = sys.stdin.read() if prompt == "-" else prompt
    target, nodes = resolve_nodes(as_json, home, node, key, passphrase_file, genesis)
    trusted = open_genesis(as_json, target)
    payer, paying = open_key(as_json, target), parse_key(as_json, account)
    request = transactions_pb2.RequestInference(
        input=_input(text, system, raw),
        sampling=inference_pb2.Sampling(
            temperature_milli=round(temperature * TEMPERATURE_SCALE),
            top_k=top_k,
            top_p_milli=round(top_p * TEMPERATURE_SCALE),
            max_output_tokens=max_tokens,
            stop=stop or [],
            min_tokens=min_tokens,
            logprob_ceiling_milli=round(logprob_ceiling * TEMPERATURE_SCALE),
        ),
        tier=TIERS[tier],
        provider=parse_key(as_json, provider),
        answer_within_ms=round(answer_within * 1000),
        seed=b"" if seed is None else user_seed(seed),
    )
    show = _Display(as_json)

    async def run() -> Answer:
        async with AsyncClient(nodes, payer, trusted, paying or None) as client:
            source = client.infer(request, model, max_price, timeout)
            async with aclosing(source) as events:
                return await hear(events, show.event)

    try:
        answer = run_calls(as_json, run)
    except NotSettledInTime as error:
        fail(as_json, "NOT_READY", str(error))
    except ReceiptInvalid as error:
        fail(as_json, error.reason.value, f"the nodes' receipt is not valid: {error.detail}")
    _finish(answer, trusted is not None, receipt, as_json)


def _input(text: str, system: str, raw: bool) -> inference_pb2.InferenceInput:
    if raw:
        return inference_pb2.InferenceInput(text=text)
    chat = inference_pb2.Chat()
    if system:
        chat.messages.add(role=inference_pb2.ROLE_SYSTEM, content=system)
    chat.messages.add(role=inference_pb2.ROLE_USER, content=text)
    return inference_pb2.InferenceInput(chat=chat)


class _Display:
    """Tokens on standard output, what happens round them on standard error; nothing for JSON."""

    def __init__(self, as_json: bool) -> None:
        self._quiet = as_json
        self._node = ""
        self._attempt = 0
        self._status = ""

    def event(self, event: Event) -> None:
        if self._quiet:
            return
        match event:
            case Accepted(node=node):
                if self._node not in ("", node):
                    stderr.print(f"\nnode {self._node} is lost: going on with {node}")
                self._node = node
            case Progress(view=view):
                self._moved(view)
            case Tokens(text=text):
                sys.stdout.write(text)
                sys.stdout.flush()
            case Restarted():
                stderr.print("\nanother answer took its place, from its start:")
            case _:
                pass

    def _moved(self, view: node_pb2.JobView) -> None:
        if view.status == self._status:
            return
        self._status = view.status
        if view.status == "ASSIGNED":
            if self._attempt:
                stderr.print(f"\nattempt {view.attempts}: assigned anew")
            self._attempt = view.attempts
        if view.status == "COMMITTING":
            seats = ", ".join(str(seat.validator) for seat in view.committee)
            stderr.print(f"\njob {view.job.hex()[:16]}: audited by validators {seats}")


def _finish(answer: Answer, checked: bool, path: Path | None, as_json: bool) -> None:
    if path is not None:
        path.write_bytes(receipt_files.dump_json(answer.receipt))
    ruled = answer.receipt.job_receipt
    value: dict[str, Any] = {
        "text": answer.text,
        "job": answer.job.hex(),
        "verdict": answer.status,
        "verifiers": len(ruled.verdicts),
        "committee": [
            {"validator": word.validator, "verdict": word.verdict.name} for word in ruled.verdicts
        ],
        "provider": None if ruled.provider is None else ruled.provider.hex(),
        "attempts": answer.attempts,
        "input_tokens": ruled.input_tokens,
        "output_tokens": answer.output_tokens,
        "ttft_ms": _round(answer.ttft_ms),
        "answered_ms": _round(answer.answered_ms),
        "verified_ms": _round(answer.verified_ms),
        "paid": sum(
            payment.amount for payment in ruled.payments if payment.account != ruled.requester
        ),
        "height": ruled.height,
        "receipt": None if path is None else str(path),
        "receipt_checked": checked,
    }
    emit(as_json, value, None if as_json else _summary(value))
    if answer.status != "VERIFIED":
        raise typer.Exit(1)


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _summary(value: dict[str, Any]) -> str:
    words = ", ".join(f"{seat['validator']} {seat['verdict']}" for seat in value["committee"])
    checked = "checked against genesis" if value["receipt_checked"] else "not checked: no --genesis"
    lines = [
        "",
        f"{value['verdict']} by {value['verifiers']} validators ({words or 'none spoke'})",
        f"first token {value['ttft_ms']} ms, receipt {value['verified_ms']} ms, "
        f"{value['output_tokens']} tokens, paid {value['paid']} grain",
        f"receipt {checked}" + (f", written to {value['receipt']}" if value["receipt"] else ""),
    ]
    return "\n".join(lines)
