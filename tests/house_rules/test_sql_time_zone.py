"""No query goes by the session's time zone: behind a transaction pooler nobody can say which one it is."""

import re
from typing import Final

import pytest

from tests.support.source import TOP, all_files

_UTC: Final = r"at time zone 'UTC'"
DEPENDS: Final = {
    "cuts to a local hour or day": rf"date_trunc\((?![^()]*{_UTC})",
    "is a local date or time": rf"(?<!{_UTC}\))::(date|timestamp|time|timetz)\b|\bas (date|timestamp)\)",
    "is now by the local clock": r"\bcurrent_(date|time)\b|\blocaltime(stamp)?\b|\bnow\(\)::text",
    "is not always as long": r"interval '[0-9]+ (day|week|month|year)|make_interval\((days|weeks|months|years)",
    "prints an instant locally": rf"\bto_char\((?![^()]*{_UTC})|(_at|_start|_end|_until|\bhour|\bat)\)?::text",
    "takes a local field": rf"(extract\((?!epoch\b)\w+ from|date_part\('(?!epoch'))(?![^()]*{_UTC})",
    "reads a local time": r"\bto_timestamp\([^)]*,|\bmake_timestamptz\(|'[0-9]{4}-[0-9]{2}-[0-9]{2}[^'Z+]*'::timest",
    "changes the session": r"\bset (local )?time ?zone\b",
}
EXCEPT: Final = {"tests/house_rules/test_sql_time_zone.py", "tests/stores/test_time_zone.py"}


def breaches(text: str) -> list[str]:
    return [why for why, pattern in DEPENDS.items() if re.search(pattern, text, re.IGNORECASE)]


def test_no_query_depends_on_the_session() -> None:
    ships = [
        name
        for name in all_files()
        if name.endswith((".py", ".sql")) and name.startswith(("gateway/", "migrations/", "bench/", "tests/"))
    ]
    assert any(name.endswith(".sql") for name in ships)
    found = [
        f"{name}:{number}: {why}"
        for name in ships
        if name not in EXCEPT
        for number, line in enumerate((TOP / name).read_text().splitlines(), 1)
        for why in breaches(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "select date_trunc('hour', completed_at)",
        "select date_trunc('hour', $5::timestamptz)",
        "select completed_at::date",
        "select now()::timestamp",
        "select cast(now() as date)",
        "where created_at > current_date",
        "where created_at > now() - interval '1 day'",
        "select to_char(completed_at, 'YYYY-MM')",
        "select window_start::text",
        "select coalesce(l.at, w.at)::text",
        "select extract(hour from completed_at)",
        "select date_part('day', completed_at)",
        "select to_timestamp($1, 'YYYY')",
        "select '2026-11-22 10:00'::timestamptz",
        "set time zone 'Asia/Kolkata'",
    ],
)
def test_a_line_that_depends_on_the_time_zone_is_found(line: str) -> None:
    assert len(breaches(line)) == 1


@pytest.mark.parametrize(
    "line",
    [
        "date_trunc('month', at at time zone 'UTC')::date",
        "(u.created_at at time zone 'UTC')::date as day",
        "date_bin('1 hour', completed_at, timestamptz 'epoch')",
        "now() - interval '24 hours'",
        "to_char(at at time zone 'UTC', 'YYYY-MM')",
        "extract(epoch from window_start)",
        "'2026-11-22 10:00Z'::timestamptz",
        "to_timestamp(0)",
    ],
)
def test_other_lines_are_accepted(line: str) -> None:
    assert breaches(line) == []
