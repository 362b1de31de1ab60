"""Whatever a request to the Unkey or Stripe stand-in holds, it is answered or refused: never a 5xx."""

import json
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.sandbox import credentials
from gateway.sandbox.server import METER, Sandbox
from gateway.sandbox.unkey import bodies
from tests.support.stand_ins import Clock, sandbox_at

NOW: Final = 1_795_392_000
KEY: Final = "sk-known"
METER_ID: Final = "mtr_known"
UNKEY: Final = {"Authorization": f"Bearer {credentials.UNKEY_ROOT_KEY}"}
STRIPE: Final = {"Authorization": f"Bearer {credentials.STRIPE_SECRET_KEY}"}
FEW: Final = settings(
    max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

TEXT: Final = st.text(max_size=6) | st.sampled_from(["²", "٣", "9" * 5000, "-1", "0", "60", "(" * 900, "NaN"])
SCALARS: Final = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
JSON: Final = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6
)
NUMBER: Final = st.sampled_from([-3, 0, 1, 31, 60_000, 10**30]) | st.integers()
LIMITS: Final = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["abc", "x"])},
        optional={"limit": NUMBER, "duration": NUMBER, "cost": NUMBER, "autoApply": st.booleans()},
    ),
    max_size=2,
)
REFILL: Final = st.fixed_dictionaries(
    {"interval": st.sampled_from(["daily", "monthly", "x"]), "amount": NUMBER}, optional={"refillDay": NUMBER}
)
CREDITS: Final = st.fixed_dictionaries({}, optional={"cost": NUMBER, "remaining": NUMBER, "refill": REFILL})
UNKEY_FIELDS: Final = st.fixed_dictionaries(
    {},
    optional={
        "key": st.just(KEY) | JSON,
        "keyId": st.just("key_known") | JSON,
        "apiId": st.just(credentials.UNKEY_API_ID) | JSON,
        "identity": st.just("user-1") | JSON,
        "externalId": st.just("user-1") | JSON,
        "permissions": st.sampled_from(["a", "(" * 900, "a AND"]) | JSON,
        "ratelimits": LIMITS | JSON,
        "credits": CREDITS | JSON,
        "operation": st.sampled_from(["set", "increment", "decrement"]) | JSON,
        "value": NUMBER | JSON,
        "limit": NUMBER | JSON,
        "cursor": JSON,
        "meta": JSON,
        "expires": NUMBER,
        "expiration": NUMBER,
    },
)
UNKEY_BODIES: Final[dict[str, type[msgspec.Struct]]] = {
    "keys.verifyKey": bodies.VerifyKey,
    "keys.createKey": bodies.CreateKey,
    "keys.updateKey": bodies.UpdateKey,
    "keys.getKey": bodies.GetKey,
    "keys.rerollKey": bodies.RerollKey,
    "keys.whoami": bodies.Whoami,
    "keys.updateCredits": bodies.UpdateCredits,
    "apis.listKeys": bodies.ListKeys,
    "identities.createIdentity": bodies.CreateIdentity,
    "identities.getIdentity": bodies.GetIdentity,
    "identities.listIdentities": bodies.ListIdentities,
    "identities.updateIdentity": bodies.UpdateIdentity,
}
STRIPE_CALLS: Final = [
    ("POST", "/v1/billing/meter_events", "timestamp identifier payload[stripe_customer_id] payload[value] payload"),
    ("POST", "/v1/billing/meter_event_adjustments", "type cancel[identifier] cancel"),
    ("POST", "/v1/billing/meters", "display_name event_name default_aggregation[formula] event_time_window"),
    ("GET", "/v1/billing/meters", "limit starting_after status"),
    ("POST", f"/v1/billing/meters/{METER_ID}", "display_name display_name[a]"),
    ("GET", f"/v1/billing/meters/{METER_ID}/event_summaries", "start_time end_time start_time[a] limit customer[a]"),
    ("POST", "/v1/customers", "email metadata metadata[a]"),
    ("GET", "/v1/customers", "limit starting_after email email[a]"),
]
V2_PATHS: Final = ["meter_events", "meter_event_adjustments", "meter_event_stream"]
USUAL: Final = {
    "event_name": METER,
    "payload[stripe_customer_id]": "cus_1",
    "payload[value]": "1",
    "customer": "cus_1",
    "start_time": "0",
    "end_time": "60",
}
PAYLOAD: Final = st.dictionaries(st.sampled_from(["stripe_customer_id", "value"]), TEXT, max_size=2)
V2_EVENT: Final = st.fixed_dictionaries(
    {"event_name": st.just(METER) | JSON, "payload": PAYLOAD | JSON},
    optional={"timestamp": st.just("2026-11-23T00:00:00Z") | JSON, "identifier": JSON, "cancel": JSON, "type": JSON},
)


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with sandbox_at(Clock(NOW)) as running:
        running.unkey.add_key(
            KEY, api_id=credentials.UNKEY_API_ID, key_id="key_known", external_id="user-1", remaining=5
        )
        meter = next(iter(running.stripe.meters.values()))
        running.stripe.meters[METER_ID] = meter
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


async def ask(session: aiohttp.ClientSession, method: str, url: str, **options: Any) -> tuple[int, Any]:
    async with session.request(method, url, **options) as response:
        body = await response.read()
        assert response.status < 500, body
        return response.status, json.loads(body)


