"""For each reason that the command line gives of its own, a command that ends for it.

`tests.chain.examples_of_reasons` puts them into docs/reasons.md.
"""

import json
import os
import resource
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, chdir, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from unittest.mock import patch

import grpc
from typer.testing import CliRunner

from assay.v1 import node_pb2
from chain.cli.main import build_app
from chain.genesis import save
from chain.keys import Role, new_mnemonic
from chain.keystore import KdfCost, save_key
from chain.node.config import NodeConfig, save_config
from chain.store import Store
from chain.validator_home import KEYS_FOLDER, TLS_CERTIFICATE_FILE, create_validator
from consensus.wire import encode
from tests.builders import genesis, key
from tests.chain.boundaries import boundary
from tests.runtime.tiny_model import tiny_package

NODE = "--node 127.0.0.1:1"
KEY = "--key key.json --passphrase-file passphrase"
GATEWAY = f"gateway {NODE}"
CASES = {
    "USAGE": "gateway --node 127.0.0.1:1 --jobs 0",
    "FILE": "receipt verify nowhere.json --genesis genesis.json",
    "UNREADABLE": "receipt verify broken.json --genesis genesis.json",
    "BAD_GENESIS": "genesis show broken.json",
    "BAD_VALIDATORS": "light show broken.json --genesis genesis.json",
    "BAD_CONFIG": "node prune --home misspelt --keep-blocks 512",
    "BAD_STORE": "node prune --home home --keep-blocks 512",
    "BAD_SNAPSHOT": "node restore --home home --from nowhere",
    "NODE_RUNS": "node prune --home running --keep-blocks 512",
    "CANNOT_START": "node start --home nowhere",
    "BAD_KEY": f"tx transfer ADDRESS 1 {NODE} --key broken.json --passphrase-file passphrase",
    "BAD_MNEMONIC": "keys new shop --from-mnemonic passphrase --passphrase-file passphrase",
    "NO_PASSPHRASE": "keys new shop",
    "NO_NODE": "query validators",
    "NO_DEVNET": "query validators --home nowhere",
    "NODE_UNAVAILABLE": f"query validators {NODE}",
    "NO_KEY": GATEWAY,
    "NO_API_KEYS": f"{GATEWAY} --listen 0.0.0.0:8088",
    "NO_BOOK": f"{GATEWAY} --api-keys nowhere.toml",
    "BAD_API_KEYS": f"{GATEWAY} --api-keys nowhere.toml --book book",
    "CANNOT_LISTEN": f"{GATEWAY} {KEY} --listen 127.0.0.1:PORT",
    "NO_SESSION": f"mcp {NODE}",
    "NO_GENESIS": f"mcp {NODE} --uncapped",
    "NO_MCP": f"mcp {NODE} --uncapped --genesis genesis.json {KEY}",
    "BAD_OPTIONS": "sim run --seeds 5:1",
    "BAD_REPORT": "sim market --calibration broken.json",
    "NOT_INSTALLED": "sim wan --validators 4 --seconds 1 --plots plots",
    "NO_RUNTIME": "devnet start --home net",
    "NO_MODEL": "devnet start --home net",
    "BAD_CERTIFICATE": "validator register --validator-home damaged --address 127.0.0.1:9 "
    f"--passphrase-file passphrase {NODE}",
    "BAD_BOUNDARY": "light follow --genesis genesis.json --node 127.0.0.1:LIAR",
    "BAD_PACKAGE": "model show nowhere",
    "RUNTIME_UNAVAILABLE": f"model audit --runtime 127.0.0.1:1 {NODE}",
    "BAD_LISTEN_ADDRESS": "runtime serve --model package --listen anywhere",
    "ENGINE_MISSING": "runtime serve --model package --engine vllm",
    "NO_PACKAGE": "bench runtime",
    "CALIBRATION_FAILED": "model calibrate package --work work --stage report",
    "NOTHING_TO_DRAW": "bench runtime package --kernels --plots plots",
    "BENCHMARK_FAILED": "bench ledger --transactions 64 --accounts 8 --validators 2 --directory on",
}
"""What is typed after `assay`."""
ABSENT = {
    "NO_MCP": "mcp",
    "NOT_INSTALLED": "matplotlib",
    "NO_RUNTIME": "runtime",
    "ENGINE_MISSING": "vllm",
}
"""Packages that are as if they were not installed."""
WITH_PACKAGE = ("ENGINE_MISSING", "CALIBRATION_FAILED")
SETTINGS = {"NO_MODEL": {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}}
"""Environment in which packages can't be had."""
FILE_BYTES_MAX = {"BENCHMARK_FAILED": 4096}
"""As if the disk were full."""
CHEAP = KdfCost(passes=1, memory_kib=64, lanes=1)


