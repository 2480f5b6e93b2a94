"""The vote log: what was flushed survives; what is damaged is not trusted."""

from pathlib import Path
from random import Random

import pytest

from consensus.journal import FORGOTTEN, HANDED_ON, Watermark, carried, encode_record
from consensus.sim.disk import Disk, PowerLost
from consensus.wal import (
    WAL_NAME,
    FileDirectory,
    Wal,
    WalAhead,
    WalDamaged,
    WalError,
    WalForeign,
    WalLocked,
    WalMissing,
)

KEY = b"k" * 32
ROUNDS = [[b"one", b"two"], [b"three"], [b"", b"four" * 100]]


def opened(disk: Disk, create: bool = True) -> tuple[Wal, tuple[bytes, ...]]:
    return Wal.open(disk, "chain", KEY, create)


def written(disk: Disk) -> list[bytes]:
    wal, _ = opened(disk)
    for records in ROUNDS:
        for record in records:
            wal.append(record)
        wal.flush()
    return [record for records in ROUNDS for record in records]


def test_flushed_records_come_back_in_order(tmp_path: Path) -> None:
    directory = FileDirectory(tmp_path)
    wal, records = Wal.open(directory, "chain", KEY, create=True)
    assert records == ()
    for record in (b"a", b"b"):
        wal.append(record)
    wal.flush()
    wal.append(b"never flushed")
    size = wal.size
    directory.close()
    directory = FileDirectory(tmp_path)
    wal, records = Wal.open(directory, "chain", KEY, create=False)
    assert records == (b"a", b"b")
    assert wal.size == size == (tmp_path / WAL_NAME).stat().st_size
    directory.close()


