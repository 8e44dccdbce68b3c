"""Every code that Bybit documents has one meaning for us; this table says which, row by row."""

import pytest

from bot.exchange.bybit.environment import ENVIRONMENTS, environment, local
from bot.exchange.bybit.errors import (
    NO_ANSWER,
    TABLE,
    UNCHANGED,
    ExchangeError,
    Kind,
    Ruling,
    advice,
    http_ruling,
    judged,
    ruling,
)

MEANING: dict[Kind, list[int]] = {
    Kind.RETRY: [10002, 10006, 10018, 10403, 20003, 110079, 170005, 170222],
    Kind.UNKNOWN: [
        429, 10000, 10014, 10016, 10019, 10429, 20006, 110001, 110008, 110010, 110072, 170007, 170032,
        170139, 170141, 170142, 170143, 170146, 170147, 170149, 170150, 170190, 170210, 170213,
    ],
    Kind.REFUSED: [
        10001, 10029, 30208, 30209, 30228, 110003, 110004, 110006, 110007, 110009, 110012, 110013,
        110014, 110017, 110020, 110021, 110022, 110023, 110024, 110028, 110034, 110042, 110044, 110045,
        110051, 110052, 110053, 110061, 110066, 110074, 110085, 110086, 110089, 110090, 110092, 110093,
        110094, 110100, 110120, 110121, 110123, 110125, 110132, 170033, 170121, 170124, 170131, 170132,
        170133, 170134, 170136, 170137, 170140, 170148, 170193, 170194, 170217, 170218, 170341, 170371,
        170372, 170381, 170382, 170810, 3400045,
    ],
    Kind.CONFIGURATION: [
        -2015, 401, 10003, 10004, 10005, 10007, 10008, 10009, 10010, 10024, 10027, 10028, 10032, 33004,
    ],
    Kind.FATAL: [
        400, 404, 10017, 10404, 20001, 110018, 110019, 110032, 170105, 170115, 170116, 170117, 170130,
    ],
}  # fmt: skip
ROWS = [(code, kind) for kind, codes in MEANING.items() for code in codes]


@pytest.mark.parametrize(("code", "kind"), ROWS)
def test_a_code_has_its_kind_and_a_reason(code: int, kind: Kind) -> None:
    found = ruling(code, write=True)
    assert found.kind is kind
    assert found.reason


def test_this_list_and_the_table_hold_the_same_codes_each_once() -> None:
    assert sorted(code for code, _ in ROWS) == sorted(TABLE)
    assert not UNCHANGED & set(TABLE)


@pytest.mark.parametrize("code", MEANING[Kind.UNKNOWN])
def test_a_read_has_no_outcome_to_be_unknown(code: int) -> None:
    assert ruling(code, write=False).kind is Kind.RETRY


def test_an_unknown_code_fails_closed() -> None:
    assert ruling(999_999, write=True).kind is Kind.UNKNOWN  # never sent again blindly
    assert ruling(999_999, write=False).kind is Kind.REFUSED


@pytest.mark.parametrize(
    ("status", "of_a_write", "of_a_read"),
    [
        (400, Kind.FATAL, Kind.FATAL),
        (401, Kind.CONFIGURATION, Kind.CONFIGURATION),
        (403, Kind.RETRY, Kind.RETRY),
        (404, Kind.FATAL, Kind.FATAL),
        (429, Kind.UNKNOWN, Kind.RETRY),
        (500, Kind.UNKNOWN, Kind.RETRY),
        (502, Kind.UNKNOWN, Kind.RETRY),
        (599, Kind.UNKNOWN, Kind.RETRY),
        (302, Kind.UNKNOWN, Kind.REFUSED),
    ],
)
def test_an_http_status_has_its_kind(status: int, of_a_write: Kind, of_a_read: Kind) -> None:
    assert http_ruling(status, write=True).kind is of_a_write
    assert http_ruling(status, write=False).kind is of_a_read


def test_silence_after_a_write_is_an_unknown_outcome_and_after_a_read_a_reason_to_ask_again() -> None:
    assert judged(NO_ANSWER, write=True).kind is Kind.UNKNOWN
    assert judged(NO_ANSWER, write=False).kind is Kind.RETRY


@pytest.mark.parametrize("name", ["mainnet", "testnet", "demo", "mainnet-eu"])
def test_10003_names_the_environment_that_was_tried_its_variables_and_the_others(name: str) -> None:
    here = environment(name)
    text = advice(10003, here)
    assert text.startswith(f"{name} ({here.rest})")
    assert here.key_variables[0] in text
    assert all(other in text for other in ENVIRONMENTS)


def test_an_error_shows_path_reason_code_and_a_bounded_text() -> None:
    error = ExchangeError(ruling(110007, write=True), path="/v5/order/create", code=110007, text="x" * 10_000)
    assert str(error).startswith("/v5/order/create: not enough balance or margin (110007: xxx")
    assert len(str(error)) < 400


@pytest.mark.parametrize("kind", Kind)
def test_only_what_a_person_must_change_ends_with_the_exit_code_that_forbids_a_restart(kind: Kind) -> None:
    assert ExchangeError(Ruling(kind, "why"), path="/v5/x").exit_code == (
        2 if kind is Kind.CONFIGURATION else 4
    )


def test_an_unknown_key_of_a_local_exchange_is_told_where_its_keys_are() -> None:
    text = advice(10003, local("http://127.0.0.1:8899"))
    assert "[[exchange.accounts]]" in text
    assert "BOT_LOCAL_API_KEY and BOT_LOCAL_API_SECRET" in text
    assert "testnet" not in text
