"""A host that is gone: its journal, on another one, ends in the ledger, each call once."""

import asyncio
import json
import os
import shutil
import signal
from pathlib import Path

import aiohttp

from tests.support.gateway import Stack
from tests.support.whole_gateway import settled_rows

BODY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}


async def test_another_host_takes_over(fresh_stack: Stack, tmp_path: Path) -> None:
    """The host dies with calls that nobody has shipped: its keeper and its worker were away."""
    await asyncio.to_thread(fresh_stack.start)
    url, headers = f"{fresh_stack.base_url}/chat/completions", {"Authorization": f"Bearer {fresh_stack.key}"}
    for name in ("keeper", "worker"):
        os.kill(fresh_stack.pid_of(name), signal.SIGSTOP)
    fresh_stack.control("openai", body={"interval_s": 0.2, "chunks": 50, "stream": True})
    async with aiohttp.ClientSession(headers=headers) as session:
        for _ in range(5):
            async with session.post(url, json=BODY) as got:
                assert got.status == 200
        hanging = await session.post(url, json={**BODY, "stream": True})
        await hanging.content.readany()
        for pid in [fresh_stack.serve.popen.pid, *map(fresh_stack.pid_of, ("proxy", "keeper", "worker"))]:
            os.kill(pid, signal.SIGKILL)
        fresh_stack.serve.popen.wait()
        hanging.close()
    dead = tmp_path / "moved"
    shutil.move(fresh_stack.folder / "data", dead)
    for expected in (b"1 segment(s) adopted", b"0 segment(s) adopted", b"0 segment(s) adopted"):
        done = await asyncio.to_thread(fresh_stack.command, "journal", "adopt", str(dead))
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout
    fresh_stack.serve = fresh_stack.run("serve")
    await asyncio.to_thread(fresh_stack.serve.wait_for, "serving http")
    rows = await settled_rows(fresh_stack.env["DATABASE_URL"], 6)
    assert sorted(row["evidence"] for row in rows) == ["estimated", *["reported"] * 5]
    seen = await asyncio.to_thread(fresh_stack.command, "journal", "inspect", str(dead), "--json")
    assert [slot["missing"] for slot in json.loads(seen.stdout) if slot["name"] == "proxy-0"] == [[]]
