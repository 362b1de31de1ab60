"""The OpenAI stand-in, judged by OpenAI's own SDK: every endpoint, and a truth log that equals what was said."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from gateway.sandbox import credentials
from gateway.sandbox.openai.calls import ReceivedCall
from gateway.sandbox.server import Sandbox
from tests.support.stand_ins import CODER, control, sandbox_at

MODEL: Final = "gpt-4o-mini"
SNAPSHOT: Final = "gpt-4o-mini-2024-07-18"
WEATHER: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"enum": ["c", "f"]}, "days": {"type": "integer"}},
}


class Stop(BaseModel):
    city: str
    nights: int


class Trip(BaseModel):
    """Its schema has `$defs`: a part that is used twice, and one that refers to itself."""

    start: Stop
    stops: list[Stop]
    then: "Trip | None"


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with sandbox_at(time.time) as running:
        yield running


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[AsyncOpenAI]:
    made = AsyncOpenAI(base_url=sandbox.openai_base_url, api_key=credentials.OPENAI_API_KEY, max_retries=0)
    async with made as opened:
        yield opened


def user(text: str) -> Any:
    return {"role": "user", "content": text}


def last(sandbox: Sandbox) -> ReceivedCall:
    return sandbox.openai.log.calls()[-1]


async def test_chat(client: AsyncOpenAI, sandbox: Sandbox) -> None:
    raw = await client.chat.completions.with_raw_response.create(
        model=MODEL,
        messages=[{"role": "system", "content": "Be brief."}, user("What is a meter?")],
        service_tier="auto",
        extra_headers={"X-Client-Request-Id": "ours-1"},
    )
    answer = raw.parse()
    content = answer.choices[0].message.content
    assert content
    assert (answer.model, answer.service_tier, answer.choices[0].finish_reason) == (SNAPSHOT, "default", "stop")
    assert answer.usage is not None
    overhead = 3 + 2 * 3
    texts = ("system", "Be brief.", "user", "What is a meter?")
    assert answer.usage.prompt_tokens == overhead + sum(CODER.count(text, "o200k_base") for text in texts)
    assert answer.usage.completion_tokens == CODER.count(content, "o200k_base")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    call = last(sandbox)
    assert call.usage == answer.usage.model_dump(exclude_unset=True)
    assert (call.client_request_id, call.response_id, call.finished) == ("ours-1", answer.id, True)
    assert (call.endpoint, call.model, call.response_model) == ("chat", MODEL, SNAPSHOT)
    assert raw.headers["x-request-id"] == call.request_id
    assert {"openai-processing-ms", "x-ratelimit-remaining-tokens", "set-cookie"} <= set(raw.headers.keys())
    assert "authorization" in call.headers
    assert credentials.OPENAI_API_KEY not in json.dumps(await control(sandbox, "openai", "/calls", method="GET"))


async def test_the_same_request_gets_the_same_answer(client: AsyncOpenAI) -> None:
    answers = [await client.chat.completions.create(model=MODEL, messages=[user("again")], n=3) for _ in range(2)]
    said = [[choice.message.content for choice in answer.choices] for answer in answers]
    assert said[0] == said[1]
    assert len(set(said[0])) == 3
    assert answers[0].id != answers[1].id


@pytest.mark.parametrize("model", [MODEL, "gpt-5-mini"])
async def test_chat_stream(client: AsyncOpenAI, sandbox: Sandbox, model: str) -> None:
    whole = await client.chat.completions.create(model=model, messages=[user("stream")], n=2)
    stream = await client.chat.completions.create(
        model=model, messages=[user("stream")], n=2, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    *deltas, usage_chunk = chunks
    texts = ["", ""]
    for chunk in deltas:
        assert chunk.usage is None
        assert "usage" in chunk.model_fields_set
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [choice.message.content for choice in whole.choices]
    assert usage_chunk.choices == []
    assert usage_chunk.usage == whole.usage
    assert usage_chunk.usage is not None
    assert last(sandbox).usage == usage_chunk.usage.model_dump(exclude_unset=True)
    assert last(sandbox).finished
    assert {chunk.service_tier for chunk in chunks} == {"default"}
    assert all(chunk.obfuscation is not None and len(chunk.obfuscation) < 16 for chunk in chunks)


async def test_a_stream_without_include_usage_shows_none(client: AsyncOpenAI, sandbox: Sandbox) -> None:
    options: Any = {"include_obfuscation": False}
    stream = await client.chat.completions.create(
        model=MODEL, messages=[user("x")], stream=True, stream_options=options
    )
    chunks = [chunk async for chunk in stream]
    assert all(chunk.choices and "usage" not in chunk.model_fields_set for chunk in chunks)
    assert not any("obfuscation" in (chunk.model_extra or {}) or chunk.obfuscation for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert last(sandbox).usage is not None


async def test_chat_tools(client: AsyncOpenAI) -> None:
    tool: Any = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}
    asked: Any = [user("What is the weather in Oslo?")]
    answer = await client.chat.completions.create(model=MODEL, messages=asked, tools=[tool])
    assert answer.choices[0].finish_reason == "tool_calls"
    calls: Any = answer.choices[0].message.tool_calls
    arguments = json.loads(calls[0].function.arguments)
    assert set(arguments) == {"city", "unit", "days"}
    assert arguments["unit"] in ("c", "f")
    result = [answer.choices[0].message.model_dump(), {"role": "tool", "tool_call_id": calls[0].id, "content": "4 °C"}]
    final = await client.chat.completions.create(model=MODEL, messages=asked + result, tools=[tool])
    assert final.choices[0].finish_reason == "stop"
    none = await client.chat.completions.create(model=MODEL, messages=asked, tools=[tool], tool_choice="none")
    assert none.choices[0].message.content
    pieces = ""
    async for chunk in await client.chat.completions.create(
        model=MODEL, messages=[user("hi")], tools=[tool], tool_choice="required", stream=True
    ):
        for call in chunk.choices[0].delta.tool_calls or ():
            pieces += (call.function and call.function.arguments) or ""
    assert set(json.loads(pieces)) == {"city", "unit", "days"}


async def test_limits_of_output_and_reasoning(client: AsyncOpenAI) -> None:
    cut = await client.chat.completions.create(model=MODEL, messages=[user("x")], max_completion_tokens=5)
    assert cut.choices[0].finish_reason == "length"
    assert cut.usage is not None
    assert cut.usage.completion_tokens == 5
    thought = await client.chat.completions.create(model="o4-mini", messages=[user("x")], reasoning_effort="high")
    assert thought.usage is not None
    assert thought.usage.completion_tokens_details is not None
    assert thought.usage.completion_tokens_details.reasoning_tokens == 256 < thought.usage.completion_tokens
    response = await client.responses.create(model="o4-mini", input="x", max_output_tokens=20)
    assert (response.status, response.output_text) == ("incomplete", "")
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.usage is not None
    assert response.usage.output_tokens == response.usage.output_tokens_details.reasoning_tokens == 20


async def test_structured_output(client: AsyncOpenAI) -> None:
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "w", "schema": WEATHER}}
    answer = await client.chat.completions.create(model=MODEL, messages=[user("x")], response_format=wanted)
    assert set(json.loads(answer.choices[0].message.content or "")) == {"city", "unit", "days"}
    text: Any = {"format": {"type": "json_object"}}
    response = await client.responses.create(model=MODEL, input="x", text=text)
    assert json.loads(response.output_text)["answer"]


async def test_structured_output_with_references(client: AsyncOpenAI) -> None:
    """By the SDK's own helpers, which make strict schemas of pydantic's and read the answers back."""
    chat = await client.chat.completions.parse(
        model=MODEL, messages=[user("Plan a trip.")], response_format=Trip, tools=[openai.pydantic_function_tool(Stop)]
    )
    assert isinstance(chat.choices[0].message.parsed, Trip)
    response = await client.responses.parse(model=MODEL, input="Plan a trip.", text_format=Trip)
    assert isinstance(response.output_parsed, Trip)
    called = await client.chat.completions.parse(
        model=MODEL, messages=[user("Use the tool.")], tools=[openai.pydantic_function_tool(Trip)]
    )
    (call,) = called.choices[0].message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, Trip)


async def test_prompt_cache(client: AsyncOpenAI) -> None:
    long = "Every call is counted once. " * 300
    seen = []
    for model, question in ((MODEL, "one"), (MODEL, "two"), ("gpt-5.6", "one"), ("gpt-5.6", "two")):
        response = await client.responses.create(model=model, instructions=long, input=question)
        assert response.usage is not None
        details = response.usage.input_tokens_details
        # A model that does not bill what it writes does not say it, as in most recordings.
        said = details.model_dump(exclude_unset=True)
        assert ("cache_write_tokens" in said) == (model != MODEL)
        written = said.get("cache_write_tokens", 0)
        assert details.cached_tokens + written <= response.usage.input_tokens
        assert "cache_write_tokens_details" not in said
        seen.append((details.cached_tokens, written))
    assert seen[0] == (0, 0)
    assert seen[1][0] >= 1024
    assert seen[1][0] % 128 == 0
    assert seen[2][0] == 0
    assert seen[2][1] >= 1024
    assert seen[3] == (seen[2][1], 0)
    options: Any = {"prompt_cache_options": {"ttl": "12h"}}
    kept = await client.responses.create(model="gpt-6-sol", input=long, extra_body=options)
    assert kept.usage is not None
    split = kept.usage.input_tokens_details.cache_write_tokens_details
    assert split is not None
    assert (split.ttl_30m_tokens, split.ttl_12h_tokens) == (0, kept.usage.input_tokens_details.cache_write_tokens)


@pytest.mark.parametrize(
    ("asked", "said"), [("auto", "default"), ("fast", "priority"), ("priority", "priority"), ("flex", "default")]
)
async def test_service_tier(client: AsyncOpenAI, sandbox: Sandbox, asked: Any, said: str) -> None:
    answer = await client.chat.completions.create(model="gpt-4o", messages=[user("x")], service_tier=asked)
    assert answer.service_tier == said
    assert last(sandbox).service_tier == said


async def test_embeddings(client: AsyncOpenAI, sandbox: Sandbox) -> None:
    base64 = await client.embeddings.create(model="text-embedding-3-small", input=["one", "two words"])
    numbers = await client.embeddings.create(
        model="text-embedding-3-small", input=["one", "two words"], encoding_format="float"
    )
    assert [len(item.embedding) for item in base64.data] == [1536, 1536]
    assert numbers.data[1].embedding == pytest.approx(base64.data[1].embedding, abs=1e-6)
    assert sum(x * x for x in numbers.data[0].embedding) == pytest.approx(1)
    tokens = CODER.count("one", "cl100k_base") + CODER.count("two words", "cl100k_base")
    assert (base64.usage.prompt_tokens, base64.usage.total_tokens) == (tokens, tokens)
    assert last(sandbox).usage == {"prompt_tokens": tokens, "total_tokens": tokens}
    short = await client.embeddings.create(model="text-embedding-3-large", input=[[1, 2, 3], [4]], dimensions=8)
    assert [len(item.embedding) for item in short.data] == [8, 8]
    assert short.usage.prompt_tokens == 4


async def test_models(client: AsyncOpenAI) -> None:
    names = {model.id for model in (await client.models.list()).data}
    assert {MODEL, SNAPSHOT, "gpt-5.6-sol", "text-embedding-3-small"} <= names
    assert (await client.models.retrieve(MODEL)).id == MODEL
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("gpt-nothing")


async def test_the_synchronous_client(sandbox: Sandbox) -> None:
    def talk() -> tuple[str, str | None]:
        with OpenAI(base_url=sandbox.openai_base_url, api_key=credentials.OPENAI_API_KEY, max_retries=0) as client:
            stream = client.chat.completions.create(model=MODEL, messages=[user("x")], stream=True)
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
            return text, client.chat.completions.create(model=MODEL, messages=[user("x")]).choices[0].message.content

    streamed, whole = await asyncio.to_thread(talk)
    assert streamed == whole
    assert [call.finished for call in sandbox.openai.log.calls()] == [True, True]
