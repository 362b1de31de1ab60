"""The tokenizer counts as tiktoken does, offline, and refuses damaged ranks."""

import gzip
import socket
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.openai import tokenizer
from gateway.openai.tokenizer import TEXT_CHARS_MAX, RanksDamaged, Tokenizer

SHARED = Tokenizer()


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the tokenizer asked the network")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize(
    ("text", "encoding", "tokens"),
    [
        ("", "o200k_base", 0),
        ("hello world", "o200k_base", 2),
        ("hello world", "cl100k_base", 2),
        ("tiktoken is great!", "cl100k_base", 6),
        ("<|endoftext|>", "cl100k_base", 7),
    ],
)
def test_counts(text: str, encoding: str, tokens: int) -> None:
    assert SHARED.count(text, encoding) == tokens


@settings(max_examples=50)
@given(st.text(max_size=200))
def test_pieces_join_to_the_text(text: str) -> None:
    pieces = SHARED.pieces(text, "o200k_base")
    assert "".join(pieces) == text
    assert len(pieces) <= SHARED.count(text, "o200k_base")


def test_a_huge_text_is_counted_by_its_bytes() -> None:
    assert SHARED.count("é" * (TEXT_CHARS_MAX + 1), "o200k_base") == (2 * (TEXT_CHARS_MAX + 1) + 3) // 4


@pytest.mark.parametrize("encoding", ["o200k_base", "cl100k_base"])
def test_a_long_run_of_one_character_is_counted(encoding: str) -> None:
    run = SHARED.count(" " * 1_000_001, encoding)  # one piece of it is too much for the pattern
    assert 20 <= 1_000_001 / run <= 200
    text = "The quick brown fox. " * 20_000
    assert abs(SHARED.count(text, encoding) - 20_000 * SHARED.count("The quick brown fox. ", encoding)) < 20_100


def test_unknown_encoding() -> None:
    with pytest.raises(KeyError):
        SHARED.count("x", "r50k_base")


def test_damaged_ranks_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path(tokenizer.__file__).parent.parent / "ranks"
    (tmp_path / "encodings.toml").write_bytes((real / "encodings.toml").read_bytes())
    data = gzip.decompress((real / "cl100k_base.tiktoken.gz").read_bytes())
    (tmp_path / "cl100k_base.tiktoken.gz").write_bytes(gzip.compress(data[:-1]))
    monkeypatch.setattr(tokenizer, "files", lambda _: tmp_path)
    with pytest.raises(RanksDamaged):
        Tokenizer().count("x", "cl100k_base")
