"""One run: load, killer, healing, verdict; as one JSON object of figures."""

import asyncio
import json
import os
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from tests.chaos.checks import EXAMPLES, billed, healed, missing, verdict
from tests.chaos.deployment import Deployment, open_deployment
from tests.chaos.excuses import Excuses
from tests.chaos.killer import Killer
from tests.chaos.load import Load
from tests.chaos.loss import SWEPT_S, Loss, lose_host, swept
from tests.support.servers import memory_folder

HEAL_S: Final = 90.0
AUDIT_S: Final = 60.0
"""Seconds in which what was only read a moment ago is acknowledged and confirmed."""
WARM_S: Final = 1.0


async def chaos(
    made: Deployment,
    seed: int,
    seconds: float,
    clients: int,
    say: Callable[[str], None],
    *,
    calls_min: int = 0,
    faults_min: int = 0,
) -> dict[str, Any]:
    """Raises nothing for what is wrong: the figures say it."""
    excuses = Excuses()
    killer, load = Killer(made, seed, excuses, say), Load(made, seed, clients, excuses)
    supervising = asyncio.create_task(made.supervise())
    loading = asyncio.create_task(load.run())
    await asyncio.sleep(WARM_S)
    begun = time.monotonic()
    await killer.run(seconds, lambda: load.seen["200"] + load.seen["left"], calls_min, faults_min)
    took_s = time.monotonic() - begun
    with excuses.lasting("lose host"):
        loss = await lose_host(made) if len(made.hosts) > 1 else None
        load.stop()
        found = await judged(made, load, loading, loss)
    supervising.cancel()
    return {
        "seed": seed,
        "seconds": round(took_s, 1),
        "faults": killer.faults.total(),
        "by_kind": dict(killer.faults.most_common()),
        **found,
    }


async def judged(made: Deployment, load: Load, loading: asyncio.Task[None], loss: Loss | None = None) -> dict[str, Any]:
    """The figures of a run whose last fault has just ended, and whose load has been told to stop."""
    last_fault = time.monotonic()
    await made.all_up()
    await loading
    dsn = made.stores["postgres"].url
    served = await asyncio.to_thread(made.stack.truth)
    # The sweeper's own questions about responses are calls too, of nobody's.
    truth = {one["client_request_id"]: one for one in served if one["client_request_id"] is not None}
    gone = set() if loss is None else loss.may_take(truth.keys() | load.answered, made)
    waiting = await missing(dsn, truth)
    within_s = max(1.0, (HEAL_S if loss is None else HEAL_S + SWEPT_S) - (time.monotonic() - last_fault))
    heal_s = await healed(dsn, truth.keys() - gone, within_s)
    if loss is not None:
        await swept(dsn)
    await billed(dsn, HEAL_S)
    stripe = await asyncio.to_thread(made.stack.control, "stripe", "GET", "/events")
    found = await verdict(dsn, truth, stripe["events"], load.answered, gone)
    audited = await audit(made)
    report = json.loads(audited.stdout)["invariants"] if audited.stdout else [{"state": "breach", "why": "no report"}]
    return {
        "calls": found.calls,
        "rows": dict(found.evidence),
        "estimated_share": round(found.evidence["estimated"] / max(1, found.evidence.total()), 4),
        "meter_events_at_stripe": len(stripe["events"]),
        "lost": len(found.lost),
        "doubled": len(found.doubled),
        "wrong": len(found.wrong),
        "invented": len(found.invented),
        "wrong_sums": len(found.sums),
        "examples": (found.lost + found.doubled + found.wrong + found.invented + found.sums)[:EXAMPLES],
        "gone_with_the_disk": found.gone,
        "rows_of_the_lost_host": found.host_lost,
        "estimates_of_calls_never_seen": found.unseen,
        "clients_saw": dict(load.seen.most_common()),
        "calls_given_up": load.given_up,
        "errors_without_a_fault": len(load.unexplained),
        "such_errors": load.unexplained[:EXAMPLES],
        "restarts_by_supervisor": made.restarts,
        "why": Counter(line[:120] for line in made.last_words).most_common(EXAMPLES),
        "heal_s": round(heal_s, 1),
        "rows_waiting_at_the_last_fault": waiting,
        "audit_exit": audited.returncode,
        "breaches": [one for one in report if one["state"] == "breach"],
        "clean": found.clean
        and audited.returncode == 0
        and not load.unexplained
        and heal_s < within_s
        and (loss is None or found.host_lost > 0),
    }


async def audit(made: Deployment) -> "subprocess.CompletedProcess[bytes]":
    """`gateway audit` once it finds nothing wrong, or what it still finds after `AUDIT_S`."""
    deadline_s = time.monotonic() + AUDIT_S
    while True:
        await asyncio.sleep(2)
        done = await asyncio.to_thread(made.stack.command, "audit", "--all", "--grace", "0", "--json")
        if done.returncode == 0 or time.monotonic() > deadline_s:
            return done


def run(
    seed: int, play: Callable[[Deployment], Coroutine[Any, Any, dict[str, Any]]], *, hosts: int = 1
) -> dict[str, Any]:
    """A set of processes, a scenario played on it, and everything stopped."""
    with tempfile.TemporaryDirectory(prefix="gateway-chaos-", dir=memory_folder()) as folder:
        os.chmod(folder, 0o711)
        with open_deployment(Path(folder), seed, hosts) as made:
            return asyncio.run(play(made))
