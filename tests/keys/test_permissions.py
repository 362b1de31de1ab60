"""Which endpoints and models a key's permissions allow."""

import pytest

from gateway.keys.bounds import BOUND, KeyBounds
from gateway.keys.permissions import allowed_of
from gateway.openai.routing import CATALOGUE


@pytest.mark.parametrize("permissions", [[], ["usage.read"], ["openai.*"], ["openai.chat", "openai.*"], ["openai"]])
def test_nothing_binds(permissions: list[str]) -> None:
    assert allowed_of(permissions) is None


def test_an_endpoint_allows_what_belongs_to_it_and_every_model() -> None:
    allowed = allowed_of(["openai.responses", "openai.embeddings", "usage.read"])
    assert allowed is not None
    names = {entry.name for entry in CATALOGUE if allowed.endpoint(entry.name)}
    assert names == {name for name in (e.name for e in CATALOGUE) if name.startswith(("responses", "embeddings"))}
    assert allowed.model("gpt-99")


@pytest.mark.parametrize("given", ["rooms.*", "rooms.read", "rooms.read_sensitive", "rooms.write"])
def test_a_key_for_rooms_calls_openai_only_with_a_permission_for_that(given: str) -> None:
    allowed = allowed_of([given, "usage.read"])
    assert allowed is not None
    assert [entry.name for entry in CATALOGUE if allowed.endpoint(entry.name)] == []
    assert allowed_of([given, "openai.*"]) is None
    both = allowed_of([given, "openai.chat"])
    assert both is not None
    assert [entry.name for entry in CATALOGUE if both.endpoint(entry.name)] == [
        entry.name for entry in CATALOGUE if entry.name.partition(".")[0] == "chat"
    ]
    # Such a key is marked as bound, so that an answer of Unkey without its permissions is not a free pass.
    assert KeyBounds((given,)).meta() == {BOUND: True}


def test_a_part_of_an_endpoint_allows_only_itself() -> None:
    allowed = allowed_of(["openai.responses.get"])
    assert allowed is not None
    assert [entry.name for entry in CATALOGUE if allowed.endpoint(entry.name)] == ["responses.get"]


@pytest.mark.parametrize(
    ("permission", "model", "is_allowed"),
    [
        ("openai.model.gpt-5", "gpt-5", True),
        ("openai.model.gpt-5", "gpt-5-2025-08-07", True),
        ("openai.model.gpt-5", "gpt-5-mini", False),
        ("openai.model.gpt-5", "gpt-5-2025-08-07-mini", False),
        ("openai.model.gpt-5", "GPT-5", False),
        ("openai.model.gpt-5", "gpt-5 ", False),
        ("openai.model.gpt-5", "", False),
        ("openai.model.gpt-5*", "gpt-5-mini", True),
        ("openai.model.gpt-5*", "gpt-4.1", False),
        ("openai.model.*", "anything", True),
        ("openai.model.", "gpt-5", False),
    ],
)
def test_a_model_and_its_snapshots(permission: str, model: str, is_allowed: bool) -> None:
    allowed = allowed_of([permission])
    assert allowed is not None
    assert allowed.model(model) == is_allowed
    assert allowed.endpoint("chat")
