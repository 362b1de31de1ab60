"""Whatever a request to the OpenAI stand-in holds, it is answered or refused in OpenAI's words: never an exception."""

from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.openai.tokenizer import Tokenizer
from gateway.sandbox.openai.answer import Wish, answer
from gateway.sandbox.openai.chat import chat_wish
from gateway.sandbox.openai.embeddings import inputs_of
from gateway.sandbox.openai.errors import OpenAIError
from gateway.sandbox.openai.models import Models, Served
from gateway.sandbox.openai.responses import responses_wish
from gateway.sandbox.openai.schema import fake
from gateway.sandbox.openai.tokens import CACHE_BLOCK, CACHE_FROM, Counter, Prompt, PromptCache
from pricing.book import parse
from pricing.data import read_texts

COUNTER: Final = Counter(Tokenizer())
ENCODING: Final = "o200k_base"
SCALARS: Final = st.none() | st.booleans() | st.integers(-5, 300) | st.text(max_size=8)
JSON: Final = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)
NAMES: Final = (
    "messages input n tools tool_choice response_format text reasoning reasoning_effort instructions "
    "max_tokens max_output_tokens stream_options metadata service_tier"
)
SCHEMA_WORDS: Final = (
    "type properties required enum items prefixItems minItems maxItems anyOf allOf $ref $defs additionalProperties "
    "minLength maxLength format minimum maximum exclusiveMinimum exclusiveMaximum multipleOf"
)
TYPE: Final = st.sampled_from(["object", "array", "string", "integer", "number", "boolean", "#", "#/$defs/a"])
MESSAGE: Final = st.fixed_dictionaries({"role": st.just("user") | SCALARS, "content": JSON}, optional={"name": JSON})
FUNCTION: Final = st.fixed_dictionaries({"name": st.just("f") | JSON, "parameters": JSON})
TOOL: Final = st.fixed_dictionaries(
    {"type": st.just("function"), "name": st.just("f") | JSON, "parameters": JSON, "function": FUNCTION | JSON}
)
CHOICE: Final = st.sampled_from(["auto", "required"]) | st.dictionaries(st.sampled_from(["function", "name"]), JSON)
FIELDS: Final = st.dictionaries(st.sampled_from(NAMES.split()), JSON, max_size=4)
USUAL: Final = st.fixed_dictionaries(
    {},
    optional={
        "messages": st.lists(MESSAGE, min_size=1, max_size=3),
        "tools": st.lists(TOOL, max_size=2),
        "tool_choice": CHOICE,
    },
)


@pytest.fixture(scope="module")
def model() -> Served:
    found = Models(parse(read_texts())).find("gpt-5-mini")
    assert found is not None
    return found


@settings(max_examples=150)
@given(fields=FIELDS, usual=USUAL)
def test_any_request_is_answered_or_refused(model: Served, fields: dict[str, Any], usual: dict[str, Any]) -> None:
    wanted = fields | usual
    for endpoint in ("chat", "responses"):
        try:
            if endpoint == "chat":
                wish = chat_wish(wanted, COUNTER, ENCODING)
            else:
                wish = responses_wish(wanted, [], COUNTER, ENCODING)
        except OpenAIError as refused:
            assert refused.status in (400, 404)  # noqa: PT017  # either outcome is right, another exception is not
            continue
        for choice in answer(COUNTER, model, wish):
            assert choice.tokens >= len(choice.pieces) + choice.reasoning
            assert wish.cap is None or choice.tokens <= wish.cap


@settings(max_examples=100)
@given(schema=JSON | st.dictionaries(st.sampled_from(SCHEMA_WORDS.split()), JSON | TYPE, max_size=6))
def test_any_schema_gives_a_value(schema: Any) -> None:
    fake(schema, bytes(range(32)))


@settings(max_examples=100)
@given(given_input=JSON)
def test_any_input_is_embedded_or_refused(given_input: Any) -> None:
    try:
        texts, tokens = inputs_of({"input": given_input}, COUNTER, "cl100k_base")
    except OpenAIError as refused:
        assert refused.status == 400  # noqa: PT017  # either outcome is right, another exception is not
    else:
        assert len(texts) >= 1
        assert tokens >= 0


@settings(max_examples=30)
@given(tokens=st.integers(1, 60), cap=st.integers(1, 400), effort=st.sampled_from(["none", "low", "high"]))
def test_a_cap_holds_and_a_length_is_exact(model: Served, tokens: int, cap: int, effort: str) -> None:
    prompt = Prompt("x", 1, "x", answers_tool=False)
    (free,) = answer(COUNTER, model, Wish(prompt, tokens=tokens, effort=effort))
    (capped,) = answer(COUNTER, model, Wish(prompt, tokens=tokens, effort=effort, cap=cap))
    assert len(free.pieces) == tokens
    assert free.tokens == free.reasoning + tokens
    assert capped.tokens == min(cap, free.tokens)
    assert (capped.finish == "length") == (free.tokens > cap)


@settings(max_examples=30)
@given(shared=st.integers(0, 2500), own=st.integers(1, 400))
def test_the_cache_knows_the_shared_prefix_and_never_all(shared: int, own: int) -> None:
    cache = PromptCache(COUNTER)
    first, second = (
        Prompt(" word" * shared + tail * own, shared + own, "", answers_tool=False) for tail in (" one", " two")
    )
    before, after = cache.read("m", first, ENCODING), cache.read("m", second, ENCODING)
    assert before.cached == 0
    whole_blocks = shared // CACHE_BLOCK * CACHE_BLOCK
    assert after.cached == (whole_blocks if whole_blocks >= CACHE_FROM else 0)
    assert after.cached + after.written < second.tokens
    again = cache.read("m", second, ENCODING)
    assert (again.cached, again.written) == (after.cached + after.written, 0)
