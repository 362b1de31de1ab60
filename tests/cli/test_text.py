"""What may reach a terminal of a text that others chose, and that JSON stays what it was."""

import json

import pytest

from gateway.cli.text import escape_json, json_text, legible, legible_lines

HARMFUL = "".join(map(chr, (*range(0x20), 0x7F, *range(0x80, 0xA0), 0x200E, 0x202E, 0x2066, 0x2028, 0xFEFF, 0xE0001)))
HARMLESS = "Ann Müller 山田\u3000太郎 \u00a0 שלום 🦊 [red] \\ :smile:"


@pytest.mark.parametrize("char", [*HARMFUL, "\ud800"])
def test_control_characters_are_escaped(char: str) -> None:
    shown = legible(f"a{char}b")
    assert shown.isprintable()
    assert (shown[0], shown[1], shown[-1]) == ("a", "\\", "b")


def test_what_is_harmless_stays() -> None:
    assert legible(HARMLESS) == HARMLESS


def test_lines_stay_and_a_carriage_return_alone_does_not() -> None:
    assert legible_lines("a\nb\r\nc\rd\x1b\n") == "a\nb\r\nc\\rd\\x1b\n"


@pytest.mark.parametrize("indent", [None, 2])
def test_json_is_exact_and_steers_nothing(indent: int | None) -> None:
    value = {HARMFUL: [HARMLESS, HARMFUL, "\ud800"]}
    text = json_text(value, indent=indent)
    assert json.loads(text) == value
    assert text.replace("\n", "").replace("\u3000", "").replace("\u00a0", "").isprintable()
    assert HARMLESS.replace("\\", "\\\\") in text


def test_a_document_that_is_escaped_twice_is_the_same() -> None:
    once = escape_json('{"a\x9b": "\U000e0001"}\n')
    assert once == '{"a\\u009b": "\\udb40\\udc01"}\n'
    assert escape_json(once) == once
