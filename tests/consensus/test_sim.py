"""Whole worlds: whatever links, disks and liars do, the rules hold and the chain goes on."""

import io
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from consensus.sim.invariants import InvariantBroken
from consensus.sim.mutants import MUTANTS, planted
from consensus.sim.play import Run, hunt, parse_names, play, reduced
from consensus.sim.scenario import PROFILES, Hazard, Misdeed, Scenario, draw
from consensus.sim.world import BLOCKS_TO_BE_LIVE, World
from consensus.values import ValidatorSet

SEEDS = {"all": range(12), "harsh": range(8), "byzantine": range(4), "sweep": range(8)}


@pytest.mark.parametrize("profile", SEEDS)
def test_the_rules_hold_under_faults_and_everybody_goes_on_after_them(profile: str) -> None:
    for seed in SEEDS[profile]:
        verdict = play(Run(profile, seed, 4))
        assert verdict.violation is None, verdict.run.command()
        assert verdict.fate is not None
        assert verdict.fate.height >= verdict.fate.height_at_calm + BLOCKS_TO_BE_LIVE


def test_nothing_is_executed_whose_batches_a_power_loss_may_still_take() -> None:
    verdict = play(Run("all", 164, 10))  # loses power between a batch and its block's execution
    assert verdict.violation is None, verdict.run.command()


@pytest.mark.parametrize("count", [5, 7])
def test_more_validators_of_different_weight_go_on_too(count: int) -> None:
    verdict = play(Run("all", 1, count, stakes=(1, 2, 3, 1, 2, 1, 1)[:count]))
    assert verdict.violation is None
    assert verdict.fate is not None


def test_real_signatures_and_vrf_change_nothing() -> None:
    fate = World(replace(draw("harsh", 3, 4), calm_at_ms=500, real_crypto=True)).run()
    assert fate.height >= fate.height_at_calm + BLOCKS_TO_BE_LIVE


def test_the_same_seed_gives_the_same_trace_byte_for_byte_and_another_seed_another() -> None:
    def trace(seed: int) -> tuple[str, str]:
        sink = io.StringIO()
        fate = play(Run("all", seed, 4), sink).fate
        assert fate is not None
        return sink.getvalue(), fate.digest

    assert trace(7) == trace(7)
    assert trace(7)[1] != trace(0)[1]
    assert "Vote NOTARIZE view 1" in trace(7)[0]


def test_a_trace_does_not_depend_on_the_order_of_sets() -> None:
    code = "from consensus.sim.play import Run, play\nprint(play(Run('harsh', 4, 4)).fate.digest)"
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


# --- what a scenario is ---------------------------------------------------------------------------


def test_byzantine_validators_never_hold_a_third_of_the_stake() -> None:
    for count in (4, 7, 10, 31):
        for seed in range(50):
            scenario = draw("byzantine", seed, count)
            weight = sum(scenario.stakes[index] for index, _ in scenario.byzantine)
            assert 0 < 3 * weight < sum(scenario.stakes)


def test_fifty_seeds_draw_everything_that_may_go_wrong() -> None:
    def drawn(profile: str) -> set[Hazard | Misdeed]:
        return {name for seed in range(50) for name in draw(profile, seed, 7).hazards()}

    assert drawn("epochs") == {*Hazard, *Misdeed} - {Hazard.LOST_LOG}
    assert drawn("all") == {*Hazard, *Misdeed} - {Misdeed.BAD_SET}


def test_what_is_left_out_of_a_scenario_is_gone_and_the_rest_stays() -> None:
    for seed in range(20):
        scenario = draw("all", seed, 7)
        for name in scenario.hazards():
            fewer = scenario.without(name)
            assert fewer.hazards() == tuple(n for n in scenario.hazards() if n != name)


@pytest.mark.parametrize("count", [3, 32])
def test_numbers_of_validators_out_of_bounds_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match="allowed are 4 to 31"):
        draw("all", 1, count)


def test_names_of_faults_are_read_back_and_others_refused() -> None:
    assert parse_names("loss,twins") == (Hazard.LOSS, Misdeed.TWINS)
    assert parse_names("none") == ()
    with pytest.raises(ValueError, match="nothing that may go wrong is called 'rain'"):
        parse_names("loss,rain")


# --- what happens in a world ----------------------------------------------------------------------


def test_twins_are_convicted_and_nobody_else_is() -> None:
    twins = ((2, frozenset({Misdeed.TWINS})),)
    fate = World(Scenario(seed=5, byzantine=twins)).run()
    assert fate.convicted == (2,)


@pytest.mark.parametrize("misdeed", Misdeed)
def test_each_misdeed_alone_breaks_no_rule(misdeed: Misdeed) -> None:
    liar = ((1, frozenset({misdeed})),)
    fate = World(Scenario(seed=2, byzantine=liar, calm_at_ms=800)).run()
    assert set(fate.convicted) <= {1}


