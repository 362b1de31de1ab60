"""The packaged book is whole and plausible; a wrong one is refused; names resolve as OpenAI means them."""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest

from pricing import Book, parse
from pricing.book import Plan
from pricing.entries import Model, Price, Rates
from tests.pricing.cases import NOW

INPUT_CLASSES = ("input", "cached", "write_30m", "write_12h")
BATCH_CACHED_UNDISCOUNTED = "batch input rate for cached input: the highest of three readings, low confidence"
RATIO_EXCEPTIONS = {
    ("gpt-5.4", "flex", "cached"): "published rounded, 0.13 for 0.125",
    ("gpt-5.4", "batch", "cached"): "published rounded, 0.13 for 0.125",
    ("o4-mini", "flex", "cached"): "published rounded, 0.138 for 0.1375",
    ("gpt-3.5-turbo-0613", "batch", "input"): "the only source has the standard rate",
    ("gpt-3.5-turbo-0613", "batch", "output"): "the only source has the standard rate",
    ("gpt-3.5-turbo-1106", "batch", "input"): "the batch table lists the standard rate",
    ("gpt-3.5-turbo-1106", "batch", "output"): "the batch table lists the standard rate",
    ("ft:gpt-4o", "batch", "input"): "2.225, as the page had it; half would be 1.875",
    ("ft:gpt-4o", "batch", "cached"): BATCH_CACHED_UNDISCOUNTED,
    ("ft:gpt-4o", "batch", "output"): "12.50, as the page had it; half would be 7.50",
    ("ft:babbage-002", "batch", "output"): "0.90 in the only source; half would be 0.80",
    ("gpt-image-1", "batch", "cached"): "published rounded, 0.63 for 0.625",
    ("gpt-image-1.5", "batch", "cached"): "published rounded, 0.63 for 0.625",
    ("gpt-image-1-mini", "batch", "image_cached"): "published rounded, 0.13 for 0.125",
}
LONG_EXCEPTIONS = {
    ("gpt-5.4", "priority"): "no long context in priority; the base rate is the higher reading",
    ("gpt-5.5", "priority"): "no long context in priority; the base rate is the higher reading",
    ("gpt-5.4", "flex"): "cached 0.25 is twice 0.125, which the page rounds to 0.13",
    ("gpt-5.4", "batch"): "cached 0.25 is twice 0.125, which the page rounds to 0.13",
}


def tables(book: Book) -> Iterator[tuple[Model, Price, str, Rates]]:
    for model in book.models():
        for price in model.price:
            for name, rates in price.tables().items():
                yield model, price, name, rates


def default_beside(model: Model, price: Price) -> Rates | None:
    """The default rates that hold at the start of another entry's period."""
    for other in model.price:
        starts = other.from_ is None or (price.from_ is not None and other.from_ <= price.from_)
        goes_on = other.until is None or price.from_ is None or price.from_ < other.until
        if other.default is not None and goes_on and (starts or price.from_ is None):
            return other.default
    return None


def test_the_book_has_every_family(book: Book) -> None:
    assert len(book.models()) >= 100
    for name in (
        "gpt-4o",
        "gpt-4.1-nano",
        "o3",
        "gpt-5-mini",
        "gpt-5.5-pro",
        "gpt-5.6-luna",
        "gpt-6.2-sol",
        "gpt-6.2-astra",
    ):
        assert isinstance(book.plan(name, "default"), Plan), name
    assert book.plan("gpt-6.2-astra-law", "default") == "model 'gpt-6.2-astra-law' is not in the price book"


@pytest.mark.parametrize(("tier", "half_of"), [("batch", "default"), ("flex", "default")])
def test_batch_and_flex_cost_half(book: Book, tier: str, half_of: str) -> None:
    seen = 0
    for model, price, name, rates in tables(book):
        if name != tier:
            continue
        standard = getattr(price, half_of) or default_beside(model, price)
        assert standard is not None, model.id
        for class_ in Rates.__struct_fields__:
            cheap, full = getattr(rates, class_), getattr(standard, class_)
            undiscounted = tier == "batch" and class_ == "cached" and cheap == rates.input and price.confidence == "low"
            if cheap is None or full is None or undiscounted or (model.id, tier, class_) in RATIO_EXCEPTIONS:
                continue
            assert cheap * 2 == full, (model.id, tier, class_)
            seen += 1
    assert seen > 50


