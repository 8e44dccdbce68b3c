"""Whose a symbol is: nothing of others is ever booked, nothing of ours is ever lost to them."""

import math
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.core.events import Event, FundingPaid, OrderFilled, OthersHold, StopMoved
from bot.core.types import OrderRequest, OrderType, Side
from bot.exchange.bybit.account_book import AccountBook, Held
from bot.exchange.bybit.ownership import Other, Ownership, opened_by
from bot.exchange.bybit.wire.account import Transaction
from bot.exchange.bybit.wire.private import Execution, Position
from bot.execution.orders import Orders, tag_of
from tests.builders import START

SYMBOL, ELSEWHERE = "NEWUSDT", "ETHUSDT"
EARLIER = Orders(tag_of(START, 1))  # a run of ours that is dead
ANOTHER = Orders(tag_of(START, 2))  # of a bot with a database of its own


def leaving(**known: Any) -> Ownership:
    return Ownership(leave=True, earlier=[tag_of(START, 1)], **known)


def execution(number: int, qty: int, ts: int = START, link: str = "", **changes: Any) -> Execution:
    """`qty` is signed."""
    made = Execution(
        symbol=SYMBOL, exec_id=f"e-{number}", exec_price=Decimal(100), exec_qty=Decimal(abs(qty)),
        side=Side.BUY if qty > 0 else Side.SELL, exec_time=ts, order_id="o", exec_type="Trade",
        order_link_id=link, exec_fee=Decimal(1), leaves_qty=Decimal(0),
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def position(qty: int, stop: str = "0", **changes: Any) -> Position:
    side = "Buy" if qty > 0 else "Sell" if qty else ""
    return Position(
        symbol=SYMBOL, size=Decimal(abs(qty)), side=side, stop_loss=Decimal(stop), updated_time=START,
        **changes,
    )  # fmt: skip


def request(link: str, qty: int = 10) -> OrderRequest:
    return OrderRequest(link_id=link, symbol=SYMBOL, side=Side.BUY, type=OrderType.MARKET, qty=Decimal(qty))


# --- by example ---------------------------------------------------------------------------------------------


def test_what_others_trade_and_pay_is_seen_and_not_booked() -> None:
    book = AccountBook(leaving())
    funding = execution(3, 5, exec_type="Funding")
    unknown = execution(4, 5, exec_type="Future kind")
    for made in (execution(1, 5), execution(2, -2, link=ANOTHER.next_id(SYMBOL)), funding, unknown):
        assert book.on_execution(made, START) == []
        assert book.on_execution(made, START) == []
    assert (book.booked, book.quantities) == (0, {})


def test_the_same_is_booked_where_positions_are_adopted() -> None:
    book = AccountBook()
    assert [type(event) for event in book.on_execution(execution(1, 5), START)] == [OrderFilled]
    assert book.quantities == {SYMBOL: 5}


def test_a_position_of_others_is_told_when_it_begins_turns_and_ends() -> None:
    book = AccountBook(leaving())
    told = [book.on_position(position(qty), START) for qty in (5, 7, -7, -7, 0, 0)]
    assert told == [
        [OthersHold(START, START, SYMBOL, Decimal(5), 0)],
        [],
        [OthersHold(START, START, SYMBOL, Decimal(-7), 0)],
        [],
        [OthersHold(START, START, SYMBOL, Decimal(0), 0)],
        [],
    ]


def test_a_look_tells_every_change_and_does_not_speak_against_the_stream() -> None:
    owners = leaving()
    five, none = {SYMBOL: Decimal(5)}, dict[str, Decimal]()
    assert owners.look(five, {SYMBOL: 2}, START, START + 1) == [
        OthersHold(START + 1, START + 1, SYMBOL, Decimal(5), 2)
    ]
    assert owners.look(five, {SYMBOL: 2}, START + 2, START + 3) == []
    owners.hear(position(0), START + 5)
    assert owners.look(five, {}, START + 4, START + 6) == []  # read before it ended
    assert [event.qty for event in owners.look(none, {}, START + 6, START + 7)] == [0]
    assert owners.others == {}


def test_our_entry_does_not_leave_where_somebody_else_is() -> None:
    owners = leaving()
    owners.look({SYMBOL: Decimal(5)}, {ELSEWHERE: 1}, START, START)
    assert not owners.enter(SYMBOL, START)
    assert not owners.enter(ELSEWHERE, START)  # an open order may become a position
    assert not owners.holds(SYMBOL)
    owners.look({}, {}, START + 1, START + 1)
    assert owners.enter(SYMBOL, START + 2)
    assert owners.holds(SYMBOL)


def test_a_stop_and_funding_of_our_position_are_ours() -> None:
    book = AccountBook(leaving())
    link = Orders(tag_of(START, 3)).next_id(SYMBOL)
    book.track(request(link))
    assert book.owners.enter(SYMBOL, START)
    book.on_execution(execution(1, 10, START + 1, link), START)
    (paid,) = book.on_execution(execution(2, 10, START + 2, exec_type="Funding"), START)
    assert isinstance(paid, FundingPaid)
    (stopped,) = book.on_execution(execution(3, -10, START + 3, stop_order_type="StopLoss"), START)
    assert isinstance(stopped, OrderFilled)
    assert book.quantities == {}


def test_a_symbol_is_free_when_it_is_flat_and_late_news_of_our_time_is_still_ours() -> None:
    owners = leaving()
    owners.enter(SYMBOL, START)
    assert owners.takes(execution(1, 10, START + 5))
    assert owners.takes(execution(2, -10, START + 9))
    assert owners.release(SYMBOL, START + 10)
    assert not owners.holds(SYMBOL)
    assert owners.takes(execution(3, 10, START + 9, exec_type="Funding"))
    assert not owners.takes(execution(4, 10, START + 11))
    owners.enter(SYMBOL, START + 20)
    assert not owners.release(SYMBOL, START + 15)  # flat before our entry left: that says nothing
    assert owners.takes(execution(5, -10, START + 30))
    assert not owners.takes(execution(6, -10, START + 11))


@pytest.mark.parametrize("wrong", [-5_000, 5_000])
def test_a_clock_that_is_wrong_makes_nothing_of_ours_theirs(wrong: int) -> None:
    owners = leaving()
    assert not owners.takes(execution(1, 10, START - 1))
    owners.enter(SYMBOL, START + wrong)
    for number, link in ((2, EARLIER.next_id(SYMBOL)), (3, "")):
        assert owners.takes(execution(number, 10, START + number, link))
    assert owners.release(SYMBOL, START + 10 + wrong)
    for number in (2, 3):
        assert owners.is_ours(SYMBOL, "", START + number)
    for ts in (START - 1, START + 4):
        assert not owners.is_ours(SYMBOL, "", ts)


def test_the_last_word_of_a_run_that_died_makes_its_symbol_ours_whatever_comes_first() -> None:
    """The position shows before the execution that made it."""
    book = AccountBook(leaving())
    (seen,) = book.on_position(position(10, "99"), START)
    assert isinstance(seen, OthersHold)
    filled, stop = book.on_execution(execution(1, 10, START, EARLIER.next_id(SYMBOL)), START)
    assert isinstance(filled, OrderFilled)
    assert isinstance(stop, StopMoved)
    assert stop.stop_loss == 99
    assert book.owners.holds(SYMBOL)
    (freed,) = book.owners.look({SYMBOL: Decimal(10)}, {}, START + 1, START + 1)
    assert (freed.qty, freed.orders) == (0, 0)


def test_what_earlier_runs_claimed_is_ours_without_any_execution() -> None:
    book = AccountBook(leaving(past={SYMBOL: [(0, math.inf)]}))
    assert book.on_position(position(10, "99"), START) == []  # told when it is adopted
    assert isinstance(book.on_execution(execution(1, -10), START)[0], OrderFilled)


@pytest.mark.parametrize(
    ("held", "steps", "links"),
    [
        (5, [(5, "a")], {"a"}),
        (5, [(9, "a"), (-9, ""), (5, "b")], {"b"}),
        (5, [(-4, "a"), (9, "b")], {"b"}),  # it turned
        (3, [(5, "a"), (-2, "")], {"a", ""}),
        (9, [(5, "a")], {"a"}),  # older than what is known
        (-5, [(2, "a"), (-2, "b"), (-5, "c")], {"c"}),
    ],
)
def test_a_position_was_opened_by_what_came_since_it_was_flat(
    held: int, steps: list[tuple[int, str]], links: set[str]
) -> None:
    made = [execution(n, qty, START + n, link) for n, (qty, link) in enumerate(steps)]
    paid = execution(99, held, START + 99, "f", exec_type="Funding")
    assert opened_by(position(held), [paid, *reversed(made)]) == links


def test_the_ledgers_lines_are_told_apart_like_executions() -> None:
    owners = leaving()
    owners.takes(execution(1, 10, START - 1))
    owners.enter(SYMBOL, START)

    def line(**changes: Any) -> Transaction:
        made = Transaction(
            id="1",
            type="TRADE",
            currency="USDT",
            transaction_time=START + 1,
            symbol=SYMBOL,
            category="linear",
        )
        return msgspec.structs.replace(made, **changes)

    assert owners.books(line())
    assert not owners.books(line(type="TRANSFER_IN", symbol="", category=""))
    assert not owners.books(line(symbol=ELSEWHERE))
    assert not owners.books(line(transaction_time=START - 1))
    assert owners.books(line(symbol=ELSEWHERE, order_link_id=EARLIER.next_id(ELSEWHERE)))
    for adopting in (owners, Ownership()):
        assert not adopting.books(line(category="spot"))  # of no concern to a book of contracts


def test_what_happened_while_earlier_runs_had_a_symbol_is_ours_and_nothing_else() -> None:
    """A little longer: the exchange stamps the profit of a position after its last execution."""
    hour = 3_600_000
    owners = leaving(
        past={SYMBOL: [(START, START + 9)], ELSEWHERE: [(START - hour, START + hour - 1)]},
        started=START + hour,
    )
    for ts, is_ours in ((-1, False), (0, True), (9, True), (10_009, True), (60_000, False), (hour, False)):
        assert owners.is_ours(SYMBOL, "", START + ts) is is_ours
    assert owners.is_ours(ELSEWHERE, "", START + hour)
    assert not owners.is_ours(ELSEWHERE, "", START + hour + 1)  # from now on it is told
    assert not owners.holds(SYMBOL)
    assert owners.claims == []


def test_what_ended_while_no_bot_ran_stays_ours_when_its_symbol_is_free() -> None:
    owners = leaving(past={SYMBOL: [(START, math.inf)]}, started=START + 50)
    assert owners.release(SYMBOL, START + 60)
    assert owners.is_ours(SYMBOL, "", START + 40)  # its stop
    assert not owners.is_ours(SYMBOL, "", START + 51)
    assert not owners.is_ours(SYMBOL, "", START - 1)


def test_a_stop_that_is_told_after_its_position_was_seen_to_be_gone_is_ours() -> None:
    book = AccountBook(leaving())
    link = Orders(tag_of(START, 3)).next_id(SYMBOL)
    book.track(request(link))
    book.owners.enter(SYMBOL, START)
    book.on_execution(execution(1, 10, START + 5, link), START + 5)
    book.adopt(SYMBOL, Held(), START + 61_000, "the exchange holds 0, our books 10")
    assert book.owners.release(SYMBOL, START + 76_000)
    stopped, *_ = book.on_execution(execution(2, -10, START + 60_000), START + 77_000)
    assert isinstance(stopped, OrderFilled)
    assert book.on_execution(execution(3, 10, START + 61_001), START + 77_000) == []
    assert book.owners.strange == 1


def test_what_an_order_did_that_was_given_up_is_ours_until_its_symbol_is_flat() -> None:
    """By the ledger alone; a minute later somebody else is there."""
    link, theirs = EARLIER.next_id(SYMBOL), ANOTHER.next_id(SYMBOL)
    owners = leaving(past={SYMBOL: [(START, START + 1)]}, unfilled={link: START}, started=START + 90_000)

    def line(seconds: int, size: int | None, link: str = "", **changes: Any) -> Transaction:
        made = Transaction(
            id=f"{seconds}", type="TRADE", currency="USDT", transaction_time=START + seconds * 1_000,
            symbol=SYMBOL, category="linear", order_link_id=link,
            size=None if size is None else Decimal(size),
        )  # fmt: skip
        return msgspec.structs.replace(made, **changes)

    before, after = line(-1, 0), line(80, -5, theirs)
    elsewhere = line(25, 0, symbol=ELSEWHERE)
    ours = [line(2, 5, link), line(3, 10, link), line(30, None, type="SETTLEMENT"), line(40, 0)]
    lines = [before, *ours[:2], elsewhere, *ours[2:], after]
    assert not owners.books(ours[-1])
    assert owners.recall(lines) == ours
    assert [item for item in lines if owners.books(item)] == ours
    assert not owners.holds(SYMBOL)


def test_where_the_ledger_does_not_tell_an_end_the_symbol_is_ours_until_a_look() -> None:
    link = EARLIER.next_id(SYMBOL)
    owners = leaving(unfilled={link: START}, started=START + 90_000)
    filled = Transaction(
        id="1", type="TRADE", currency="USDT", transaction_time=START, symbol=SYMBOL, category="linear",
        order_link_id=link, size=Decimal(5),
    )  # fmt: skip
    assert owners.recall([filled]) == [filled]
    assert owners.holds(SYMBOL)
    assert owners.release(SYMBOL, START + 91_000)
    assert owners.is_ours(SYMBOL, "", START + 80_000)


# --- by any story -------------------------------------------------------------------------------------------


@dataclass
class Venue:
    """One symbol at the exchange, where we and somebody else take turns; the news of it comes late.

    What we did is kept apart, to be compared with what was booked.
    """

    book: AccountBook = field(default_factory=lambda: AccountBook(leaving()))
    orders: Orders = field(default_factory=lambda: Orders(tag_of(START, 3)))
    now: int = START
    held: int = 0
    owner: str = ""
    count: int = 0
    news: list[Execution] = field(default_factory=list)
    ours: set[str] = field(default_factory=set)
    booked: list[str] = field(default_factory=list)

    def trade(self, who: str, qty: int, link: str, **changes: Any) -> None:
        self.count += 1
        self.now += 1
        if changes.get("exec_type") != "Funding":
            self.held += qty
        self.owner = who if self.held else ""
        made = execution(self.count, qty, self.now, link, **changes)
        self.news.append(made)
        if who == "we":
            self.ours.add(made.exec_id)

    def enter(self) -> None:
        """As the desk does, later than anything that it knows of; what has left is carried out at once."""
        self.now += 1
        if self.book.quantities or self.book.open_links():
            return
        owners, link = self.book.owners, self.orders.next_id(SYMBOL)
        if self.owner == "they" and SYMBOL not in owners.others:
            return  # news of them is under way: it would be a mixture, which stays ours
        if not owners.enter(SYMBOL, self.now):
            assert SYMBOL in owners.others
            return
        self.book.track(request(link, 10))
        self.trade("we", 10, link)

    def leave(self) -> None:
        """By our order, or (without an id) by the stop."""
        if self.owner == "we":
            self.trade("we", -self.held, "", stop_order_type="StopLoss")

    def pay(self) -> None:
        if self.owner:
            self.trade(self.owner, self.held, "", exec_type="Funding")

    def somebody(self, qty: int) -> None:
        """Never into what is ours: that is a mixture, and stays so."""
        if not self.book.owners.holds(SYMBOL):
            self.trade("they", qty, "" if qty % 2 else ANOTHER.next_id(SYMBOL))

    def hear(self, place: int, twice: bool) -> None:
        """Some news, in any order."""
        if not self.news:
            return
        made = self.news[place % len(self.news)] if twice else self.news.pop(place % len(self.news))
        self._take(self.book.on_execution(made, self.now))

    def see(self) -> None:
        """The position, from the stream."""
        self._take(self.book.on_position(position(self.held), self.now))

    def look(self) -> None:
        """A reconciliation: all executions first, then what is held."""
        self.now += 1
        while self.news:
            self.hear(0, twice=False)
        owners, asked = self.book.owners, self.now
        if SYMBOL in owners.claims and not self.held and not self.book.open_links():
            owners.release(SYMBOL, asked)
        owners.look({SYMBOL: Decimal(self.held)} if self.held else {}, {}, asked, self.now)
        self.now += 1

    def _take(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, OrderFilled | FundingPaid):
                self.booked.append(event.exec_id)


STEPS = st.one_of(
    st.tuples(st.just("enter")),
    st.tuples(st.just("leave")),
    st.tuples(st.just("pay")),
    st.tuples(st.just("somebody"), st.integers(-5, 5).filter(bool)),
    st.tuples(st.just("hear"), st.integers(0, 9), st.booleans()),
    st.tuples(st.just("see")),
    st.tuples(st.just("look")),
)


@settings(max_examples=500, deadline=None)
@given(st.lists(STEPS, max_size=40))
def test_nothing_of_others_is_booked_and_nothing_of_ours_is_lost(steps: list[tuple[Any, ...]]) -> None:
    venue = Venue()
    for name, *arguments in steps:
        getattr(venue, name)(*arguments)
        assert set(venue.booked) <= venue.ours
        if venue.owner == "we":
            assert venue.book.owners.holds(SYMBOL)
    venue.look()
    assert Counter(venue.booked) == Counter(venue.ours)
    assert venue.book.quantities == ({SYMBOL: venue.held} if venue.owner == "we" else {})
    expected = {SYMBOL: Other(Decimal(venue.held))} if venue.owner == "they" else {}
    assert venue.book.owners.others == expected