@cache
def provoked(code: str) -> Mapping[str, str]:
    """Reason and detail that the command of a case ends with."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = stack.enter_context(_setting(folder))
        stack.enter_context(chdir(folder))
        if code in WITH_PACKAGE:
            tiny_package(folder)
        if code in ABSENT:
            stack.enter_context(_without(ABSENT[code]))
        stack.enter_context(patch.dict(os.environ, SETTINGS.get(code, {})))
        if code in FILE_BYTES_MAX:
            stack.enter_context(_files_end_at(FILE_BYTES_MAX[code]))
        address = key("bob").public_key.hex()
        line = CASES[code].replace("ADDRESS", address).replace("PORT", str(port))
        if "LIAR" in line:
            line = line.replace("LIAR", str(stack.enter_context(_lying_node())))
        words = [*line.split(), *([] if line.startswith("mcp") else ["--json"])]
        done = CliRunner().invoke(build_app(), words, catch_exceptions=False)
        if done.exit_code == 0:
            raise AssertionError(f"assay {line} went well")
        found: dict[str, str] = json.loads(done.stderr.splitlines()[-1])
        return {
            name: text.replace(f"{folder}/", "").replace(str(port), "PORT")
            for name, text in found.items()
        }


@contextmanager
def _without(package: str) -> Iterator[None]:
    """As if a package were not installed, whoever imported parts of it before."""
    with patch.dict(sys.modules):
        for name in [name for name in sys.modules if name.startswith(f"{package}.")]:
            del sys.modules[name]
        sys.modules[package] = None  # type: ignore[assignment]
        yield


@contextmanager
def _files_end_at(size: int) -> Iterator[None]:
    """No file of this process and of those it starts grows beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _lie(_: node_pb2.BoundariesRequest, __: grpc.ServicerContext) -> node_pb2.BoundariesReply:
    """The end of the first epoch, with more stake for a validator than it says."""
    true = boundary(0)
    heavier = replace(true.members[0], stake=10**9)
    forged = replace(true, members=(heavier, *true.members[1:]))
    return node_pb2.BoundariesReply(boundaries=[encode(forged)])


@contextmanager
def _lying_node() -> Iterator[int]:
    server = grpc.server(ThreadPoolExecutor(1))
    method = grpc.unary_unary_rpc_method_handler(
        _lie,
        request_deserializer=node_pb2.BoundariesRequest.FromString,
        response_serializer=node_pb2.BoundariesReply.SerializeToString,
    )
    service = node_pb2.DESCRIPTOR.services_by_name["Proofs"].full_name
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {"ListBoundaries": method}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


@contextmanager
def _setting(folder: Path) -> Iterator[int]:
    """Keys, homes and files of all cases; a port that is taken."""
    save_key(folder / "key.json", key("alice"), Role.ACCOUNT, b"a passphrase", CHEAP)
    (folder / "passphrase").write_text("a passphrase\n")
    (folder / "broken.json").write_text("{")
    save(genesis(), folder / "genesis.json")
    for name in ("home", "running", "misspelt"):
        (folder / name).mkdir()
        save(genesis(), folder / name / "genesis.json")
        save_config(folder / name, NodeConfig(validator=0))
    create_validator(
        folder / "damaged", 0, "127.0.0.1:9", 0, new_mnemonic(), b"a passphrase", CHEAP
    )
    (folder / "damaged" / KEYS_FOLDER / TLS_CERTIFICATE_FILE).write_text("not PEM")
    with (folder / "misspelt" / "node.toml").open("a") as settings:
        settings.write("\n[storrage]\nkeep_blocks = 512\n")
    place, chain = folder / "running" / "data" / "store", genesis()
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        Store(place, chain.chain_id, chain.digest(), background=False),
    ):
        port: int = taken.getsockname()[1]
        yield port


def section() -> list[str]:
    """Lines of docs/reasons.md."""
    lines = [
        "",
        "# Reasons of the command line",
        "",
        "Beside the chain's, as `reason` and `detail` with `--json`, else in one line. Each with a",
        "command that ends for it.",
        "",
        "| reason | `assay …` | what it says |",
        "|---|---|---|",
    ]
    for code, command in CASES.items():
        detail = provoked(code)["detail"].partition("; last error")[0].replace("|", "\\|")
        lines.append(f"| {code} | `{command}` | {' '.join(detail.split())} |")
    return [
        *lines,
        "",
        "# Reasons of the gateway",
        "",
        "As `code`, beside the chain's: [Errors](gateway.md#errors) lists each with its status.",
    ]