def test_every_listed_exception_is_still_one(book: Book) -> None:
    known = {(model.id, name) for model, _, name, _ in tables(book)}
    assert {(model, tier) for model, tier, _ in RATIO_EXCEPTIONS} | set(LONG_EXCEPTIONS) <= known


def test_cache_writes_cost_a_quarter_more_and_two_and_a_half_times(book: Book) -> None:
    seen = 0
    for model, _, name, rates in tables(book):
        assert (rates.write_30m is None) == (rates.write_12h is None), (model.id, name)
        if rates.write_30m is not None and rates.input is not None and rates.write_12h is not None:
            assert rates.write_30m == rates.input * Decimal("1.25"), (model.id, name)
            assert rates.write_12h == rates.input * Decimal("2.5"), (model.id, name)
            seen += 1
    assert seen > 100


def test_long_context_doubles_input_and_adds_half_to_output(book: Book) -> None:
    seen = 0
    for model, price, name, rates in tables(book):
        base_name = name.removesuffix("_long")
        if base_name == name or (model.id, base_name) in LONG_EXCEPTIONS:
            continue
        others = (p for p in model.price if (p.from_, p.until) == (price.from_, price.until))
        base = next(table for p in (price, *others) if (table := p.tables().get(base_name)) is not None)
        for class_ in INPUT_CLASSES:
            short, long = getattr(base, class_), getattr(rates, class_)
            assert (short is None) == (long is None), (model.id, name, class_)
            assert short is None or long == short * 2, (model.id, name, class_)
        assert base.output is not None
        assert rates.output == base.output * Decimal("1.5"), (model.id, name)
        seen += 1
    assert seen > 50


def test_models_since_5_6_name_their_cache_writes_and_every_recent_one_its_region(book: Book) -> None:
    for model, _, name, rates in tables(book):
        if model.kind == "text" and model.released is not None and model.released >= date(2026, 7, 9):
            assert rates.write_30m is not None, (model.id, name)
        if model.released is not None and model.released >= book.rules.regional_released_from:
            assert model.regional is not None, model.id
        elif model.released is not None:
            assert model.regional is None, model.id


def test_periods_leave_no_gap(book: Book) -> None:
    for model in book.models():
        names = {name for price in model.price for name in price.tables()}
        for name in names:
            periods = sorted(
                ((p.from_, p.until) for p in model.price if name in p.tables()),
                key=lambda period: period[0] or datetime.min.replace(tzinfo=UTC),
            )
            assert periods[0][0] is None, (model.id, name, "holds from the beginning")
            assert periods[-1][1] is None, (model.id, name, "holds on")
            assert all(one[1] == two[0] for one, two in pairwise(periods)), (model.id, name)


