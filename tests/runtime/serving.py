"""A runtime server over tiny engines, on a free loopback port, for the length of a block."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from assay.v1 import inference_pb2, runtime_pb2
from runtime.readiness import ReadinessBounds
from runtime.scheduled import ScheduledBackend, scheduled_backends
from runtime.service import RuntimeServer, ServiceLimits
from tests.runtime.tiny_engine import TinyEngine

LOOPBACK = "127.0.0.1"


def limits(
    queue_limit: int = 8, running_limit: int = 2, wall_time_s: float = 60.0, stall_s: float = 60.0
) -> ServiceLimits:
    readiness = ReadinessBounds(stall_s=stall_s, check_interval_s=0.02)
    return ServiceLimits(queue_limit, running_limit, wall_time_s, readiness)


def backends(
    *engines: TinyEngine, service_limits: ServiceLimits | None = None
) -> dict[bytes, ScheduledBackend]:
    by_model = {engine.package.model_id: engine for engine in engines}
    return scheduled_backends(by_model, (service_limits or limits()).shares())


@asynccontextmanager
async def serving(
    *engines: TinyEngine, service_limits: ServiceLimits | None = None, wait_ready: bool = True
) -> AsyncIterator[str]:
    """Yield the target of a running server."""
    chosen = service_limits or limits()
    server = RuntimeServer(backends(*engines, service_limits=chosen), chosen)
    port = await server.start(LOOPBACK, 0)
    try:
        if wait_ready:
            await server.wait_ready()
        yield f"{LOOPBACK}:{port}"
    finally:
        for engine in engines:
            engine.release()
        await server.stop(0)


def generate_request(
    engine: TinyEngine, text: str = "to assay", max_output_tokens: int = 8
) -> runtime_pb2.GenerateRequest:
    return runtime_pb2.GenerateRequest(
        model=engine.package.model_id,
        input=inference_pb2.InferenceInput(text=text),
        sampling=inference_pb2.Sampling(temperature_milli=800, max_output_tokens=max_output_tokens),
        seed=bytes(range(32)),
    )


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The ErrorInfo reason of a failed call."""
    infos = [
        info
        for detail in rpc_status.from_call(error).details
        if detail.Unpack(info := error_details_pb2.ErrorInfo())
    ]
    assert [info.domain for info in infos] == ["assay.runtime"]
    return str(infos[0].reason)


def retry_delay_s(error: grpc.aio.AioRpcError) -> float:
    """The RetryInfo delay of a failed call."""
    for detail in rpc_status.from_call(error).details:
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(retry):
            return float(retry.retry_delay.ToMilliseconds()) / 1000
    raise AssertionError("no RetryInfo")
