"""The examples, run as they stand."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from chain import genesis as genesis_file
from chain import receipt_files
from chain.keys import Role
from chain.keystore import KdfCost, save_key
from chain.receipts import verify_receipt
from tests.builders import key
from tests.chain.gateway.tiny_network import BOUND_S, MODEL, TinyNetwork

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
NPM_BOUND_S = 240.0


def run(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def check(network: TinyNetwork, receipt: Path) -> None:
    verify_receipt(receipt_files.read(receipt), network.genesis)


def test_openais_client_leaves_a_receipt(
    network: TinyNetwork,
    open_gateway: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    receipt = tmp_path / "receipt.json"
    run(monkeypatch, "openai_chat.py", f"{open_gateway}/v1", "What is gold?", receipt)
    assert "VERIFIED for" in capsys.readouterr().out
    check(network, receipt)


def test_the_native_client_leaves_a_receipt(
    network: TinyNetwork,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    account, passphrase, genesis, receipt = (
        tmp_path / name for name in ("account.json", "passphrase", "genesis.json", "receipt.json")
    )
    cost = KdfCost(passes=1, memory_kib=64, lanes=1)
    save_key(account, key("alice"), Role.ACCOUNT, b"secret", cost)
    passphrase.write_text("secret")
    genesis_file.save(network.genesis, genesis)
    nodes = ",".join(["127.0.0.1:1", *network.nodes])
    run(
        *(monkeypatch, "native_client.py", nodes, account, passphrase),
        *(genesis, "What is gold?", receipt),
    )
    told = capsys.readouterr().out
    assert "VERIFIED for" in told
    check(network, receipt)
    result = receipt_files.to_json(receipt_files.read(receipt))["result"]
    assert told.startswith(result["text"])


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_leaves_a_receipt(network: TinyNetwork, open_gateway: str, tmp_path: Path) -> None:
    receipt = tmp_path / "receipt.json"
    answers = []
    for _ in range(2):
        done = subprocess.run(
            [EXAMPLES / "curl.sh", f"{open_gateway}/v1", MODEL, 'What is "gold"?\\n', receipt],
            capture_output=True,
            text=True,
            timeout=BOUND_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout.splitlines()[0]))
        check(network, receipt)
    assert answers[0]["assay"]["status"] == "VERIFIED"
    assert answers[0]["assay"]["job"] == answers[1]["assay"]["job"]  # repeated, it buys once


@pytest.mark.timeout(900, method="signal")  # an install, then the questions
@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_the_npm_client_works_unchanged(
    network: TinyNetwork, open_gateway: str, tmp_path: Path
) -> None:
    script = shutil.copy(EXAMPLES / "openai_chat.mjs", tmp_path)
    for command in (
        ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "openai@7"],
        ["node", script, f"{open_gateway}/v1", "What is gold?"],
    ):
        done = subprocess.run(
            command,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=NPM_BOUND_S,
            check=False,
            env={**os.environ, "NO_PROXY": "127.0.0.1"},
        )
        assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    job = network.ask(lambda node: node.job(bytes.fromhex(told["streamed"]["assay"]["job"])))
    assert told["streamed"]["text"] == job.result.text
    assert told["streamed"]["usage"]["completion_tokens"] == 8
    assert told["streamed"]["assay"]["status"] == "VERIFIED"
    whole = network.ask(lambda node: node.job(bytes.fromhex(told["whole"]["job"])))
    assert told["whole"]["text"] == whole.result.text
    assert told["refusal"] == {"kind": "BadRequestError", "code": "UNSUPPORTED", "param": "n"}
