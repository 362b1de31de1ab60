"""No body holds up the calls of others: what Python does for one is bounded, and the loop turns meanwhile."""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from gateway.kit.errors import ApiError
from gateway.openai.request import BOUNDS, read_counted, read_request
from gateway.proxy.judge import Judge
from gateway.proxy.request_info import model_in

MEGABYTE = 1 << 20
CHAT = b'{"model":"gpt-4o-mini","messages":['
LINES_MAX = 3_000
"""Lines of Python for a body that is refused for its structure. One million objects are a million lines and more."""


def filled(head: bytes, unit: bytes, tail: bytes, size: int) -> bytes:
    return head + b",".join([unit] * (size // (len(unit) + 1))) + tail


def members(size: int) -> bytes:
    return b",".join(b'"f%d":1' % number for number in range(size // 12))


SHAPES: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "objects behind an escape": ("chat", lambda size: filled(CHAT + b'"\\u0061",', b"{}", b"]}", size)),
    "objects behind a mark": (
        "responses",
        lambda size: filled(b'{"model":"m","input":[{"id":"x"},', b"{}", b"]}", size),
    ),
    "objects, counted": (
        "responses.input_tokens",
        lambda size: filled(b'{"model":"m","input":[{"id":"x"},', b"{}", b"]}", size),
    ),
    "lists": ("responses", lambda size: filled(b'{"model":"m","input":["\\u0061",', b"[]", b"]}", size)),
    "tools": (
        "chat",
        lambda size: filled(b'{"model":"m","messages":[],"tools":[', b'{"type":"function"}', b"]}", size),
    ),
    "fields": ("chat", lambda size: b'{"model":"m","messages":[],' + members(size) + b"}"),
    "stream options": (
        "chat",
        lambda size: b'{"model":"m","messages":[],"stream":true,"stream_options":{' + members(size) + b"}}",
    ),
    "cache options": (
        "responses",
        lambda size: b'{"model":"m","input":"x","prompt_cache_options":{' + members(size) + b"}}",
    ),
    "prompts": ("completions", lambda size: filled(b'{"model":"m","prompt":[', b"1", b"]}", size)),
    "texts": ("completions", lambda size: filled(b'{"model":"m","prompt":[', b'""', b"]}", size)),
    "no JSON at its end": ("chat", lambda size: filled(CHAT, b"[1]", b"]}x", size)),
    "escaped text": ("chat", lambda size: CHAT + b'"' + b'\\",{[' * (size // 5) + b'"]}'),
}


@contextmanager
def counted_lines() -> Iterator[list[int]]:
    """How many lines of Python run in this thread, in `[0]`."""
    lines, before = [0], sys.gettrace()

    def trace(_frame: FrameType, event: str, _argument: Any) -> Any:
        lines[0] += event == "line"
        return trace

    sys.settrace(trace)
    try:
        yield lines
    finally:
        sys.settrace(before)


def judged(endpoint: str, body: bytes) -> str | None:
    """The code with which the body is refused; None when it is taken."""
    try:
        (read_counted if endpoint == "responses.input_tokens" else read_request)(endpoint, body)
    except ApiError as error:
        model_in(body)
        return error.code
    return None


@pytest.mark.parametrize("shape", SHAPES)
def test_python_work_does_not_grow_with_a_body(shape: str) -> None:
    endpoint, make = SHAPES[shape]
    body = make(4 * MEGABYTE)
    with counted_lines() as lines:
        code = judged(endpoint, body)
    assert lines[0] < LINES_MAX
    assert (code is None) == (shape == "escaped text")


@pytest.mark.parametrize("shape", SHAPES)
async def test_the_loop_turns_while_a_body_is_read(shape: str) -> None:
    endpoint, make = SHAPES[shape]
    judge, beats, done = Judge(), 0, asyncio.Event()

    async def read() -> None:
        size = 8 * MEGABYTE
        try:
            await judge.read(judged, endpoint, make(size), "key")
        finally:
            done.set()

    reading = asyncio.create_task(read())
    while not done.is_set():
        await asyncio.sleep(0)
        beats += 1
    await reading
    assert beats >= 3  # one that is read in the loop has 2: before, and after


async def test_most_of_what_is_taken_leaves_the_loop_its_turns() -> None:
    """The costliest body that is not refused: every object is looked at."""
    items = [{"id": f"msg_{n}", "content": "x"} for n in range(BOUNDS.objects - 10)]
    body = json.dumps({"model": "gpt-4o-mini", "input": items}).encode()
    judge = Judge()
    reading = asyncio.create_task(judge.read(read_request, "responses", body, "key"))
    beats = 0
    while not reading.done():
        await asyncio.sleep(0.001)
        beats += 1
    assert not (await reading).refers.item_ids
    assert beats >= 10


async def test_one_key_waits_for_itself_and_others_do_not() -> None:
    judge, order = Judge(), []
    body = b"[" + b"1," * 200_000 + b"1]"

    def read(name: str, _body: bytes) -> None:
        order.append(name)

    await asyncio.gather(
        *(judge.read(read, f"flood {number}", body, "flood") for number in range(20)),
        judge.read(read, "other", body, "other"),
    )
    assert order.index("other") <= 1


def test_what_openai_takes_passes() -> None:
    ids = json.dumps([[1234] * 146] * 2048).encode()  # 299,008 tokens
    read_request("embeddings", b'{"model":"m","input":' + ids + b"}")
    messages = [{"role": "user", "content": [{"type": "text", "text": 'a, {b}: "c"\\' * 40}] * 4}] * 2048
    tools = [{"type": "function", "function": {"name": "f", "parameters": {f"p{n}": {} for n in range(150)}}}] * 128
    asked = read_request("chat", json.dumps({"model": "m", "messages": messages, "tools": tools}).encode())
    assert asked.text_bytes > 4 * MEGABYTE
    code = ",".join('{"a": [1, 2], "b": "c"}' for _ in range(300_000))  # JSON as text is one value
    read_request("chat", json.dumps({"model": "m", "messages": [{"role": "user", "content": code}]}).encode())
