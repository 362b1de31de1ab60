"""Prices of OpenAI calls: numbers and bytes in, exact values out. No I/O, no clock, no float for money.

This package must not know `gateway`. Everything callers need is re-exported here.
"""

from pricing.book import Book, LowConfidence, parse
from pricing.cost import Line, Priced, PriceRequest, price, price_tier
from pricing.entries import BookError
from pricing.estimate import Estimate, estimate
from pricing.money import nano_text
from pricing.usage import TokenCounts, read_counts

__all__ = [
    "Book",
    "BookError",
    "Estimate",
    "Line",
    "LowConfidence",
    "PriceRequest",
    "Priced",
    "TokenCounts",
    "estimate",
    "nano_text",
    "parse",
    "price",
    "price_tier",
    "read_counts",
]
