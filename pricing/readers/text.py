"""Text from outside, made such that JSON, PostgreSQL and an index can hold it: valid UTF-8, no NUL, bounded. Pure."""

from typing import Final

TEXT_CHARS_MAX: Final = 512
"""More than any id or model name that OpenAI documents; of this length, PostgreSQL can still index it."""


def storable(text: str) -> str:
    """`text` as it is, but for what cannot be stored: a byte that is not UTF-8 and NUL become U+FFFD, the rest is cut.

    Headers come with such bytes as lone surrogates (PEP 383), which no UTF-8 can spell.
    """
    if len(text) > TEXT_CHARS_MAX:
        text = text[:TEXT_CHARS_MAX]
    if not text.isascii():
        # Surrogates of either origin; two that make a pair become their character.
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\0", "\ufffd") if "\0" in text else text
