"""An answer that says `auto` was served, but names no tier."""

from pricing import Book
from tests.pricing.cases import ask, chat, responses


def test_auto_is_default_with_a_problem_line(book: Book) -> None:
    plain = ask(book, "gpt-5.5", chat(7, 2))
    auto = ask(book, "gpt-5.5", chat(7, 2), service_tier="auto")
    assert (auto.cost_nano, auto.lines) == (plain.cost_nano, plain.lines)
    assert auto.problems == ("service_tier 'auto' names no tier: priced as default",)
    body = b'{"model":"gpt-5.5","service_tier":"auto"}'
    asked = ask(book, "gpt-5.5", responses(7, 2), endpoint="responses", service_tier="flex", response=body)
    flex = ask(book, "gpt-5.5", responses(7, 2), endpoint="responses", service_tier="flex")
    assert (asked.cost_nano, asked.problems) == (flex.cost_nano, ())
