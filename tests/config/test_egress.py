"""The proxy for the vendors: its address, what is refused of it, and who does not read the environment's."""

import pytest
from pydantic import ValidationError

from gateway.config.egress import EgressProxy, parse_proxy, unread_variable
from gateway.config.settings import EgressSettings, Settings
from gateway.kit.errors import ConfigError
from gateway.processes.preflight import check_egress


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("direct", None),
        ("http://proxy.example:3128", EgressProxy("proxy.example", 3128)),
        ("http://proxy.example/", EgressProxy("proxy.example", 80)),
        ("http://ann:p%40%2Fs@[::1]:8080", EgressProxy("::1", 8080, "ann", "p@/s")),
    ],
)
def test_addresses(text: str, proxy: EgressProxy | None) -> None:
    assert parse_proxy(text) == proxy


@pytest.mark.parametrize(
    "text",
    [
        "https://CANARY@proxy.example:3128", "socks5://CANARY@proxy.example", "proxy.example:3128", "http://",
        "http://ann:CANARY/x@proxy.example:1", "http://ann:CANARY#@proxy.example:1", "http://proxy.example:0/CANARY",
        "http://a%3Ab:CANARY@proxy.example", "http://proxy.example:1/CANARY",
    ],
)  # fmt: skip
def test_an_invalid_address_is_refused_without_its_value(text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        EgressSettings.model_validate({"proxy": text})
    assert "CANARY" not in caught.value.errors()[0]["msg"]


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, None),
        ({"HTTPS_PROXY": ""}, None),
        ({"HTTP_PROXY": "http://p"}, None),
        ({"HTTPS_PROXY": "http://p"}, "HTTPS_PROXY"),
        ({"https_proxy": "http://p"}, "https_proxy"),
        ({"ALL_PROXY": "http://p"}, "ALL_PROXY"),
        ({"HTTPS_PROXY": "http://p", "NO_PROXY": "localhost,127.0.0.1"}, "HTTPS_PROXY"),
        ({"HTTPS_PROXY": "http://p", "NO_PROXY": "ai.com"}, "HTTPS_PROXY"),
        ({"HTTPS_PROXY": "http://p", "NO_PROXY": "x, .OpenAI.com"}, None),
        ({"HTTPS_PROXY": "http://p", "no_proxy": "*"}, None),
    ],
)
def test_variables_of_other_programs(environ: dict[str, str], found: str | None) -> None:
    assert unread_variable(environ, "api.openai.com") == found


def test_a_proxy_that_would_be_passed_by_is_refused() -> None:
    environ = {"HTTPS_PROXY": "http://ann:CANARY@proxy.example"}
    with pytest.raises(ConfigError, match=r"HTTPS_PROXY is set.*EGRESS__PROXY \(egress\.proxy\)") as caught:
        check_egress(Settings(), environ)
    assert "CANARY" not in str(caught.value)
    check_egress(Settings(egress=EgressSettings.model_validate({"proxy": "direct"})), environ)
    check_egress(Settings(egress=EgressSettings.model_validate({"proxy": "http://p:1"})), environ)
    check_egress(Settings(openai_base_url="http://127.0.0.1:1/v1"), environ)
