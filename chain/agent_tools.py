"""What an agent may do with a chain, as functions from plain values to plain values.

`assay mcp` offers them to language models. Whoever talks to the model can make it call them, so
they can't do more than ask and look: what they spend is bounded by the session key they sign with,
on chain (docs/session-keys.md).
"""

import json
from typing import Any, Final

from chain.addresses import encode_address, parse_id
from chain.client import NodeUnavailableError
from chain.dapp.client import AsyncClient
from chain.dapp.events import Settled
from chain.dapp.following import NotSettledInTime
from chain.genesis import Genesis
from chain.readable import ReadableError
from chain.receipt_files import load
from chain.receipts import ReceiptInvalid, verify_receipt
from chain.records import JobStatus
from chain.rejections import Rejection, RejectionReason

MAX_TOKENS_MAX: Final = (1 << 32) - 1
TEMPERATURE_MAX: Final = 5
PRICE_MAX: Final = (1 << 63) - 1
RECEIPT_CHARACTERS_MAX: Final = 8 << 20
FAILURES: Final = (
    Rejection,
    NodeUnavailableError,
    NotSettledInTime,
    ReceiptInvalid,
    ReadableError,
)
"""What a tool may fail with; `told` has the words."""


class AgentTools:
    """The tools, for one account. All raise what `FAILURES` lists."""

    def __init__(self, client: AsyncClient, genesis: Genesis, deadline_s: float) -> None:
        self._client = client
        self._genesis = genesis
        self._deadline_s = deadline_s

    async def infer(
        self,
        prompt: str,
        system: str = "",
        max_tokens: int = 256,
        temperature: float = 0.0,
        model: str = "",
        max_price: int | None = None,
    ) -> dict[str, Any]:
        """Ask a model on chain and wait until validators have ruled on the answer.

        Costs grain (10^9 are one ASY), at most `max_price` and a fee; without it what the dearest
        offer asks. `model` may be empty if only one is registered. The text counts only if `status`
        is VERIFIED; verify_receipt with the job checks the proof.
        """
        if not (
            1 <= max_tokens <= MAX_TOKENS_MAX
            and 0 <= temperature <= TEMPERATURE_MAX
            and 0 <= (max_price or 0) <= PRICE_MAX
        ):
            raise Rejection(
                RejectionReason.BAD_SAMPLING,
                f"allowed are max_tokens 1 to {MAX_TOKENS_MAX}, temperature 0 to "
                f"{TEMPERATURE_MAX}, max_price 0 to {PRICE_MAX}",
            )
        settled: Settled | None = None
        events = self._client.infer(
            prompt,
            model,
            max_price,
            self._deadline_s,
            system=system,
            max_tokens=max_tokens,
            temperature=temperature,
        )
        async for event in events:
            if isinstance(event, Settled):
                settled = event
        if settled is None:
            raise NotSettledInTime("the question ended without a receipt; look at its job later")
        verified = settled.status is JobStatus.VERIFIED and settled.result is not None
        return {
            "status": settled.status.name,
            "text": settled.result.text if verified and settled.result is not None else "",
            "job": settled.receipt.job_receipt.job.hex(),
            "paid": settled.paid,
            "verdicts": [word.verdict.name for word in settled.receipt.job_receipt.verdicts],
        }

    async def verify_receipt(self, job: str = "", receipt: str = "") -> dict[str, Any]:
        """Check the proof that validators agreed on an answer, against the chain's genesis.

        Give a job id, whose receipt is fetched, or the text of a receipt's JSON file. No node is
        believed: every signature is checked here.
        """
        if bool(job) == bool(receipt) or len(receipt) > RECEIPT_CHARACTERS_MAX:
            raise Rejection(
                RejectionReason.MALFORMED,
                f"give a job id or a receipt of at most {RECEIPT_CHARACTERS_MAX} characters",
            )
        if job:
            found = await self._client.receipt(parse_id(job))
        else:
            found = load(receipt.encode())
        verified = verify_receipt(found, self._genesis)
        return {
            "valid": True,
            "job": verified.job.hex(),
            "status": verified.status.name,
            "text": None if verified.result is None else verified.result.text,
            "signed_stake": verified.signed_stake,
            "total_stake": verified.total_stake,
        }

    async def balance(self) -> dict[str, Any]:
        """What the account holds, in grain (10^9 are one ASY), and what may still be spent here."""
        client = self._client
        value: dict[str, Any] = {
            "account": encode_address(client.account),
            "balance": await client.balance(),
        }
        if client.account != client.key.public_key:
            session = await client.session()
            value["session"] = (
                None
                if session is None
                else {
                    "left": session.total_cap - session.spent,
                    "operation_cap": session.operation_cap,
                    "expires_at_height": session.expires_at_height,
                }
            )
        return value

    async def job_status(self, job: str) -> dict[str, Any]:
        """Where a job is: REQUESTED, ASSIGNED, ANSWERED, COMMITTING, REVEALING, VERIFIED, REJECTED
        or REFUNDED; who answers it, and what its committee has said."""
        view = await self._client.job(parse_id(job))
        return {
            "job": view.job.hex(),
            "status": view.status,
            "provider": encode_address(view.provider) if view.provider else None,
            "max_price": view.max_price,
            "committee": [
                {"validator": seat.validator, "verdict": seat.verdict or None}
                for seat in view.committee
            ],
        }


def told(error: Exception) -> str:
    """What a caller is told of a failure: reason, detail and what to do, as JSON."""
    value = {"reason": type(error).__name__, "detail": str(error)}
    if isinstance(error, Rejection):
        value = {"reason": error.reason, "detail": error.detail, "remedy": error.remedy}
    elif isinstance(error, ReceiptInvalid):
        value = {"reason": error.reason, "detail": error.detail}
    return json.dumps(value, ensure_ascii=False)
