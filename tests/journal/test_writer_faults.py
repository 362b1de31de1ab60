"""The journal on failing disks and over torn or corrupt segments: one record's loss never costs another's."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.journal import writer as journal_module
from gateway.journal.frames import NOTE, OPEN, SETTLE, frame
from gateway.journal.reader import Segments
from gateway.journal.writer import Journal
from gateway.kit.errors import DependencyDown
from tests.journal.journals import ID, Disk, is_failed, make, payload, read_all, segment_of
from tests.support.patience import until


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    opened = make(tmp_path)
    opened.open()
    yield opened
    opened.close()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, journal: Journal) -> Disk:
    """Made after the journal has been opened."""
    return Disk(monkeypatch)


# Failing disks.


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
async def test_a_failed_write_is_refused_and_leaves_nothing(
    journal: Journal, tmp_path: Path, disk: Disk, error: int
) -> None:
    await journal.append(OPEN, payload(1))
    disk.failing = {"write": error}
    for number in (2, 3):
        with pytest.raises(DependencyDown) as caught:
            await asyncio.wait_for(journal.append(OPEN, payload(number)), 60)
        assert caught.value.what == "journal"
        assert journal.failure == os.strerror(error)
    journal.note(payload(50))
    disk.failing = {}
    await asyncio.wait_for(journal.append(OPEN, payload(4)), 60)
    assert journal.failure is None
    assert read_all(tmp_path) == [payload(1), payload(4)]
    assert len(list(tmp_path.glob("*.jnl"))) == 2  # the failed one is never written again


async def test_a_write_cut_short_leaves_nothing(journal: Journal, tmp_path: Path, disk: Disk) -> None:
    await journal.append(OPEN, payload(1))
    disk.short = len(frame(OPEN, payload(2))) + 10
    waiters = [journal.append(OPEN, payload(number)) for number in (2, 3)]
    results = await asyncio.wait_for(asyncio.gather(*waiters, return_exceptions=True), 60)
    assert all(isinstance(result, DependencyDown) for result in results)
    disk.short = 0
    await journal.append(OPEN, payload(4))
    assert read_all(tmp_path) == [payload(1), payload(4)]  # 2 was whole on disk, but its writer was told that it failed


async def test_a_note_cut_short_costs_only_itself(journal: Journal, tmp_path: Path, disk: Disk) -> None:
    await journal.append(OPEN, payload(1))
    disk.short = 9
    journal.note(payload(2))
    disk.short = 0
    await journal.append(OPEN, payload(3))
    assert read_all(tmp_path) == [payload(1), payload(3)]


async def test_a_failed_note_is_seen(journal: Journal, disk: Disk) -> None:
    disk.failing = {"write": errno.EIO}
    journal.note(payload(1))
    assert journal.failure == os.strerror(errno.EIO)


@pytest.mark.parametrize("failing", ["open", "fsync", "write"])
async def test_it_recovers_without_calls(
    journal: Journal, tmp_path: Path, disk: Disk, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "RETRY_S", 0.02)
    disk.failing = {"write": errno.EIO, failing: errno.EIO}
    with pytest.raises(DependencyDown):
        await journal.append(OPEN, payload(1))
    await asyncio.sleep(0.1)
    assert is_failed(journal)
    disk.failing = {}
    await until(lambda: not is_failed(journal))
    await journal.append(OPEN, payload(2))
    assert read_all(tmp_path) == [payload(2)]


async def test_a_bug_in_a_commit_fails_its_records_and_not_the_journal(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "RETRY_S", 0.02)
    write, left = journal._write, 1

    def fails_once(data: bytes) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyError("a bug")
        write(data)

    monkeypatch.setattr(journal, "_write", fails_once)
    with pytest.raises(DependencyDown, match="KeyError"):
        await asyncio.wait_for(journal.append(SETTLE, payload(1)), 60)
    assert journal.failure == "KeyError"
    await until(lambda: not is_failed(journal))
    await journal.append(SETTLE, payload(2))
    assert read_all(tmp_path) == [payload(2)]


async def test_no_room_for_a_new_segment_does_not_refuse_what_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = make(tmp_path, size=4096)
    journal.open()
    disk = Disk(monkeypatch)
    disk.failing = {"open": errno.ENOSPC}
    for number in range(100):
        await journal.append(OPEN, payload(number))
    disk.failing = {}
    await journal.append(OPEN, payload(100))
    journal.close()
    assert read_all(tmp_path) == [payload(number) for number in range(101)]
    assert len(list(tmp_path.glob("*.jnl"))) == 2


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DependencyDown, match="journal"):
        make(tmp_path / "file" / "journal").open()


# Torn and corrupt segments.


def test_torn_at_every_byte(tmp_path: Path) -> None:
    path, lines = segment_of(tmp_path, 4)
    whole, ends = path.read_bytes(), [sum(map(len, lines[: at + 1])) for at in range(len(lines))]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        kept = sum(end <= cut for end in ends[1:])
        assert read_all(tmp_path) == [payload(number) for number in range(kept)]
        path.write_bytes(whole[:cut] + b"\n" + lines[-1])  # what a writer appends behind a torn line
        assert read_all(tmp_path)[-1] == payload(3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.data())
def test_flipped_bits_cost_their_own_record_only(tmp_path: Path, data: st.DataObject) -> None:
    path, lines = segment_of(tmp_path, 6)
    raw = bytearray(path.read_bytes())
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    path.write_bytes(raw)
    ends = [sum(map(len, lines[: at + 1])) for at in range(len(lines))]
    hit = next(at for at, end in enumerate(ends) if bit // 8 < end)
    touched = {hit, hit + 1} if bit // 8 == ends[hit] - 1 else {hit}  # a lost newline joins two records
    expected = [payload(number) for number in range(6) if number + 1 not in touched]
    segments = Segments(tmp_path)
    segments.refresh()
    assert [record.payload for record in segments.poll()] == expected
    assert segments.corrupt >= 1 or bit // 8 == len(raw) - 1  # without its newline the last one may still be coming


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.binary(max_size=300))
def test_garbage_at_the_end_is_skipped(tmp_path: Path, garbage: bytes) -> None:
    path, _ = segment_of(tmp_path, 3)
    path.write_bytes(path.read_bytes() + garbage)
    assert read_all(tmp_path) == [payload(number) for number in range(3)]


def test_a_record_longer_than_one_read(tmp_path: Path) -> None:
    long = b'{"id":"%b","x":"%b"}' % (ID.encode(), b"y" * 3_000_000)
    path = tmp_path / "w0.1.000001.jnl"
    path.write_bytes(frame(OPEN, payload(1)) + frame(SETTLE, long) + frame(OPEN, payload(2)))
    segments = Segments(tmp_path)
    segments.refresh()
    read: list[bytes] = []
    for _ in range(4):
        read += [record.payload for record in segments.poll()]
    assert read == [payload(1), long, payload(2)]


def test_a_line_is_read_once_it_is_whole(tmp_path: Path) -> None:
    path, lines = segment_of(tmp_path, 1)
    segments = Segments(tmp_path)
    segments.refresh()
    assert len(list(segments.poll())) == 1
    with path.open("ab") as file:
        for part in (lines[1][:10], lines[1][10:-1]):
            file.write(part)
            file.flush()
            assert list(segments.poll()) == []
        file.write(b"\n")
    (record,) = segments.poll()
    assert segments.reread(record.segment, record.offset) == payload(0)


# Records of other versions, and records that would break a line.


async def test_a_record_of_several_lines_is_one_record(tmp_path: Path) -> None:
    journal = make(tmp_path)
    journal.open()
    await journal.append(SETTLE, b'{"id":"%b",\n  "n": 1\n}' % ID.encode())
    journal.note(b'{"id":"%b",\n"n":2}' % ID.encode())
    journal.close()
    assert read_all(tmp_path) == [b'{"id":"%b",   "n": 1 }' % ID.encode(), b'{"id":"%b", "n":2}' % ID.encode()]


def test_a_journal_of_an_older_version_reads(tmp_path: Path) -> None:
    """Written by hand as older versions wrote it: usage blocks as they came, white space and all."""
    settle = b'{"id":"%b","usage":{"prompt_tokens": 9,\t"completion_tokens": 3},"metadata":{}}' % ID.encode()
    records = [(b"H", b'"boot-1"'), (b"O", b'{"id":"%b"}' % ID.encode()), (b"N", payload(1)), (b"S", settle)]
    lines = [b"%08x %b %b\n" % (crc32(kind + body), kind, body) for kind, body in records]
    (tmp_path / "w0.0000000000001.000001.jnl").write_bytes(b"\n".join(lines))
    assert read_all(tmp_path) == [body for _, body in records[1:]]


async def test_records_of_a_living_process_that_do_not_read_are_counted_apart(tmp_path: Path) -> None:
    def corrupt() -> tuple[int, int]:
        segments = Segments(tmp_path)
        segments.refresh()
        list(segments.poll())
        return segments.corrupt, segments.corrupt_living

    journal = make(tmp_path)
    journal.open()
    (path,) = tmp_path.glob("*.jnl")
    settle, note = frame(SETTLE, payload(1)).replace(b',"', b',\n"'), frame(NOTE, payload(2))[:40]
    with path.open("ab") as file:
        file.write(settle + note + b"\n")
    assert corrupt() == (3, 2)
    journal.close()
    assert corrupt() == (3, 0)  # whoever wrote this may have been killed while it did
