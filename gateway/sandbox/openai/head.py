"""The headers of the OpenAI stand-in's answers, as recordings of 2025 and 2026 have them. Pure.

3,009 recorded answers with all their headers: `cf-ray`, `server` and `cf-cache-status` are in all of them, the
account's limits in 2,760, the organization in 2,575, the project in 2,284, cookies in 2,487.
"""

from typing import Final

from multidict import CIMultiDict

from gateway.sandbox.openai.calls import ReceivedCall

CHUNKED: Final = frozenset({"chat", "completions", "embeddings", "models"})
"""Endpoints whose whole answers mostly come without a Content-Length; all 141 recorded responses had one."""
_LIMITED: Final = frozenset({"chat", "completions", "embeddings", "responses", "responses.compact"})
_OLDER: Final = frozenset({"completions", "embeddings"})
"""Endpoints behind another router, which adds headers of its own."""
_NO_WASM: Final = "responses"
_LIMITS: Final = {
    "x-ratelimit-limit-requests": "10000",
    "x-ratelimit-limit-tokens": "2000000",
    "x-ratelimit-remaining-requests": "9999",
    "x-ratelimit-remaining-tokens": "1999000",
    "x-ratelimit-reset-requests": "6ms",
    "x-ratelimit-reset-tokens": "30ms",
}
"""Of the whole account, whoever calls."""


def door_headers(request_id: str) -> CIMultiDict[str]:
    """What the network in front of the API adds, also to what never reaches a model."""
    cookie = "path=/; domain=.api.openai.com; HttpOnly; Secure; SameSite=None"
    return CIMultiDict(
        [
            ("x-request-id", request_id),
            ("Server", "cloudflare"),
            ("cf-cache-status", "DYNAMIC"),
            ("cf-ray", f"{request_id[-16:]}-SJC"),
            ("Set-Cookie", f"__cf_bm=sandbox; {cookie}"),
            ("Set-Cookie", f"_cfuvid=sandbox; {cookie}"),
            ("strict-transport-security", "max-age=31536000; includeSubDomains; preload"),
            ("x-content-type-options", "nosniff"),
            ("alt-svc", 'h3=":443"; ma=86400'),
        ]
    )


def answer_headers(call: ReceivedCall, processing_ms: int) -> CIMultiDict[str]:
    """What comes along with an answer of the API itself."""
    headers = door_headers(call.request_id)
    headers.update(_timing(processing_ms))
    headers.update({"openai-organization": "sandbox", "openai-project": "proj_sandbox"})
    for name in ("X-Request-ID", "CF-Ray", "CF-Ray"):  # the second one twice, as recorded
        headers.add("access-control-expose-headers", name)
    if not call.endpoint.startswith(_NO_WASM):
        headers["x-openai-proxy-wasm"] = "v0.1"
    if call.endpoint in _OLDER:
        headers.update({"access-control-allow-origin": "*", "via": "envoy-router-sandbox"})
        if call.response_model is not None:
            headers["openai-model"] = call.response_model
    if call.endpoint == "completions":
        headers["cache-control"] = "no-cache, must-revalidate"
    if call.endpoint in _LIMITED:
        headers.update(_LIMITS)
    return headers


def _timing(processing_ms: int) -> dict[str, str]:
    return {"openai-processing-ms": str(processing_ms), "openai-version": "2020-10-01"}


def refusal_headers(call: ReceivedCall, processing_ms: int, status: int, *, at_door: bool) -> CIMultiDict[str]:
    """What comes along with an error."""
    if at_door:
        headers = door_headers(call.request_id)
        headers["vary"] = "Origin"
    elif status == 401:
        headers = door_headers(call.request_id)
        headers.update(_timing(processing_ms))
    else:
        headers = answer_headers(call, processing_ms)
    if status == 401:
        headers["www-authenticate"] = 'Bearer realm="OpenAI API"'
    return headers
