"""docs/billing.md: the invoice that it traces, by the commands that it shows, at the stand-in."""

import csv
import io
import re
from decimal import Decimal
from typing import Final

from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from tests.billing.billed_month import open_month
from tests.support.invoke import gateway
from tests.support.source import TOP
from tests.support.stripe_shop import DAY, JANUARY, START

PAGE: Final = (TOP / "docs" / "billing.md").read_text("utf-8")
PART: Final = PAGE.partition("## One invoice, traced to its calls and back\n")[2].partition("\n## ")[0]


def shown() -> list[tuple[list[str], list[str]]]:
    """Each command of the section, and what it says that the command prints."""
    (block,) = re.findall(r"```\n(.*?)```", PART, re.DOTALL)
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
        env = month.environment(database_url) | {"COLUMNS": "200"}
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
