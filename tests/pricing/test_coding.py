"""Answers that come coded although nobody asked: a decoded copy is read, within bounds, and the bytes stay."""

import gzip
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.relay_result import RelayResult
from gateway.proxy.wholes import feed_large, read_large, read_whole
from pricing.coded import CodedStream
from pricing.readers import coding
from pricing.readers.coding import Decoder, coding_of
from pricing.readers.scan import Scan
from tests.pricing.streams import meter_for, pieces, relay, stream

CODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "deflate, bare": lambda data: zlib.compress(data, wbits=-15),
    "gzip, two members": lambda data: gzip.compress(data[:7]) + gzip.compress(data[7:]),
}
BODY = b'{\n  "id": "resp_1",\n  "model": "gpt-5",\n  "service_tier": "flex",\n  "usage": {"input_tokens": 1}\n}'


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (None, None),
        ("", None),
        ("Identity", None),
        (" GZIP ", "gzip"),
        ("x-gzip", "gzip"),
        ("deflate", "deflate"),
        ("br", "br"),
        ("zstd", "zstd"),
        ("gzip, br", "other"),
        ("CANARY", "other"),
    ],
)
def test_names(header: str | None, name: str | None) -> None:
    assert coding_of(header) == name


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("size", [1, 5, 10**6])
def test_a_whole_answer(coder: str, size: int) -> None:
    coded, name = CODERS[coder](BODY), coder.partition(",")[0]
    kept = RelayResult()
    kept.last = coded
    read_whole(kept, Decoder(name))
    passing, scan, decoder = RelayResult(), Scan(), Decoder(name)
    for piece in pieces(coded, size):
        feed_large(passing, scan, piece, decoder)
    read_large(passing, scan, decoder)
    for result in (kept, passing):
        assert (result.said.response_id, result.said.service_tier) == ("resp_1", "flex")
        assert result.said.usage == b'{"input_tokens": 1}'
        assert result.unread is None


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("name", ["chat.usage.sse", "responses.sse"])
@pytest.mark.parametrize("size", [1, 50, 10**6])
def test_a_stream(coder: str, name: str, size: int) -> None:
    plain, meter = meter_for(name), meter_for(name, withhold=True)
    relay(plain, [stream(name)])
    coded, held = CODERS[coder](stream(name)), CodedStream(meter, Decoder(coder.partition(",")[0]))
    before = b"".join([*(held.feed(piece) for piece in pieces(coded, size)), held.finish()])
    after = held.release()
    assert before + after == coded
    assert after
    assert (meter.said, meter.terminal, meter.deltas) == (plain.said, True, plain.deltas)


def test_what_cannot_be_read_is_named() -> None:
    for name, data, problem in (
        ("br", b"anything", "coded_br"),
        ("zstd", b"anything", "coded_zstd"),
        ("other", BODY, "coded_other"),
        ("gzip", BODY, "coded_damaged"),
        ("deflate", b"\xff" * 40, "coded_damaged"),
    ):
        result = RelayResult()
        result.last = data
        read_whole(result, Decoder(name))
        assert (result.unread, result.said.usage, result.said.unsure) == (problem, None, True)
        held = CodedStream(meter_for("chat"), Decoder(name))
        before = b"".join(held.feed(piece) for piece in pieces(data, 3))
        after = held.release()
        assert before + after == data
        assert after  # the end waits, wherever it is


def test_an_answer_that_unfolds_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coding, "DECODED_BYTES_MAX", 3_000_000)
    decoder, size = Decoder("gzip"), 0
    for piece in decoder.decode(gzip.compress(b"\0" * 50_000_000)):
        size += len(piece)
        assert len(piece) <= coding.PIECE_BYTES
    assert size <= 3_000_000
    assert decoder.problem == "coded_too_large"


@given(st.binary(max_size=200), st.integers(1, 20), st.sampled_from(["gzip", "deflate", "br"]))
def test_any_bytes_are_decoded_without_an_exception(data: bytes, size: int, name: str) -> None:
    decoder = Decoder(name)
    for start in (b"", gzip.compress(b"x")):
        for piece in pieces(start + data, size):
            assert isinstance(b"".join(decoder.decode(piece)), bytes)


@pytest.mark.parametrize(
    ("body", "is_error"),
    [
        (b'{"error":{"message":"x"}}', True),
        (b'{"error":"x"}', False),
        (b'{"error":null}', False),
        (b"[]", False),
        (b"<html>", False),
        (b"", False),
        (b"\xff", False),
        (b'{"error":{"message":"\xff"}}', True),
        (b'{"error":' + b"[" * 99_999 + b"]" * 99_999 + b"}", False),
        (b'{"x":"' + b"x" * 2_000_000 + b'","error":{"message":"x"}}', True),
    ],
)
def test_an_error_envelope_of_any_size(body: bytes, is_error: bool) -> None:
    kept, passing, scan = RelayResult(), RelayResult(), Scan()
    kept.last = body
    read_whole(kept, None)
    for piece in pieces(body, 60_000):
        feed_large(passing, scan, piece, None)
    read_large(passing, scan, None)
    assert (kept.is_error, passing.is_error) == (is_error, is_error)
