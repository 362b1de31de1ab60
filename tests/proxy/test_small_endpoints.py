"""Legacy completions, compaction, token counts and moderations with the stock SDK: what the ledger says of each."""

from collections.abc import AsyncIterator
from datetime import datetime
from decimal import Decimal
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

import pricing.data
from gateway.sandbox import credentials
from tests.support.gateway import Stack
from tests.support.recompute import recompute
from tests.support.whole_gateway import row_of

INSTRUCT = "gpt-3.5-turbo-instruct"
EVENT_ID = "x-gateway-event-id"
PRICES = pricing.data.read_texts()


@pytest.fixture
async def client(running: Stack) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=running.base_url, api_key=running.key, max_retries=0) as made:
        yield made


def cost(row: Any, usage: Any) -> Decimal | None:
    """What the row must cost, from the price files alone."""
    endpoint, at = row["endpoint"].partition(".")[0], row["started_at"]
    assert isinstance(at, datetime)
    return recompute(PRICES, endpoint, row["model"], None, at, usage)


async def test_completions(running: Stack, client: AsyncOpenAI) -> None:
    prompts: list[str] = ["Once upon", "a time there was"]
    raw = await client.completions.with_raw_response.create(model=INSTRUCT, prompt=prompts, n=2, best_of=3)
    answer = raw.parse()
    assert len(answer.choices) == 4
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2 * 3 * 16  # best_of are written and charged, n are shown
    row = await row_of(running, raw.headers[EVENT_ID])
    assert (row["endpoint"], row["evidence"], row["response_id"]) == ("completions", "reported", answer.id)
    assert (row["prompt_tokens"], row["completion_tokens"]) == (answer.usage.prompt_tokens, 96)
    assert row["cost_usd"] == cost(row, answer.usage.model_dump(exclude_unset=True))
    assert row["cost_usd"] > 0


@pytest.mark.parametrize("asked", [False, True])
async def test_streamed_completions(running: Stack, client: AsyncOpenAI, asked: bool) -> None:
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if asked else {}
    raw = await client.completions.with_raw_response.create(
        model=INSTRUCT, prompt="Once upon a time", stream=True, max_tokens=7, **options
    )
    chunks = [chunk async for chunk in raw.parse()]
    assert len("".join(choice.text for chunk in chunks for choice in chunk.choices).split()) == 7
    usages = [chunk.usage for chunk in chunks if chunk.usage is not None]
    assert (len(usages), bool(chunks[-1].choices)) == (int(asked), not asked)
    row = await row_of(running, raw.headers[EVENT_ID])
    assert (row["evidence"], row["completion_tokens"]) == ("reported", 7)


async def test_a_completion_stream_that_breaks_is_an_estimate(running: Stack, client: AsyncOpenAI) -> None:
    running.control("openai", body={"times": 1, "endpoint": "completions", "cut_after": 5})
    raw = await client.completions.with_raw_response.create(model=INSTRUCT, prompt="x", stream=True, max_tokens=12)
    with pytest.raises(openai.APIConnectionError):
        [chunk async for chunk in raw.parse()]
    row = await row_of(running, raw.headers[EVENT_ID])
    assert row["evidence"] == "estimated"
    assert 0 < row["completion_tokens"] <= 12


async def test_compact(running: Stack, client: AsyncOpenAI) -> None:
    first = await client.responses.create(model="gpt-5.1", input="My name is Ann.")
    raw = await client.responses.with_raw_response.compact(
        model="gpt-5.1", input="What is my name?", previous_response_id=first.id
    )
    answer = raw.parse()
    assert [item.type for item in answer.output][-1] == "compaction"
    row = await row_of(running, raw.headers[EVENT_ID])
    # The answer names no model: the one that was asked for is priced.
    assert (row["endpoint"], row["evidence"], row["model"]) == ("responses.compact", "reported", "gpt-5.1")
    assert (row["prompt_tokens"], row["total_tokens"]) == (answer.usage.input_tokens, answer.usage.total_tokens)
    assert row["cost_usd"] == cost(row, answer.usage.model_dump(exclude_unset=True))
    items: Any = raw.http_response.json()["output"]
    again = await client.responses.create(model="gpt-5.1", input=[*items, {"role": "user", "content": "Well?"}])
    assert again.usage is not None


async def test_counts_and_moderations_are_free(running: Stack, client: AsyncOpenAI) -> None:
    calls = len(running.truth())
    count = await client.responses.input_tokens.with_raw_response.count(model="gpt-5.1", input="What is a meter?")
    assert count.parse().input_tokens > 0
    judged = await client.moderations.with_raw_response.create(input=["Hello", "there"])
    assert [result.flagged for result in judged.parse().results] == [False, False]
    assert [call["endpoint"] for call in running.truth()[calls:]] == ["responses.input_tokens", "moderations"]
    answer = await client.chat.completions.with_raw_response.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": "x"}]
    )
    await row_of(running, answer.headers[EVENT_ID])  # later than the free ones, and there
    with pytest.raises(AssertionError):
        await row_of(running, count.headers[EVENT_ID], within_s=0.5)
    with pytest.raises(AssertionError):
        await row_of(running, judged.headers[EVENT_ID], within_s=0.5)


async def test_the_responses_of_another_user_do_not_exist(running: Stack, client: AsyncOpenAI) -> None:
    other = running.make_key("other@example.com")
    async with AsyncOpenAI(base_url=running.base_url, api_key=other["key"], max_retries=0) as theirs:
        foreign = await theirs.responses.create(model="gpt-5.1", input="A secret.")
    before = len(running.truth())
    with pytest.raises(openai.NotFoundError) as caught:
        await client.responses.compact(model="gpt-5.1", previous_response_id=foreign.id)
    assert (caught.value.code, caught.value.param) == ("previous_response_not_found", "previous_response_id")
    with pytest.raises(openai.NotFoundError) as caught:
        await client.responses.input_tokens.count(model="gpt-5.1", previous_response_id=foreign.id)
    assert (caught.value.code, caught.value.param) == ("previous_response_not_found", "previous_response_id")
    assert len(running.truth()) == before


async def test_openais_own_errors_pass(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        await client.completions.create(model=INSTRUCT, prompt="x", n=3, best_of=2)
    with pytest.raises(openai.NotFoundError):
        await client.moderations.create(input="x", model="no-such-model")
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.compact(model="no-such-model", input="x")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


async def test_the_stand_in_is_not_open(running: Stack) -> None:
    url = f"http://127.0.0.1:{running.sandbox_port}/openai/v1"
    async with AsyncOpenAI(base_url=url, api_key="wrong", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError):
            await stranger.moderations.create(input="x")
    async with AsyncOpenAI(base_url=url, api_key=credentials.OPENAI_API_KEY, max_retries=0) as known:
        assert (await known.moderations.create(input="x")).results
