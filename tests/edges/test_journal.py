"""The journal on a real disk: what was acknowledged is read again, whatever happens to the rest."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.errors import DependencyDown
from gateway.core.frames import BOOT, OPEN, SETTLE, frame
from gateway.core.ids import uuid7
from gateway.edges import journal as journal_module
from gateway.edges.journal import Journal, SlotTaken
from gateway.edges.segments import Segments

ID = uuid7(1, 1)


def payload(number: int) -> bytes:
    return b'{"id":"%b","n":%d}' % (uuid7(number, 0).encode(), number)


def make(folder: Path, *, slot: str = "w0", boot: str = "boot-1", size: int = 1 << 20) -> Journal:
    return Journal(folder, slot, boot, segment_bytes_max=size, unix_ms=lambda: 1_700_000_000_000)


def is_failed(journal: Journal) -> bool:
    return journal.failure is not None


def read_all(folder: Path) -> list[bytes]:
    segments = Segments(folder)
    segments.refresh()
    return [record.payload for record in segments.poll()]


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    opened = make(tmp_path)
    opened.open()
    yield opened
    opened.close()


class Disk:
    """Stands between the journal and the disk; counts, and fails when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.failing: dict[str, int] = {}
        """errno by function; `short` makes a write end early."""
        self.short = 0
        for name in ("write", "open", "fsync", "ftruncate"):
            monkeypatch.setattr(os, name, self._wrapped(name, getattr(os, name)))

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            if name == "open" and ".jnl" not in str(arguments[0]):
                return real(*arguments, **named)
            self.calls.append(name)
            if name == "write" and self.short:
                return real(arguments[0], bytes(arguments[1])[: self.short])
            if name in self.failing:
                raise OSError(self.failing[name], os.strerror(self.failing[name]))
            return real(*arguments, **named)

        return called


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, journal: Journal) -> Disk:
    """Made after the journal has been opened."""
    return Disk(monkeypatch)


async def test_records_come_back_in_order(journal: Journal, tmp_path: Path) -> None:
    for number in range(5):
        await journal.append(OPEN if number % 2 else SETTLE, payload(number))
    journal.note(payload(99))
    assert read_all(tmp_path) == [*map(payload, range(5)), payload(99)]


async def test_concurrent_appends_share_a_write(journal: Journal, tmp_path: Path, disk: Disk) -> None:
    await asyncio.gather(*(journal.append(OPEN, payload(number)) for number in range(200)))
    assert disk.calls.count("write") == 1
    assert read_all(tmp_path) == [payload(number) for number in range(200)]


async def test_durable_before_acknowledged(journal: Journal, tmp_path: Path) -> None:
    (segment,) = tmp_path.glob("*.jnl")
    flags = [
        int(line.split()[1], 8)
        for fd in Path("/proc/self/fd").iterdir()
        if fd.exists() and fd.resolve() == segment
        for line in Path(f"/proc/self/fdinfo/{fd.name}").read_text().splitlines()
        if line.startswith("flags")
    ]
    assert sorted(bool(flag & os.O_DSYNC) for flag in flags) == [False, True]  # one for promises, one for hints
    waiter = journal.append(OPEN, payload(1))
    assert read_all(tmp_path) == []
    await waiter
    assert read_all(tmp_path) == [payload(1)]


async def test_files_are_private(journal: Journal, tmp_path: Path) -> None:
    await journal.append(OPEN, payload(1))
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


async def test_a_cancelled_append_is_written_all_the_same(journal: Journal, tmp_path: Path) -> None:
    waiter = journal.append(OPEN, payload(1))
    waiter.cancel()
    await journal.append(OPEN, payload(2))
    assert read_all(tmp_path) == [payload(1), payload(2)]


