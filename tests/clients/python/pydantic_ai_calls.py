"""Pydantic AI, first program: a typed answer, a tool, a second turn, a stream, over both of OpenAI's APIs."""

import asyncio

from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
from told import API_KEY, ASKS_TOOL, BASE_URL, PROMPT, tell


class Step(BaseModel):
    """One step of a sum."""

    explanation: str
    output: str


class Sum(BaseModel):
    """A sum, step by step."""

    steps: list[Step]
    answer: str


async def main() -> None:
    """Every call once."""
    provider = OpenAIProvider(base_url=BASE_URL, api_key=API_KEY)
    for api, model in (
        ("chat", OpenAIChatModel("gpt-4o-mini", provider=provider)),
        ("responses", OpenAIResponsesModel("gpt-5-mini", provider=provider)),
    ):
        agent = Agent(model)

        @agent.tool_plain
        def get_weather(city: str) -> str:
            """The weather in a city."""
            return f"Sunny in {city}."

        first = await agent.run(ASKS_TOOL)
        tell(f"{api}: tool", first.usage.input_tokens, first.usage.output_tokens, calls=first.usage.requests)
        second = await agent.run("Say it again, shorter.", message_history=first.all_messages())
        tell(f"{api}: second turn", second.usage.input_tokens, second.usage.output_tokens, calls=second.usage.requests)
        async with agent.run_stream(PROMPT) as stream:
            async for piece in stream.stream_text(delta=True):
                assert piece
        tell(f"{api}: stream", stream.usage.input_tokens, stream.usage.output_tokens, calls=stream.usage.requests)
        typed = await Agent(model, output_type=Sum).run("Solve 8x + 7 = -23")
        assert typed.output.steps
        tell(f"{api}: typed", typed.usage.input_tokens, typed.usage.output_tokens, calls=typed.usage.requests)


if __name__ == "__main__":
    asyncio.run(main())
