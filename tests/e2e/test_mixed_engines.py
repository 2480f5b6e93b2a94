"""One engine answers, another verifies: vLLM and the reference engine on one real devnet.

Validator 1 runs vLLM, the others the reference engine. The model is registered with the measured
reports of (vLLM, reference) and (vLLM, vLLM), and with the reference engine's own pinned pair;
nobody measured how vLLM verifies the reference engine. Needs vLLM (tests/runtime/vllm/conftest.py).
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from chain import receipt_files
from chain.asking import Answer, ask
from chain.calibrations import PINNED, read_pair
from chain.client import NodeClient
from chain.devnet import start_node, stop_processes
from chain.node.config import edit_config
from chain.receipts import verify_receipt
from chain.records import CalibratedPair
from consensus.values import Verdict
from runtime.packages import REFERENCE_PROFILE, ModelPackage
from tests.conftest import REPOSITORY
from tests.e2e.network import (
    COMMAND_BOUND_S,
    Network,
    client_of,
    command,
    output_of,
    record_node,
    request_for,
    running_network,
    until,
)
from tests.runtime.vllm.conftest import vllm_process

pytestmark = pytest.mark.timeout(900, method="signal")

VLLM = 1
REFERENCE = 0
VLLM_PROFILE = "vllm-0.32/cpu/float32/tp1/pp1"
REPORTS = tuple(
    REPOSITORY / "bench" / "calibration" / f"{VLLM_PROFILE.replace('/', '+')}--{verifier}.json"
    for verifier in (REFERENCE_PROFILE, VLLM_PROFILE.replace("/", "+"))
)
TEMPERATURE_MILLI = 800


@pytest.fixture(scope="module")
def measured(smollm2_package: ModelPackage) -> CalibratedPair:
    """What honest vLLM results score with the reference engine."""
    return read_pair(REPORTS[0], smollm2_package.model_id)


@pytest.fixture(scope="module")
def network(
    smollm2_package: ModelPackage, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("mixed")
    options = [item for report in REPORTS for item in ("--calibration", report)]
    with (
        vllm_process(smollm2_package, folder, "--threads", "1") as served,
        running_network(folder / "devnet", smollm2_package.path, options=options) as running,
    ):
        node = running.nodes[VLLM]
        assert node.process is not None
        stop_processes([node.process])
        edit_config(running.home / node.home, runtimes=(served.target,))
        record_node(running, start_node(running.home, node))
        yield running


@pytest.fixture
async def client(network: Network) -> AsyncIterator[NodeClient]:
    """A client of a network whose validator 1 has said what its new runtime is."""
    async with client_of(network) as client:

        async def told() -> bool:
            (model,) = await client.models()
            offers = await client.offers(model.model)
            profiles = {offer.operator: offer.engine_profile for offer in offers}
            return profiles[VLLM] == VLLM_PROFILE

        await until(told)
        yield client


async def answer_of(network: Network, client: NodeClient, validator: int) -> Answer:
    request = await request_for(
        client, 24, temperature_milli=TEMPERATURE_MILLI, provider=network.account(validator)
    )
    answer = await ask(client, network.user, request, COMMAND_BOUND_S)
    assert answer.status == "VERIFIED"
    return answer


async def test_what_vllm_answers_the_reference_engine_verifies_by_their_pair(
    network: Network, client: NodeClient, measured: CalibratedPair, tmp_path: Path
) -> None:
    answer = await answer_of(network, client, VLLM)
    verified = verify_receipt(answer.receipt, network.genesis)
    assert verified.result is not None
    assert verified.result.engine_profile == VLLM_PROFILE
    words = answer.receipt.job_receipt.verdicts
    assert {word.validator for word in words} <= {0, 2, 3}
    assert len(words) >= 2
    for word in words:
        assert (word.verdict, word.engine_profile) == (Verdict.PASS, REFERENCE_PROFILE)
        assert word.thresholds == measured.thresholds
        assert word.scores.replay_mismatches == 0
    # Two engines, so two results of floating point; the pinned pair would have said FAIL.
    assert any(word.scores.distance_max > PINNED.distance_max for word in words)
    file = tmp_path / "receipt.json"
    file.write_bytes(receipt_files.dump_json(answer.receipt))
    genesis = network.home / network.devnet.genesis
    shown = output_of(command("receipt", "verify", file, "--genesis", genesis, "--json"))
    assert shown["engine_profile"] == VLLM_PROFILE
    assert {word["engine_profile"] for word in shown["verifiers"]} == {REFERENCE_PROFILE}
    (distance,) = {word["thresholds"]["distance_max"] for word in shown["verifiers"]}
    assert distance == measured.thresholds.distance_max


async def test_vllm_is_not_asked_to_judge_what_nobody_measured_it_on(
    network: Network, client: NodeClient
) -> None:
    (model,) = await client.models()
    profiles = {item.validator: item.engine_profile for item in model.verifiers}
    assert profiles[VLLM] == VLLM_PROFILE
    answer = await answer_of(network, client, REFERENCE)
    words = answer.receipt.job_receipt.verdicts
    assert {word.validator for word in words} == {2, 3}
    assert {word.thresholds.distance_max for word in words} == {PINNED.distance_max}
    assert {word.scores.distance_max for word in words} == {0}
