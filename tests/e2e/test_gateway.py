"""The gateway as a process, four validators and the real model behind it, `openai` in front."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest

from chain import receipt_files
from tests.e2e.network import COMMAND_BOUND_S, QUESTION, Network, command, output_of

pytestmark = pytest.mark.timeout(900, method="signal")


@contextmanager
def gateway(network: Network) -> Iterator[str]:
    """`assay gateway` on a free port: its URL. It must end well when it is told to."""
    process = subprocess.Popen(
        [
            *(Path(sys.executable).with_name("assay"), "gateway", "--home", network.home),
            *("--listen", "127.0.0.1:0", "--json"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(COMMAND_BOUND_S) == 0
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_a_streamed_answer_of_the_real_model_verifies_offline(
    network: Network, tmp_path: Path
) -> None:
    path = tmp_path / "receipt.json"
    with (
        gateway(network) as url,
        openai.OpenAI(base_url=url, api_key="none", timeout=COMMAND_BOUND_S) as client,
    ):
        (model,) = client.models.list().data
        chunks = list(
            client.chat.completions.create(
                model=model.id,
                messages=[{"role": "user", "content": QUESTION}],
                max_tokens=24,
                temperature=0,
                stop=[","],
                logprobs=True,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        proof = (chunks[-1].model_extra or {})["assay"]
        path.write_bytes(client.get(f"/receipts/{proof['job']}", cast_to=bytes))
    told = output_of(
        command("receipt", "verify", path, "--genesis", network.home / "genesis.json", "--json")
    )
    assert told["verdict"] == proof["status"] == "VERIFIED"
    assert proof["receipt_checked"]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == told["text"]
    assert "," not in text
    assert "gold" in text.lower()
    assert chunks[-2].choices[0].finish_reason == "stop"
    result = receipt_files.to_json(receipt_files.read(path))["result"]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len(result["token_ids"])
    values = [
        entry.logprob
        for chunk in chunks
        if chunk.choices and chunk.choices[0].logprobs is not None
        for entry in chunk.choices[0].logprobs.content or []
    ]
    assert [value * (1 << 20) for value in values] == result["logprobs"]
