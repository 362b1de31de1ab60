"""Secrets, prompts and answers are searched for wherever a gateway writes: a canary in every place that has one.

The calls are good ones, refused ones and ones that go wrong everywhere they can. What is found is named by its first
letters only.
"""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from redis.asyncio import Redis

from gateway.stores.redis import open_redis
from tests.support.gateway import Stack, stack
from tests.support.patience import ENDS_S
from tests.support.whole_gateway import settled_rows

PEPPER = b"CANARY-PEPPER-0123456789abcdefgh"
PROMPT, STRANGER, QUERY = "CANARY-PROMPT", "sk_CANARY_STRANGER", "CANARY-QUERY"
TROUBLES: dict[str, list[dict[str, Any]]] = {
    "openai": [
        {"times": 1, "status": 401, "message": "Incorrect API key provided: sk-CANARY"},
        {"times": 1, "status": 500},
        {"times": 1, "drop": "after"},
        {"times": 1, "usage": "malformed"},
    ],
    "unkey": [{"times": 1, "status": 500}, {"times": 1, "body": "{"}, {"times": 1, "drop": True}],
}


@pytest.fixture
def secret_stack(redis_url: str, database_url: str, tmp_path: Path) -> Iterator[Stack]:
    """Its pepper is known: what the operating system gives for it is not random here."""
    patched = tmp_path / "patched"
    patched.mkdir()
    (patched / "sitecustomize.py").write_text(
        "import secrets\nof_os = secrets.token_bytes\n"
        f"secrets.token_bytes = lambda n=None: {PEPPER!r} if n == 32 else of_os(n)\n"
    )
    environ = {
        "FLUSH__STREAM": f"usage-{uuid4().hex}",
        "KEYS__FRESH_S": "0",
        "KEYS__STALE_S": "0",
        "KEYS__CANARY": "sk_CANARY_OF_KEYS",
        "PYTHONPATH": str(patched),
        "BILLING__INTERVAL_S": "0.2",
    }
    with stack(tmp_path, database_url, redis_url, **environ) as made:
        made.prepare()
        made.control("unkey", path="/keys", body={"key": "sk_CANARY_OF_KEYS"})
        made.serve = made.run("serve")
        made.serve.wait_for("serving http")
        yield made


def call(
    running: Stack, key: str, *, path: str = "chat/completions", body: bytes | None = None, **headers: str
) -> bytes:
    """Everything that the client gets: status, headers, body, and whether it breaks off."""
    asked = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": f"Say {PROMPT}"}], "user": "someone"}
    request = urllib.request.Request(
        f"{running.base_url}/{path}",
        data=json.dumps(asked).encode() if body is None else body,
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json", **headers},
    )
    try:
        with urllib.request.urlopen(request, timeout=ENDS_S) as response:
            return f"{response.status} {response.headers}".encode() + bytes(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return f"{error.code} {error.headers}".encode() + bytes(error.read())
    except OSError as error:
        return repr(error).encode()


def use(running: Stack) -> dict[str, bytes]:
    """Calls of every kind; the answers to those that must not have a secret in them."""
    good = call(running, running.key)
    text = json.loads(good.split(b"\n\n", 1)[1])["choices"][0]["message"]["content"]
    answers = {"good": good.split(b"\n\n", 1)[0]}
    refused: dict[str, dict[str, Any]] = {
        "stranger": {"key": STRANGER},
        "two words": {"key": f"{running.key} more"},
        "no json": {"key": running.key, "body": f'{{"model": "{PROMPT}'.encode()},
        "meeting": {"key": running.key, "X-Meeting-Id": QUERY},
        "query": {"key": running.key, "path": f"files?key={QUERY}"},
        "model": {"key": running.key, "body": b'{"model": "no-such-model", "messages": []}'},
    }
    for name, how in refused.items():
        answers[name] = call(running, how.pop("key"), **how)
    for vendor, troubles in TROUBLES.items():
        for trouble in troubles:
            running.control(vendor, body=trouble)
            answer = call(running, running.key)
            # What OpenAI answers is the client's; what the gateway adds to it is looked at.
            answers[f"{vendor} {trouble}"] = answer.split(b"\n\n", 1)[0] if answer.startswith(b"200") else answer
    return answers | {"the answer itself": text.encode()}


async def dump_tables(database_url: str) -> AsyncIterator[tuple[str, bytes]]:
    connection = await asyncpg.connect(database_url)
    try:
        for table in await connection.fetch("select tablename from pg_tables where schemaname = 'public'"):
            rows = await connection.fetch(f"select to_jsonb(t)::text from public.{table[0]} t")
            yield f"table {table[0]}", "\n".join(row[0] for row in rows).encode()
    finally:
        await connection.close()


async def dump_redis(redis: "Redis") -> AsyncIterator[tuple[str, bytes]]:
    readers: dict[bytes, Callable[[Any], Any]] = {
        b"string": redis.get,
        b"hash": redis.hgetall,
        b"zset": lambda key: redis.zrange(key, 0, -1),
        b"stream": redis.xrange,
        b"set": redis.smembers,
        b"list": lambda key: redis.lrange(key, 0, -1),
    }
    async for key in redis.scan_iter():
        kind: Any = await redis.type(key)
        if kind != b"none":
            yield f"redis {kind.decode()}", key + repr(await readers[kind](key)).encode()


async def test_secrets_prompts_and_answers_are_nowhere(secret_stack: Stack) -> None:
    running, env = secret_stack, secret_stack.env
    answers = await asyncio.to_thread(use, running)
    text = answers.pop("the answer itself").decode()
    await settled_rows(env["DATABASE_URL"], len(TROUBLES["openai"]) + 2)
    places = {f"answer: {name}": answer for name, answer in answers.items()}
    for path in ("metrics", "readyz", "healthz"):
        with urllib.request.urlopen(f"http://127.0.0.1:{running.admin_port}/{path}", timeout=ENDS_S) as page:
            places[f"/{path}"] = page.read()
    redis = open_redis(env["REDIS_URL"])
    places |= {name: data async for name, data in dump_redis(redis)}
    await redis.aclose()
    places |= {name: data async for name, data in dump_tables(env["DATABASE_URL"])}
    running.serve.stop()
    folders = (running.folder / "data").rglob("*"), running.folder.glob("*serve*.log")
    places |= {path.name: path.read_bytes() for folder in folders for path in folder if path.is_file()}

    # The search is one: what must be there is there.
    log = next(data for name, data in places.items() if name.endswith("serve.log"))
    assert b'"event":"call"' in log
    assert log.count(b"unkey did not answer") >= len(TROUBLES["unkey"])
    assert any(name.endswith(".jnl") and data for name, data in places.items())
    assert b"gpt-4o-mini" in places["table openai_usage"]
    secrets = [running.key, PROMPT, text, STRANGER, QUERY, "sk_CANARY_OF_KEYS", "sk-CANARY"]
    secrets += [env[name] for name in ("OPENAI_API_KEY", "UNKEY_ROOT_KEY", "STRIPE_SECRET_KEY", "DAILY_WEBHOOK_SECRET")]
    canaries = {secret.encode() for secret in secrets} | {PEPPER, PEPPER.hex().encode()}
    found = [(name, secret[:10]) for name, data in places.items() for secret in canaries if secret in data]
    assert found == []
