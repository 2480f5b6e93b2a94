"""The verbs of the runtime: what they print, what they refuse."""

import asyncio
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import grpc
import pytest
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc
from typer.testing import CliRunner

from chain.cli.main import build_app
from runtime.backend import EngineDeadError
from runtime.cli import (
    ListenAddress,
    read_listen,
    run_service,
    run_until_stopped,
    runtime_app,
)
from runtime.scheduled import ScheduledBackend
from tests.runtime.serving import LOOPBACK, backends, limits
from tests.runtime.tiny_engine import TinyEngine

runner = CliRunner()
SOON_S = 60.0


@pytest.mark.parametrize("text", ["127.0.0.1", ":1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:-1"])
def test_a_listen_address_needs_a_host_and_a_port(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{text!r} is not HOST:PORT")):
        read_listen(text, allow_remote=False)


def test_a_port_has_a_bound() -> None:
    with pytest.raises(ValueError, match="port 65536 is over 65535"):
        read_listen("127.0.0.1:65536", allow_remote=False)


def test_other_machines_reach_the_runtime_only_when_told_so() -> None:
    with pytest.raises(ValueError, match="add --allow-remote"):
        read_listen("0.0.0.0:7000", allow_remote=False)
    assert read_listen("0.0.0.0:7000", allow_remote=True) == ListenAddress("0.0.0.0", 7000)
    assert read_listen("[::1]:0", allow_remote=False) == ListenAddress("[::1]", 0)


def test_serve_refuses_a_remote_address_before_it_loads_a_model(tmp_path: Path) -> None:
    arguments = ["serve", "--model", str(tmp_path), "--listen", "0.0.0.0:1", "--json"]
    result = runner.invoke(runtime_app, arguments)
    assert result.exit_code == 2
    assert json.loads(result.stderr)["reason"] == "BAD_LISTEN_ADDRESS"
    assert result.stdout == ""


@pytest.mark.parametrize("verb", ["show", "serve"])
def test_a_directory_that_is_no_package_is_named(verb: str, tmp_path: Path) -> None:
    missing = str(tmp_path / "nothing")
    if verb == "show":
        result = runner.invoke(build_app(), ["model", "show", missing, "--json"])
    else:
        result = runner.invoke(runtime_app, ["serve", "--model", missing, "--json"])
    assert result.exit_code == 1
    error = json.loads(result.stderr.splitlines()[-1])
    assert error["reason"] == "BAD_PACKAGE"
    assert "nothing" in error["detail"]


@pytest.mark.parametrize("option", ["--threads", "--running-limit"])
def test_a_bound_of_zero_is_a_wrong_call(option: str, tmp_path: Path) -> None:
    result = runner.invoke(runtime_app, ["serve", "--model", str(tmp_path), option, "0"])
    assert result.exit_code == 2


class Told:
    """The events that the service has printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.events: list[dict[str, Any]] = []
        self._capsys = capsys

    def read(self) -> list[str]:
        """What each was, up to now."""
        self.events += map(json.loads, self._capsys.readouterr().out.splitlines())
        return [event["event"] for event in self.events]

    async def until(self, event: str) -> None:
        async with asyncio.timeout(SOON_S):
            while event not in self.read():
                await asyncio.sleep(0.01)


async def test_the_service_tells_its_port_gets_ready_and_stops_on_a_signal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine, port_file = TinyEngine(), tmp_path / "port"
    service = asyncio.create_task(
        run_service(backends(engine), limits(), ListenAddress(LOOPBACK, 0), port_file, as_json=True)
    )
    told = Told(capsys)
    await told.until("ready")
    port = int(port_file.read_text())
    async with grpc.aio.insecure_channel(f"{LOOPBACK}:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        reply = await stub.Check(health_pb2.HealthCheckRequest())
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(service, SOON_S)
    assert told.read() == ["listening", "ready", "stopped"]
    assert told.events[0]["port"] == port
    assert told.events[0]["models"] == [engine.package.model_id.hex()]
    assert list(tmp_path.iterdir()) == [port_file]


async def test_a_dead_engine_ends_the_process_so_that_it_is_started_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, reason = TinyEngine(), [""]
    served = backends(engine)
    monkeypatch.setattr(ScheduledBackend, "death", lambda _: reason[0])
    service = asyncio.create_task(
        run_service(served, limits(), ListenAddress(LOOPBACK, 0), tmp_path / "port", as_json=True)
    )
    told = Told(capsys)
    await told.until("ready")
    assert not service.done()
    reason[0] = "the core has died"
    with pytest.raises(EngineDeadError, match="the core has died"):
        await asyncio.wait_for(service, SOON_S)
    assert told.read() == ["listening", "ready", "stopped"]


def test_the_verb_of_a_dead_engine_ends_for_that_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def serve() -> None:
        raise EngineDeadError("the core has died")

    with pytest.raises(typer.Exit) as ended:
        run_until_stopped(serve(), as_json=True)
    assert ended.value.exit_code == 1
    assert json.loads(capsys.readouterr().err) == {
        "reason": "ENGINE_DIED",
        "detail": "the core has died",
    }
