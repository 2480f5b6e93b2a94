"""One question to the chain, from a prompt to a receipt: what a dApp does, in one call.

Tokens are believed only with the provider's signature, and the provider only if the node says that
the chain assigned it; what counts in the end is the receipt, which needs neither.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from assay.v1 import inference_pb2, node_pb2, transactions_pb2
from chain import receipt_files
from chain.client import NodeClient
from chain.execution.jobs import input_tokens_bound
from chain.keys import KeyPair
from chain.node.streams import chunk_message
from chain.parameters import Parameters
from chain.receipts import Receipt
from chain.records import COMMITTEE_MAX
from chain.rejections import Rejection, RejectionReason
from ext.signatures import verify

PRICE_BYTES_MAX = 11
"""That `max_price` itself takes in a request."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How one question went. Times are from submission, by this client's clock."""

    job: bytes
    status: str
    """JobStatus: VERIFIED, REJECTED or REFUNDED."""
    text: str
    """Of the result on chain; empty if there is none."""
    receipt: Receipt
    committee: tuple[node_pb2.SeatView, ...]
    attempts: int
    output_tokens: int
    accepted_ms: float
    ttft_ms: float | None
    """To the first token; None if none was streamed."""
    answered_ms: float | None
    """To the status after the result was on chain."""
    verified_ms: float
    """To the receipt."""


@dataclass(slots=True)
class _Progress:
    """What has been heard so far."""

    started_s: float
    job: bytes = b""
    provider: bytes = b""
    accepted_ms: float = 0.0
    ttft_ms: float | None = None
    answered_ms: float | None = None
    view: node_pb2.JobView = field(default_factory=node_pb2.JobView)


MODELS_NAMED_MAX = 16
"""In one message."""


async def pick_model(client: NodeClient, wanted: str) -> node_pb2.ModelView:
    """The model with this name or id (hex, at least 8 digits); the only one if nothing is wanted.

    Names are not unique on chain: one that several have is refused, with their ids. A whole id is
    nobody's name, whatever others call theirs. Raises Rejection.
    """
    models = await client.models()
    for model in models:
        if model.model.hex() == wanted.lower():
            return model
    found = [
        model
        for model in models
        if wanted in ("", model.name)
        or (len(wanted) >= 8 and model.model.hex().startswith(wanted.lower()))
    ]
    if len(found) == 1:
        return found[0]
    if found and wanted:
        ids = ", ".join(model.model.hex() for model in found[:MODELS_NAMED_MAX])
        raise Rejection(
            RejectionReason.UNKNOWN_MODEL,
            f"{len(found)} models match {wanted!r}: names may be taken twice; ask for "
            f"the one you mean by its id: {ids}",
        )
    known = [f"{model.name} ({model.model.hex()[:16]})" for model in models[:MODELS_NAMED_MAX]]
    raise Rejection(
        RejectionReason.UNKNOWN_MODEL,
        f"{len(found)} models match {wanted!r}; registered are: "
        f"{', '.join(known) or 'none'}; name one with --model",
    )


async def price_ceiling(
    client: NodeClient,
    parameters: Parameters,
    model: node_pb2.ModelView,
    request: transactions_pb2.RequestInference,
) -> int:
    """Grain that covers the dearest live offer and the largest first committee.

    Raises Rejection (NO_OFFER).
    """
    offers = [offer for offer in await client.offers(model.model) if offer.capacity > 0]
    if not offers:
        raise Rejection(
            RejectionReason.NO_OFFER, "no provider offers this model now; try again later"
        )
    request_bytes = request.ByteSize() + PRICE_BYTES_MAX
    given = len(request.input.token_ids.ids)
    input_tokens = given or input_tokens_bound(request_bytes, model.context_tokens)
    tokens = request.sampling.max_output_tokens
    tokens_price = max(
        offer.input_price * input_tokens + offer.output_price * tokens for offer in offers
    )
    seats = parameters.committee_size
    if request.tier == transactions_pb2.TIER_CRITICAL:  # every verifier of the model is paid
        seats = max(seats, min(len(model.verifiers), COMMITTEE_MAX))
    return tokens_price + seats * parameters.seat_price(input_tokens, tokens)


async def ask(
    client: NodeClient,
    key: KeyPair,
    request: transactions_pb2.RequestInference,
    deadline_s: float,
    on_text: Callable[[str], None] = lambda text: None,
    on_status: Callable[[node_pb2.JobView], None] = lambda view: None,
    account: bytes = b"",
) -> Answer:
    """Submit a request, follow it to its receipt. With an `account`, the key is a session key of
    it. Raises Rejection, NodeUnavailableError."""
    chain_id = (await client.status()).chain_id
    operation = transactions_pb2.Op(request_inference=request)
    signed = await client.sign(key, [operation], account=account)
    progress = _Progress(time.perf_counter())
    async for event in client.infer(signed, deadline_s):
        elapsed_ms = (time.perf_counter() - progress.started_s) * 1000
        match event.WhichOneof("kind"):
            case "accepted":
                progress.job = event.accepted.job
                progress.accepted_ms = elapsed_ms
            case "status":
                progress.view = event.status
                progress.provider = event.status.provider
                if event.status.result.token_ids and progress.answered_ms is None:
                    progress.answered_ms = elapsed_ms
                on_status(event.status)
            case "tokens":
                _check_chunk(chain_id, event.tokens, progress)
                if event.tokens.token_ids and progress.ttft_ms is None:
                    progress.ttft_ms = elapsed_ms
                on_text(event.tokens.text)
            case "receipt":
                return _answer(progress, receipt_files.from_protobuf(event.receipt), elapsed_ms)
    raise Rejection(RejectionReason.NOT_READY, "the node ended the call without a receipt")


def _check_chunk(chain_id: str, chunk: node_pb2.TokenChunk, progress: _Progress) -> None:
    signed = verify(chunk.provider, chunk_message(chain_id, chunk), chunk.signature)
    if chunk.job != progress.job or chunk.provider != progress.provider or not signed:
        raise Rejection(
            RejectionReason.BAD_SIGNATURE,
            "a chunk of tokens is not signed by the assigned provider; the job goes on, ask "
            "another node for its receipt",
        )


def _answer(progress: _Progress, receipt: Receipt, elapsed_ms: float) -> Answer:
    result = inference_pb2.InferenceResult()
    if receipt.result is not None:
        result.ParseFromString(receipt.result)
    return Answer(
        job=receipt.job_receipt.job,
        status=receipt.job_receipt.status.name,
        text=result.text,
        receipt=receipt,
        committee=tuple(progress.view.committee),
        attempts=progress.view.attempts,
        output_tokens=len(result.token_ids),
        accepted_ms=progress.accepted_ms,
        ttft_ms=progress.ttft_ms,
        answered_ms=progress.answered_ms,
        verified_ms=elapsed_ms,
    )