async def test_rotation(tmp_path: Path) -> None:
    journal = make(tmp_path, size=4096)
    journal.open()
    for number in range(300):
        await journal.append(OPEN, payload(number))
        journal.note(payload(10_000 + number))
    journal.close()
    names = sorted(path.name for path in tmp_path.glob("*.jnl"))
    assert len(names) > 3
    assert all((tmp_path / name).stat().st_size < 8192 for name in names)
    read = read_all(tmp_path)
    assert [each for each in read if each in set(map(payload, range(300)))] == [payload(n) for n in range(300)]
    assert sorted(read) == sorted([payload(n) for n in range(300)] + [payload(10_000 + n) for n in range(300)])


async def test_close_commits_what_was_appended(tmp_path: Path) -> None:
    journal = make(tmp_path)
    journal.open()
    waiters = [journal.append(OPEN, payload(1))]
    await asyncio.sleep(0)
    waiters += [journal.append(OPEN, payload(number)) for number in (2, 3)]
    journal.close()
    await asyncio.wait_for(asyncio.gather(*waiters), 5)
    assert read_all(tmp_path) == [payload(1), payload(2), payload(3)]
    with pytest.raises(DependencyDown, match="closed"):
        await journal.append(OPEN, payload(4))
    journal.note(payload(5))
    again = make(tmp_path, boot="boot-2")
    again.open()
    again.close()


# Failing disks.


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
async def test_a_failed_write_is_refused_and_leaves_nothing(
    journal: Journal, tmp_path: Path, disk: Disk, error: int
) -> None:
    await journal.append(OPEN, payload(1))
    disk.failing = {"write": error}
    for number in (2, 3):
        with pytest.raises(DependencyDown) as caught:
            await asyncio.wait_for(journal.append(OPEN, payload(number)), 5)
        assert caught.value.what == "journal"
        assert journal.failure == os.strerror(error)
    journal.note(payload(50))
    disk.failing = {}
    await asyncio.wait_for(journal.append(OPEN, payload(4)), 5)
    assert journal.failure is None
    assert read_all(tmp_path) == [payload(1), payload(4)]
    assert len(list(tmp_path.glob("*.jnl"))) == 2  # the failed one is never written again


async def test_a_write_cut_short_leaves_nothing(journal: Journal, tmp_path: Path, disk: Disk) -> None:
    await journal.append(OPEN, payload(1))
    disk.short = len(frame(OPEN, payload(2))) + 10
    waiters = [journal.append(OPEN, payload(number)) for number in (2, 3)]
    results = await asyncio.wait_for(asyncio.gather(*waiters, return_exceptions=True), 5)
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
async def test_it_mends_itself_without_calls(
    journal: Journal, tmp_path: Path, disk: Disk, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "RETRY_S", 0.02)
    disk.failing = {"write": errno.EIO, failing: errno.EIO}
    with pytest.raises(DependencyDown):
        await journal.append(OPEN, payload(1))
    await asyncio.sleep(0.1)
    assert is_failed(journal)
    disk.failing = {}
    async with asyncio.timeout(5):
        while is_failed(journal):
            await asyncio.sleep(0.01)
    await journal.append(OPEN, payload(2))
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


def segment_of(folder: Path, count: int) -> tuple[Path, list[bytes]]:
    lines = [frame(BOOT, b'"boot-1"'), *(frame(OPEN, payload(number)) for number in range(count))]
    path = folder / "w0.0000000000001.000001.jnl"
    path.write_bytes(b"".join(lines))
    return path, lines


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


# Slots and processes.


async def test_a_slot_has_one_writer(journal: Journal, tmp_path: Path) -> None:
    with pytest.raises(SlotTaken, match="w0"):
        make(tmp_path, boot="boot-2").open()
    other = make(tmp_path, slot="w1")
    other.open()
    other.close()
    assert Segments(tmp_path).writer_lives("w0", "boot-1")


