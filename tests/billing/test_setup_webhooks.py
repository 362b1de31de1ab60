"""`gateway stripe setup --webhook-url`: its destinations at Stripe are made once, and their secrets told once."""

import ast
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import stripe
from stripe.events import V1BillingMeterErrorReportTriggeredEvent as Report
from stripe.events import V1BillingMeterNoMeterFoundEvent as NoMeter
from stripe.params import _webhook_endpoint_create_params as create_params

from gateway.billing.setup_webhooks import TYPES, check_url
from gateway.billing.stripe_commands import SetupAsked, set_up
from gateway.cli.console import Console
from gateway.config.secrets import stripe_secrets_of
from gateway.config.settings import Settings
from gateway.kit.errors import OptionError
from gateway.sandbox import credentials
from gateway.stores.postgres import Pool
from tests.support.invoke import gateway
from tests.support.stripe_shop import Shop

URL = "https://gateway.example.com/webhooks/stripe"
SETUP = ("stripe", "setup", "--webhook-url", URL)


@pytest.fixture
def env(shop: Shop, database_url: str) -> dict[str, str]:
    return {
        "DATABASE_URL": database_url,
        "STRIPE_SECRET_KEY": credentials.STRIPE_SECRET_KEY,
        "STRIPE_BASE_URL": shop.sandbox.stripe_base_url,
    }


async def destinations(shop: Shop) -> list[Any]:
    found = await shop.client.v2.core.event_destinations.list_async({"include": ["webhook_endpoint.url"]})
    return sorted(found.data, key=lambda one: one.event_payload)


def states(out: str) -> list[str]:
    return [line for line in out.splitlines() if "webhooks," in line and line[:1] in " +~"]


async def test_both_are_made_once_and_their_secrets_are_in_the_file_alone(
    shop: Shop, env: dict[str, str], tmp_path: Path, pool: Pool
) -> None:
    file = tmp_path / "secrets"
    shown = await gateway(env, *SETUP, "--dry-run")
    assert states(shown.out) == ["+ webhooks, snapshot: missing", "+ webhooks, thin: missing"]
    assert await destinations(shop) == []
    done = await gateway(env, *SETUP, "--secrets-file", str(file))
    assert (done.status, done.error) == (0, "")
    snapshot, thin = await destinations(shop)
    assert (snapshot.webhook_endpoint.url, thin.webhook_endpoint.url) == (URL, URL)
    assert (tuple(snapshot.enabled_events), tuple(thin.enabled_events)) == (TYPES["snapshot"], TYPES["thin"])
    assert (snapshot.snapshot_api_version, snapshot.events_from) == (stripe.api_version, ["@self"])
    name, _, value = file.read_text().strip().partition("=")
    assert (name, file.stat().st_mode & 0o777) == ("STRIPE_WEBHOOK_SECRET", 0o600)
    secrets = stripe_secrets_of(value)  # as the setting reads it
    known = {one["secret"] for one in shop.sandbox.stripe.account.kinds["sandbox.signing"].values()}
    assert set(secrets) == known
    recorded = str([dict(row) for row in await pool.fetch("select * from admin_events")])
    for secret in secrets:
        assert secret not in done.out + done.noted + recorded
    assert "webhooks, thin" in recorded
    again = await gateway(env, *SETUP, "--secrets-file", str(tmp_path / "none"), "--json")
    assert [step["state"] for step in json.loads(again.out)["steps"]] == ["is there"] * 5
    assert not (tmp_path / "none").exists()
    assert len(await destinations(shop)) == 2


