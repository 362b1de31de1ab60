"""docs/billing.md: the invoice that it traces, by the commands that it shows, at the stand-in."""

import asyncio
import csv
import io
import os
import re
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

from gateway.accounts.store import Accounts
from gateway.billing.stripe import Billing
from gateway.ledger.store import Ledger
from gateway.sandbox import credentials
from gateway.stores.postgres import Pool
from tests.billing.billed_month import Month, open_month
from tests.support.invoke import gateway
from tests.support.source import TOP
from tests.support.stripe_shop import DAY, HOUR, JANUARY, START, open_shop
from tests.support.usage import entries, usage

PAGE: Final = (TOP / "docs" / "billing.md").read_text("utf-8")
BLOCK: Final = re.compile(r"```\n(.*?)```", re.DOTALL)


def blocks(title: str) -> list[str]:
    """The commands of a section."""
    found = BLOCK.findall(PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0])
    assert found
    return found


def shown() -> list[tuple[list[str], list[str]]]:
    """Each command of the section, and what it says that the command prints."""
    (block,) = blocks("One invoice, traced to its calls and back")
    found: list[tuple[list[str], list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ gateway ").split(), []))
        else:
            found[-1][1].append(line)
    return found


def squeezed(text: str) -> str:
    return " ".join(text.split())


async def test_the_traced_invoice(ledger: Ledger, pool: Pool, database_url: str) -> None:
    commands = shown()
    assert {" ".join(words[:2]) for words, _ in commands} == {"stripe explain", "reconcile stripe", "report accruals"}
    assert {words[2] for words, _ in commands if words[1] == "explain"} == {
        "INVOICE", "EVENT", "ROW", "REQUEST_ID", "LINE",
    }  # fmt: skip
    async with open_month(ledger) as month:
        ann, bob = await month.add_user("ann"), await month.add_user("bob")
        rows = await month.book(ann, 1, 500_000_555)
        rows += await month.book(bob, 1.5, 12_000_000_011)
        rows += await month.book(ann, 40, 1_055_000)
        rows += await month.book(ann, 41, -500_000, evidence="adjustment", adjusts=rows[2].id)
        await month.report(START + 2 * DAY)
        await month.report(JANUARY + 600)
        invoice = await month.invoice()
        # The stand-in's calls have no id of OpenAI's.
        await pool.execute("alter table openai_usage disable trigger all")
        await pool.execute("update openai_usage set request_id = 'req_of_ann' where id = $1::uuid", rows[0].id)
        names = {
            "INVOICE": invoice.id,
            "LINE": invoice.lines.data[0].id,
            "ROW": rows[0].id,
            "REQUEST_ID": "req_of_ann",
            "EVENT": await pool.fetchval("select identifier from stripe_meter_events order by id limit 1"),
        }
        env = month.environment(database_url) | {"COLUMNS": "80"}  # and no id is broken
        for words, expected in commands:
            done = await gateway(env, *(names.get(word, word) for word in words))
            assert (done.status, done.error) == (0, ""), words
            text = squeezed(done.out)
            for line in expected:
                for name, value in names.items():
                    line = re.sub(rf"\b{name}\b", str(value), line)
                assert squeezed(line) in text, (words, line, done.out)
            if "--csv" in words:
                listed = csv.DictReader(io.StringIO(done.out))
                assert sum(Decimal(each["billed_usd"]) for each in listed) == Decimal("12.500555566")


class Reader:
    """Somebody who types what the page shows, and puts in what was printed."""

    def __init__(self, env: dict[str, str]) -> None:
        self._env = env
        self._ids: dict[str, str] = {}

    async def type(self, block: str) -> str:
        """Runs each line; returns what the last one printed."""
        functions, out = "", ""
        for line in block.splitlines():
            for kind, found in self._ids.items():
                line = line.replace(f"{kind}_…", found)
            command, _, prints = line.partition("  #")
            assert "…" not in command, line
            if command.startswith("stripe() {"):
                functions = command
                continue
            if command.startswith("gateway "):
                done = await gateway(self._env, *command.split()[1:])
                assert (done.status, done.error) == (0, ""), line
                out = done.out
            else:
                out = await self._shell(f"{functions}\n{command}")
            if kind := prints.strip().removesuffix("_…"):
                self._ids[kind] = re.findall(rf"\b{kind}_\w+", out)[0]
        return out

    async def _shell(self, text: str) -> str:
        pipe = asyncio.subprocess.PIPE
        made = await asyncio.create_subprocess_exec("bash", "-ec", text, stdout=pipe, env=self._env)
        out, _ = await made.communicate()
        assert made.returncode == 0
        assert b'"error"' not in out, text
        return out.decode()


async def test_an_invoice_of_ones_own(ledger: Ledger, pool: Pool, database_url: str) -> None:
    now = int(time.time())
    user = await Accounts(pool).create_user("you@example.com")
    before, after = blocks("Trying an invoice")
    async with open_shop(start=now) as shop:
        billing = Billing(credentials.STRIPE_SECRET_KEY, base_url=shop.sandbox.stripe_base_url)
        month = Month(shop, billing, ledger, None)
        reader = Reader(month.environment(database_url) | {"PATH": os.environ["PATH"]})
        await reader.type(before)
        at = datetime.fromtimestamp(now, UTC) + timedelta(minutes=1)
        await ledger.insert_batch(entries(usage(user, at, 12_345_000)))
        await month.report(now + 2 * HOUR)
        text = squeezed(await reader.type(after))
        await billing.close()
    assert "12345 micro-USD, 0.01 USD" in text
    assert "= 1 calls and corrections" in text
    assert "0.012345000 = on the line" in text
