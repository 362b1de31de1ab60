"""Which pages may call, and what their browser is told."""

import pytest
from pydantic import ValidationError

from gateway.config.cors_settings import CorsSettings
from gateway.http.cors import Cors

ONE, OTHER = "https://app.example", "https://evil.example"


def test_only_the_listed_origin_is_told_that_it_may() -> None:
    cors = Cors((ONE,))
    told = {"Access-Control-Allow-Origin": ONE, "Access-Control-Expose-Headers": "*", "Vary": "Origin"}
    assert (cors.admits(ONE), cors.headers(ONE)) == (True, told)
    for origin in (OTHER, None, "null", ONE + ".evil.example", "http://app.example", ONE + ":444"):
        assert (cors.admits(origin), cors.headers(origin)) == (False, {"Vary": "Origin"})


def test_any() -> None:
    assert Cors(("*",)).headers(OTHER)["Access-Control-Allow-Origin"] == "*"
    assert not Cors(("*",)).admits(None)


def test_a_preflight_repeats_the_names_of_headers_and_nothing_else() -> None:
    asked = "authorization,content-type,x-stainless-lang"
    assert Cors((ONE,)).preflight(asked)["Access-Control-Allow-Headers"] == asked
    assert Cors((ONE,)).preflight("a: b")["Access-Control-Allow-Headers"] == "authorization, content-type"
    assert Cors((ONE,)).preflight("a" * 3000)["Access-Control-Allow-Headers"] == "authorization, content-type"


@pytest.mark.parametrize("origin", ["app.example", "https://app.example/", "https://App.example", "", "https://*.x y"])
def test_what_no_browser_sends_is_refused(origin: str) -> None:
    with pytest.raises(ValidationError):
        CorsSettings.model_validate({"origins": [origin]})
