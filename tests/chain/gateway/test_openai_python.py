"""The `openai` package against a gateway, unchanged, and what it then knows about its answer."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from chain import receipt_files
from chain.receipts import verify_receipt
from tests.builders import key
from tests.chain.gateway.tiny_network import BOUND_S, MODEL, TinyNetwork

QUESTION: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "Be brief."},
    {
        "role": "user",
        "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "gold?"}],
    },
]


@pytest.fixture
def client(network: TinyNetwork, open_gateway: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{open_gateway}/v1", api_key="any", timeout=BOUND_S) as made:
        yield made


def extra(value: Any) -> dict[str, Any]:
    """What the gateway adds to OpenAI's objects."""
    found: dict[str, Any] = value.model_extra["assay"]
    return found


def test_an_answer_is_the_result_on_chain_and_its_receipt_verifies_offline(
    network: TinyNetwork, client: openai.OpenAI
) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=QUESTION, max_tokens=6
    )
    answer = raw.parse()
    job = bytes.fromhex(raw.headers["x-assay-job"])
    view = network.ask(lambda node: node.job(job))
    assert view.status == "VERIFIED"
    assert answer.choices[0].message.content == view.result.text
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 6
    assert answer.usage.prompt_tokens == view.input_tokens
    assert answer.id == f"chatcmpl-{job.hex()}"
    assert extra(answer)["receipt_checked"]
    data = client.get(f"/receipts/{job.hex()}", cast_to=bytes)
    verified = verify_receipt(receipt_files.load(data), network.genesis)
    assert verified.receipt.job_receipt.job == job


def test_a_streamed_answer_ends_with_its_verdict(
    network: TinyNetwork, client: openai.OpenAI
) -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=QUESTION, max_completion_tokens=6, stream=True
        )
    )
    assert all(len(chunk.choices) == 1 for chunk in chunks)
    assert chunks[0].choices[0].delta.role == "assistant"
    told = extra(chunks[-1])
    view = network.ask(lambda node: node.job(bytes.fromhex(told["job"])))
    assert text_of(chunks) == view.result.text
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices[0].finish_reason == "length"
    assert told["status"] == "VERIFIED"


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_usage_comes_last_if_it_is_asked_for(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=QUESTION,
            max_tokens=3,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[-1].choices == []
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3
    assert extra(chunks[-1]) == extra(chunks[-2])


async def test_the_asynchronous_client_streams_too(network: TinyNetwork, open_gateway: str) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"{open_gateway}/v1", api_key="any", timeout=BOUND_S
    ) as client:
        stream = await client.chat.completions.create(
            model=MODEL, messages=QUESTION, max_tokens=4, stream=True
        )
        chunks = [chunk async for chunk in stream]
        whole = await client.completions.create(model=MODEL, prompt="gold", max_tokens=4)
    assert extra(chunks[-1])["status"] == "VERIFIED"
    assert len(whole.choices[0].text) == 4


def test_a_text_or_token_ids_are_continued(client: openai.OpenAI) -> None:
    by_text = client.completions.create(
        model=MODEL, prompt="gold", max_tokens=5, temperature=0, logprobs=0
    )
    ids = [ord(character) - 32 for character in "gold"]
    by_ids = client.completions.create(model=MODEL, prompt=ids, max_tokens=5, temperature=0)
    assert by_text.choices[0].text == by_ids.choices[0].text
    logprobs = by_text.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.token_logprobs is not None
    assert [value <= 0 for value in logprobs.token_logprobs] == [True] * 5


def test_a_seed_repeats_an_answer(client: openai.OpenAI) -> None:
    answers = [
        client.completions.create(model=MODEL, prompt="gold", max_tokens=8, seed=seed)
        for seed in (7, 7, 8)
    ]
    texts = [answer.choices[0].text for answer in answers]
    assert texts[0] == texts[1] != texts[2]


def test_log_probabilities_are_those_of_the_receipt(
    network: TinyNetwork, client: openai.OpenAI
) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=QUESTION, max_tokens=5, logprobs=True
    )
    view = network.ask(lambda node: node.job(bytes.fromhex(extra(answer)["job"])))
    told = answer.choices[0].logprobs
    assert told is not None
    assert told.content is not None
    assert [entry.logprob * (1 << 20) for entry in told.content] == list(view.result.logprobs)


def test_a_streamed_answer_of_the_older_kind(client: openai.OpenAI) -> None:
    chunks = list(
        client.completions.create(
            model=MODEL, prompt="gold", max_tokens=5, stream=True, logprobs=0, temperature=0
        )
    )
    whole = client.completions.create(model=MODEL, prompt="gold", max_tokens=5, temperature=0)
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    offsets: list[int] = []
    for chunk in chunks:
        if chunk.choices[0].logprobs is not None:
            offsets += chunk.choices[0].logprobs.text_offset or []
    assert len(offsets) == 5
    assert offsets == sorted(offsets)


def test_models_are_listed_and_found(network: TinyNetwork, client: openai.OpenAI) -> None:
    listed = client.models.list().data
    assert [model.id for model in listed] == [MODEL]
    identity = extra(listed[0])["model"]
    assert identity == network.engine.package.model_id.hex()
    assert client.models.retrieve(identity).id == MODEL


def test_what_the_protocol_cannot_do_is_refused_by_name(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=QUESTION, n=2)
    assert (caught.value.code, caught.value.param) == ("UNSUPPORTED", "n")
    assert "ask once for each" in caught.value.message


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-4", messages=QUESTION)
    assert caught.value.code == "UNKNOWN_MODEL"
    assert MODEL in caught.value.message


def test_what_the_chain_refuses_comes_with_its_reason(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model=MODEL, messages=QUESTION, stop=["1", "2", "3", "4", "5"]
        )
    assert caught.value.code == "BAD_SAMPLING"
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model=MODEL, messages=QUESTION, extra_body={"assay": {"max_price": 1}}
        )
    assert caught.value.code == "PRICE_TOO_LOW"


def test_a_prompt_that_no_provider_can_answer_is_not_bought(
    network: TinyNetwork, client: openai.OpenAI
) -> None:
    before = network.balance(key("alice"))
    for prompt, code in (([1, 99_999_999], "BAD_INPUT"), ("x" * 5000, "PROMPT_TOO_LONG")):
        with pytest.raises(openai.BadRequestError) as caught:
            client.completions.create(model=MODEL, prompt=prompt, max_tokens=1)
        assert caught.value.code == code
    assert network.balance(key("alice")) == before


def test_the_chains_own_options_reach_the_request(
    network: TinyNetwork, client: openai.OpenAI
) -> None:
    provider = key("account-1").public_key
    answer = client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        max_tokens=3,
        extra_body={"assay": {"top_k": 5, "tier": "critical", "provider": provider.hex()}},
    )
    data = client.get(f"/receipts/{extra(answer)['job']}", cast_to=bytes)
    request = json.loads(data)["request"]
    assert (request["sampling"]["top_k"], request["tier"]) == (5, "TIER_CRITICAL")
    assert request["provider"] == provider.hex()
    assert request["sampling"]["temperature_milli"] == 1000


async def test_many_questions_at_once_are_all_answered(
    network: TinyNetwork, open_gateway: str
) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"{open_gateway}/v1", api_key="any", timeout=BOUND_S
    ) as client:
        answers = await asyncio.gather(
            *(
                client.completions.create(model=MODEL, prompt=f"metal {number}", max_tokens=4)
                for number in range(6)
            )
        )
    assert len({extra(answer)["job"] for answer in answers}) == 6
    assert {extra(answer)["status"] for answer in answers} == {"VERIFIED"}
