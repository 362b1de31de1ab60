"""The chart's values and their schema against our settings: names of secrets, and which process is given which."""

import json
import re
from typing import Any, Final

import pytest

from gateway.config.secret_table import NEEDED_BY, Kind, variable
from gateway.config.settings import Settings
from tests.support.source import TOP

CHART: Final = TOP / "deploy" / "chart"
VALUES: Final = (CHART / "values.yaml").read_text()
OWN_LOGINS: Final = {"PROXY_DATABASE_URL", "KEEPER_DATABASE_URL"}
"""The parent of `serve` hands each process the one that is its own."""
BOUNDED: Final = [("stopNoticeS", "gateway_stop_notice_s"), ("workers", "gateway_workers")]


def schema() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    return loaded


def given(part: str) -> set[str]:
    """The keys of the Secret that pods of this part read."""
    block = VALUES.partition(f"\n{part}:\n")[2]
    found = re.search(r"^    keys: \[([A-Z_, ]+)\]", block, re.MULTILINE)
    assert found, part
    return set(found.group(1).split(", "))


def needed(*kinds: Kind) -> set[str]:
    """The secrets that these processes use."""
    return {variable(name) for name, users in NEEDED_BY.items() if users & {*kinds}}


def test_no_secret_can_be_among_the_settings() -> None:
    refused = schema()["properties"]["settings"]["propertyNames"]["not"]["enum"]
    assert sorted(refused) == sorted(variable(name) for name in NEEDED_BY)


def test_each_part_is_given_what_it_needs_and_nothing_else() -> None:
    assert given("serve") - OWN_LOGINS <= needed("proxy", "keeper")
    assert given("serve") >= {"DATABASE_URL", "REDIS_URL", "OPENAI_API_KEY", "UNKEY_ROOT_KEY", *OWN_LOGINS}
    assert given("worker") <= needed("worker")
    assert given("migrate") == {"DATABASE_URL"}


@pytest.mark.parametrize(("value", "setting"), BOUNDED)
def test_a_bound_of_the_chart_is_that_of_the_setting(value: str, setting: str) -> None:
    bounds = schema()["properties"]["serve"]["properties"][value]
    metadata = Settings.model_fields[setting].metadata
    assert {bounds["minimum"], bounds["maximum"]} == {
        getattr(item, side) for item in metadata for side in ("ge", "le") if hasattr(item, side)
    }


def test_the_chart_has_the_version_of_the_gateway() -> None:
    chart = (CHART / "Chart.yaml").read_text()
    project = re.search(r'^version = "(.+)"$', (TOP / "pyproject.toml").read_text(), re.MULTILINE)
    assert project
    assert f'\nappVersion: "{project.group(1)}"\n' in chart
    assert f"\nversion: {project.group(1)}\n" in chart


def test_a_unit_reads_its_settings_from_a_file_and_may_write_nothing_but_its_journal() -> None:
    for name in ("pailflow-gateway@.service", "pailflow-gateway-worker@.service"):
        unit = (TOP / "deploy" / "systemd" / name).read_text()
        for line in ("User=gateway", "NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet="):
            assert f"\n{line}\n" in unit, (name, line)
        assert re.search(r"^EnvironmentFile=/etc/pailflow-gateway/\w+\.env$", unit, re.MULTILINE), name
        assert not re.search(r"^Environment=.*(KEY|SECRET|URL)", unit, re.MULTILINE), name
    serve = (TOP / "deploy" / "systemd" / "pailflow-gateway@.service").read_text()
    assert "\nEnvironment=GATEWAY_DATA_DIR=/var/lib/pailflow-gateway\n" in serve
    assert "\nStateDirectory=pailflow-gateway\n" in serve