def test_compaction_keeps_the_given_records_and_appending_goes_on(tmp_path: Path) -> None:
    directory = FileDirectory(tmp_path)
    wal, _ = Wal.open(directory, "chain", KEY, create=True)
    wal.append(b"old")
    wal.flush()
    wal.append(b"superseded")
    wal.compact([b"kept"])
    wal.append(b"new")
    wal.flush()
    directory.close()
    directory = FileDirectory(tmp_path)
    assert Wal.open(directory, "chain", KEY, create=False)[1] == (b"kept", b"new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["votes.lock", "votes.wal"]
    directory.close()


def test_a_second_process_is_locked_out_until_the_first_closes(tmp_path: Path) -> None:
    first = FileDirectory(tmp_path)
    with pytest.raises(WalLocked, match="in use by another process"):
        FileDirectory(tmp_path)
    first.close()
    FileDirectory(tmp_path).close()


def test_a_tail_torn_at_any_byte_is_cut_off_and_writing_goes_on() -> None:
    disk = Disk(Random(1))
    written(disk)
    whole = bytes(disk.durable(WAL_NAME))
    before = whole[: whole.rindex(b"AWG1")]
    kept = tuple(record for records in ROUNDS[:2] for record in records)
    for size in range(len(before), len(whole)):
        torn = Disk(Random(2))
        torn.replace(WAL_NAME, whole[:size])
        wal, records = opened(torn)
        assert records == kept
        wal.append(b"after")
        wal.flush()
        assert opened(torn)[1] == (*kept, b"after")


def test_a_flipped_bit_in_the_last_group_is_a_torn_tail_and_elsewhere_is_damage() -> None:
    disk = Disk(Random(1))
    written(disk)
    whole = bytes(disk.durable(WAL_NAME))
    last = whole.rindex(b"AWG1")
    for position in range(len(whole)):
        damaged = Disk(Random(2))
        content = bytearray(whole)
        content[position] ^= 0x10
        damaged.replace(WAL_NAME, bytes(content))
        if position >= last:
            assert opened(damaged)[1] == (b"one", b"two", b"three")
        else:
            with pytest.raises(WalDamaged):
                opened(damaged)


@pytest.mark.parametrize("writes", range(1, 12))
def test_power_lost_at_any_write_loses_no_flushed_record(writes: int) -> None:
    for seed in range(20):
        disk = Disk(Random(seed))
        wal, _ = opened(disk)
        disk.writes_until_power_loss = writes
        durable: list[bytes] = []
        flushing: list[bytes] = []
        try:
            for number in range(6):
                record = f"record {number}".encode()
                wal.append(record)
                flushing = [*durable, record]
                wal.flush()
                durable = flushing
                if number == 3:
                    wal.compact(durable)
        except PowerLost:
            pass
        disk.lose_power()
        _, records = opened(disk)
        assert list(records) in (durable, flushing)


def test_another_chain_or_key_is_refused() -> None:
    disk = Disk(Random(1))
    written(disk)
    with pytest.raises(WalForeign, match="belongs to chain 'chain'"):
        Wal.open(disk, "other", KEY, create=True)
    with pytest.raises(WalForeign):
        Wal.open(disk, "chain", b"x" * 32, create=True)


def test_a_missing_log_is_refused_unless_the_key_is_new() -> None:
    with pytest.raises(WalMissing, match="the vote log is missing"):
        opened(Disk(Random(1)), create=False)


class BrokenDisk(Disk):
    """Fails one sync."""

    broken = False

    def sync(self, name: str) -> None:
        if self.broken:
            self.broken = False
            raise OSError("input/output error")
        super().sync(name)


def test_after_a_failed_write_the_log_refuses_further_use() -> None:
    disk = BrokenDisk(Random(1))
    wal, _ = opened(disk)
    disk.broken = True
    wal.append(b"lost")
    with pytest.raises(OSError, match="input/output error"):
        wal.flush()
    with pytest.raises(WalError, match="an earlier write of the vote log failed"):
        wal.flush()


def test_flushing_nothing_writes_nothing() -> None:
    disk = Disk(Random(1))
    wal, _ = opened(disk)
    disk.writes_until_power_loss = 1
    wal.flush()
    assert disk.writes_until_power_loss == 1


def test_a_new_epoch_begins_a_new_log_whatever_key_the_old_one_was_of() -> None:
    disk = Disk(Random(5))
    written(disk)
    wal, records = Wal.open(disk, "chain", b"n" * 32, create=True, epoch=1)
    assert records == ()
    wal.append(b"of the new epoch")
    wal.flush()
    assert Wal.open(disk, "chain", b"n" * 32, create=False, epoch=1)[1] == (b"of the new epoch",)


def test_what_an_ended_epoch_hands_on_is_in_the_new_log_from_its_first_byte() -> None:
    disk = Disk(Random(5))
    expected = written(disk)
    _, records = Wal.open(
        disk, "chain", KEY, create=True, epoch=3, carry=lambda old: (b"carried", old[-1])
    )
    assert records == (b"carried", expected[-1])
    disk.lose_power()
    assert Wal.open(disk, "chain", KEY, create=False, epoch=3)[1] == records


def test_the_log_of_a_later_epoch_is_left_alone_until_that_epoch_comes() -> None:
    disk = Disk(Random(5))
    wal, _ = Wal.open(disk, "chain", KEY, create=True, epoch=2)
    wal.append(b"kept")
    wal.flush()
    with pytest.raises(WalAhead, match="of epoch 2, the ledger here stands in epoch 1"):
        Wal.open(disk, "chain", KEY, create=True, epoch=1)
    assert Wal.open(disk, "chain", KEY, create=True, epoch=2)[1] == (b"kept",)


def test_a_new_epoch_does_not_make_another_chains_log_ours() -> None:
    disk = Disk(Random(5))
    written(disk)
    with pytest.raises(WalForeign):
        Wal.open(disk, "other", KEY, create=True, epoch=1)


@pytest.mark.parametrize(
    ("records", "handed_on"),
    [
        ([], ()),
        ([FORGOTTEN], (HANDED_ON,)),
        ([HANDED_ON], (HANDED_ON,)),
        ([FORGOTTEN, Watermark(7, False)], (HANDED_ON,)),
        ([FORGOTTEN, Watermark(7, True)], ()),
    ],
)
def test_who_still_knows_not_what_it_signed_goes_on_so(
    records: list[Watermark], handed_on: tuple[Watermark, ...]
) -> None:
    assert carried([encode_record(record) for record in records]) == tuple(
        encode_record(record) for record in handed_on
    )
