"""The usage block of an answer, in the form in which records keep it. Pure.

OpenAI prints whole answers indented over many lines (seen in recordings of the real API), and a record is one line.
So white space between the tokens goes; names, values, their order, the digits of numbers and the escapes in strings
stay as they were sent.
"""

from typing import Final

import msgspec

BLOCK_BYTES_MAX: Final = 64 * 1024
"""A larger block is not kept; what it counts is."""


class NotKept(Exception):
    """This block cannot be part of a record; the message says why and quotes nothing."""


def compact(block: bytes) -> msgspec.Raw:
    """The same JSON on one line. Raises NotKept."""
    try:
        line = msgspec.json.format(block, indent=-1)
        line.decode()  # msgspec lets bytes pass that are no UTF-8
    except (ValueError, RecursionError) as error:
        raise NotKept("it is not JSON that a record can hold") from error
    if len(line) > BLOCK_BYTES_MAX:
        raise NotKept(f"it has {len(line)} bytes, more than {BLOCK_BYTES_MAX}")
    return msgspec.Raw(line)
