"""Parts of aiohttp that it does not document: they may change in any release, so each is tried before it is used."""

import inspect
from importlib.metadata import version
from typing import Final

from aiohttp import http_parser, web_protocol
from aiohttp.client_proto import ResponseHandler

KNOWN: Final = {"3.14.5"}
"""Releases with which the whole test suite and the replay of recordings have run."""


def test_this_release_of_aiohttp_is_one_that_was_tried() -> None:
    assert version("aiohttp") in KNOWN, "run every test and `make replay` with it, then add it here"


def test_what_we_use_of_it_is_there() -> None:
    said = inspect.signature(ResponseHandler.set_response_params).parameters
    assert {"read_until_eof", "auto_decompress", "read_timeout", "read_bufsize"} <= set(said)
    assert {"should_close", "is_connected", "upgraded"} <= set(dir(ResponseHandler))
    assert inspect.isclass(http_parser.RawRequestMessage)
    assert inspect.isclass(web_protocol._ErrInfo)
