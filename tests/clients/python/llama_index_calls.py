"""LlamaIndex, first program: a completion, a chat, a stream, an agent with a tool, over both of OpenAI's APIs."""

import asyncio
from typing import Any

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai import OpenAI, OpenAIResponses
from told import API_KEY, ASKS_TOOL, BASE_URL, PROMPT, tell


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"Sunny in {city}."


def tell_usage(call: str, usage: Any) -> None:
    """As the raw answer has it."""
    read = usage.model_dump()
    tell(
        call,
        read.get("prompt_tokens", read.get("input_tokens")),
        read.get("completion_tokens", read.get("output_tokens")),
    )


async def main() -> None:
    """Every call once."""
    chat = OpenAI(model="gpt-4o-mini", api_base=BASE_URL, api_key=API_KEY)
    responses = OpenAIResponses(model="gpt-5-mini", api_base=BASE_URL, api_key=API_KEY)
    tell_usage("chat: completion", chat.complete(PROMPT).raw.usage)
    first = [ChatMessage(role="user", content=PROMPT)]
    for api, llm in (("chat", chat), ("responses", responses)):
        answer = llm.chat(first)
        tell_usage(f"{api}: first turn", answer.raw.usage)
        second = [*first, answer.message, ChatMessage(role="user", content="Say it again, shorter.")]
        tell_usage(f"{api}: second turn", llm.chat(second).raw.usage)
        for piece in llm.stream_chat(first):
            assert piece.message
        tell(f"{api}: stream", None, None)
        await FunctionAgent(llm=llm, tools=[get_weather]).run(ASKS_TOOL)
        tell(f"{api}: agent with a tool", None, None, calls=2)


if __name__ == "__main__":
    asyncio.run(main())