def test_a_chain_without_work_is_quiet_between_heartbeats() -> None:
    def messages(until_ms: int) -> int:
        idle = Scenario(seed=1, seal_every_ms=0, delay_ms_max=5, calm_at_ms=0)
        return World(idle).run(until_ms).messages

    # The heartbeat is 2,000 ms: blocks fall at about 2.0 and 4.0 s.
    assert messages(1_800) == messages(200)
    assert messages(3_800) == messages(2_500) > messages(1_800)


def test_logs_are_compacted_and_validators_come_back_from_them() -> None:
    crashing = draw("disks", 2, 4)
    fate = World(replace(crashing, compact_after_records=12, seal_every_ms=150)).run()
    assert fate.compactions > 0
    assert fate.crashes > 0


def test_slow_disks_are_fast_again_after_the_faults() -> None:
    world = World(Scenario(seed=1, slow_disk_ms_max=60, calm_at_ms=500))
    assert any(machine.disk.slow_ms_max for machine in world.machines)
    world.run()
    assert not any(machine.disk.slow_ms_max for machine in world.machines)


def test_a_world_that_cannot_go_on_is_a_violation() -> None:
    deaf = replace(draw("calm", 1, 4), live_within_ms=1)
    with pytest.raises(InvariantBroken, match="not live within 1 ms after the faults"):
        World(deaf).run()


def test_vote_logs_get_lost_and_their_validators_sign_nothing_twice() -> None:
    fates = [play(Run("forgetful", seed, 5)).fate for seed in range(6)]
    assert all(fate is not None and fate.live_after_ms is not None for fate in fates)
    assert any(fate is not None and fate.lost_logs > 1 for fate in fates)


def test_without_the_logs_of_a_third_the_chain_stands_still_until_they_are_back() -> None:
    scenario = replace(draw("amnesia", 2, 4), amnesia_at_ms=500, calm_at_ms=6_000)
    lost = World(scenario)
    lost.run(5_500)
    lost_at = [machine.number for machine in lost.machines if not machine.remembers]
    assert len(lost_at) >= 2
    halted = lost.invariants.height
    assert 0 < halted < 10
    fate = World(scenario).run()
    assert fate.live_after_ms is not None


# --- mutants: a simulator that cannot find planted faults proves nothing --------------------------

QUICK = (
    "forget-finalize-rule",
    "lock-not-kept",
    "forget-votes",
    "sign-without-a-log",
    "speak-before-writing",
    "quorum-one-short",
    "count-twice",
    "two-votes",
    "proof-of-one-ack",
    "ack-before-storing",
    "vrf-unchecked",
)


@pytest.mark.parametrize("name", QUICK)
def test_a_mutant_is_caught_for_what_it_does_wrong(name: str) -> None:
    verdict = hunt(name, range(50))
    assert verdict is not None
    with pytest.raises(InvariantBroken, match=MUTANTS[name].violation):
        raise InvariantBroken(verdict.violation)


def test_votes_that_are_not_durable_break_the_rule_about_votes_in_every_world() -> None:
    for seed in range(3):
        violation = play(Run("all", seed, 4, mutant="speak-before-writing")).violation
        assert violation is not None
        assert "sent a vote before it was durable" in violation


def test_another_violation_than_its_own_does_not_catch_a_mutant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = replace(MUTANTS["quorum-one-short"], violation="voted twice in view")
    monkeypatch.setitem(MUTANTS, "quorum-one-short", other)
    assert play(Run("all", 0, 4, mutant="quorum-one-short")).violation is not None
    assert hunt("quorum-one-short", range(1)) is None


def test_the_first_block_is_judged_against_the_genesis() -> None:
    leads_first = ((3, frozenset({Misdeed.BAD_VRF})),)
    with (
        planted("vrf-unchecked"),
        pytest.raises(InvariantBroken, match="VRF proof of final block 1 does not hold"),
    ):
        World(Scenario(seed=0, byzantine=leads_first)).run(800)


def test_a_mutant_is_gone_when_its_block_ends() -> None:
    honest = {name: mutant.swaps() for name, mutant in MUTANTS.items()}
    for name, swaps in honest.items():
        before = [owner.__dict__[attribute] for owner, attribute in swaps]
        with planted(name):
            during = [owner.__dict__[attribute] for owner, attribute in swaps]
            assert all(a is not b for a, b in zip(before, during, strict=True))
        assert [owner.__dict__[attribute] for owner, attribute in swaps] == before
    assert ValidatorSet.__dict__["quorum_stake"].__class__.__name__ == "cached_property"


def test_a_failing_run_is_reduced_and_named_by_a_command_that_fails_too() -> None:
    verdict = hunt("quorum-one-short", range(5))
    assert verdict is not None
    fewer = reduced(verdict)
    assert fewer.violation is not None
    assert len(fewer.hazards) < len(verdict.hazards)
    assert play(fewer.run).violation == fewer.violation
    kept = ",".join(fewer.hazards) or "none"
    assert f"--profile all --only {kept} --mutant quorum-one-short" in fewer.run.command()


def test_every_mutant_names_a_profile_that_exists() -> None:
    assert {mutant.profile for mutant in MUTANTS.values()} <= set(PROFILES)
