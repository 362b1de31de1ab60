"""The families of endpoints: each method and path of OpenAI's SDK is served or refused with a reason, and what a family
declares is declared nowhere else."""

import ast
import json
import re
from typing import Any, Final

import pytest

from gateway.openai.families.catalogue import ENDPOINT_OF, FAMILIES, FAMILY_OF, SETTLES_LATER, has_output, price_family
from gateway.openai.families.refused import REFUSED, why_unserved
from gateway.openai.routing import CATALOGUE, match
from pricing.cost import PRICE_FAMILIES
from tests.support.source import TOP, files, tree, walk

GOLDEN: Final = json.loads((TOP / "tests/golden/openai_endpoints.json").read_text())
ROWS: Final[list[dict[str, Any]]] = GOLDEN["endpoints"]
"""openai-python 3.57."""
NOT_OF_THE_SDK: Final = {"traces.ingest"}
"""Served all the same: OpenAI's Agents SDK sends it."""
IDS: Final = {"response_id": "resp_a", "model": "gpt-5"}
"""What a path's pattern wants of an id."""


def example(path: str) -> str:
    """A path that the template stands for, as a client sends it; a WebSocket's is its plain path."""
    plain = path.partition(" ")[0].partition("?")[0]
    return "/v1" + re.sub(r"\{(\w+)\}", lambda found: IDS.get(found[1], "id_1"), plain)


def answer(method: str, path: str) -> str | None:
    """How the gateway takes a row: the endpoint's name, or the reason of its refusal; None: no family knows it."""
    raw = example(path)
    if method == "WS":
        # A path that POST takes is refused by 426, which says so (proxy/unrouted.py).
        return "no WebSocket" if match("POST", raw) is not None else why_unserved("GET", raw)
    route = match(method, raw)
    return why_unserved(method, raw) if route is None else route.endpoint.name


def test_every_row_of_the_sdk_is_served_or_refused_with_its_reason() -> None:
    assert len({(row["method"], row["path"]) for row in ROWS}) == len(ROWS) == GOLDEN["counts"]["total"]
    assert [f"{row['method']} {row['path']}" for row in ROWS if answer(row["method"], row["path"]) is None] == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/new_family"),
        ("POST", "/filesystem"),
        ("POST", "/responses/{response_id}/fork"),
        ("PATCH", "/chat/completions/{completion_id}"),
        ("DELETE", "/models"),
        ("WS", "/chat"),
    ],
)
def test_a_row_that_no_family_knows_is_noticed(method: str, path: str) -> None:
    assert answer(method, path) is None


def test_what_costs_money_at_once_is_metered_and_nothing_else() -> None:
    metered = {name for name, endpoint in ENDPOINT_OF.items() if endpoint.kind == "metered"}
    billable = {
        answer(row["method"], row["path"]) for row in ROWS if row["class"] == "billable" and row["method"] != "WS"
    }
    assert metered - NOT_OF_THE_SDK == billable & ENDPOINT_OF.keys()
    served = {answer(row["method"], row["path"]) for row in ROWS} & ENDPOINT_OF.keys()
    assert served == ENDPOINT_OF.keys() - NOT_OF_THE_SDK
    risky = [row for row in ROWS if row["class"] in ("deferred", "unknown", "admin") or row["bypass"]]
    assert [row["path"] for row in risky if answer(row["method"], row["path"]) in ENDPOINT_OF] == []


def test_every_reason_is_about_something() -> None:
    paths = {(row["method"], row["path"]) for row in ROWS}
    segments = {example(path).split("/")[2] for _, path in paths}
    assert [segment for segment in REFUSED if segment not in segments] == []
    assert [segment for segment in REFUSED if any(f"/{segment}" in each.pattern.pattern for each in CATALOGUE)] == []
    for each in (each for family in FAMILIES for each in family.unserved):
        hits = [path for method, path in paths if method == each.method and each.pattern.fullmatch(example(path)[3:])]
        assert len(hits) == 1, each
        assert match(each.method, example(hits[0])) is None, each
    for reason in [*REFUSED.values(), *(each.reason for family in FAMILIES for each in family.unserved)]:
        assert reason.isprintable()
        assert not reason.endswith(".")


def test_what_a_family_declares_fits_together() -> None:
    assert len(CATALOGUE) == sum(len(family.endpoints) for family in FAMILIES) == len(FAMILY_OF)
    for endpoint in CATALOGUE:
        family = FAMILY_OF[endpoint.name]
        assert endpoint.name.partition(".")[0] == family.name  # the permission for a whole family (keys/permissions.py)
        assert (endpoint.price in PRICE_FAMILIES) == (endpoint.kind == "metered"), endpoint
        assert endpoint.kind == "metered" or not endpoint.settles_later
        if endpoint.kind == "metered":
            assert family.text_fields, endpoint
            assert family.prompt_fields, endpoint
            assert family.cap_fields or not family.has_output, endpoint
            assert has_output(endpoint.name) == (PRICE_FAMILIES[price_family(endpoint.name)] != "none")
        assert bool(family.referring_fields) == bool(family.reference_marks)
    assert SETTLES_LATER == ("responses",)
    assert (price_family("from.tomorrow"), has_output("from.tomorrow")) == ("from.tomorrow", True)


def lists_of_families(source: ast.Module) -> list[int]:
    """Lines with a dict, set, list or tuple of the names of two or more endpoints."""
    names = ENDPOINT_OF.keys() | {family.name for family in FAMILIES}
    found = []
    for node in walk(source):
        if not isinstance(node, ast.Dict | ast.Set | ast.List | ast.Tuple):
            continue
        parts = node.keys if isinstance(node, ast.Dict) else node.elts
        if len({part.value for part in parts if isinstance(part, ast.Constant)} & names) > 1:
            found.append(node.lineno)
    return found


def test_nothing_else_lists_families() -> None:
    """The stand-ins of gateway/sandbox/ are what OpenAI is, so they have their own."""
    ours = [
        file
        for file in files()
        if file.startswith("gateway/") and not file.startswith("gateway/sandbox/") and "/families/" not in file
    ]
    assert len(ours) > 100
    assert [f"{file}:{line}" for file in ours for line in lists_of_families(tree(file))] == []
    assert lists_of_families(ast.parse('X = {"chat": 1, "responses": 2}\nY = ("embeddings", "chat")')) == [1, 2]
