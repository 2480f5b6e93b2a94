"""Wide-area worlds: delays of the matrix, packets that are lost, accounts of what was sent."""

from dataclasses import replace

import pytest

from consensus.messages import BatchMessage, Certificates, CertificatesRequest
from consensus.sim.wan import (
    REGIONS,
    ROUND_TRIP_MS,
    SYNC_MS,
    WARM_UP_MS,
    Setting,
    Transport,
    WanLinks,
    Workload,
)
from consensus.sim.wan_report import measure
from consensus.sim.world import START_MS
from consensus.values import Batch, BatchHeader

SMALL = CertificatesRequest(1, 2)
BULK = BatchMessage(Batch(BatchHeader(0, 0, 1, bytes(32), bytes(32)), bytes(64), b""), None)
LOAD = Setting(5, Workload.LOAD, seconds=3)


def test_round_trips_are_the_same_both_ways_and_short_within_a_region() -> None:
    for here in range(len(REGIONS)):
        assert min(ROUND_TRIP_MS[here]) == ROUND_TRIP_MS[here][here]
        for there in range(len(REGIONS)):
            assert ROUND_TRIP_MS[here][there] == ROUND_TRIP_MS[there][here]


@pytest.mark.parametrize("transport", Transport)
def test_nothing_arrives_before_half_of_the_round_trip(transport: Transport) -> None:
    links = WanLinks(replace(LOAD, transport=transport, loss=0.0))
    for receiver in range(1, 5):
        (at_ms,) = links.arrivals(0, receiver, START_MS, SMALL, 100)
        assert at_ms - START_MS >= SYNC_MS + ROUND_TRIP_MS[0][receiver] / 2


def test_a_stream_keeps_its_order_and_loses_nothing_though_packets_are_lost() -> None:
    links = WanLinks(replace(LOAD, loss=0.5))
    arrived = [links.arrivals(0, 1, START_MS + sent, SMALL, 100) for sent in range(200)]
    assert links.lost > 0
    times = [at_ms for (at_ms,) in arrived]
    assert times == sorted(times)


def test_a_datagram_that_is_lost_never_arrives() -> None:
    links = WanLinks(replace(LOAD, transport=Transport.DATAGRAM, loss=0.5))
    arrived = [links.arrivals(0, 1, START_MS, SMALL, 100) for _ in range(200)]
    assert sum(not times for times in arrived) == links.lost
    assert 0 < links.lost < 200


def test_batches_wait_for_the_uplink_and_votes_do_not_wait_for_batches() -> None:
    links = WanLinks(replace(LOAD, loss=0.0, uplink_mbit_s=8))
    batches = [links.arrivals(0, 1, START_MS, BULK, 100_000) for _ in range(3)]
    (urgent,) = links.arrivals(0, 1, START_MS, SMALL, 100)
    # A hundred kilobytes take a hundred milliseconds at eight megabits.
    assert batches[2][0] - START_MS > 300
    assert urgent < batches[0][0]


def test_what_was_sent_is_counted_by_kind_with_its_headers_after_the_warm_up() -> None:
    links = WanLinks(replace(LOAD, loss=0.0))
    links.arrivals(0, 1, START_MS, SMALL, 100)
    links.arrivals(2, 1, START_MS + WARM_UP_MS, SMALL, 100)
    links.arrivals(2, 1, START_MS + WARM_UP_MS, Certificates(()), 3_000)
    assert {kind: cost.messages for kind, cost in links.costs.items()} == {
        "CertificatesRequest": 1,
        "Certificates ": 1,
    }
    assert links.costs["CertificatesRequest"].size_bytes > 100
    assert links.sent_bytes == {2: sum(cost.size_bytes for cost in links.costs.values())}


def test_a_loaded_network_finalizes_all_that_was_sealed_and_says_what_it_cost() -> None:
    row = measure(LOAD)
    assert row["finality_ms"]["batches"] > 0
    assert row["unfinished"] == 0
    # Sealing, acks, proof, proposal and two rounds of votes cannot be faster than light.
    assert row["finality_ms"]["p5"] > 3 * min(r for row in ROUND_TRIP_MS for r in row if r > 2) / 2
    sent = sum(kind["bytes_a_validator_second"] for kind in row["by_kind"].values())
    assert sent == pytest.approx(row["bytes_a_validator_second"], rel=0.01)
    assert measure(LOAD) == row


def test_an_idle_network_sends_no_batches() -> None:
    row = measure(Setting(4, Workload.IDLE, seconds=12))
    assert row["blocks"] > 0
    assert row["finality_ms"] is None
    assert not {"BatchMessage", "Ack", "AvailabilityProof"} & set(row["by_kind"])


@pytest.mark.parametrize("count", [3, 129])
def test_numbers_of_validators_out_of_bounds_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match="allowed are 4 to 128"):
        Setting(count, Workload.LOAD)
