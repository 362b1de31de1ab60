"""`gateway journal inspect|adopt`: a dead host's calls end in the ledger of another, each once."""

import json
import os
from pathlib import Path

import pytest

from gateway.journal.frames import OPEN, SETTLE
from tests.journal.journals import make, payload
from tests.support.invoke import gateway

BODY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}


async def test_what_a_folder_holds(tmp_path: Path) -> None:
    journal = make(tmp_path / "journal")
    journal.open()
    for number in range(3):
        await journal.append(OPEN, payload(number))
    await journal.append(SETTLE, payload(0))
    (slot,) = json.loads((await gateway({}, "journal", "inspect", str(tmp_path / "journal"), "--json")).out)
    assert (slot["name"], slot["alive"], slot["calls"], len(slot["unsettled"])) == ("w0", True, 3, 2)
    assert (slot["missing"], slot["corrupt"], slot["confirmed"]) == (None, 0, 0)
    refused = await gateway({"GATEWAY_DATA_DIR": str(tmp_path / "ours")}, "journal", "adopt", str(tmp_path / "journal"))
    assert "still written by a living process (w0)" in refused.error
    journal.close()
    (segment,) = (tmp_path / "journal").glob("*.jnl")
    with segment.open("r+b") as file:  # a flipped bit, and a torn end
        file.seek(60)
        file.write(b"#")
        file.seek(0, os.SEEK_END)
        file.write(b"1234 O {")
    (slot,) = json.loads((await gateway({}, "journal", "inspect", str(tmp_path / "journal"), "--json")).out)
    assert (slot["alive"], slot["corrupt"]) == (False, 1)


@pytest.mark.parametrize("command", ["inspect", "adopt"])
@pytest.mark.parametrize(("name", "says"), [("", "no segments"), ("nowhere", "no folder")])
async def test_what_is_no_journal_is_refused(tmp_path: Path, command: str, name: str, says: str) -> None:
    done = await gateway({"GATEWAY_DATA_DIR": str(tmp_path / "ours")}, "journal", command, str(tmp_path / name))
    assert (done.status, says in done.error) == (1, True)
