"""The first run: two questions to a fresh devnet, each answered, audited, and proven offline."""

import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from assay.v1 import inference_pb2, transactions_pb2
from chain import genesis as genesis_file
from chain import receipt_files
from chain.asking import Answer, ask, pick_model, price_ceiling
from chain.client import NodeClient
from chain.devnet import Devnet
from chain.devnet_start import user_key
from chain.genesis import Genesis
from chain.receipts import verify_receipt

ANSWER_WITHIN_S = 600.0


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and how it is sampled."""

    prompt: str
    temperature_milli: int
    max_output_tokens: int


QUESTIONS = (
    Question("What does an assayer do? Answer in one sentence.", 0, 48),
    Question("Write two lines of verse about gold.", 800, 48),
)


@dataclass(frozen=True, slots=True)
class Proven:
    """One question's answer, and the receipt that was checked offline."""

    question: Question
    answer: Answer
    path: Path
    receipt_bytes: int
    """Of the receipt in protobuf form: all that somebody else needs, beside genesis."""
    result_bytes: int
    """Of the result on chain: token ids, log-probabilities, text."""
    blocks: int
    """From the request's block to the one that settled it."""


def take_tour(
    home: Path,
    devnet: Devnet,
    progress: Callable[[str], None],
    questions: Sequence[Question] = QUESTIONS,
) -> list[Proven]:
    """Ask every question and verify every receipt.

    Raises Rejection, NodeUnavailableError, or ReceiptInvalid.
    """
    genesis = genesis_file.load(home / devnet.genesis)
    return asyncio.run(_take(home, devnet, genesis, progress, questions))


async def _take(
    home: Path,
    devnet: Devnet,
    genesis: Genesis,
    progress: Callable[[str], None],
    questions: Sequence[Question],
) -> list[Proven]:
    key = user_key(home, devnet)
    proven = []
    for number, question in enumerate(questions, 1):
        node = devnet.nodes[(number - 1) % len(devnet.nodes)]
        progress(f"asking validator {node.index}: {question.prompt}")
        async with NodeClient(node.public) as client:
            request = await _request(client, question)
            answer = await ask(client, key, request, ANSWER_WITHIN_S, _show)
            job = await client.job(answer.job)
        sys.stdout.write("\n")
        path = home / "receipts" / f"receipt-{number}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(receipt_files.dump_json(answer.receipt))
        checked = verify_receipt(receipt_files.read(path), genesis)
        words = ", ".join(
            f"validator {word.validator} {word.verdict.name}"
            for word in checked.receipt.job_receipt.verdicts
        )
        progress(f"{checked.status.name}: {words}")
        proven.append(
            Proven(
                question,
                answer,
                path,
                len(receipt_files.dump_protobuf(answer.receipt)),
                len(answer.receipt.result or b""),
                answer.receipt.job_receipt.height - job.requested_height,
            )
        )
    return proven


async def _request(client: NodeClient, question: Question) -> transactions_pb2.RequestInference:
    chat = inference_pb2.Chat()
    chat.messages.add(role=inference_pb2.ROLE_USER, content=question.prompt)
    model = await pick_model(client, "")
    request = transactions_pb2.RequestInference(
        model=model.model,
        input=inference_pb2.InferenceInput(chat=chat),
        sampling=inference_pb2.Sampling(
            temperature_milli=question.temperature_milli,
            max_output_tokens=question.max_output_tokens,
        ),
    )
    request.max_price = await price_ceiling(client, await client.parameters(), model, request)
    return request


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
