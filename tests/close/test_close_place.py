"""Where a pack goes: what is there already stays, and what cannot be written closes nothing."""

import asyncio
import shutil
import sys
from pathlib import Path

from gateway.close.verify import verify
from tests.close.packs import rows_of, write_pack
from tests.close.site import ACCEPT, Site
from tests.support.environment import clean_environment


async def test_a_folder_that_is_something_else_is_not_touched(site: Site, tmp_path: Path) -> None:
    (mine := tmp_path / "mine").mkdir()
    (mine / "notes.txt").write_text("mine")
    done = await site.close("2026-09", *ACCEPT, "--output", str(mine))
    assert "name another --output" in done.error
    assert [path.name for path in mine.iterdir()] == ["notes.txt"]
    # It was begun and not ended: the next close goes on.
    assert await site.pool.fetchval("select state from periods") == "closing"
    assert (await site.told("2026-09", *ACCEPT))["closed"]


async def test_a_pack_of_another_gateway_is_not_touched(site: Site, tmp_path: Path) -> None:
    """Also one of the same month and version, and also once a close into it was tried."""
    archive = tmp_path / "archive"
    await write_pack(archive, rows_of(20), period="2026-09 v1")
    before = {path: path.read_bytes() for path in archive.rglob("*") if path.is_file()}
    for _ in range(2):
        assert "name another --output" in (await site.close("2026-09", *ACCEPT, "--output", str(archive))).error
    assert {path: path.read_bytes() for path in archive.rglob("*") if path.is_file()} == before
    (link := tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert "name another --output" in (await site.close("2026-09", *ACCEPT, "--output", str(link))).error
    assert (await site.told("2026-09", *ACCEPT))["closed"]


async def test_a_pack_that_was_lost_is_made_again_by_a_new_version(site: Site) -> None:
    first = await site.told("2026-09", *ACCEPT)
    shutil.rmtree(first["pack"])
    assert "closed already" in (await site.close("2026-09", *ACCEPT)).error
    await site.close("reopen", "2026-09", "--why", "its pack was lost")
    assert verify(Path((await site.told("2026-09", *ACCEPT))["pack"])).is_whole


async def test_a_place_that_cannot_be_written_closes_nothing(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file" / "pack", tmp_path / ("x" * 300)):
        done = await site.close("2026-09", *ACCEPT, "--output", str(place))
        assert (done.status, "cannot be written: " in done.error) == (1, True), done
    assert await site.pool.fetchval("select state from periods") == "closing"
    assert await site.pool.fetchval("select count(*) from admin_events where phase = 'failed'") == 2
    assert (await site.told("2026-09", *ACCEPT))["closed"]


async def test_a_full_disk_closes_nothing(site: Site) -> None:
    """A process that may write no file of more than a block is refused by the same error as on a full disk."""
    (site.data / "closes").mkdir()
    process = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", 'ulimit -f 1; exec "$0" -m gateway close 2026-09 "$@"', sys.executable, *ACCEPT,
        env=clean_environment() | site.env | {"PYTHONDONTWRITEBYTECODE": "1"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert (process.returncode, b"cannot be written: File too large" in said) == (1, True), said.decode()
    assert b"Traceback" not in said
    assert b"ignored" not in said
    assert [*(site.data / "closes").iterdir()] == []
    assert await site.pool.fetchval("select state from periods") == "closing"
    assert (await site.told("2026-09", *ACCEPT))["closed"]
