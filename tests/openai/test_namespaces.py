"""What each user has of its own at OpenAI: keys, and by setting two fields of a body, of which nothing else changes."""

import json
from typing import Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.config.key_ring import entry_of
from gateway.config.settings import Settings, UpstreamSettings
from gateway.openai.headers import forwarded_headers
from gateway.openai.namespaces import Namespaces
from gateway.openai.opening import build_namespaces
from gateway.openai.request import read_request

ANNA, BERT = "0190a000-0000-7000-8000-00000000000a", "0190a000-0000-7000-8000-00000000000b"
FIELDS = ("prompt_cache_key", "safety_identifier")
SECRETS = entry_of("one", b"s" * 32)


@pytest.mark.parametrize("secret", [None, b"s" * 32])
def test_a_key_is_its_user_s_own(secret: bytes | None) -> None:
    """Without a secret as well, so that two users never meet; and the same in another process."""
    names = Namespaces(secret)
    assert names.name_key(ANNA, "k") == Namespaces(secret).name_key(ANNA, "k")
    assert len({names.name_key(*each) for each in ((ANNA, "k"), (BERT, "k"), (ANNA, "l"), (ANNA, ""))}) == 4
    assert "k1" not in names.name_key(ANNA, "k1")
    # A key cannot be chosen so that it falls among another user's.
    assert names.name_key(ANNA, f"{BERT}k") != names.name_key(BERT, "k")
    assert names.name_key(ANNA, names.name_key(BERT, "k")) != names.name_key(BERT, "k")


def test_one_user_s_own_keys_may_go_unchanged() -> None:
    """Nobody else's can be equal to one of them; without a secret they could be guessed."""
    names = Namespaces(b"s" * 32, own_user=ANNA)
    assert names.name_key(ANNA, "k") == "k"
    assert names.name_key(BERT, "k") == Namespaces(b"s" * 32).name_key(BERT, "k")
    assert Namespaces(own_user=ANNA).name_key(ANNA, "k") != "k"


def test_headers() -> None:
    sent = CIMultiDictProxy(CIMultiDict([("Idempotency-Key", "k"), ("Content-Type", "application/json;charset=utf-7")]))
    names = Namespaces(b"s" * 32)
    passed = forwarded_headers(sent, "event", names, ANNA, has_body=True)
    assert passed == {
        "X-Client-Request-Id": "event",
        "content-type": "application/json",
        "idempotency-key": names.name_key(ANNA, "k"),
    }
    assert "content-type" not in forwarded_headers(sent, "event", names, ANNA, has_body=False)


BODIES: list[tuple[str, bytes]] = [
    ("chat", b'{"model":"gpt-5-mini","messages":[],"x":1.50}'),
    ("chat", b' {\n "model" : "gpt-5-mini", "safety_identifier":"me", "messages": [ ] , "prompt_cache_key" : "c" }\n'),
    ("chat", b'{"prompt_cache_key":null,"model":"gpt-5-mini","messages":[],"stream":true}'),
    ("chat", b'{"model":"gpt-5-mini","messages":[],"stream":true,"stream_options":{"x":1},"prompt_cache_key":"c"}'),
    ("chat", rb'{"model":"gpt-5-mini","messages":[],"prompt\u005fcache_key":"\ud83d\ude00 \"c"}'),
    ("responses", b'{"model":"gpt-5-mini","input":"hi","prompt_cache_key":"prompt_cache_key"}'),
]


@pytest.mark.parametrize(("endpoint", "body"), BODIES)
@pytest.mark.parametrize("fields", [FIELDS[:1], FIELDS[1:], FIELDS])
def test_only_these_fields_change(endpoint: str, body: bytes, fields: tuple[str, ...]) -> None:
    as_sent = read_request(endpoint, body)
    anna = Namespaces(b"s" * 32, fields=frozenset(fields)).fields_of(ANNA)
    bert = Namespaces(b"s" * 32, fields=frozenset(fields)).fields_of(BERT)
    asked = read_request(endpoint, body, anna)
    before, after = json.loads(as_sent.body), json.loads(asked.body)
    assert {name: value for name, value in after.items() if name not in fields} == {
        name: value for name, value in before.items() if name not in fields
    }
    for name in fields:
        assert (len(after[name]), after[name] != before.get(name)) == (32, True)
        assert json.loads(read_request(endpoint, body, bert).body)[name] != after[name]
    # What is not theirs stays byte for byte: taken out of both, the rest is equal.
    assert _without(asked.body, after, fields, before) == _without(as_sent.body, before, fields, before)
    assert (asked.stream, asked.withhold_usage, asked.text_bytes) == (
        as_sent.stream,
        as_sent.withhold_usage,
        as_sent.text_bytes,
    )


def _without(body: bytes, values: dict[str, Any], fields: tuple[str, ...], before: dict[str, Any]) -> bytes:
    """`body` with a mark for each value of these fields that the client had sent, and without those that were added."""
    for name in fields:
        value = values.get(name)
        if name not in before:
            body = body.replace(f'"{name}":"{value}",'.encode(), b"", 1)
            continue
        spelled = [json.dumps(value).encode(), rb'"\ud83d\ude00 \"c"']
        body = body.replace(b':"prompt_cache_key"', b":VALUE")
        for one in spelled:
            body = body.replace(b":" + one, b":VALUE").replace(b": " + one, b": VALUE")
    return body


@pytest.mark.parametrize("value", [b"5", b"{}", b"true", b'["c"]'])
def test_what_is_no_text_is_openai_s_to_refuse(value: bytes) -> None:
    body = b'{"model":"gpt-5-mini","input":"hi","prompt_cache_key":' + value + b"}"
    set_field = Namespaces(fields=frozenset(FIELDS[:1])).fields_of(ANNA)
    assert read_request("responses", body, set_field).body == body


@pytest.mark.parametrize(
    ("endpoint", "body", "changed"),
    [
        ("responses.compact", b'{"model":"gpt-5-mini","input":"hi"}', {"prompt_cache_key"}),
        ("completions", b'{"model":"gpt-3.5-turbo-instruct","prompt":"hi"}', set()),
        ("embeddings", b'{"model":"text-embedding-3-small","input":"hi"}', set()),
    ],
)
def test_only_where_openai_has_the_field(endpoint: str, body: bytes, changed: set[str]) -> None:
    set_field = Namespaces(fields=frozenset(FIELDS)).fields_of(ANNA)
    asked = json.loads(read_request(endpoint, body, set_field).body)
    assert asked.keys() - json.loads(body).keys() == changed


def test_from_settings() -> None:
    assert build_namespaces(Settings()).fields_of(ANNA) is None
    bounds = UpstreamSettings(safety_identifier_per_user=True, own_user=ANNA)
    names = build_namespaces(Settings(gateway_secrets=SECRETS, upstream=bounds))
    assert names.name_key(ANNA, "k") == "k"
    assert names.name_key(BERT, "k") == Namespaces(b"s" * 32).name_key(BERT, "k")
    set_field = names.fields_of(ANNA)
    assert set_field is not None
    assert set_field("prompt_cache_key", "c") is None
    assert set_field("safety_identifier", "c") is not None
