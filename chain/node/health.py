"""Whether a node lives and whether it is ready, with reasons: rules over plain numbers.

Alive means that it makes sense to leave the process alone. Ready means that a client that is sent
here is served well. What keeps neither from being so, but wants an operator's eye, is a note.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

LEDGER_STUCK_MS: Final = 120_000
"""No block takes so long to execute, except on a disk that has stopped."""
STALLED_MS: Final = 45_000
"""An idle chain has a heartbeat every ten seconds."""
BEHIND_BLOCKS_MAX: Final = 64
DISK_FREE_BYTES_LEAST: Final = 256 << 20
DISK_FREE_BYTES_LOW: Final = 2 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be."""

    reason: str
    """A stable word for programs."""
    detail: str
    """What was seen."""
    advice: str
    """What to do."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the rules look at."""

    final_height: int
    height: int
    """Executed."""
    since_final_ms: int
    """How long ago this node last learnt of a final block."""
    executing_for_ms: int
    """How long the ledger has worked on one block; 0 if on none."""
    stake_reached: int
    """Of the validators this node is connected to, and its own."""
    stake_total: int
    not_voting: str
    """Why; empty if it votes."""
    votes_by_itself: bool
    """Whether what keeps it from voting ends without anybody's help, once its peers answer."""
    runtimes_up: int
    runtimes_down: tuple[str, ...]
    """Why each that is out is so."""
    disk_free_bytes: int
    is_stopping: bool


@dataclass(frozen=True, slots=True)
class Health:
    """The rules' answer."""

    unlivable: tuple[Finding, ...]
    unready: tuple[Finding, ...]
    notes: tuple[Finding, ...]


def judge(standing: Standing) -> Health:
    """Every finding there is about a node."""
    return Health(tuple(_unlivable(standing)), tuple(_unready(standing)), tuple(_notes(standing)))


def _unlivable(standing: Standing) -> Iterator[Finding]:
    if standing.executing_for_ms > LEDGER_STUCK_MS:
        yield Finding(
            "LEDGER_STUCK",
            f"block {standing.height + 1} has been executing for "
            f"{standing.executing_for_ms // 1000} s",
            "look for disk errors (dmesg), then restart the node: it loses nothing",
        )


def _unready(standing: Standing) -> Iterator[Finding]:
    if standing.is_stopping:
        yield Finding("STOPPING", "the node was told to stop", "use another node")
    if 3 * standing.stake_reached <= 2 * standing.stake_total:
        yield Finding(
            "NO_QUORUM",
            f"connected to {standing.stake_reached} of {standing.stake_total} stake, this node's "
            "own included; more than two thirds are needed",
            "check this machine's network and firewall, and ask the other operators",
        )
    if standing.since_final_ms > STALLED_MS:
        yield Finding(
            "STALLED",
            f"no final block for {standing.since_final_ms // 1000} s; an idle chain has one every "
            "10 s",
            "compare with other nodes: if they go on, restart this one; if not, find out which "
            "validators are away (assay_consensus_missed_votes_total)",
        )
    if standing.final_height - standing.height > BEHIND_BLOCKS_MAX:
        yield Finding(
            "BEHIND",
            f"executed {standing.height} of {standing.final_height} final blocks",
            "wait while it catches up; if the gap grows, the disk or the processor is too slow",
        )
    if standing.disk_free_bytes < DISK_FREE_BYTES_LEAST:
        yield Finding(
            "DISK_FULL",
            f"{standing.disk_free_bytes >> 20} MiB are free",
            "free space now; then set keep_blocks in [storage] of node.toml, or use a larger disk",
        )


def _notes(standing: Standing) -> Iterator[Finding]:
    if standing.not_voting:
        yield Finding(
            "NOT_VOTING",
            standing.not_voting,
            "nothing: it waits for its peers and votes by itself; if they run and this stays, "
            "check the network to them"
            if standing.votes_by_itself
            else "the node follows the chain and signs nothing; see 'assay node doctor'",
        )
    for why in standing.runtimes_down:
        yield Finding("RUNTIME_OUT", why, "look at that runtime's log; it is asked again by itself")
    if standing.runtimes_down and not standing.runtimes_up:
        yield Finding(
            "NO_RUNTIME",
            "no runtime answers: this node neither provides nor verifies",
            "start one: assay runtime serve",
        )
    if DISK_FREE_BYTES_LEAST <= standing.disk_free_bytes < DISK_FREE_BYTES_LOW:
        yield Finding(
            "DISK_LOW",
            f"{standing.disk_free_bytes >> 20} MiB are free",
            "set keep_blocks in [storage] of node.toml, or use a larger disk",
        )
