"""docs/run-book.md shows what the tools print: each incident is brought about here, and its output
compared with the page, but for paths, ports, digests and sizes, which differ from run to run.

ASSAY_WRITE_DOCS=1 writes the outputs into the page.
"""

import json
import os
import re
import shutil
import socket
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from typer.testing import CliRunner

from assay.v1 import transactions_pb2
from chain.cli.main import build_app
from chain.node.config import load_config
from chain.node.http import open_pages, serving
from chain.rejections import Rejection
from chain.store import STORE_NAME
from consensus.wal import WAL_NAME, FileDirectory
from tests.builders import key
from tests.chain.node.running_node import running_node, solitary_genesis
from tests.chain.node.test_http import free_port
from tests.chain.ran_home import make_home

PAGE = Path(__file__).resolve().parents[2] / "docs" / "run-book.md"
BLOCK = re.compile(r"(<!-- output: (?P<name>[a-z-]+) -->\n```text\n)(?P<text>.*?)(```)", re.DOTALL)
Usage = namedtuple("Usage", "total used free")
PASSED_OVER = (
    (re.compile(r"/\S*?/(?=home-|net/)"), "/srv/"),
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:PORT"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "DIGEST"),
    (re.compile(r"(?<=devnet-)[0-9a-f]{8,}|(?<=other-)[0-9a-f]{8,}"), "ID"),
    (re.compile(r"\b\d{3,} MiB"), "N MiB"),
    (re.compile(r"\b\d{3,} s\b"), "N s"),
    (re.compile(r"\b\d+ bytes\b"), "N bytes"),
)


def normal(text: str) -> str:
    """Without what differs from run to run."""
    for pattern, instead in PASSED_OVER:
        text = pattern.sub(instead, text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines()) + "\n"


def check(name: str, output: str) -> None:
    """The page has this output under this name."""
    page = PAGE.read_text()
    found = {match["name"]: match["text"] for match in BLOCK.finditer(page)}
    assert name in found, f"no output {name} in {PAGE.name}"
    if os.environ.get("ASSAY_WRITE_DOCS"):
        PAGE.write_text(
            BLOCK.sub(
                lambda at: at[1] + normal(output) + at[4] if at["name"] == name else at[0], page
            )
        )
        return
    assert normal(output) == found[name], "run this test with ASSAY_WRITE_DOCS=1, and read the diff"


def assay(*arguments: object) -> str:
    """What a command prints, and how it ends."""
    done = CliRunner().invoke(build_app(), [str(item) for item in arguments])
    log = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    return done.stdout + "\n".join(log) + f"\n(exit code {done.exit_code})"


def trouble(home: Path) -> str:
    """Of `assay node doctor` what is not fine."""
    lines = assay("node", "doctor", "--home", home).splitlines()
    kept = [line for line in lines if not line.startswith("fine ")]
    return "\n".join(kept)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that has run, on a disk with room."""
    usage = Usage(1 << 40, 0, 1 << 39)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    return make_home(tmp_path / "net")


def test_the_port_is_taken(home: Path) -> None:
    host, _, port = load_config(home).public_listen.rpartition(":")
    with socket.create_server((host, int(port))):
        check("port-taken", trouble(home))


def test_the_home_is_in_use(home: Path) -> None:
    directory = FileDirectory(load_config(home).data / "votes")
    try:
        check("home-in-use", assay("node", "start", "--home", home))
    finally:
        directory.close()


def test_the_keys_are_not_those_of_the_genesis(home: Path, tmp_path: Path) -> None:
    other = make_home(tmp_path / "other" / "net", runs=False)
    shutil.rmtree(home / "keys")
    shutil.copytree(other / "keys", home / "keys")
    check("wrong-keys", assay("node", "start", "--home", home))


def test_the_vote_log_is_lost(home: Path) -> None:
    (load_config(home).data / "votes" / WAL_NAME).unlink()
    check("votes-missing", trouble(home))


def test_the_store_is_of_another_chain(home: Path, tmp_path: Path) -> None:
    other = make_home(tmp_path / "other" / "net", name="other")
    data = load_config(home).data
    shutil.rmtree(data / STORE_NAME)
    shutil.move(load_config(other).data / STORE_NAME, data / STORE_NAME)
    check("wrong-store", trouble(home))


def test_a_runtime_is_out(home: Path) -> None:
    file = home / "node.toml"
    file.write_text(file.read_text().replace("runtimes = []", 'runtimes = ["127.0.0.1:1"]'))
    check("runtime-out", trouble(home))


def test_the_disk_is_full(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = Usage(1 << 40, 0, 120 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    check("disk-full", trouble(home))


def test_the_clock_is_behind(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chain.doctor.time.time_ns", lambda: 1_000_000_000_000_000_000)
    output = re.sub(r"begins \d+ s", "begins N s", trouble(home))
    check("clock-behind", output)


def test_a_setting_is_misspelt(home: Path) -> None:
    file = home / "node.toml"
    file.write_text("batch_intervall_ms = 20\n" + file.read_text())
    check("bad-config", assay("config", "check", "--home", home))


@pytest.mark.timeout(300)
async def test_the_others_cannot_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = Usage(1 << 40, 0, 1 << 39)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with open_pages(f"127.0.0.1:{free_port()}") as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with (
            running_node(tmp_path, solitary_genesis(validators=4)) as (node, _),
            serving(node, listening),
            httpx2.AsyncClient(base_url=url, timeout=60) as http,
        ):
            told = (await http.get("/readyz")).json()
            lines = (await http.get("/metrics")).text.splitlines()
    wanted: Callable[[str], bool] = lambda line: line.startswith("assay_peers_connected")  # noqa: E731
    check("no-quorum", json.dumps(told, indent=1) + "\n" + "\n".join(filter(wanted, lines)))


@pytest.mark.timeout(300)
async def test_a_client_is_turned_away(tmp_path: Path) -> None:
    limits = {"submit": {"per_second": 1, "burst": 1}}
    async with running_node(tmp_path, solitary_genesis("alice"), **limits) as (node, client):
        transfer = transactions_pb2.Transfer(to=key("bob").public_key, amount=1)
        operation = transactions_pb2.Op(transfer=transfer)
        told = ""
        while not told:
            try:
                await client.submit(await client.sign(key("alice"), [operation]))
            except Rejection as rejection:
                told = str(rejection)
        refused = dict(node.meter.refused)
    counted = [f'assay_ingress_refusals_total{{reason="{reason}"}} N' for reason in refused]
    check("busy", "\n".join([told, *counted]))
