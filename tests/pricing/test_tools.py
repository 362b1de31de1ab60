"""Fees of hosted tools, counted from whole response bodies; what is not known to be free is unpriced."""

import json
from decimal import Decimal
from typing import Any

import pytest

from pricing import Book, Priced
from tests.pricing.cases import ask, golden, mtok, responses, usd

SEARCH = {"type": "web_search_call", "action": {"type": "search"}}
PREVIEW = {"type": "web_search_preview"}
GA = {"type": "web_search_2025_08_26"}


def with_body(book: Book, model: str, body: dict[str, Any], **more: Any) -> Priced:
    return ask(book, model, responses(100, 10), endpoint="responses", response=json.dumps(body).encode(), **more)


def fees(priced: Priced) -> dict[str, tuple[str, str]]:
    return {
        line.unit: (line.quantity, line.usd)
        for line in priced.lines
        if line.unit not in ("input_tokens", "output_tokens")
    }


def test_a_response_with_many_tools(book: Book) -> None:
    body = golden("tools", "responses")
    priced = ask(book, body["model"], body["usage"], endpoint="responses", response=json.dumps(body).encode())
    assert usd(priced) == (
        mtok("0.4", 1000)
        + mtok("1.6", 100)
        + Decimal("0.01")  # one search; opening a page is not one
        + mtok("0.4", 8000)  # its content, billed as a block on this model
        + 2 * Decimal("0.0025")  # two file searches
        + 2 * Decimal("0.12")  # two containers of 4 GB, three calls
    )
    assert priced.low_confidence
    assert "container_4g_sessions" in priced.problems[0]


def test_image_tool_and_svg_author(book: Book) -> None:
    body = golden("image_tool", "responses")
    priced = ask(book, body["model"], body["usage"], endpoint="responses", response=json.dumps(body).encode())
    text, image = mtok("5", 90) + mtok("1.25", 10), mtok("8", 350) + mtok("2", 50)
    out = mtok("10", 56) + mtok("32", 1000)
    assert usd(priced) == mtok("2", 200) + mtok("10", 20) + text + image + out + mtok("0.1", 50) + mtok("0.5", 70)


def test_the_image_tool_without_details_counts_as_images(book: Book) -> None:
    usage = {"input_tokens": 10, "output_tokens": 100, "total_tokens": 110, "cached_tokens": 4}
    priced = with_body(book, "gpt-6-sol", {"tool_usage": {"image_gen": usage}})
    assert usd(priced) == mtok("2", 100) + mtok("10", 10) + mtok("8", 6) + mtok("2", 4) + mtok("30", 100)


@pytest.mark.parametrize(
    ("model", "tools", "unit", "fee", "low"),
    [
        ("gpt-6-sol", [GA], "web_search_calls", "0.02", False),
        ("gpt-6-sol", [PREVIEW], "web_search_calls", "0.02", False),
        ("gpt-6-sol", [], "web_search_calls", "0.02", False),
        ("gpt-4.1", [GA], "web_search_calls", "0.02", False),
        ("gpt-4.1", [PREVIEW], "web_search_preview_calls", "0.05", False),
        ("gpt-4.1", [], "web_search_preview_calls", "0.05", True),
        ("gpt-4.1", [GA, PREVIEW], "web_search_preview_calls", "0.05", True),
    ],
)
def test_web_search_costs_by_tool_and_reasoning(
    book: Book, model: str, tools: list[dict[str, str]], unit: str, fee: str, low: bool
) -> None:
    priced = with_body(book, model, {"tools": tools, "output": [SEARCH, SEARCH]})
    assert fees(priced) == {unit: ("2", fee)}
    assert priced.low_confidence is low


def test_billable_searches_are_what_openai_counts(book: Book) -> None:
    body = {"tools": [GA], "output": [SEARCH, SEARCH], "tool_usage": {"web_search": {"num_requests": 1}}}
    assert fees(with_body(book, "gpt-6-sol", body)) == {"web_search_calls": ("1", "0.01")}
    body["tool_usage"] = {"web_search": {"num_requests": 0}}
    assert fees(with_body(book, "gpt-6-sol", body)) == {}
    body["tool_usage"] = {"web_search": {}}
    assert fees(with_body(book, "gpt-6-sol", body)) == {"web_search_calls": ("2", "0.02")}


INTERPRETER = {"type": "code_interpreter_call", "container_id": "c1"}
SHELL = {"type": "shell_call", "environment": {"type": "container_reference", "container_id": "c9"}}


@pytest.mark.parametrize(
    ("output", "tools", "expected", "told"),
    [
        (
            [INTERPRETER],
            [{"type": "code_interpreter", "container": {"type": "auto"}}],
            {"container_1g_sessions": ("1", "0.03")},
            True,
        ),
        (
            [INTERPRETER],
            [{"type": "code_interpreter", "container": "c1"}],
            {"container_1g_sessions": ("1", "0.03")},
            False,
        ),
        ([INTERPRETER], [], {"container_1g_sessions": ("1", "0.03")}, False),
        (
            [INTERPRETER, SHELL],
            [
                {"type": "code_interpreter", "container": {"type": "auto"}},
                {"type": "shell", "environment": {"type": "container_auto", "memory_limit": "16g"}},
            ],
            {"container_1g_sessions": ("1", "0.03"), "container_16g_sessions": ("1", "0.48")},
            True,
        ),
        ([{"type": "shell_call", "environment": {"type": "local"}}], [{"type": "shell"}], {}, True),
        ([{"type": "shell_call"}], [{"type": "shell"}], {}, True),
        (
            [{"type": "shell_call"}],
            [{"type": "shell", "environment": {"type": "container_auto"}}],
            {"container_1g_sessions": ("1", "0.03")},
            True,
        ),
    ],
)
def test_containers_cost_by_memory(
    book: Book, output: list[Any], tools: list[Any], expected: dict[str, tuple[str, str]], told: bool
) -> None:
    priced = with_body(book, "gpt-6-sol", {"output": output, "tools": tools})
    assert fees(priced) == expected
    assert any("memory limit" in problem for problem in priced.problems) is not told


