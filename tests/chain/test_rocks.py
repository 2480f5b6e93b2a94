"""RocksDB's lock goes with `close`, whoever still looks at the database."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rocksdict import WriteBatch

from chain.rocks import STEP_BYTES_MAX, Rocks, SteppedWriter, StoreError

REOPENINGS = 50


def filled(path: Path, rows: int = 20_000) -> Rocks:
    rocks = Rocks(path)
    changes = WriteBatch(raw_mode=True)
    for number in range(rows):
        changes.put(b"k" + number.to_bytes(4, "big"), b"v" * 20)
    rocks.write(changes, sync=True)
    return rocks


def test_a_database_opens_again_in_the_process_under_live_iterators(tmp_path: Path) -> None:
    rocks = filled(tmp_path / "rocks")
    kept: list[Iterator[tuple[bytes, bytes]]] = []
    for turn in range(REOPENINGS):
        rows = rocks.all_rows(b"k")
        assert next(rows)[0] == b"k" + bytes(4)
        kept.append(rows)
        rocks.link_to(tmp_path / f"copy-{turn}")
        rocks.close()
        rocks = Rocks(tmp_path / "rocks")
    with pytest.raises(StoreError, match="is closed"):
        list(kept[0])
    assert len(list(rocks.all_rows(b"k"))) == 20_000
    rocks.close()


def test_an_error_keeps_no_iterator_alive(tmp_path: Path) -> None:
    rocks = filled(tmp_path / "rocks", rows=10)
    errors: list[BaseException] = []
    for _ in range(3):
        try:
            rocks.rows(b"k", b"k", "ten")  # type: ignore[arg-type]
        except TypeError as error:
            errors.append(error)  # with its traceback, and every frame in it
        try:
            rocks.link_to(tmp_path)
        except StoreError as error:
            errors.append(error)
        rocks.close()
        rocks = Rocks(tmp_path / "rocks")
    assert len(errors) == 6
    rocks.close()


def test_closing_waits_for_readers_in_other_threads(tmp_path: Path) -> None:
    rocks = filled(tmp_path / "rocks")
    wrong: list[str] = []
    for _ in range(10):
        reading = rocks

        def read(database: Rocks = reading) -> None:
            try:
                while True:
                    if len(database.rows(b"k", b"k", 5_000)) != 5_000:
                        wrong.append("rows are missing")
            except StoreError as error:
                if "is closed" not in str(error):
                    wrong.append(str(error))

        readers = [threading.Thread(target=read) for _ in range(3)]
        for reader in readers:
            reader.start()
        rocks.close()
        rocks = Rocks(tmp_path / "rocks")
        for reader in readers:
            reader.join()
    rocks.close()
    assert wrong == []


def test_a_long_change_is_written_in_steps(tmp_path: Path) -> None:
    sizes: list[int] = []

    class Counting(Rocks):
        def write(self, changes: WriteBatch, sync: bool) -> None:
            sizes.append(changes.size_in_bytes())
            super().write(changes, sync)

    rocks = Counting(tmp_path / "rocks")
    writer = SteppedWriter(rocks)
    for number in range(100):
        writer.put(b"k" + number.to_bytes(4, "big"), bytes(STEP_BYTES_MAX // 4 - 100))
    writer.finish()
    assert len(sizes) == 25
    assert max(sizes) <= STEP_BYTES_MAX + 1_000
    assert len(list(rocks.all_rows(b"k"))) == 100
    rocks.close()
