"""No background work is unsupervised: what runs by itself is a loop of gateway/kit/loops.py, or is in the list below.

`asyncio` says nothing of a task that has died until somebody asks. So each place that starts one, or a timer or a
thread, is named here, with who notices when it fails.
"""

import ast
from collections.abc import Iterator
from typing import Final

from tests.support.source import files, tree

STARTERS: Final = frozenset({"create_task", "ensure_future", "call_later", "call_at", "start_soon", "Thread"})
WATCHED: Final[dict[str, str]] = {
    # The supervisor itself.
    "gateway/kit/loops.py:run_until": "cancelled in the same function",
    "gateway/kit/loops.py:__aenter__": "awaited by `run_until` and by the end of the block",
    "gateway/kit/loops.py:_supervise": "tasks of a TaskGroup",
    # The parent and its children.
    "gateway/processes/supervisor.py:start": (
        "_restart ends with the child only: whatever fails in it is logged and tried again"
    ),
    "gateway/processes/supervisor.py:_spawn": (
        "_listen: what does not read is skipped, and its end is told to the watcher"
    ),
    "gateway/processes/supervisor.py:run_until_stopped": "awaited in the same function",
    "gateway/processes/serve.py:_until_replaced": "awaited in the same function",
    "gateway/processes/vitals.py:start": "the timer is set again in `finally`, whatever has failed",
    "gateway/processes/admin.py:watch": "the timer is set again in `finally`, whatever has failed",
    "gateway/http/listener.py:_accept": "opens one connection; an error is that connection's, and asyncio logs it",
    "gateway/http/listener.py:_wait": "listens again; set again by the next connection that has no room",
    # One question for several who wait: each of them awaits the task or its future, and hears its error.
    "gateway/limits/counters.py:_run": "_send hands every error to those who wait",
    "gateway/stores/inbox_writer.py:keep": "_store_waiting hands every error to those who wait",
    "gateway/access/verification.py:_look": "awaited by who asks; _finish_check reads its outcome",
    "gateway/limits/limiter.py:_beginning": "awaited by who asks; _finish_beginning reads its outcome",
    "gateway/access/admission.py:_ask": "awaited by who asks; the next call makes a failed renewal again",
    "gateway/meetings/attribution.py:_ask": "awaited by who asks",
    # Work that ends by itself, and that nobody waits for. asyncio logs an error of it (gateway/kit/log.py).
    "gateway/stores/postgres_connections.py:_judge": "closes connections once; the next error starts it again",
    "gateway/limits/limiter.py:give_back": "one call's claims; they end by themselves where this fails",
    "gateway/proxy/record.py:_strand": "_land goes on, whatever fails; /readyz shows what is stranded",
    "gateway/sandbox/stripe/webhooks.py:add": "awaited by `close`, which raises what ended it; asyncio logs it before",
    "gateway/sandbox/daily/hooks.py:tell": "one delivery of the stand-in; awaited by `settled` and `close`",
    # Timers that fire once.
    "gateway/openai/upstream.py:send": "ends a silent call",
    "gateway/journal/writer.py:_finish_commit": "hands what waits to the commit thread",
    "gateway/journal/writer.py:_fail": "hands an empty batch to the commit thread; set again by its outcome",
    "gateway/processes/proxy.py:close": "ends what is still being read; what it leaves is settled by the keeper",
    "gateway/proxy/access_log.py:_add": "writes lines; set again by the next line, whatever has failed",
    # Threads.
    "gateway/journal/writer.py:__init__": "the commit thread: whatever fails is the outcome of its batch",
    "gateway/embedded/servers.py:start": "awaited in the same function",
}
"""Each place as `file:function`, and who notices when what it starts fails."""


def starts() -> Iterator[str]:
    """Every place of the product that starts something."""
    for file in files():
        if file.startswith(("gateway/", "pricing/", "migrations/")):
            yield from _starts(tree(file), file, "")


def _starts(node: ast.AST, file: str, function: str) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        function = node.name
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in STARTERS:
            yield f"{file}:{function}"
    for child in ast.iter_child_nodes(node):
        yield from _starts(child, file, function)


def test_whatever_runs_by_itself_is_a_loop_or_is_watched() -> None:
    found = set(starts())
    assert sorted(found - WATCHED.keys()) == []
    assert sorted(WATCHED.keys() - found) == []


def test_a_task_that_nobody_watches_is_noticed() -> None:
    planted = ast.parse("async def run():\n    async with stack:\n        asyncio.create_task(poll.run())\n")
    assert list(_starts(planted, "gateway/processes/worker.py", "")) == ["gateway/processes/worker.py:run"]
