"""The list of models: what a key is shown of it, and that nothing else of OpenAI's bytes changes."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.served_models import is_shown, shown_list
from gateway.keys.permissions import Allowed


def listed(*names: str, indent: int | None = 2) -> bytes:
    """As OpenAI prints it (recorded): indented by two, members of four fields, a line feed at the end."""
    data = [{"id": name, "object": "model", "created": 1671217299, "owned_by": "openai-internal"} for name in names]
    return json.dumps({"object": "list", "data": data}, indent=indent).encode() + b"\n"


def only(*models: str) -> Allowed:
    return Allowed(None, frozenset(models))


@pytest.mark.parametrize(
    ("name", "allowed", "shown"),
    [
        ("gpt-5", None, True),
        ("a-model-of-next-year", None, True),
        ("gpt-4o-audio-preview", None, True),
        ("computer-use-preview", None, True),
        ("text-embedding-3-small", None, True),
        ("omni-moderation-latest", None, True),
        ("whisper-1", None, False),
        ("tts-1-hd", None, False),
        ("gpt-4o-mini-tts", None, False),
        ("gpt-4o-transcribe", None, False),
        ("gpt-4o-transcribe-diarize", None, False),
        ("gpt-4o-realtime-preview-2025-06-03", None, False),
        ("gpt-realtime-mini", None, False),
        ("gpt-image-1", None, False),
        ("dall-e-3", None, False),
        ("sora-2", None, False),
        ("gpt-5", only("gpt-5"), True),
        ("gpt-5-2025-08-07", only("gpt-5"), True),
        ("gpt-5-mini", only("gpt-5"), False),
        ("gpt-5-mini", only("gpt-5*"), True),
        ("gpt-5", Allowed(frozenset({"chat"}), None), True),
        ("whisper-1", only("whisper-1"), False),
        ("ft:gpt-4o:acme::a1", None, False),
        ("ft:gpt-4o:acme::a1", only("*"), False),
        ("ft:gpt-4o:acme::a1", only("ft:gpt-4o:acme::a1"), True),
        ("ft:gpt-4o:acme::a1", only("ft:gpt-4o:acme:*"), True),
        ("ft:gpt-4o:other::a1", only("ft:gpt-4o:acme:*"), False),
    ],
)
def test_which_models_a_key_is_shown(name: str, allowed: Allowed | None, shown: bool) -> None:
    assert is_shown(name, allowed) is shown


def test_where_nothing_is_hidden_the_bytes_are_openais() -> None:
    body = listed("gpt-5", "gpt-4o") + b"  \n"
    assert shown_list(body, None) is body


@pytest.mark.parametrize("indent", [None, 2, 4])
@given(st.lists(st.sampled_from(["gpt-5", "gpt-4o", "whisper-1", "ft:gpt-4o:a::b", "gpt-5"]), max_size=8))
def test_the_remaining_list_is_printed_as_openai_would(indent: int | None, names: list[str]) -> None:
    kept = [name for name in names if is_shown(name, None)]
    got = shown_list(listed(*names, indent=indent), None)
    if kept:
        assert got == listed(*kept, indent=indent)
    assert json.loads(got) == json.loads(listed(*kept))


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"data":{}}', b'{"data":["gpt-5"]}', b'{"data":[{"id":1}]}'])
def test_what_is_no_list_is_not_passed_on(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        shown_list(body, None)
