"""Who may speak to the stand-ins."""

import time

import aiohttp
import pytest

from tests.support.stand_ins import sandbox_at


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://localhost:3000"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:80", "Content-Type": "text/plain"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "[::1"}, 403),
    ],
)
async def test_only_programs_of_this_machine(headers: dict[str, str], status: int) -> None:
    async with sandbox_at(time.time) as sandbox:
        for path in ("/unkey/_control", "/openai/_control/calls"):
            async with aiohttp.request("GET", f"{sandbox.origin}{path}", headers=headers) as answer:
                assert answer.status == status, path
