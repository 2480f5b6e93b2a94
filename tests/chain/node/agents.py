"""What the tests of a node's agents share: a runtime of their own, a store, a job."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from assay.v1 import inference_pb2, transactions_pb2
from chain.execution.jobs import request_digest, result_digest
from chain.keys import KeyPair
from chain.records import Job, JobStatus
from chain.store import Store
from tests.builders import genesis, key
from tests.chain.finished_job import Chain
from tests.chain.ledger_world import World, a_request
from tests.runtime.tiny_engine import TinyEngine

PROVIDER: KeyPair = key("account-1")
PROFILE = "tiny-exact"
"""What the tiny engine reports."""
SEED = bytes(range(32))
JOB = b"j" * 32
NOW_MS = 1_000_000
SOON_S = 60.0
"""Nothing here takes nearly as long; a test that waits longer has failed."""


@contextmanager
def store_of(folder: Path) -> Iterator[tuple[Store, Chain]]:
    """A store at height 1, to which blocks with payloads can be added."""
    with Store(folder / "store", genesis().chain_id, genesis().digest()) as store:
        chain = Chain.start(store)
        chain.commit()
        yield store, chain


def assigned_job(chain: Chain, engine: TinyEngine, text: str = "to assay", tokens: int = 8) -> Job:
    """A job that the chain has just given to PROVIDER, its request stored."""
    world = World()
    world.open_market()
    request = a_request(text, tokens)
    request.sampling.temperature_milli = 800
    identity = world.request(request)
    world.block()
    signed = transactions_pb2.RequestInference()
    signed.CopyFrom(request)
    signed.model = engine.package.model_id
    data = signed.SerializeToString()
    chain.commit(payloads=((request_digest(data), data),))
    return world.job(identity)._replace(
        model=engine.package.model_id,
        request_digest=request_digest(data),
        provider=PROVIDER.public_key,
        engine_profile=PROFILE,
        status=JobStatus.ASSIGNED,
        seed=SEED,
        deadline_ms=NOW_MS + 60_000,
    )


def answered_job(chain: Chain, job: Job, result: inference_pb2.InferenceResult) -> Job:
    """The job once a result for it is on chain."""
    data = result.SerializeToString()
    chain.commit(payloads=((result_digest(data), data),))
    return job._replace(
        status=JobStatus.ANSWERED,
        result_digest=result_digest(data),
        input_tokens=result.input_tokens,
        output_tokens=len(result.token_ids),
    )
