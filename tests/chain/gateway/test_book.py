"""The book: caps hold through any order of purchases, settlements and restarts."""

from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from chain.gateway.book import KEPT_S, Book, BookError, Entry
from chain.gateway.errors import GatewayError
from chain.gateway.questions import GRAIN_MAX

CAP = 100


def entry(
    number: int, most: int = 10, idempotency: str | None = None, created_s: int = 0, name: str = "a"
) -> Entry:
    return Entry(
        job=number.to_bytes(32, "big"),
        api_key=name,
        idempotency=idempotency,
        question=b"q",
        chain_id="c",
        body=b"b",
        public_key=b"k",
        signature=b"s",
        valid_until=200,
        created_s=created_s,
        most=most,
    )


def test_what_may_be_spent_counts_until_what_was_spent_is_known() -> None:
    with Book() as book:
        book.reserve(entry(1, most=60), CAP)
        with pytest.raises(GatewayError) as caught:
            book.reserve(entry(2, most=41), CAP)
        assert (caught.value.status, caught.value.code) == (402, "SPEND_CAP_REACHED")
        assert "60 are spent or reserved" in caught.value.message
        book.settle(entry(1).job, 7)
        assert book.committed("a") == 7
        book.reserve(entry(2, most=93), CAP)
        assert book.committed("b") == 0


def test_an_idempotency_key_names_one_purchase_of_one_api_key() -> None:
    with Book() as book:
        first = book.reserve(entry(1, idempotency="x"), None)
        assert book.reserve(entry(2, idempotency="x"), None) == first
        assert book.reserve(entry(3, idempotency="x", name="b"), None).job == entry(3).job
        assert book.find("a", "x") == first
        assert book.find("a", "y") is None
        assert book.committed("a") == 10


def test_it_is_all_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "book"
    with Book(path) as book:
        book.reserve(entry(1, idempotency="x"), CAP)
        book.reserve(entry(2, most=20), CAP)
        book.settle(entry(2).job, 15)
    with Book(path) as book:
        assert book.committed("a") == 25
        assert [item.job for item in book.open_entries(10)] == [entry(1).job]
        assert book.find("a", "x") == entry(1, idempotency="x")


def test_what_was_not_bought_is_held_against_the_cap_when_it_is_asked_for_again() -> None:
    with Book() as book:
        for number in range(3):
            book.reserve(entry(number, most=60, idempotency=str(number)), CAP)
            book.settle(entry(number).job, 0)  # refused before it was sent
        book.reserve(entry(0, most=60, idempotency="0"), CAP)
        for number in (1, 2):
            with pytest.raises(GatewayError, match="cap of"):
                book.reserve(entry(number, most=60, idempotency=str(number)), CAP)
        book.settle(entry(0).job, 60)
        assert book.committed("a") == 60


def test_one_gateway_has_the_file(tmp_path: Path) -> None:
    with Book(tmp_path / "book"), pytest.raises(BookError, match="another gateway"):
        Book(tmp_path / "book", busy_s=0)


def test_settled_purchases_are_forgotten_in_time_and_their_cost_is_not() -> None:
    with Book() as book:
        book.reserve(entry(1, idempotency="old"), CAP)
        book.reserve(entry(2, idempotency="open"), CAP)
        book.settle(entry(1).job, 9)
        book.reserve(entry(3, created_s=KEPT_S + 1), CAP)
        assert book.find("a", "old") is None
        assert book.find("a", "open") is not None
        assert book.committed("a") == 29


class Spending(RuleBasedStateMachine):
    """Purchases against a cap; each costs at most what was reserved for it."""

    @initialize()
    def start(self) -> None:
        self.book = Book()
        self.open: dict[int, int] = {}
        self.spent = 0
        self.count = 0
        self.unsent: dict[int, int] = {}

    @rule(most=st.integers(0, 60))
    def buy(self, most: int) -> None:
        self.count += 1
        self._reserve(self.count, most)

    @rule(data=st.data())
    def ask_again_for_what_was_not_bought(self, data: st.DataObject) -> None:
        if self.unsent:
            number = data.draw(st.sampled_from(sorted(self.unsent)))
            assert self.book.find("a", str(number)) is None
            self._reserve(number, self.unsent.pop(number))

    def _reserve(self, number: int, most: int) -> None:
        fits = self.spent + sum(self.open.values()) + most <= CAP
        try:
            self.book.reserve(entry(number, most, idempotency=str(number)), CAP)
        except GatewayError:
            assert not fits
        else:
            assert fits
            self.open[number] = most

    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        if self.open:
            number = data.draw(st.sampled_from(sorted(self.open)))
            most = self.open.pop(number)
            cost = data.draw(st.just(0) | st.integers(0, most))
            if cost == 0:
                self.unsent[number] = most
            self.book.settle(entry(number).job, cost)
            self.book.settle(entry(number).job, CAP)  # said again, it is not counted again
            self.spent += cost

    @invariant()
    def holds(self) -> None:
        assert self.book.committed("a") == self.spent + sum(self.open.values()) <= CAP


TestSpending = Spending.TestCase
TestSpending.settings = settings(max_examples=25, stateful_step_count=20)


def test_large_amounts_are_added_up_exactly() -> None:
    with Book() as book:
        for number in range(3):
            book.reserve(entry(number, GRAIN_MAX), None)
        assert book.committed("a") == 3 * GRAIN_MAX