@pytest.mark.parametrize("together", [1, 20])
async def test_kill_9_loses_nothing_acknowledged(tmp_path: Path, together: int) -> None:
    command = [sys.executable, "-m", "tests.edges.journal_process", str(tmp_path), "w0", "boot-9", str(together)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "open\n"
        segments = Segments(tmp_path)
        assert segments.writer_lives("w0", "boot-9")
        assert segments.writer_lives("w0", None)
        assert not segments.writer_lives("w0", "boot-8")
        with pytest.raises(SlotTaken):
            make(tmp_path).open()
        acknowledged = [process.stdout.readline().strip() for _ in range(400)]
    finally:
        process.send_signal(signal.SIGKILL)
        acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
        process.stdout.close()
        process.wait()
    assert not segments.writer_lives("w0", "boot-9")
    read = [each[7:43].decode() for each in read_all(tmp_path)]
    assert set(acknowledged) <= set(read)
    assert len(read) == len(set(read))
    successor = make(tmp_path, boot="boot-10")
    successor.open()
    await successor.append(OPEN, payload(1))
    successor.close()
    assert payload(1) in read_all(tmp_path)


async def test_retire(tmp_path: Path) -> None:
    journal = make(tmp_path, size=4096)
    journal.open()
    for number in range(120):
        await journal.append(OPEN, payload(number))
    segments = Segments(tmp_path)
    segments.refresh()
    records = list(segments.poll())
    assert len(records) == 120
    names = sorted(path.name for path in tmp_path.glob("*.jnl"))
    for record in records:
        record.segment.unconfirmed += 1
    assert segments.retire(now_s=0, keep_s=10) == 0
    assert list(tmp_path.glob("*.confirmed")) == []
    for record in records[:-1]:
        record.segment.unconfirmed -= 1
    segments.retire(now_s=0, keep_s=10)
    confirmed = sorted(path.name.removesuffix(".confirmed") for path in tmp_path.glob("*.confirmed"))
    assert confirmed == names[:-1]  # not the one with a call that Postgres has not got
    again = Segments(tmp_path)  # a reader that starts anew leaves them alone
    again.refresh()
    assert {record.segment.path.name for record in again.poll()} == {names[-1]}
    records[-1].segment.unconfirmed -= 1
    segments.retire(now_s=0, keep_s=10)
    assert len(list(tmp_path.glob("*.confirmed"))) == len(names) - 1  # its writer lives and may write to it
    journal.close()
    marked = max(path.stat().st_mtime for path in tmp_path.glob("*.confirmed"))
    assert segments.retire(now_s=marked + 9, keep_s=10) == 0
    assert segments.retire(now_s=marked + 3600, keep_s=10) == len(names)
    assert list(tmp_path.glob("*.jnl*")) == []
    assert segments.bytes_on_disk() == 0


def test_a_dead_writer_s_torn_segment_retires_too(tmp_path: Path) -> None:
    path, lines = segment_of(tmp_path, 2)
    path.write_bytes(path.read_bytes()[: -len(lines[-1]) // 2])
    segments = Segments(tmp_path)
    segments.refresh()
    assert len(list(segments.poll())) == 1
    assert segments.read_to_end("w0")
    segments.retire(now_s=0, keep_s=10)
    assert path.with_name(path.name + ".confirmed").exists()


async def test_names_rise_when_the_clock_steps_back(tmp_path: Path) -> None:
    clock = iter(range(10**9, 0, -1000))
    names: list[str] = []
    for boot in range(3):
        journal = Journal(tmp_path, "w0", f"boot-{boot}", segment_bytes_max=4096, unix_ms=lambda: next(clock))
        journal.open()
        for number in range(100):
            await journal.append(OPEN, payload(number))
        journal.close()
        made = sorted(path.name for path in tmp_path.glob("*.jnl"))
        assert made[: len(names)] == names
        assert len(made) >= len(names) + 2
        names = made
    assert read_all(tmp_path) == [payload(number) for number in range(100)] * 3


def test_read_to_end_sees_segments_made_meanwhile(tmp_path: Path) -> None:
    segment_of(tmp_path, 1)
    segments = Segments(tmp_path)
    segments.refresh()
    assert len(list(segments.poll())) == 1
    assert segments.read_to_end("w0")
    (tmp_path / "w0.0000000000002.000002.jnl").write_bytes(frame(SETTLE, payload(0)))
    assert not segments.read_to_end("w0")
    assert segments.read_to_end("w1")
