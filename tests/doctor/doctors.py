"""One check of `gateway doctor` at a time, for its tests."""

from typing import Any

import asyncpg

from gateway.config.settings import Settings
from gateway.doctor import checks as doctor
from gateway.doctor.findings import CheckResult
from tests.config.test_problems import SECRET


def settings(**given: Any) -> Settings:
    """As the environment would make them."""
    return Settings(**{"openai_api_key": SECRET, "unkey_root_key": SECRET, **given})


async def found(name: str, loaded: Settings) -> list[CheckResult]:
    """What one check finds; never a secret."""
    seen = await doctor.run_check(name, dict(doctor.CHECKS)[name], loaded)
    assert SECRET not in repr(seen)
    assert all(finding.fix for finding in seen if finding.level != "ok")
    return seen


def says(seen: list[CheckResult]) -> list[tuple[str, str]]:
    return [(finding.level, finding.says) for finding in seen]


async def on(dsn: str, *statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()
