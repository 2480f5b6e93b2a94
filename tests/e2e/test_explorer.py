"""The explorer page of a real validator, in a real browser: web/tests/explorer.test.ts looks."""

import json
import os
import sys
from pathlib import Path

import pytest

from chain import genesis as genesis_file
from chain import receipt_files
from chain.client import NodeClient
from chain.explorer.routes import PAGE_FOLDER
from tests.builders import genesis
from tests.e2e.network import QUESTION, Network, client_of, command, output_of
from tests.web.page_tools import CHROMIUM, need, vitest

SCREENSHOTS = "ASSAY_SCREENSHOTS"
"""Names a folder to keep the screenshots in."""


async def transaction_of(client: NodeClient, job: bytes) -> tuple[str, int]:
    """The transaction that asked for a job, and its block."""
    receipt = await client.receipt(job)
    status = await client.transaction(receipt.transaction)
    return receipt.transaction.hex(), status.height


@pytest.mark.timeout(900)
async def test_the_explorer_shows_the_chain_and_proves_receipts_in_the_browser(
    network: Network, tmp_path: Path
) -> None:
    need(CHROMIUM.exists(), f"{CHROMIUM} is not installed: apt-get install chromium")
    need((PAGE_FOLDER / "index.html").is_file(), "the explorer page is not built: run make web")
    infer = ("infer", "--home", network.home, QUESTION, "--max-tokens")
    receipt = tmp_path / "receipt.json"
    answer = output_of(command(*infer, "8", "--receipt", receipt, "--json"))
    (tmp_path / "receipt.pb").write_bytes(
        receipt_files.dump_protobuf(receipt_files.load(receipt.read_bytes()))
    )
    genesis_file.save(genesis(), tmp_path / "other-genesis.json")
    async with client_of(network) as client:
        transaction, height = await transaction_of(client, bytes.fromhex(answer["job"]))
    setting = {
        "url": f"http://{network.nodes[0].http}",
        "ask": [str(Path(sys.executable).with_name("assay")), *map(str, infer), "32"],
        "receipt": str(receipt),
        "receipt_protobuf": str(tmp_path / "receipt.pb"),
        "genesis": str(network.home / network.devnet.genesis),
        "other_genesis": str(tmp_path / "other-genesis.json"),
        "job": answer["job"],
        "transaction": transaction,
        "block": height,
        "account": network.account(0).hex(),
        "screenshots": os.environ.get(SCREENSHOTS, str(tmp_path / "screenshots")),
    }
    shown = vitest("explorer.test.ts", ASSAY_EXPLORER=json.dumps(setting))
    assert "8 passed" in shown
