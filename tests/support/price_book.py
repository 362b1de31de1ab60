"""The packaged price book, parsed once for these tests. Never a price of its own."""

import pytest

from pricing import Book, parse
from pricing.data import read_texts


@pytest.fixture(scope="session")
def texts() -> dict[str, str]:
    """The packaged price files."""
    return read_texts()


@pytest.fixture(scope="session")
def book(texts: dict[str, str]) -> Book:
    """The packaged price book."""
    return parse(texts)
