"""The statements that the gateway has as constants, and how PostgreSQL would run them."""

import importlib
import json
import re
from typing import Any, Final

from tests.support.source import files

IS_STATEMENT: Final = re.compile(r"(?is)\s*(?:--[^\n]*\n\s*)*(with|select|insert|update|delete)\b")
OF_A_TABLE: Final = re.compile(r"\b(from|into|update) public\.")


def modules() -> list[str]:
    """Of the gateway."""
    own = [
        name for name in files() if name.startswith("gateway/") and not name.endswith(("__init__.py", "__main__.py"))
    ]
    return [name.removesuffix(".py").replace("/", ".") for name in own]


async def plan_of(connection: Any, query: str) -> dict[str, Any]:
    """The plan for parameters of any value."""
    nothing = [None] * max((int(number) for number in re.findall(r"\$(\d+)", query)), default=0)
    found = await connection.fetchval(f"explain (generic_plan, format json) {query}", *nothing)
    plan: dict[str, Any] = json.loads(found)[0]["Plan"]
    return plan


def statements_of(module: str) -> set[str]:
    """The statements that a module has as constants."""
    found = vars(importlib.import_module(module)).values()
    texts = [text for each in found for text in (each.values() if isinstance(each, dict) else [each])]
    return {text for text in texts if isinstance(text, str) and OF_A_TABLE.search(text) and IS_STATEMENT.match(text)}


def scans(plan: dict[str, Any]) -> set[str]:
    """The tables that a plan reads from end to end."""
    own = {plan["Relation Name"]} if plan["Node Type"] == "Seq Scan" else set()
    return own.union(*(scans(each) for each in plan.get("Plans", ())))
