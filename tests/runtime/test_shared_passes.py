"""Generations that share passes of the model: who takes part, and what each of them gets."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from runtime.backend import Asked, Started
from runtime.engine import (
    Completion,
    Engine,
    SamplingRule,
    SharedPass,
    SharingEngine,
    Step,
    TextInput,
    TokenInput,
)
from runtime.reference.engine import MAX_PASS_TOKENS, ReferenceEngine
from runtime.reference.model import Extension
from runtime.scheduled import ScheduledBackend
from runtime.scheduler import (
    BUFFERED_ITEMS_MAX,
    JobFailedError,
    Scheduler,
    Share,
    Work,
    Workload,
)
from tests.runtime.test_reference_engine import run
from tests.runtime.test_scheduler import FAR_S, ManualClock, make_scheduler
from tests.runtime.tiny_engine import TinyEngine
from tests.runtime.tiny_model import TinyModel, tiny_package

LIMIT = 3


@dataclass
class Recorded(SharedPass):
    """A pass that writes down with whom it was run; at most LIMIT together."""

    name: str
    trace: list[str]
    broken: bool = False
    done: bool = field(default=False, init=False)

    def run_with(self, others: Sequence[SharedPass]) -> Sequence[SharedPass]:
        members = [self, *(other for other in others if isinstance(other, Recorded))][:LIMIT]
        if any(member.broken for member in members):
            raise ArithmeticError("broken")
        self.trace.append("".join(member.name for member in members))
        for member in members:
            member.done = True
        return members


def sharing(
    name: str, passes: int, trace: list[str], broken: bool = False, blocks: int = 0
) -> Work[str, int]:
    for index in range(passes):
        turn = Recorded(name, trace, broken)
        yield turn
        assert turn.done
        # Only the first passes of a generation, those over its prompt, give nothing.
        if index >= blocks:
            yield f"{name}{index}"
    return passes


async def test_jobs_at_a_pass_share_it_and_each_gets_its_own_items() -> None:
    scheduler, trace = make_scheduler(running_limit=4), list[str]()
    jobs = [
        scheduler.submit(Workload.GENERATE, sharing(name, passes, trace, blocks=blocks), FAR_S)
        for name, passes, blocks in (("a", 2, 0), ("b", 3, 1))
    ]
    while scheduler.run_step():
        pass
    assert trace == ["ab", "ab", "b"]
    found = [[item async for items in job.batches() for item in items] for job in jobs]
    assert found == [["a0", "a1"], ["b1", "b2"]]
    assert [await job.result() for job in jobs] == [2, 3]


async def test_more_jobs_than_fit_a_pass_take_turns() -> None:
    scheduler, trace = make_scheduler(running_limit=5), list[str]()
    for name in "abcde":
        scheduler.submit(Workload.GENERATE, sharing(name, 6, trace), FAR_S)
    while scheduler.run_step():
        pass
    shares = {name: sum(name in members for members in trace) for name in "abcde"}
    assert set(shares.values()) == {6}
    assert len(trace) <= 12
    middle = "".join(trace[2:-3])
    assert max(map(middle.count, "abcde")) - min(map(middle.count, "abcde")) <= 1


async def test_jobs_of_other_workloads_and_parked_jobs_take_no_part() -> None:
    scheduler, trace = make_scheduler(running_limit=4), list[str]()
    for kind, name in ((Workload.GENERATE, "g"), (Workload.VERIFY, "v")):
        scheduler.submit(kind, sharing(name, 3, trace), FAR_S)
    scheduler.submit(Workload.GENERATE, sharing("s", BUFFERED_ITEMS_MAX + 9, trace), FAR_S)
    while scheduler.run_step():
        pass
    assert sum("v" in members for members in trace) == trace.count("v") == 3
    assert sum("s" in members for members in trace) == BUFFERED_ITEMS_MAX


async def test_a_job_that_breaks_a_pass_ends_alone() -> None:
    scheduler, trace = make_scheduler(running_limit=4), list[str]()
    good = scheduler.submit(Workload.GENERATE, sharing("a", 3, trace), FAR_S)
    bad = scheduler.submit(Workload.GENERATE, sharing("b", 3, trace, broken=True), FAR_S)
    other = scheduler.submit(Workload.GENERATE, sharing("c", 3, trace), FAR_S)
    while scheduler.run_step():
        pass
    assert (await good.result(), await other.result()) == (3, 3)
    with pytest.raises(JobFailedError, match="ArithmeticError: broken"):
        await bad.result()


async def test_a_job_cancelled_while_it_waits_for_a_pass_is_closed_and_left_out() -> None:
    scheduler, trace = make_scheduler(running_limit=4), list[str]()
    kept = scheduler.submit(Workload.GENERATE, sharing("a", 3, trace), FAR_S)
    work = sharing("b", 3, trace)
    leaving = scheduler.submit(Workload.GENERATE, work, FAR_S)
    while "ab" not in trace and "ba" not in trace:
        assert scheduler.run_step()
    leaving.cancel()
    while scheduler.run_step():
        pass
    assert await kept.result() == 3
    assert trace[1:] == ["a", "a"] and getattr(work, "gi_frame", work) is None


async def test_the_time_of_a_shared_pass_is_counted_once() -> None:
    clock, trace = ManualClock(), list[str]()
    scheduler = make_scheduler(clock, running_limit=LIMIT)

    class Slow(Recorded):
        def run_with(self, others: Sequence[SharedPass]) -> Sequence[SharedPass]:
            clock.now_s += 1.0
            return super().run_with(others)

    def slow(name: str) -> Work[str, int]:
        for _ in range(60):
            yield Slow(name, trace)
            yield name
        return 60

    def alone() -> Work[str, int]:
        for _ in range(60):
            clock.now_s += 1.0
            trace.append("v")
            yield "v"
        return 60

    for name in "abc":
        scheduler.submit(Workload.GENERATE, slow(name), FAR_S)
    scheduler.submit(Workload.VERIFY, alone(), FAR_S)
    for _ in range(60):
        scheduler.run_step()
    assert abs(trace.count("v") - sum(members != "v" for members in trace)) <= 2


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> ReferenceEngine:
    return ReferenceEngine.load(tiny_package(tmp_path_factory.mktemp("sharing")))


def test_which_engines_share(engine: ReferenceEngine) -> None:
    others: list[Engine] = [engine, TinyEngine()]
    assert [isinstance(other, SharingEngine) for other in others] == [True, False]


async def collect(backend: ScheduledBackend, asked: Asked) -> tuple[list[Step], Completion]:
    steps, completion = list[Step](), None
    async for event in backend.generate(asked, FAR_S):
        if isinstance(event, list):
            steps += event
        elif not isinstance(event, Started):
            completion = event
    assert completion is not None
    return steps, completion


async def test_generations_in_flight_share_passes_and_get_what_each_would_alone(
    engine: ReferenceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [
        Asked(
            TextInput("hello " * (1 + 2 * number)) if number % 2 else TokenInput((5,) * 70),
            SamplingRule(300 * (number % 4), 0, 950, 10 + number),
            bytes([number]) * 32,
        )
        for number in range(6)
    ]
    alone = [
        run(engine.generate(engine.tokenize(one.input), one.sampling, one.seed)) for one in asked
    ]
    sizes: list[int] = []
    whole = engine._model.extend_together

    def watched(extensions: Sequence[Extension]) -> object:
        sizes.append(len(extensions))
        assert sum(len(extension.token_ids) for extension in extensions) <= MAX_PASS_TOKENS
        return whole(extensions)

    monkeypatch.setattr(engine._model, "extend_together", watched)
    scheduler = Scheduler(dict.fromkeys(Workload, Share(8, 8)))
    backend = ScheduledBackend(engine, scheduler)
    tasks = [asyncio.ensure_future(collect(backend, one)) for one in asked]
    await asyncio.sleep(0)
    await backend.start()
    found = await asyncio.gather(*tasks)
    await backend.stop()
    assert [completion for _, completion in found] == alone
    for steps, completion in found:
        assert tuple(step.token_id for step in steps) == completion.token_ids
    assert max(sizes) == 6
    assert len(sizes) < sum(len(completion.token_ids) for completion in alone) / 2
    assert backend.last_token_s is not None


def test_two_models_never_share_a_pass(engine: ReferenceEngine, tmp_path: Path) -> None:
    other = ReferenceEngine.load(tiny_package(tmp_path, TinyModel(seed=8)))
    rule = SamplingRule(0, 0, 0, 3)
    works = [each.generate_together([5, 6], rule, bytes(32)) for each in (engine, other, engine)]
    first, second, third = (next(work) for work in works)
    assert isinstance(first, SharedPass) and isinstance(second, SharedPass)
    assert isinstance(third, SharedPass)
    assert list(first.run_with([second, third])) == [first, third]
    assert isinstance(next(works[0]), Step) and isinstance(next(works[2]), Step)
    with pytest.raises(RuntimeError, match="before its pass was run"):
        next(works[1])
