"""Brings a devnet up: processes first, then the market, step by step, each step told as it is
taken."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from assay.v1 import node_pb2, transactions_pb2
from chain.calibrations import CalibrationError, check_registered, read_pair, read_pairs
from chain.client import NodeClient, NodeUnavailableError
from chain.devnet import (
    Devnet,
    DevnetError,
    ProcessRecord,
    alive,
    create_devnet,
    load_devnet,
    point_to_runtimes,
    save_devnet,
    start_node,
    start_runtime,
    stop_processes,
    tail,
)
from chain.keys import KeyPair, Role
from chain.keystore import load_key, read_passphrase
from chain.pairs import pair_message, pair_record
from chain.parameters import Parameters
from chain.records import CalibratedPair
from chain.rejections import Rejection, RejectionReason
from chain.runtime_client import RuntimeClient
from chain.runtime_replies import ModelInfo

READY_WITHIN_S = 300.0
ROYALTY_BPS = 100

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class DevnetPlan:
    """What `assay devnet start` was asked for."""

    home: Path
    model: Path
    validators: int = 4
    runtimes: int = 1
    """Processes that all validators share."""
    runtime_per_validator: bool = False
    """One process for each validator and by it alone, instead."""
    threads: int = 2
    calibrations: tuple[Path, ...] = ()
    """Reports of the pairs to register the model with, beside the built-in engine's own."""
    epoch_blocks: int = 0
    """Of a new devnet: how many blocks an epoch has; 0 for one epoch for ever."""


def _rules(plan: DevnetPlan) -> Parameters:
    try:
        return Parameters(epoch_blocks=plan.epoch_blocks)
    except ValueError as error:
        raise DevnetError(f"{error}; choose other --epoch-blocks") from error


def start_devnet(plan: DevnetPlan, progress: Progress) -> Devnet:
    """Start (or start again) a devnet and wait until it answers questions. Raises DevnetError.

    If it fails, what it started is stopped again.
    """
    home = plan.home
    try:
        devnet = load_devnet(home)
        progress(f"devnet {devnet.chain_id} found in {home}")
    except DevnetError:
        progress(f"making keys and genesis for {plan.validators} validators in {home}")
        devnet = create_devnet(home, plan.validators, _rules(plan))
    running = [node.process for node in devnet.nodes if node.process and alive(node.process)]
    if running:
        raise DevnetError(f"{len(running)} of its nodes run already; stop them: assay devnet stop")
    started: list[ProcessRecord] = []
    try:
        devnet = _start_processes(plan, devnet, started, progress)
        asyncio.run(_open_market(plan, devnet, progress))
    except BaseException:
        stop_processes(started)
        raise
    return devnet


def _start_processes(
    plan: DevnetPlan, devnet: Devnet, started: list[ProcessRecord], progress: Progress
) -> Devnet:
    home = plan.home
    runtimes, nodes = [], list(devnet.nodes)
    for number in range(len(nodes) if plan.runtime_per_validator else plan.runtimes):
        progress(f"starting runtime {number} (the first start compiles its kernels)")
        runtime = start_runtime(home, plan.model, number, plan.threads)
        runtimes.append(runtime)
        started.append(runtime.process)
    progress(f"starting {len(nodes)} validators")
    addresses = [runtime.address for runtime in runtimes]
    for index, node in enumerate(nodes):
        own = [addresses[index]] if plan.runtime_per_validator else addresses
        nodes[index] = start_node(home, point_to_runtimes(home, node, own))
        process = nodes[index].process
        if process is not None:
            started.append(process)
    devnet = devnet.model_copy(update={"nodes": tuple(nodes), "runtimes": tuple(runtimes)})
    save_devnet(home, devnet)
    return devnet


