"""The journal on a real disk: what was acknowledged is read again, whatever happens to the rest."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.journal.frames import OPEN, SETTLE, frame
from gateway.journal.reader import Segments
from gateway.journal.writer import Journal, SlotTaken
from gateway.kit.errors import DependencyDown
from tests.journal.journals import Disk, make, payload, read_all, segment_of


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
    await asyncio.wait_for(asyncio.gather(*waiters), 60)
    assert read_all(tmp_path) == [payload(1), payload(2), payload(3)]
    with pytest.raises(DependencyDown, match="closed"):
        await journal.append(OPEN, payload(4))
    journal.note(payload(5))
    again = make(tmp_path, boot="boot-2")
    again.open()
    again.close()


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
    command = [sys.executable, "-m", "tests.journal.journal_process", str(tmp_path), "w0", "boot-9", str(together)]
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
        journal = Journal(
            tmp_path, "w0", f"boot-{boot}", segment_bytes_max=4096, reserve_bytes=0, unix_ms=lambda: next(clock)
        )
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
