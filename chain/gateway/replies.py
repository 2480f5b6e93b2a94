"""Answers as OpenAI's API words them: JSON objects and server-sent events. Pure."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from assay.v1 import inference_pb2
from chain.addresses import encode_address
from chain.dapp.events import Settled, Tokens

NATS: Final = 1 << 20
"""A log-probability of 1 nat, as results have it."""
DONE: Final = b"data: [DONE]\n\n"
_FINISH: Final = {
    inference_pb2.FINISH_REASON_STOP: "stop",
    inference_pb2.FINISH_REASON_STOP_STRING: "stop",
    inference_pb2.FINISH_REASON_LENGTH: "length",
}


@dataclass(frozen=True, slots=True)
class Heading:
    """What every object about one answer says."""

    is_chat: bool
    job: bytes
    transaction: bytes
    created_s: int
    model: str
    logprobs: bool
    include_usage: bool = False

    @property
    def identity(self) -> str:
        """The answer's id, from which the job's can be read."""
        return f"{'chatcmpl' if self.is_chat else 'cmpl'}-{self.job.hex()}"

    @property
    def receipt(self) -> str:
        """Where its receipt is, or will be."""
        return f"/v1/receipts/{self.job.hex()}"

    def headers(self) -> dict[str, str]:
        """Of every response about the job."""
        return {
            "x-request-id": self.job.hex(),
            "x-assay-job": self.job.hex(),
            "x-assay-transaction": self.transaction.hex(),
            "x-assay-receipt": self.receipt,
        }


def finish_reason(result: inference_pb2.InferenceResult) -> str:
    """Why the answer ended, in OpenAI's words."""
    return _FINISH.get(result.finish_reason, "stop")


def usage(result: inference_pb2.InferenceResult) -> dict[str, int]:
    """Tokens, as the chain counted and paid them."""
    output = len(result.token_ids)
    return {
        "prompt_tokens": result.input_tokens,
        "completion_tokens": output,
        "total_tokens": result.input_tokens + output,
    }


def proof(heading: Heading, settled: Settled) -> dict[str, Any]:
    """The member `assay` of an answer: what the chain ruled, and where that is proven."""
    ruled = settled.receipt.job_receipt
    return {
        "job": heading.job.hex(),
        "transaction": heading.transaction.hex(),
        "status": settled.status.name,
        "receipt": heading.receipt,
        "receipt_checked": settled.checked,
        "provider": None if ruled.provider is None else encode_address(ruled.provider),
        "verdicts": [
            {"validator": word.validator, "verdict": word.verdict.name} for word in ruled.verdicts
        ],
        "paid": settled.paid,
        "height": ruled.height,
    }


def whole(
    heading: Heading,
    pieces: Sequence[Tokens],
    result: inference_pb2.InferenceResult,
    settled: Settled,
) -> dict[str, Any]:
    """The answer that was not streamed."""
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish_reason(result)}
    choice["logprobs"] = _logprobs(heading, pieces, 0)
    if heading.is_chat:
        choice["message"] = {"role": "assistant", "content": result.text, "refusal": None}
    else:
        choice["text"] = result.text
    return {
        "id": heading.identity,
        "object": "chat.completion" if heading.is_chat else "text_completion",
        "created": heading.created_s,
        "model": heading.model,
        "system_fingerprint": result.engine_profile,
        "choices": [choice],
        "usage": usage(result),
        "assay": proof(heading, settled),
    }


def opening(heading: Heading) -> bytes:
    """The first event of a streamed chat: who speaks."""
    return _chunk(heading, {"role": "assistant", "content": ""}, "") if heading.is_chat else b""


def piece(heading: Heading, tokens: Tokens, offset: int) -> bytes:
    """The next tokens; `offset` is where in the answer's text they begin."""
    return _chunk(
        heading, {"content": tokens.text}, tokens.text, _logprobs(heading, [tokens], offset)
    )


def closing(heading: Heading, result: inference_pb2.InferenceResult, settled: Settled) -> bytes:
    """How it ended and what the chain ruled, then the usage if it was asked for, then the end."""
    profile = result.engine_profile
    ruled = {"assay": proof(heading, settled)}
    last = _chunk(
        heading, {}, "", None, finish_reason(result), {"system_fingerprint": profile, **ruled}
    )
    if heading.include_usage:
        last += event({**_base(heading), "choices": [], "usage": usage(result), **ruled})
    return last + DONE


def event(value: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def comment(text: str) -> bytes:
    """A server-sent line that clients pass over, and that keeps a connection in use. One line,
    whatever the text: a node that is not trusted may have written it."""
    return f": {' '.join(text.split())}\n\n".encode()


def _base(heading: Heading) -> dict[str, Any]:
    return {
        "id": heading.identity,
        "object": "chat.completion.chunk" if heading.is_chat else "text_completion",
        "created": heading.created_s,
        "model": heading.model,
    }


def _chunk(
    heading: Heading,
    delta: dict[str, str],
    text: str,
    logprobs: dict[str, Any] | None = None,
    finish: str | None = None,
    more: dict[str, Any] | None = None,
) -> bytes:
    said: dict[str, Any] = {"delta": delta} if heading.is_chat else {"text": text}
    choice = {"index": 0, **said, "logprobs": logprobs, "finish_reason": finish}
    unused = {"usage": None} if heading.include_usage else {}
    return event({**_base(heading), "choices": [choice], **unused, **(more or {})})


def _logprobs(heading: Heading, pieces: Sequence[Tokens], offset: int) -> dict[str, Any] | None:
    if not heading.logprobs:
        return None
    tokens: list[tuple[str, float, int]] = []
    for item in pieces:
        for token_id, logprob in zip(item.token_ids, item.logprobs, strict=True):
            # Text comes by the piece: it is a token's own only if the piece is one token.
            own = item.text if len(item.token_ids) == 1 else f"token_id:{token_id}"
            tokens.append((own, logprob / NATS, offset))
        offset += len(item.text)
    if not heading.is_chat:
        return {
            "tokens": [token for token, _, _ in tokens],
            "token_logprobs": [value for _, value, _ in tokens],
            "top_logprobs": None,
            "text_offset": [start for _, _, start in tokens],
        }
    return {
        "content": [
            {"token": token, "logprob": value, "bytes": list(token.encode()), "top_logprobs": []}
            for token, value, _ in tokens
        ],
        "refusal": None,
    }
