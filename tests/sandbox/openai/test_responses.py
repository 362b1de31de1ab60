"""The OpenAI stand-in's Responses API, judged by OpenAI's own SDK: event sequence, tools, storage."""

import json
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import openai
import pytest
from openai import AsyncOpenAI

from gateway.sandbox import credentials
from gateway.sandbox.openai.calls import ReceivedCall
from gateway.sandbox.server import Sandbox
from tests.support.stand_ins import sandbox_at

MODEL: Final = "gpt-4o-mini"
TOOL: Final[Any] = {
    "type": "function",
    "name": "find_meter",
    "parameters": {"type": "object", "properties": {"id": {"type": "string"}}},
    "strict": False,
}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with sandbox_at(time.time) as running:
        yield running


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[AsyncOpenAI]:
    made = AsyncOpenAI(base_url=sandbox.openai_base_url, api_key=credentials.OPENAI_API_KEY, max_retries=0)
    async with made as opened:
        yield opened


def last(sandbox: Sandbox) -> ReceivedCall:
    return sandbox.openai.log.calls()[-1]


async def events_of(client: AsyncOpenAI, **fields: Any) -> list[Any]:
    return [event async for event in await client.responses.create(stream=True, **fields)]


async def test_a_response(client: AsyncOpenAI, sandbox: Sandbox) -> None:
    response = await client.responses.create(model=MODEL, input="What is a meter?", metadata={"a": "b"})
    assert response.status == "completed"
    assert response.output_text
    assert (response.model, response.service_tier) == ("gpt-4o-mini-2024-07-18", "default")
    assert response.metadata == {"a": "b"}
    assert response.usage is not None
    assert last(sandbox).usage == response.usage.model_dump(exclude_unset=True)
    assert last(sandbox).response_id == response.id


async def test_a_stream_has_every_event_in_order(client: AsyncOpenAI, sandbox: Sandbox) -> None:
    events = await events_of(client, model=MODEL, input="What is a meter?")
    kinds = [event.type for event in events]
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert [kind for kind in kinds if kind != "response.output_text.delta"] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    final = events[-1].response
    assert "".join(deltas) == final.output_text
    assert events[0].response.usage is None
    assert final.usage.output_tokens == len(deltas)
    assert last(sandbox).usage == final.usage.model_dump(exclude_unset=True)
    assert (last(sandbox).finished, last(sandbox).chunks_sent) == (True, len(events))


async def test_a_function_call_in_a_stream(client: AsyncOpenAI) -> None:
    events = await events_of(client, model="gpt-5-mini", input="Use the tool.", tools=[TOOL])
    kinds = [event.type for event in events]
    assert kinds.count("response.output_item.added") == 2  # the reasoning, then the call
    arguments = "".join(event.delta for event in events if event.type == "response.function_call_arguments.delta")
    (done,) = [event for event in events if event.type == "response.function_call_arguments.done"]
    call = events[-1].response.output[-1]
    assert arguments == done.arguments == call.arguments
    assert set(json.loads(arguments)) == {"id"}
    items: Any = [*events[-1].response.output, {"type": "function_call_output", "call_id": call.call_id, "output": "7"}]
    answer = await client.responses.create(model="gpt-5-mini", input=items, tools=[TOOL])
    assert answer.output_text


async def test_a_function_of_a_namespace_that_an_item_brings(client: AsyncOpenAI) -> None:
    tool = {"type": "function", "name": "list_agents", "parameters": {"type": "object", "properties": {}}}
    other = tool | {"name": "interrupt_agent"}
    space = {"type": "namespace", "name": "collaboration", "description": "Agents.", "tools": [other, tool]}
    brought = {"type": "additional_tools", "role": "developer", "tools": [space]}
    items: Any = [brought, {"role": "user", "content": "Which agents are there? Use list_agents."}]
    events = await events_of(client, model="gpt-5-mini", input=items)
    call = events[-1].response.output[-1]
    assert (call.type, call.name, call.namespace) == ("function_call", "list_agents", "collaboration")
    plain: Any = await client.responses.create(model="gpt-5-mini", input=items[1:])
    assert plain.usage.input_tokens < events[-1].response.usage.input_tokens


async def test_stored_responses(client: AsyncOpenAI, sandbox: Sandbox) -> None:
    first = await client.responses.create(model=MODEL, input="one")
    assert (await client.responses.retrieve(first.id)).usage == first.usage
    assert last(sandbox).usage is None  # reading repeats a usage, it costs nothing
    second = await client.responses.create(model=MODEL, input="two", previous_response_id=first.id)
    alone = await client.responses.create(model=MODEL, input="two", store=False)
    assert second.usage is not None
    assert alone.usage is not None
    assert second.usage.input_tokens > alone.usage.input_tokens
    items = await client.responses.input_items.list(second.id)
    assert len(items.data) == 1
    replayed = [event async for event in await client.responses.retrieve(first.id, stream=True, starting_after=1)]
    assert [replayed[0].sequence_number, replayed[-1].type] == [2, "response.completed"]
    for missing in (alone.id, "resp_none"):
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(missing)
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(model=MODEL, input="x", previous_response_id="resp_none")
    assert caught.value.code == "previous_response_not_found"
    with pytest.raises(openai.BadRequestError):
        await client.responses.cancel(first.id)
    await client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.delete(first.id)


async def test_ids_do_not_come_again_after_a_restart(client: AsyncOpenAI) -> None:
    first = await client.responses.create(model=MODEL, input="one")
    async with sandbox_at(time.time) as other:
        key = credentials.OPENAI_API_KEY
        async with AsyncOpenAI(base_url=other.openai_base_url, api_key=key, max_retries=0) as again:
            assert (await again.responses.create(model=MODEL, input="one")).id != first.id
