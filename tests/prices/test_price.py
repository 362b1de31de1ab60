"""`gateway price`: one answer per line, each field checked by name, nothing stops the run."""

import json
from typing import Any

import msgspec
import pytest

from gateway.prices.price import run
from pricing import Book
from tests.pricing.cases import golden

LINE = {
    "id": "a",
    "endpoint": "chat",
    "model": "gpt-4o",
    "at": "2026-11-20T00:00:00Z",
    "usage": {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107},
}


def answer(book: Book, *lines: object) -> tuple[list[dict[str, Any]], int]:
    written: list[str] = []
    status = run((line if isinstance(line, bytes | str) else json.dumps(line) for line in lines), written.append, book)
    assert all(text.endswith("\n") and "\n" not in text[:-1] for text in written)
    return [json.loads(text) for text in written], status


def test_a_priced_line(book: Book) -> None:
    found, status = answer(book, LINE)
    assert status == 0
    assert found == [
        {
            "id": "a",
            "cost_usd": "0.000320000",
            "evidence": "reported",
            "price_version": book.version,
            "lines": [
                {"unit": "input_tokens", "quantity": "100", "usd_per_unit": "0.0000025", "usd": "0.00025"},
                {"unit": "output_tokens", "quantity": "7", "usd_per_unit": "0.00001", "usd": "0.00007"},
            ],
            "problems": [],
        }
    ]


def test_every_option(book: Book) -> None:
    body = golden("tools", "responses")
    full = {
        **LINE,
        "endpoint": "responses",
        "model": body["model"],
        "usage": body["usage"],
        "service_tier": "default",
        "batch": False,
        "region": None,
        "cache_ttl": "12h",
        "completion_window": None,
        "response": body,
    }
    found, status = answer(book, full, {**LINE, "batch": True}, {**LINE, "model": "gpt-5.5", "region": "eu"})
    assert status == 0
    assert [line["cost_usd"] for line in found] == ["0.258760000", "0.000160000", "0.000781000"]


def test_unpriced_is_no_failure_of_the_run(book: Book) -> None:
    found, status = answer(
        book, {**LINE, "model": "gpt-99"}, {**LINE, "usage": None}, {**LINE, "usage": {"prompt_tokens": -1}}
    )
    assert status == 0
    assert [(line["cost_usd"], line["evidence"], line["lines"]) for line in found] == [(None, "unpriced", [])] * 3
    assert "prompt_tokens" in found[2]["problems"][0]


BAD: list[tuple[object, object, str]] = [
    ("nonsense", None, "not JSON"),
    ("[]", None, "not a JSON object"),
    ("3", None, "not a JSON object"),
    (b"\xff\xfe", None, "not UTF-8"),
    ("\ud800", None, "not UTF-8"),
    ('{"id":"a","usage":{"a":NaN}}', None, "not JSON"),
    ('{"a":' + "[" * 100_000, None, "not JSON"),
    ({}, None, "at is missing"),
    ({**LINE, "at": None}, "a", "at must be an RFC 3339 time"),
    ({**LINE, "at": "yesterday"}, "a", "at must be an RFC 3339 time"),
    ({**LINE, "at": "2026-11-20T00:00:00"}, "a", "with an offset"),
    ({**LINE, "endpoint": 1}, "a", "endpoint must be a string"),
    ({**LINE, "model": None}, "a", "model must be a string"),
    ({key: value for key, value in LINE.items() if key != "model"}, "a", "model is missing"),
    ({**LINE, "service_tier": 5}, "a", "service_tier must be a string or null"),
    ({**LINE, "batch": "yes"}, "a", "batch must be true or false"),
    ({**LINE, "region": []}, "a", "region must be a string or null"),
    ({**LINE, "cache_ttl": 30}, "a", "cache_ttl must be"),
    ({**LINE, "completion_window": 2}, "a", "completion_window must be"),
    ({**LINE, "usage": [1]}, "a", "usage must be an object"),
    ({key: value for key, value in LINE.items() if key != "usage"}, "a", "usage is missing"),
    ({**LINE, "response": "text"}, "a", "response must be an object or null"),
]


@pytest.mark.parametrize(("line", "id_", "message"), BAD)
def test_an_unusable_line_is_named_and_the_run_goes_on(book: Book, line: object, id_: object, message: str) -> None:
    found, status = answer(book, line, LINE)
    assert status == 1
    assert found[0].keys() == {"id", "error"}
    assert found[0]["id"] == id_
    assert message in found[0]["error"]
    assert found[1]["cost_usd"] == "0.000320000"


@pytest.mark.parametrize("id_", ["null", "7", "1e400", '{"a":[1,2]}', '"\\u00e9"', "123456789012345678901234567890"])
def test_any_id_comes_back_as_it_was(book: Book, id_: str) -> None:
    written: list[str] = []
    run([json.dumps(LINE).replace('"a"', id_, 1), f'{{"id":{id_}}}'], written.append, book)
    assert [bytes(msgspec.json.decode(text, type=dict[str, msgspec.Raw])["id"]).decode() for text in written] == [
        id_,
        id_,
    ]


def test_blank_lines_bytes_and_repeated_keys(book: Book) -> None:
    repeated = json.dumps(LINE)[:-1] + ', "model": "gpt-4o-mini"}\r\n'
    found, status = answer(book, "\n", b"  \n", json.dumps(LINE).encode() + b"\n", repeated)
    assert status == 0
    assert [line["cost_usd"] for line in found] == ["0.000320000", "0.000019200"]


def test_a_field_that_is_not_known_is_told(book: Book) -> None:
    found, status = answer(book, {**LINE, "servicetier": "flex"})
    assert (status, found[0]["problems"]) == (0, ["field 'servicetier' is not known and was ignored"])
