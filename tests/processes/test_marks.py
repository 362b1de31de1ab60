"""Which command may use which database: the whole table, and the databases that come without a mark."""

from itertools import product
from pathlib import Path
from typing import Final

import pytest

from gateway.accounts.store import Accounts
from gateway.config.settings import Settings
from gateway.kit.errors import ConfigError
from gateway.ledger.store import Ledger
from gateway.processes import local, marks
from gateway.stores.database_mark import Kind, read_mark
from gateway.stores.postgres import Pool

NONE: Final = frozenset[str]()
UNBILLED: Final = frozenset({"openai", "unkey"})
MONEY: Final = frozenset({"openai", "unkey", "stripe"})
ALL: Final = MONEY | {"daily"}
NO_STRIPE: Final = ALL - {"stripe"}
REAL: Final = (NONE, UNBILLED, NO_STRIPE, MONEY, ALL)

# (command, its own data folder, mark) → the sets of real vendors with which it may run.
ALLOWED: Final[dict[tuple[marks.Command, bool, Kind], tuple[frozenset[str], ...]]] = {
    ("serve", False, "sandbox"): (NONE, UNBILLED, NO_STRIPE),
    ("serve", False, "production"): REAL,
    ("worker", False, "sandbox"): (NONE, UNBILLED, NO_STRIPE),
    ("worker", False, "production"): REAL,
    ("up", True, "sandbox"): (NONE, UNBILLED, NO_STRIPE),
    ("up", True, "production"): (MONEY, ALL),
    ("up", False, "sandbox"): (NONE, UNBILLED, NO_STRIPE),
    ("up", False, "production"): (ALL,),
}


@pytest.mark.parametrize(("case", "real"), list(product(ALLOWED, REAL)))
def test_command_by_mark_by_vendor(case: tuple[marks.Command, bool, Kind], real: frozenset[str]) -> None:
    command, is_own, kind = case
    reason = marks.refusal(command, kind, real, is_own=is_own)
    assert (reason is None) == (real in ALLOWED[case])
    assert reason is None or reason.startswith("DATABASE_URL: ")


def test_the_table_knows_every_vendor() -> None:
    assert marks.VENDORS == local.VENDORS.keys() == ALL


@pytest.mark.parametrize(
    ("command", "real", "kind"),
    [
        ("up", NONE, "sandbox"),
        ("up", UNBILLED, "sandbox"),
        ("up", MONEY, "production"),
        ("serve", NONE, "production"),
        ("worker", NONE, "production"),
    ],
)
async def test_an_empty_database_becomes(
    command: marks.Command, real: frozenset[str], kind: Kind, database_url: str, pool: Pool
) -> None:
    await pool.execute("delete from database_mark")
    await marks.mark(database_url, command, real, is_own=command == "up")
    assert await read_mark(pool) == kind
    assert await pool.fetchval("select marked_by from database_mark") == command


async def test_a_used_database_without_a_mark_is_production(database_url: str, ledger: Ledger, pool: Pool) -> None:
    await pool.execute("delete from database_mark")
    await Accounts(ledger.pool).create_user("customer@example.com")
    with pytest.raises(ConfigError, match="real customers"):
        await marks.check_given(database_url, NONE)
    assert await read_mark(pool) is None  # refused before anything is changed
    with pytest.raises(ConfigError, match="real customers"):
        await marks.mark(database_url, "up", NONE)
    assert await read_mark(pool) == "production"


async def test_a_mark_stays(database_url: str, pool: Pool) -> None:
    await pool.execute("delete from database_mark")
    await marks.mark(database_url, "up", NONE)
    await marks.mark(database_url, "serve", UNBILLED)  # a worker beside `up`, under its environment
    assert await read_mark(pool) == "sandbox"
    with pytest.raises(ConfigError, match="a real Stripe would charge"):
        await marks.mark(database_url, "serve", ALL)


def test_a_vendor_is_real_where_it_is_configured_and_not_on_loopback() -> None:
    env = {"STRIPE_SECRET_KEY": "sk_test_x", "OPENAI_API_KEY": "sk-x", "OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}
    assert marks.real_vendors(Settings.of(env)) == {"stripe"}
    assert marks.real_vendors(Settings.of(env | {"STRIPE_BASE_URL": "http://[::1]:9"})) == NONE


async def test_up_leaves_a_database_of_real_customers_alone(
    database_url: str, ledger: Ledger, pool: Pool, tmp_path: Path
) -> None:
    await pool.execute("delete from database_mark")
    await Accounts(ledger.pool).create_user("customer@example.com")
    said: list[str] = []
    with pytest.raises(ConfigError, match="real customers"):
        async with local.running(
            tmp_path, {"DATABASE_URL": database_url}, real=NONE, host="127.0.0.1", port=0, workers=1, say=said.append
        ):
            pass
    assert said == []
    assert list(tmp_path.iterdir()) == []
