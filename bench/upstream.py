"""A canned OpenAI for the bench: cheap enough not to disturb the measurement on a small machine.

Non-stream answers at once; a stream is 100 chunks at a fixed pace. Every answer has its own id and real usage.
"""

import asyncio
import itertools
import sys
from typing import cast

import uvloop

CHUNKS = 100
INTERVAL_S = 0.01
HEAD = (
    b"HTTP/1.1 200 OK\r\nx-request-id: req_%d\r\nopenai-processing-ms: 3\r\nopenai-version: 2020-10-01\r\n"
    b"x-ratelimit-limit-requests: 10000\r\nx-ratelimit-remaining-requests: 9999\r\nSet-Cookie: __cf_bm=x\r\n"
)
USAGE = (
    b'{"prompt_tokens":%d,"completion_tokens":100,"total_tokens":%d,'
    b'"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},'
    b'"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,'
    b'"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}'
)
BODY = (
    b'{"id":"chatcmpl-%d","object":"chat.completion","created":1760000000,"model":"gpt-4o-mini-2024-07-18",'
    b'"choices":[{"index":0,"message":{"role":"assistant","content":"%b","refusal":null},"logprobs":null,'
    b'"finish_reason":"stop"}],"usage":%b,"service_tier":"default","system_fingerprint":"fp_bench"}'
)
CHUNK = (
    b'data: {"id":"chatcmpl-%d","object":"chat.completion.chunk","created":1760000000,'
    b'"model":"gpt-4o-mini-2024-07-18","service_tier":"default","system_fingerprint":"fp_bench",'
    b'"choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}],'
    b'"usage":null,"obfuscation":"abcdefgh"}\n\n'
)
LAST = (
    b'data: {"id":"chatcmpl-%d","object":"chat.completion.chunk","created":1760000000,'
    b'"model":"gpt-4o-mini-2024-07-18","service_tier":"default","system_fingerprint":"fp_bench",'
    b'"choices":[],"usage":%b}\n\ndata: [DONE]\n\n'
)
numbers = itertools.count(1)


class Canned(asyncio.Protocol):
    """One connection."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + length:
                return
            body = self.buffer[end + 4 : end + 4 + length]
            self.buffer = self.buffer[end + 4 + length :]
            self.answer(body)

    def answer(self, body: bytes) -> None:
        number = next(numbers)
        usage = USAGE % (len(body) // 4, len(body) // 4 + 100)
        if b'"stream":true' in body.replace(b" ", b""):
            asyncio.get_running_loop().create_task(self.stream(number, usage))
            return
        content = BODY % (number, b" word" * 100, usage)
        head = HEAD % number + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(content)
        self.transport.write(head + content)

    async def stream(self, number: int, usage: bytes) -> None:
        self.send(
            HEAD % number + b"Content-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        chunk = framed(CHUNK % number)
        for _ in range(CHUNKS):
            self.send(chunk)
            await asyncio.sleep(INTERVAL_S)
        self.send(framed(LAST % (number, usage)) + b"0\r\n\r\n")

    def send(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)


def framed(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


async def serve() -> None:
    """Until killed; prints its port."""
    server = await asyncio.get_running_loop().create_server(Canned, "127.0.0.1", int(sys.argv[1]), backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
