"""A price file with a mistake in it is refused, with a message that names the mistake."""

from datetime import UTC, datetime

import pytest

from pricing import BookError, parse
from pricing.book import Plan


def _small(model: str = "", price: str = "", rules: str = "", fee: str = "") -> dict[str, str]:
    return {
        "a.toml": f"""
[source.s]
what = "a page"
[rules]
source = "s"
checked = 2026-01-01
default_max_output_tokens = 10
regional_multiplier = 1.1
regions = ["eu"]
regional_released_from = 2026-03-05
default_image_model = "m"
{rules}
[[fee]]
id = "f"
usd = 1
source = "s"
checked = 2026-01-01
{fee}
[[model]]
id = "m"
{model}
[[model.price]]
source = "s"
checked = 2026-01-01
{price or "default = { input = 1, output = 2 }"}
"""
    }


def test_a_small_book_is_fine() -> None:
    dated = (
        'until = 2026-01-01T00:00:00Z\ndefault = { input = 1 }\n[[model.price]]\nsource = "s"\nchecked = 2026-01-01\n'
    )
    book = parse(_small(price=f"{dated}from = 2026-01-01T00:00:00Z\ndefault = {{ input = 3 }}"))
    plan = book.plan("m", "default")
    assert isinstance(plan, Plan)
    rates = [plan.at(datetime(year, 1, 1, tzinfo=UTC), 5) for year in (2025, 2026)]
    assert [rate["input"].usd for rate in rates if rate] == ["0.000001", "0.000003"]


AGAIN = '[[model.price]]\nsource = "s"\nchecked = 2026-01-01'
WRONG = [
    ({"price": "default = { input = 1, outputs = 2 }"}, "outputs"),
    ({"price": "defualt = { input = 1 }"}, "defualt"),
    ({"price": "default = { input = -1 }"}, "zero or more"),
    ({"price": "default = { input = 0.00000001 }"}, "at most 7 decimals"),
    ({"price": "default = { input = nan }"}, "zero or more"),
    ({"price": "default = { output = 1 }"}, "no input rate"),
    ({"price": 'confidence = "low"\ndefault = { input = 1 }'}, "needs a note"),
    ({"price": 'confidence = "high"\ndefault = { input = 1 }'}, "confidence"),
    ({"price": 'low_classes = ["input"]\ndefault = { input = 1 }'}, "low_classes without"),
    ({"price": 'confidence = "low"\nnote = "n"\nlow_classes = ["x"]\ndefault = { input = 1 }'}, "unknown class 'x'"),
    ({"price": "from = 2026-01-01T00:00:00\ndefault = { input = 1 }"}, "offset"),
    ({"price": "from = 2026-02-01T00:00:00Z\nuntil = 2026-02-01T00:00:00Z\ndefault = { input = 1 }"}, "not before"),
    ({"price": "default_long = { input = 1 }"}, "without long_context_over"),
    ({"model": "long_context_over = 9"}, "lacks default_long"),
    ({"price": 'note = "nothing"'}, "without a tier"),
    (
        {"price": f"default = {{ input = 1 }}\n{AGAIN}\ndefault = {{ input = 2 }}"},
        "same instant",
    ),
    (
        {"price": 'default = { input = 1 }\n[[model.price]]\nsource = "t"\nchecked = 2026-01-01\nflex = { input = 2 }'},
        "unknown source 't'",
    ),
    ({"price": 'default = { input = 1 }\n[[model.price]]\nsource = "s"\nflex = { input = 2 }'}, "checked"),
    ({"model": 'aliases = ["m"]'}, "named by two models"),
    ({"model": 'aliases = ["m*"]'}, "only as in"),
    ({"model": 'aliases = ["*:m"]'}, "only as in"),
    ({"model": 'aliases = ["m:*", "m:1*"]'}, "also stands for"),
    ({"model": "free = true"}, "not both"),
    ({"model": "max_output_tokens = 5"}, "unknown source '' of its limits"),
    ({"model": 'max_output_tokens = -5\nlimits = "s"'}, "max_output_tokens is negative"),
    ({"model": "web_search_content_tokens = -5"}, "is negative"),
    ({"model": 'request_fee = "nothing"'}, "unknown request_fee"),
    ({"model": 'knid = "text"'}, "knid"),
    ({"fee": '[[fee]]\nid = "f"\nusd = 2\nsource = "s"\nchecked = 2026-01-01'}, "same instant"),
    ({"fee": '[[fee]]\nid = "g"\nusd = -2\nsource = "s"\nchecked = 2026-01-01'}, "zero or more"),
    ({"rules": "odd = 1"}, "odd"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_a_wrong_book_is_refused(change: dict[str, str], message: str) -> None:
    with pytest.raises(BookError, match=message):
        parse(_small(**change))


def test_wrong_files() -> None:
    good = _small()["a.toml"]
    for texts, message in (
        ({}, "no file has"),
        ({"a.toml": "x = "}, "a.toml"),
        ({"a.toml": good, "b.toml": good}, "defined twice"),
        ({"a.toml": good, "b.toml": good.replace("source.s", "source.t")}, r"\[rules\] is defined twice"),
        ({"a.toml": good.replace('default_image_model = "m"', 'default_image_model = "n"')}, "default_image_model"),
        ({"a.toml": good.replace("regional_multiplier = 1.1", "regional_multiplier = 0.9")}, "below 1"),
        ({"a.toml": good.replace('[rules]\nsource = "s"', '[rules]\nsource = "t"')}, "unknown source 't'"),
        ({"a.toml": good[: good.index("[[model]]")] + '[[model]]\nid = "m"\nfree = true\n'}, "no price"),
    ):
        with pytest.raises(BookError, match=message):
            parse(texts)
