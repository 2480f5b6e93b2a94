"""When a node is said to live and to be ready, and for which reasons it is not."""

from dataclasses import replace
from typing import Any

import pytest

from chain.node.health import Standing, judge

WELL = Standing(
    final_height=100,
    height=100,
    since_final_ms=9_000,
    executing_for_ms=20,
    stake_reached=4,
    stake_total=4,
    not_voting="",
    votes_by_itself=True,
    runtimes_up=1,
    runtimes_down=(),
    disk_free_bytes=100 << 30,
    is_stopping=False,
)


def test_nothing_is_said_of_a_node_that_is_well() -> None:
    health = judge(WELL)
    assert (health.unlivable, health.unready, health.notes) == ((), (), ())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"is_stopping": True}, "STOPPING"),
        ({"stake_reached": 2}, "NO_QUORUM"),
        ({"stake_reached": 2, "stake_total": 3}, "NO_QUORUM"),
        ({"since_final_ms": 46_000}, "STALLED"),
        ({"final_height": 165}, "BEHIND"),
        ({"disk_free_bytes": 1 << 20}, "DISK_FULL"),
    ],
)
def test_each_reason_not_to_be_ready_is_told_with_what_to_do(
    changes: dict[str, Any], reason: str
) -> None:
    health = judge(replace(WELL, **changes))
    assert [finding.reason for finding in health.unready] == [reason]
    assert health.unready[0].detail
    assert health.unready[0].advice
    assert health.unlivable == ()


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({"not_voting": "no vote log"}, ["NOT_VOTING"]),
        ({"runtimes_down": ("h:1: gone",)}, ["RUNTIME_OUT"]),
        ({"runtimes_down": ("h:1: gone",), "runtimes_up": 0}, ["RUNTIME_OUT", "NO_RUNTIME"]),
        ({"disk_free_bytes": 1 << 30}, ["DISK_LOW"]),
    ],
)
def test_what_does_not_keep_clients_away_is_a_note(
    changes: dict[str, Any], reasons: list[str]
) -> None:
    health = judge(replace(WELL, **changes))
    assert [finding.reason for finding in health.notes] == reasons
    assert health.unready == ()


def test_a_validator_that_only_waits_for_its_peers_sends_nobody_to_the_doctor() -> None:
    new = replace(WELL, not_voting="the vote log is new")
    (waits,) = judge(new).notes
    (stays,) = judge(replace(new, votes_by_itself=False)).notes
    assert "votes by itself" in waits.advice and "doctor" not in waits.advice
    assert "doctor" in stays.advice


def test_only_a_ledger_that_hangs_makes_a_node_not_live() -> None:
    slow = judge(replace(WELL, executing_for_ms=60_000, since_final_ms=600_000))
    assert slow.unlivable == ()
    assert [item.reason for item in judge(replace(WELL, executing_for_ms=121_000)).unlivable] == [
        "LEDGER_STUCK"
    ]