@FEW
@given(endpoint=st.sampled_from(sorted(UNKEY_BODIES)), fields=UNKEY_FIELDS)
async def test_unkey_answers_or_refuses(
    sandbox: Sandbox, session: aiohttp.ClientSession, endpoint: str, fields: dict[str, Any]
) -> None:
    url = f"{sandbox.unkey_base_url}/v2/{endpoint}"
    names = {field.encode_name for field in msgspec.structs.fields(UNKEY_BODIES[endpoint])}
    body = json.dumps({name: value for name, value in fields.items() if name in names})
    status, answer = await ask(session, "POST", url, data=body, headers=UNKEY)
    assert answer["meta"]["requestId"]
    if status == 200:
        assert "data" in answer
    else:
        assert (status in (400, 404, 409, 412), answer["error"]["status"]) == (True, status)
        assert status != 400 or isinstance(answer["error"]["errors"], list)
    sandbox.unkey.whoami(bodies.Whoami(key=KEY))  # still there, still readable


@FEW
@given(call=st.sampled_from(STRIPE_CALLS), values=st.lists(st.none() | TEXT, min_size=5, max_size=5))
async def test_stripe_answers_or_refuses_a_form(
    sandbox: Sandbox, session: aiohttp.ClientSession, call: tuple[str, str, str], values: list[str | None]
) -> None:
    method, path, names = call
    fields = {name: value for name, value in zip(names.split(), values, strict=False) if value is not None}
    url = f"{sandbox.stripe_base_url}{path}"
    if method == "GET":
        query = {
            name: value[:100] for name, value in (USUAL | fields).items()
        }  # a longer address is aiohttp's to refuse
        status, answer = await ask(session, method, url, params=query, headers=STRIPE)
    else:
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        status, answer = await ask(session, method, url, data=urlencode(USUAL | fields).encode(), headers=STRIPE | kind)
    assert "error" in answer if status != 200 else answer["object"]


@FEW
@given(event=V2_EVENT | JSON, path=st.sampled_from(V2_PATHS))
async def test_stripe_answers_or_refuses_json(
    sandbox: Sandbox, session: aiohttp.ClientSession, event: Any, path: str
) -> None:
    headers, body = STRIPE, event
    if path.endswith("stream"):
        token = sandbox.stripe.open_session()["authentication_token"]
        headers, body = {"Authorization": f"Bearer {token}"}, {"events": [event]}
    before = len(sandbox.stripe.events) + len(sandbox.stripe.reports.uncounted)
    url = f"{sandbox.stripe_base_url}/v2/billing/{path}"
    status, answer = await ask(session, "POST", url, data=json.dumps(body), headers=headers)
    if path.endswith("stream"):
        assert (status, answer) == (200, {})
        assert len(sandbox.stripe.events) + len(sandbox.stripe.reports.uncounted) == before + 1
    else:
        assert status == 200 or "error" in answer


@pytest.mark.parametrize("depth", [100, 900, 100_000])
@pytest.mark.parametrize("vendor", ["unkey", "stripe"])
async def test_nesting_without_end(sandbox: Sandbox, session: aiohttp.ClientSession, vendor: str, depth: int) -> None:
    deep = '{"a":' * depth + "1" + "}" * depth
    if vendor == "unkey":
        url, headers = f"{sandbox.unkey_base_url}/v2/keys.updateKey", UNKEY
        body = f'{{"keyId":"key_known","meta":{deep}}}'
        await ask(session, "POST", url, data=body, headers=headers)
        await ask(
            session, "POST", f"{sandbox.unkey_base_url}/v2/keys.getKey", json={"keyId": "key_known"}, headers=UNKEY
        )
    else:
        url, headers = f"{sandbox.stripe_base_url}/v2/billing/meter_events", STRIPE | {"Idempotency-Key": "deep"}
        status, _ = await ask(session, "POST", url, data=deep, headers=headers)
        assert status == 400


@pytest.mark.parametrize(
    ("endpoint", "fields"),
    [
        ("keys.verifyKey", {"key": KEY, "ratelimits": [{"name": "abc", "limit": 1, "duration": 0}]}),
        ("keys.verifyKey", {"key": KEY, "permissions": "(" * 900}),
        ("keys.createKey", {"apiId": credentials.UNKEY_API_ID, "credits": {"remaining": 10**30}}),
        ("keys.updateKey", {"keyId": "key_known", "credits": {"refill": {"interval": "monthly", "amount": 0}}}),
        (
            "keys.updateKey",
            {"keyId": "key_known", "credits": {"refill": {"interval": "monthly", "amount": 1, "refillDay": -3}}},
        ),
        ("keys.updateKey", {"keyId": "key_known", "credits": {"refill": {"interval": "hourly", "amount": 1}}}),
    ],
)
async def test_unkey_refuses(
    sandbox: Sandbox, session: aiohttp.ClientSession, endpoint: str, fields: dict[str, Any]
) -> None:
    status, answer = await ask(
        session, "POST", f"{sandbox.unkey_base_url}/v2/{endpoint}", data=json.dumps(fields), headers=UNKEY
    )
    assert (status, bool(answer["error"]["errors"])) == (400, True)


async def test_a_body_that_is_no_text(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    kind = {"Content-Type": "application/x-www-form-urlencoded; charset=nonsense"}
    calls = (
        (f"{sandbox.unkey_base_url}/v2/keys.verifyKey", UNKEY),
        (f"{sandbox.stripe_base_url}/v1/billing/meter_events", STRIPE),
        (f"{sandbox.stripe_base_url}/v2/billing/meter_events", STRIPE),
    )
    for url, headers in calls:
        status, answer = await ask(session, "POST", url, data=b"\xff\xfe", headers=headers | kind)
        assert (status, "error" in answer) == (400, True)