async def test_on_a_terminal_each_secret_is_shown_once(
    shop: Shop, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(
        database_url=database_url,
        stripe_secret_key=credentials.STRIPE_SECRET_KEY,
        stripe_base_url=shop.sandbox.stripe_base_url,
    )
    await set_up(settings, Console(), SetupAsked(False, URL, None, as_json=False), is_terminal=True)
    out = capsys.readouterr().out
    for one in shop.sandbox.stripe.account.kinds["sandbox.signing"].values():
        assert out.count(one["secret"]) == 1
    for asked in (SetupAsked(False, URL, None, as_json=True), SetupAsked(False, URL, None, as_json=False)):
        with pytest.raises(OptionError, match="--secrets-file"):
            await set_up(settings, Console(), asked, is_terminal=asked.as_json)


async def test_what_is_there_is_completed_and_not_made_again(shop: Shop, env: dict[str, str], tmp_path: Path) -> None:
    by_hand: Any = {"url": URL, "enabled_events": ["invoice.paid", "charge.succeeded"]}
    endpoint = await shop.client.v1.webhook_endpoints.create_async(by_hand)
    await shop.client.v1.webhook_endpoints.update_async(endpoint.id, {"disabled": True})
    other: Any = by_hand | {"url": URL + "/other"}
    await shop.client.v1.webhook_endpoints.create_async(other)
    thin: Any = {
        "name": "x", "type": "webhook_endpoint", "event_payload": "thin", "enabled_events": [TYPES["thin"][0]],
        "webhook_endpoint": {"url": URL},
    }  # fmt: skip
    kept = await shop.client.v2.core.event_destinations.create_async(thin)
    await shop.client.v2.core.event_destinations.disable_async(kept.id)
    connect = thin | {"events_from": ["@accounts"]}  # tells of other accounts only
    await shop.client.v2.core.event_destinations.create_async(connect)
    done = await gateway(env, *SETUP, "--secrets-file", str(tmp_path / "secrets"))
    assert states(done.out) == ["~ webhooks, snapshot: differs", "~ webhooks, thin: differs"]
    endpoint = await shop.client.v1.webhook_endpoints.retrieve_async(endpoint.id)
    assert (endpoint.status, set(endpoint.enabled_events)) == ("enabled", {"charge.succeeded", *TYPES["snapshot"]})
    kept = await shop.client.v2.core.event_destinations.retrieve_async(kept.id)
    assert (kept.status, tuple(kept.enabled_events)) == ("enabled", TYPES["thin"])
    assert not (tmp_path / "secrets").exists()
    assert len(await destinations(shop)) == 2


async def test_nothing_is_made_whose_secret_could_not_be_kept(shop: Shop, env: dict[str, str], tmp_path: Path) -> None:
    for arguments, says in (
        (SETUP, "--secrets-file"),
        ((*SETUP, "--secrets-file", str(tmp_path)), "cannot be made"),
        ((*SETUP[:-1], "http://gateway.example.com/webhooks/stripe"), "--webhook-url"),
    ):
        done = await gateway(env, *arguments)
        assert (done.status, says in done.error) == (1, True), done
    file = tmp_path / "secrets"
    done = await gateway(env | {"STRIPE_LOG": "debug"}, *SETUP, "--secrets-file", str(file))
    assert "STRIPE_LOG" in done.error
    assert not file.exists()
    assert await destinations(shop) == []


async def test_the_first_secret_is_kept_when_the_second_step_fails(
    shop: Shop, env: dict[str, str], tmp_path: Path
) -> None:

    file = tmp_path / "secrets"
    for number in range(15):
        await shop.client.v1.webhook_endpoints.create_async(
            {"url": f"https://example.com/{number}", "enabled_events": ["invoice.paid"]}
        )
    done = await gateway(env, *SETUP, "--secrets-file", str(file))  # room for one more
    assert (done.status, "maximum of 16" in done.error) == (1, True)
    (snapshot,) = await destinations(shop)
    assert snapshot.event_payload == "snapshot"
    assert len(stripe_secrets_of(file.read_text().strip().partition("=")[2])) == 1


@pytest.mark.parametrize(
    "url",
    [
        "gateway.example.com/webhooks/stripe", "http://gateway.example.com/webhooks/stripe", "https:///webhooks/stripe",
        "https://gateway.example.com/", "https://gateway.example.com/webhooks/stripe?a=1", "https://[::1/webhooks/stripe",
        "https://user:password@gateway.example.com/webhooks/stripe", "https://h:99999/webhooks/stripe", "",
    ],
)  # fmt: skip
def test_a_url_that_stripe_could_not_reach_us_by(url: str) -> None:
    with pytest.raises(OptionError, match="--webhook-url must be"):
        check_url(url)


def test_a_url_below_a_prefix_and_one_on_loopback() -> None:
    for url in (URL, "https://example.com/api/webhooks/stripe", "http://127.0.0.1:8080/webhooks/stripe"):
        assert check_url(url) == url


def test_stripe_has_every_type_that_is_asked_for() -> None:
    """The SDK lists the types of snapshots; of thin events it has a class for each."""
    literals = [
        node for node in ast.walk(ast.parse(inspect.getsource(create_params))) if isinstance(node, ast.Constant)
    ]
    assert {node.value for node in literals} >= set(TYPES["snapshot"])
    assert set(TYPES["thin"]) <= {one.LOOKUP_TYPE for one in (Report, NoMeter)}
