"""A full disk, a real one: calls in flight settle in the reserve, no new one is let in, and it recovers by itself."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.journal import writer as journal_module
from gateway.journal.frames import OPEN, SETTLE
from gateway.kit.errors import DependencyDown
from tests.journal.journals import is_failed, make, payload, read_all
from tests.support.patience import until

DISK_BYTES = 4 * 1024 * 1024
RESERVE = 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def fill(disk: Path) -> Path:
    """Takes every byte that is left."""
    path = disk / "somebody-elses"
    with path.open("ab", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            while True:
                try:
                    file.write(b"x" * size)
                except OSError:
                    break
    return path


async def healed(recovered: Path, journal: journal_module.Journal) -> None:
    """Makes room and waits until the journal has seen it."""
    recovered.unlink()
    await until(lambda: not is_failed(journal))


async def test_calls_in_flight_settle_and_no_new_one_is_let_in(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "RETRY_S", 0.05)
    journal = make(small_disk / "journal", reserve=RESERVE)
    journal.open()
    for number in range(100):
        await journal.append(OPEN, payload(number))
    theirs = fill(small_disk)
    big = b'{"id":"%b","n":"%b"}' % (payload(0)[7:43], b"x" * 4000)
    for _ in range(100):  # the first of them finds the disk full
        await journal.append(SETTLE, big)
    assert journal.failure is not None
    assert "space" in journal.failure
    with pytest.raises(DependencyDown, match="space"):
        await journal.append(OPEN, payload(200))
    await asyncio.sleep(0.3)  # it looks again and again, and the disk is still full
    assert is_failed(journal)
    await journal.append(SETTLE, payload(1))
    await healed(theirs, journal)
    await journal.append(OPEN, payload(300))
    journal.close()
    found = read_all(small_disk / "journal")
    assert found == [*map(payload, range(100)), *[big] * 100, payload(1), payload(300)]
    assert (small_disk / "journal" / "w0.reserve").stat().st_size == RESERVE


async def test_a_process_starts_on_a_full_disk_and_lets_nobody_in(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "RETRY_S", 0.05)
    before = make(small_disk / "journal", reserve=RESERVE)
    before.open()
    await before.append(OPEN, payload(9))
    before.close()
    theirs = fill(small_disk)
    journal = make(small_disk / "journal", boot="boot-2", reserve=RESERVE)
    journal.open()
    assert is_failed(journal)
    with pytest.raises(DependencyDown, match="space"):
        await journal.append(OPEN, payload(1))
    journal.note(payload(1))
    await journal.append(SETTLE, payload(9))  # in the reserve: a sweeper, say
    await healed(theirs, journal)
    await journal.append(OPEN, payload(2))
    journal.close()
    assert read_all(small_disk / "journal") == [payload(9), payload(9), payload(2)]


async def test_it_closes_on_a_full_disk(small_disk: Path) -> None:
    for _ in range(2):
        journal = make(small_disk / "journal", reserve=RESERVE)
        journal.open()
        fill(small_disk)
        journal.close()


async def test_when_the_reserve_is_used_up_a_settle_is_refused_whole(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "RETRY_S", 60)
    journal = make(small_disk / "journal", reserve=65536)
    journal.open()
    await journal.append(OPEN, payload(1))
    fill(small_disk)
    big = b'{"id":"%b","n":"%b"}' % (payload(0)[7:43], b"x" * 30_000)
    settled = 0
    with pytest.raises(DependencyDown):  # noqa: PT012  # which one it is depends on the file system
        for _ in range(10):
            await journal.append(SETTLE, big)
            settled += 1
    journal.close()
    assert settled >= 1
    assert read_all(small_disk / "journal") == [payload(1), *[big] * settled]


async def test_the_reserve_is_taken_again_after_a_restart(tmp_path: Path) -> None:
    for _ in range(2):
        journal = make(tmp_path, reserve=RESERVE)
        journal.open()
        await journal.append(OPEN, payload(1))
        journal.close()
    assert (tmp_path / "w0.reserve").stat().st_blocks * 512 >= RESERVE
