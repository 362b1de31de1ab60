"""The stock openai SDK with only base_url and api_key changed: what an app developer does on the first day."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.support.gateway import Stack
from tests.support.whole_gateway import row_of

MODEL = "gpt-4o-mini"
WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
EVENT_ID = "x-gateway-event-id"


def user(text: str) -> Any:
    return {"role": "user", "content": text}


@pytest.fixture
def client(running: Stack) -> Iterator[OpenAI]:
    with OpenAI(base_url=running.base_url, api_key=running.key, max_retries=0) as made:
        yield made


@pytest.fixture
async def aclient(running: Stack) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=running.base_url, api_key=running.key, max_retries=0) as made:
        yield made


def test_chat(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=[user("Hello there")])
    answer = raw.parse()
    assert answer.choices[0].message.content
    assert answer.model == "gpt-4o-mini-2024-07-18"
    assert answer.usage is not None
    assert answer.usage.total_tokens > 0
    assert raw.headers[EVENT_ID]
    assert raw.headers["x-request-id"]
    assert "set-cookie" not in raw.headers


def test_chat_stream_hides_the_usage_nobody_asked_for(client: OpenAI) -> None:
    chunks = list(client.chat.completions.create(model=MODEL, messages=[user("Count to five")], stream=True))
    assert all(chunk.choices for chunk in chunks)
    assert all(chunk.usage is None for chunk in chunks)
    assert "usage" not in chunks[0].model_fields_set
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_chat_stream_shows_the_usage_one_asked_for(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=[user("Count to five")], stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_async_chat_and_stream(aclient: AsyncOpenAI) -> None:
    answer = await aclient.chat.completions.create(model=MODEL, messages=[user("Hello there")])
    assert answer.choices[0].message.content
    stream = await aclient.chat.completions.create(model=MODEL, messages=[user("Hello there")], stream=True)
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == answer.choices[0].message.content


async def test_responses_stream_with_a_function_tool(aclient: AsyncOpenAI) -> None:
    stream = await aclient.responses.create(
        model="gpt-5.1",
        input="What is the weather in Paris? Use get_weather.",
        tools=[{"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": True}],
        tool_choice="required",
        stream=True,
    )
    events = [event async for event in stream]
    assert events[0].type == "response.created"
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.usage is not None
    calls = [item for item in last.response.output if item.type == "function_call"]
    assert calls
    assert calls[0].name == "get_weather"
    kinds = {event.type for event in events}
    assert "response.function_call_arguments.done" in kinds


def test_a_response_is_its_owners_only(client: OpenAI, running: Stack) -> None:
    made = client.responses.create(model=MODEL, input="Remember this")
    assert client.responses.retrieve(made.id).id == made.id
    follow = client.responses.create(model=MODEL, input="And then?", previous_response_id=made.id)
    assert follow.previous_response_id == made.id
    stranger_key = running.make_key("stranger@example.com")["key"]
    with OpenAI(base_url=running.base_url, api_key=stranger_key, max_retries=0) as stranger:
        for attempt in (
            lambda: stranger.responses.retrieve(made.id),
            lambda: stranger.responses.delete(made.id),
            lambda: stranger.responses.cancel(made.id),
            lambda: stranger.responses.create(model=MODEL, input="x", previous_response_id=made.id),
        ):
            with pytest.raises(openai.NotFoundError):
                attempt()
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def refers_to(*items: Any) -> Any:
    """Earlier items as the AI SDK of Vercel sends them from the second turn on, and something new to say."""
    return [*({"type": "item_reference", "id": item.id} for item in items), {"role": "user", "content": "And then?"}]


@pytest.mark.parametrize("stream", [False, True])
def test_an_item_is_its_owners_only(client: OpenAI, running: Stack, stream: bool) -> None:
    if stream:
        *_, last = client.responses.create(model="gpt-5-mini", input="Remember this", stream=True)
        assert last.type == "response.completed"
        made = last.response
    else:
        made = client.responses.create(model="gpt-5-mini", input="Remember this")
    assert {item.type for item in made.output} == {"reasoning", "message"}
    follow = client.responses.create(model="gpt-5-mini", input=refers_to(*made.output))
    assert follow.usage is not None
    assert made.usage is not None
    assert follow.usage.input_tokens > made.usage.input_tokens
    inline: Any = [
        *(item.model_dump(exclude_none=True) for item in made.output),
        {"role": "user", "content": "And then?"},
    ]
    client.responses.create(model="gpt-5-mini", input=inline)
    before = len(running.truth())
    with OpenAI(base_url=running.base_url, api_key=running.make_key("stranger@example.com")["key"]) as stranger:
        for given in (refers_to(made.output[-1]), inline):
            with pytest.raises(openai.NotFoundError, match=r"Item with id '\w+' not found\.") as caught:
                stranger.responses.create(model="gpt-5-mini", input=given)
            assert (caught.value.code, caught.value.param) == ("item_not_found", "input")
    assert len(running.truth()) == before


def test_items_of_an_answer_that_is_not_stored_cannot_be_referred_to(client: OpenAI) -> None:
    made = client.responses.create(model=MODEL, input="Forget this", store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model=MODEL, input=refers_to(*made.output))


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "apply_patch"},
        {"type": "local_shell"},
        {"type": "shell", "environment": {"type": "local"}},
        {"type": "computer_use_preview", "display_width": 1024, "display_height": 768, "environment": "linux"},
        {"type": "tool_search", "execution": "client", "description": "d", "parameters": {"type": "object"}},
        {"type": "namespace", "name": "n", "description": "d", "tools": [{"type": "function", "name": "f"}]},
    ],
)
def test_tools_that_the_client_runs_pass(client: OpenAI, tool: Any) -> None:
    assert client.responses.create(model=MODEL, input="Hello", tools=[tool]).usage is not None


def test_embeddings_and_models(client: OpenAI) -> None:
    vectors = client.embeddings.create(model="text-embedding-3-small", input=["one", "two"])
    assert len(vectors.data) == 2
    assert vectors.usage.total_tokens > 0
    assert MODEL in {model.id for model in client.models.list()}
    assert client.models.retrieve(MODEL).id == MODEL


def test_a_wrong_key_is_a_401(running: Stack) -> None:
    nobody = OpenAI(base_url=running.base_url, api_key="sk-nobody", max_retries=0)
    with nobody, pytest.raises(openai.AuthenticationError) as caught:
        nobody.chat.completions.create(model=MODEL, messages=[user("x")])
    assert caught.value.code == "invalid_api_key"
    assert "sk-nobody" not in str(caught.value)


def test_openais_429_is_passed_on(client: OpenAI, running: Stack) -> None:
    running.control("openai", body={"times": 1, "status": 429, "retry_after_s": 7})
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model=MODEL, messages=[user("x")])
    assert caught.value.response.headers["retry-after"] == "7"
    assert caught.value.response.headers[EVENT_ID]


def test_openais_400_is_passed_on(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=[])
    assert caught.value.response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"background": True}, "background"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    ],
)
def test_what_cannot_be_metered_is_a_400(client: OpenAI, extra: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model=MODEL, input="x", extra_body=extra)
    assert caught.value.code == "unsupported_parameter"
    assert caught.value.param == param


def test_another_endpoint_is_refused(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.images.generate(prompt="a cat", model="gpt-image-1")
    assert caught.value.code == "endpoint_not_supported"


def test_a_meeting_must_be_the_callers(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model=MODEL, messages=[user("x")], extra_headers={"X-Meeting-Id": "01890a5d-ac96-774b-bcce-b302099a8057"}
        )
    assert caught.value.code == "invalid_meeting"


async def test_a_call_names_its_meeting_in_any_way(client: OpenAI, running: Stack) -> None:
    daily, connection = "5d3b1ad4-6bf5-4d49-9fdc-1c1a9f2b2a55", await asyncpg.connect(running.env["DATABASE_URL"])
    try:
        meeting = await connection.fetchval(
            "insert into meetings (user_id, room_name, daily_meeting_id, status, started_at)"
            " values ($1, 'standup', $2, 'in_progress', now()) returning id", running.user_id, daily,
        )  # fmt: skip
    finally:
        await connection.close()
    for name in (str(meeting), daily, "standup"):
        answer = await asyncio.to_thread(
            client.with_raw_response.chat.completions.create,
            model=MODEL,
            messages=[user("x")],
            extra_headers={"X-Meeting-Id": name},
        )
        row = await row_of(running, answer.headers["x-gateway-event-id"])
        assert row["meeting_id"] == meeting
