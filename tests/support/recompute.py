"""What a call must have cost, computed a second time: slow, obvious, from the price files alone.

This module must share no function with pricing/ (it may not import it): tests compare the two, and
a ledger row is right when both agree. Tool fees that need a response body are not recomputed.
"""

import tomllib
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any

MILLION = 1_000_000


def recompute(
    prices_texts: Mapping[str, str],
    endpoint: str,
    model: str,
    tier: str | None,
    at: datetime,
    usage: Mapping[str, Any],
    *,
    batch: bool = False,
    region: str | None = None,
    cache_ttl: str | None = None,
    completion_window: str | None = None,
) -> Decimal | None:
    """USD, rounded half-even to nine decimals, or None when the call cannot be priced.

    `prices_texts` is what `pricing.data.read_texts()` returns; `usage` the block as OpenAI sent it.
    """
    models, fees, rules = _load(tuple(sorted(prices_texts.items())))
    entry = _find_model(models, model)
    if entry is None or (region is not None and region not in rules["regions"]):
        return None
    name = _table_name(endpoint, tier, batch, completion_window)
    if name is None:
        return None
    if entry.get("free"):
        return Decimal("0.000000000")
    counts = _counts(usage, cache_ttl)
    if counts is None:
        return None
    over = entry.get("long_context_over")
    if over is not None and counts["whole input"] > over:
        name += "_long"
    rates = _rates(entry, name, at)
    if rates is None:
        return None
    total = Fraction(0)
    for class_, count in counts.items():
        if class_ == "whole input" or count == 0:
            continue
        rate = _rate(rates, class_)
        if rate is None:
            return None
        if region is not None and "regional" in entry:
            rate *= Fraction(rules["regional_multiplier"])
        total += rate * count / MILLION
    if endpoint == "chat" and "request_fee" in entry:
        total += _fee(fees, entry["request_fee"], at)
    return _round(total)


@lru_cache(maxsize=4)
def _load(texts: tuple[tuple[str, str], ...]) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    models: list[dict[str, Any]] = []
    fees: list[dict[str, Any]] = []
    rules: dict[str, Any] = {}
    for _, text in texts:
        file = tomllib.loads(text, parse_float=Decimal)
        models.extend(file.get("model", []))
        fees.extend(file.get("fee", []))
        rules.update(file.get("rules", {}))
    return models, fees, rules


def _find_model(models: list[dict[str, Any]], name: str) -> dict[str, Any] | None:
    """Exact id, then the id without `-YYYY-MM-DD`, then an alias of either; `ft:BASE:…` goes by `ft:BASE`."""
    if name.startswith("ft:"):
        name = "ft:" + name.split(":")[1]
    undated = name
    tail = name[-11:]
    if len(tail) == 11 and tail[0] == tail[5] == tail[8] == "-" and tail.replace("-", "").isdigit():
        undated = name[:-11]
    for wanted in (name, undated):
        for model in models:
            if model["id"] == wanted:
                return model
    for wanted in (name, undated):
        for model in models:
            if wanted in model.get("aliases", []):
                return model
    for model in models:
        for alias in model.get("aliases", []):
            if alias.endswith("*") and name.startswith(alias.rstrip("*")):
                return model
    return None


def _table_name(endpoint: str, tier: str | None, batch: bool, window: str | None) -> str | None:
    tier = "default" if tier in (None, "auto") else "priority" if tier == "fast" else tier
    if tier not in ("default", "flex", "priority", "ultrafast"):
        return None
    if batch:
        return "batch" if tier == "default" else None
    if window is not None:
        return {"2h": "background_2h", "8h": "background_8h"}.get(window) if tier == "default" else None
    return "decisions" if endpoint == "decisions" and tier == "default" else tier


def _rates(model: Mapping[str, Any], table: str, at: datetime) -> dict[str, Any] | None:
    for price in model["price"]:
        started = "from" not in price or price["from"] <= at
        ended = "until" in price and price["until"] <= at
        if table in price and started and not ended:
            found: dict[str, Any] = price[table]
            return found
    return None


def _rate(rates: Mapping[str, Any], class_: str) -> Fraction | None:
    if class_ in rates:
        return Fraction(rates[class_])
    no_writes = "write_30m" not in rates and "write_12h" not in rates
    if class_ == "cached" or (class_ in ("write_30m", "write_12h") and no_writes):
        return Fraction(rates["input"])
    return None


def _fee(fees: list[dict[str, Any]], fee_id: str, at: datetime) -> Fraction:
    for fee in fees:
        if (
            fee["id"] == fee_id
            and ("from" not in fee or fee["from"] <= at)
            and ("until" not in fee or at < fee["until"])
        ):
            return Fraction(fee["usd"])
    raise AssertionError(f"no fee {fee_id} at {at}")


def _counts(usage: Mapping[str, Any], cache_ttl: str | None) -> dict[str, int] | None:
    if "input_tokens" in usage:
        whole, out = usage["input_tokens"], usage.get("output_tokens") or 0
        details, out_details = usage.get("input_tokens_details") or {}, usage.get("output_tokens_details") or {}
    else:
        whole, out = usage["prompt_tokens"], usage.get("completion_tokens") or 0
        details, out_details = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    split = details.get("cache_write_tokens_details") or {}
    short, long = split.get("ttl_30m_tokens") or 0, split.get("ttl_12h_tokens") or 0
    if details.get("cache_write_tokens") is not None:
        rest = details["cache_write_tokens"] - short - long
        if rest < 0:
            return None
        if cache_ttl == "12h":
            long += rest
        else:
            short += rest
    counts = {
        "whole input": whole,
        "cached": details.get("cached_tokens") or 0,
        "write_30m": short,
        "write_12h": long,
        "audio_input": details.get("audio_tokens") or 0,
        "audio_output": out_details.get("audio_tokens") or 0,
    }
    counts["input"] = whole - counts["cached"] - short - long - counts["audio_input"]
    counts["output"] = out - counts["audio_output"]
    return None if min(counts.values()) < 0 else counts


def _round(usd: Fraction) -> Decimal:
    nano = round(usd * 10**9)  # Fraction rounds half to even, exactly
    return Decimal(nano).scaleb(-9)
