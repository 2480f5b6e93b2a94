"""What is laid out by hand is what the canonical encoding gives."""

from hypothesis import given
from hypothesis import strategies as st

from chain.events import Event, EventKind
from chain.leaves import PackedLeaves
from chain.records import (
    CommitteeSeat,
    Job,
    JobStatus,
    Tier,
    TransactionReceipt,
    receipt_leaf,
)
from chain.rejections import RejectionReason
from consensus.values import Scores, Verdict
from consensus.wire import decode, encode
from ext.transfers import RunOutput

hashes = st.binary(min_size=32, max_size=32)
u64s = st.integers(0, (1 << 64) - 1)
u32s = st.integers(0, (1 << 32) - 1)
u16s = st.integers(0, (1 << 16) - 1)
u8s = st.integers(0, 255)
profiles = st.text(max_size=20)
scores = st.builds(
    Scores, u32s, u32s, u32s, u64s, u32s, u64s, u32s, u32s, st.booleans(), st.booleans()
)
seats = st.builds(
    CommitteeSeat,
    u16s,
    profiles,
    u8s,
    st.none() | hashes,
    st.none() | st.sampled_from(Verdict),
    st.none() | scores,
    st.none() | hashes,
)
jobs = st.builds(
    Job,
    requester=hashes,
    model=hashes,
    request_digest=hashes,
    tier=st.sampled_from(Tier),
    max_price=u64s,
    escrow=u64s,
    input_tokens_max=u32s,
    max_output_tokens=u32s,
    pinned_provider=st.none() | hashes,
    requested_height=u64s,
    requested_ms=u64s,
    lost=u64s,
    burned=u64s,
    answer_within_ms=u32s,
    status=st.sampled_from(JobStatus),
    attempts=u8s,
    provider=st.none() | hashes,
    operator=u16s,
    engine_profile=profiles,
    input_price=u64s,
    output_price=u64s,
    seed=st.none() | hashes,
    deadline_ms=u64s,
    result_digest=st.none() | hashes,
    answered_height=u64s,
    draw_height=u64s,
    input_tokens=u32s,
    output_tokens=u32s,
    round=u8s,
    audit_beacon=st.none() | hashes,
    committee=st.lists(seats, max_size=3).map(tuple),
    tried=st.lists(hashes, max_size=3).map(tuple),
    escalated=st.booleans(),
    redrawn=st.booleans(),
    final_height=u64s,
)


@given(jobs)
def test_a_jobs_bytes_are_its_encoding(job: Job) -> None:
    assert decode(Job, encode(job)) == job


@given(st.sampled_from(EventKind), hashes, st.none() | hashes, u64s, u8s)
def test_an_events_leaf_is_its_encoding(
    kind: EventKind, subject: bytes, other: bytes | None, amount: int, code: int
) -> None:
    event = Event(kind, subject, other, amount, code)
    output = RunOutput()
    output.emit(kind, subject, other, amount, code)
    assert PackedLeaves(*output.event_leaves())[0] == event.leaf()


@given(hashes, st.just("") | st.sampled_from(RejectionReason), u64s)
def test_a_transactions_receipt_leaf_is_its_encoding(
    identity: bytes, reason: str, fee: int
) -> None:
    receipt = TransactionReceipt(identity, not reason, reason, fee)
    assert receipt_leaf(identity, reason, fee) == receipt.leaf()