def test_every_text_model_says_how_much_it_can_write(book: Book) -> None:
    for model in book.models():
        if model.kind == "text":
            assert book.max_output_tokens(model.id) > 0, model.id
            assert model.max_output_tokens is not None, model.id
    assert book.max_output_tokens("gpt-99") == 272_000 == max(book.max_output_tokens(m.id) for m in book.models())
    assert (book.max_output_tokens("gpt-4o-2024-11-20"), book.max_output_tokens("text-embedding-3-small")) == (
        16_384,
        0,
    )
    assert (book.context_tokens("gpt-4o"), book.context_tokens("gpt-99")) == (128_000, None)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("gpt-4o", "gpt-4o"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("gpt-4o-2024-05-13", "gpt-4o-2024-05-13"),
        ("gpt-5.6", "gpt-5.6-sol"),
        ("gpt-5.6-2026-07-09", "gpt-5.6-sol"),
        ("gpt-4-0613", "gpt-4"),
        ("gpt-4-1106-preview", "gpt-4-turbo"),
        ("o3-2025-04-16", "o3"),
        ("ft:gpt-4o-2024-08-06:acme::abc123", "ft:gpt-4o"),
        ("ft:gpt-4.1-mini-2025-04-14:acme:support:abc123:ckpt-step-90", "ft:gpt-4.1-mini"),
        ("ft:gpt-3.5-turbo-0125:acme::x", "ft:gpt-3.5-turbo"),
        ("ft:gpt-5.6-sol:acme::x", None),
        ("gpt-4o-2024-13", None),
        ("gpt-4o-mini-tts", None),
        ("GPT-4o", None),
        ("", None),
        ("ft:", None),
        # What legacy completions answer with (recorded).
        ("gpt-3.5-turbo-instruct:20230824-v2", "gpt-3.5-turbo-instruct"),
        ("gpt-3.5-turbo-instruct:20260101-v9", "gpt-3.5-turbo-instruct"),
        ("davinci:2023-07-21-v2", "davinci-002"),
        ("davinci:2020-05-03", None),  # the old davinci, ten times as dear, and retired
        ("babbage:2023-07-21-v2", "babbage-002"),
        ("babbage", "babbage"),
    ],
)
def test_names_resolve(book: Book, name: str, model: str | None) -> None:
    found = book.resolve(name)
    assert (found.id if found else None) == model


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("gpt-4o-mini", "o200k_base"),
        ("gpt-4.1", "o200k_base"),
        ("gpt-4.5-preview", "o200k_base"),
        ("o3", "o200k_base"),
        ("gpt-6.2-sol", "o200k_base"),
        ("gpt-4-0613", "cl100k_base"),
        ("gpt-4-turbo", "cl100k_base"),
        ("gpt-3.5-turbo", "cl100k_base"),
        ("text-embedding-3-large", "cl100k_base"),
        ("ft:gpt-3.5-turbo-0125:acme::x", "cl100k_base"),
        ("ft:gpt-4o-2024-08-06:acme::x", "o200k_base"),
        ("unknown", "o200k_base"),
    ],
)
def test_encoding(book: Book, name: str, encoding: str) -> None:
    assert book.encoding(name) == encoding


def test_what_is_remembered_of_outside_names_is_bounded(texts: dict[str, str]) -> None:
    book = parse(texts)
    for index in range(10_000):
        book.plan(f"model-{index}", "default")
    book.plan("x" * 10_000, "default")
    assert len(book._plans) <= 4096
    assert all(len(model) <= 200 for model, _, _ in book._plans)
    assert len(str(book.plan("y" * 10_000, "default"))) < 300


def test_the_version_follows_the_content(texts: dict[str, str], book: Book) -> None:
    day, _, digest = book.version.partition(".")
    assert date.fromisoformat(day) >= book.oldest_checked()
    assert len(digest) == 8
    name = min(texts)
    assert parse({**texts, name: texts[name] + "\n# a remark\n"}).version != book.version
    assert parse(dict(reversed(texts.items()))).version == book.version


def test_low_confidence_entries_say_why(book: Book) -> None:
    entries = book.low_confidence_entries()
    assert all(entry.note and entry.source for entry in entries)
    sol = [entry for entry in entries if entry.model == "gpt-5.6-sol"]
    assert [entry.from_ for entry in sol] == [datetime(2026, 11, 22, tzinfo=UTC)]
    assert "container_64g_sessions" in {entry.model for entry in entries}


def test_a_gap_and_an_unknown_fee_have_no_price(book: Book) -> None:
    assert book.fee("web_search_calls", NOW) is not None
    assert book.fee("nothing", NOW) is None


def test_the_guide_explains_every_low_confidence_entry(book: Book) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "prices.md").read_text("utf-8")
    explained = set(re.findall(r"[\w.:-]+", guide.partition("## Low confidence")[2]))
    assert {entry.model for entry in book.low_confidence_entries()} <= explained | {
        name.rstrip(":") for name in explained
    }