def test_two_containers_of_unknown_memory(book: Book) -> None:
    output = [INTERPRETER, {**INTERPRETER, "container_id": "c2"}, INTERPRETER]
    assert fees(with_body(book, "gpt-6-sol", {"output": output})) == {"container_1g_sessions": ("2", "0.06")}


def test_the_response_says_what_it_was_priced_by(book: Book) -> None:
    priced = with_body(book, "gpt-6-sol", {"model": "gpt-6-luna", "service_tier": "flex"}, service_tier="priority")
    assert usd(priced) == mtok("0.05", 100) + mtok("0.25", 10)
    assert priced.problems == (
        "priced by the response's model 'gpt-6-luna', not 'gpt-6-sol'",
        "priced by the response's service_tier 'flex'",
    )
    assert with_body(book, "gpt-6-sol", {"service_tier": "flex"}).problems == ()


IMAGE = {"input_tokens": 10, "output_tokens": 5}
UNKNOWN: list[tuple[dict[str, Any], str]] = [
    ({"output": [{"type": "teleport_call"}]}, "'teleport_call'"),
    ({"output": [{}]}, "response cannot be read"),
    ({"output": 3}, "response cannot be read"),
    ({"tool_usage": {"maps": {"num_requests": 3}}}, "tool_usage.maps.num_requests is not a known"),
    ({"tool_usage": {"web_search": {"num_requests": -1}}}, "num_requests is -1"),
    ({"tool_usage": {"web_search": 5}}, "tool_usage.web_search is not an object"),
    ({"output": [{"type": "image_generation_call"}]}, "without tool_usage.image_gen"),
    ({"tool_usage": {"image_gen": {**IMAGE, "cached_tokens": 11}}}, "cached_tokens 11 is above its input_tokens 10"),
    (
        {"tool_usage": {"image_gen": {**IMAGE, "input_tokens_details": {"text_tokens": 6, "image_tokens": 5}}}},
        "is 11, above 10",
    ),
    ({"tool_usage": {"image_gen": {**IMAGE, "input_tokens_details": 1}}}, "is not an object"),
    (
        {"tools": [{"type": "image_generation", "model": "gpt-image-9"}], "tool_usage": {"image_gen": IMAGE}},
        "'gpt-image-9'",
    ),
    ({"output": [{"type": "image_generation_call", "svg_usage": {"input_tokens": 5}}]}, "svg_usage has no model"),
    (
        {
            "output": [INTERPRETER],
            "tools": [{"type": "code_interpreter", "container": {"type": "auto", "memory_limit": "2g"}}],
        },
        "'container_2g_sessions'",
    ),
]


@pytest.mark.parametrize(("body", "message"), UNKNOWN)
def test_what_is_not_known_is_unpriced(book: Book, body: dict[str, Any], message: str) -> None:
    priced = with_body(book, "gpt-6-sol", body)
    assert (priced.cost_nano, priced.evidence) == (None, "unpriced")
    assert message in priced.problems[0]
    assert priced.total_tokens == 110


@pytest.mark.parametrize(
    "item",
    [
        {"type": "apply_patch_call", "id": "apc_1", "operation": {"type": "delete_file", "path": "a"}},
        {"type": "local_shell_call", "id": "lsh_1", "action": {"type": "exec", "command": ["ls"]}},
        {"type": "shell_call", "id": "sh_1", "action": {"commands": ["ls"]}, "environment": {"type": "local"}},
        {"type": "shell_call", "id": "sh_1", "action": {"commands": ["ls"]}, "environment": None},
        {"type": "computer_call", "id": "cu_1", "action": {"type": "screenshot"}, "pending_safety_checks": []},
        {"type": "tool_search_call", "id": "ts_1", "execution": "client", "arguments": {}},
        {"type": "tool_search_output", "execution": "client", "tools": []},
        {"type": "function_call", "id": "fc_1", "namespace": "crm", "name": "f", "arguments": "{}"},
        {"type": "custom_tool_call", "id": "ctc_1", "name": "c", "input": "x"},
    ],
)
def test_tools_that_the_client_runs_cost_their_tokens_only(book: Book, item: dict[str, Any]) -> None:
    tools = [{"type": "shell", "environment": {"type": "local"}}, {"type": "namespace", "name": "crm", "tools": []}]
    priced = with_body(book, "gpt-5", {"model": "gpt-5", "output": [item], "tools": tools})
    plain = ask(book, "gpt-5", responses(100, 10), endpoint="responses")
    assert (priced.cost_nano, priced.lines, priced.problems) == (plain.cost_nano, plain.lines, ())


def test_unknown_tools_that_used_nothing_are_fine(book: Book) -> None:
    assert fees(with_body(book, "gpt-6-sol", {"tool_usage": {"maps": {"num_requests": 0}, "image_gen": None}})) == {}