async def _open_market(plan: DevnetPlan, devnet: Devnet, progress: Progress) -> None:
    deadline_s = time.monotonic() + READY_WITHIN_S
    await wait_ready(plan.home, devnet, deadline_s)
    progress("validators finalize blocks; waiting for the runtime's first token")
    model = await _runtime_model(devnet, deadline_s)
    async with NodeClient(devnet.nodes[0].public) as client:
        known = {view.model: view for view in await client.models()}
        pairs = _pairs_to_register(plan, model, known.get(model.model))
        if pairs:
            progress(f"registering {model.name}")
            await _register(plan, devnet, client, model, pairs)
        progress("waiting for offers and verifiers on chain")
        await _wait_market(client, model.model, len(devnet.nodes), deadline_s)


def _pairs_to_register(
    plan: DevnetPlan, model: ModelInfo, registered: node_pb2.ModelView | None
) -> tuple[CalibratedPair, ...]:
    """None if the model is registered already, with all that the reports fitted. Raises
    DevnetError."""
    try:
        if registered is None:
            return read_pairs(plan.calibrations, model.model, model.engine_profile)
        wanted = [read_pair(path, model.model) for path in plan.calibrations]
        check_registered(wanted, [pair_record(pair) for pair in registered.pairs])
    except CalibrationError as error:
        raise DevnetError(str(error)) from error
    return ()


async def wait_ready(home: Path, devnet: Devnet, deadline_s: float) -> None:
    """Return when every node answers and sees its peers. Raises DevnetError."""
    for node in devnet.nodes:
        log = home / node.home / "node.log"
        async with NodeClient(node.public) as client:
            while True:
                try:
                    status = await client.status(2.0)
                    if all(peer.connected for peer in status.peers):
                        break
                except NodeUnavailableError as error:
                    cause = str(error)
                else:
                    cause = "it does not see all its peers"
                if node.process is None or not alive(node.process):
                    raise DevnetError(
                        f"validator {node.index} ended; the end of {log}:\n{tail(log)}"
                    )
                if time.monotonic() > deadline_s:
                    raise DevnetError(f"validator {node.index} is not ready: {cause}; see {log}")
                await asyncio.sleep(0.1)


async def _runtime_model(devnet: Devnet, deadline_s: float) -> ModelInfo:
    async with RuntimeClient(devnet.runtimes[0].address) as runtime:
        while not await runtime.ready():
            if time.monotonic() > deadline_s:
                raise DevnetError(f"the runtime produced no token; see {devnet.runtimes[0].log}")
            await asyncio.sleep(0.2)
        models = await runtime.models()
        if not models:
            raise DevnetError("the runtime serves no model; name a package with --model")
        return models[0]


def user_key(home: Path, devnet: Devnet) -> KeyPair:
    """The devnet's funded account."""
    passphrase = read_passphrase(home / devnet.user_passphrase)
    return load_key(home / devnet.user_key, passphrase, Role.ACCOUNT)


async def _register(
    plan: DevnetPlan,
    devnet: Devnet,
    client: NodeClient,
    model: ModelInfo,
    pairs: Sequence[CalibratedPair],
) -> None:
    operation = transactions_pb2.Op(
        register_model=transactions_pb2.RegisterModel(
            model=model.model,
            name=model.name,
            context_tokens=model.context_tokens,
            royalty_bps=ROYALTY_BPS,
            pairs=[pair_message(pair) for pair in pairs],
            parameters=model.parameters,
        )
    )
    try:
        signed = await client.sign(user_key(plan.home, devnet), [operation])
        status = await client.wait(await client.submit(signed), 60.0)
        if not status.accepted:
            raise Rejection(RejectionReason(status.reason), "refused at execution")
    except (Rejection, NodeUnavailableError) as error:
        raise DevnetError(f"registering {model.name} failed: {error}") from error


async def _wait_market(
    client: NodeClient, model: bytes, validators: int, deadline_s: float
) -> None:
    while True:
        offers = await client.offers(model)
        views = [view for view in await client.models() if view.model == model]
        verifiers = len(views[0].verifiers) if views else 0
        if len(offers) >= validators and verifiers >= validators:
            return
        if time.monotonic() > deadline_s:
            raise DevnetError(
                f"{len(offers)} offers and {verifiers} verifiers on chain, expected {validators} "
                "of each; see the node.log files"
            )
        await asyncio.sleep(0.1)
