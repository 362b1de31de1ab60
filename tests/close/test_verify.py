"""A pack is checked from its files alone: any changed byte is found, and a forger who writes all digests again."""

import asyncio
import json
import lzma
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from gateway.close import pack
from gateway.close.manifest import MANIFEST, SIGNATURE, Manifest, public_key_of, read_manifest, sign, write_manifest
from gateway.close.rows import Chain, PackRow, encode_rows
from gateway.close.verify import verify
from tests.close.packs import BOOK, OCTOBER, PERIOD, SIGNING_KEY, blocks_of, edit_json, rows_of, write_pack
from tests.support.invoke import gateway_now

PUBLIC = public_key_of(SIGNING_KEY)


@dataclass
class Packs:
    """One pack that is signed and one that is not, of the same rows."""

    signed: Path
    plain: Path
    rows: list[PackRow]


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Packs:
    folder, rows = tmp_path_factory.mktemp("packs"), rows_of(2100)
    asyncio.run(write_pack(folder / "signed", rows, key=SIGNING_KEY))
    asyncio.run(write_pack(folder / "plain", rows))
    return Packs(folder / "signed", folder / "plain", rows)


def write_digests(folder: Path, key: bytes | None = None) -> None:
    """What a forger does last: all digests anew."""
    own = {MANIFEST, SIGNATURE}
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    files = {name: sha256((folder / name).read_bytes()).hexdigest() for name in names if name not in own}
    text = write_manifest(Manifest(PERIOD, files, None if key is None else public_key_of(key)))
    (folder / MANIFEST).write_bytes(text)
    (folder / SIGNATURE).unlink(missing_ok=True)
    if key is not None:
        (folder / SIGNATURE).write_bytes(sign(text, key))


def write_rows(folder: Path, rows: list[PackRow], *, with_chain: bool = True) -> None:
    """Other rows, with their own chain and its head."""
    chain, links = Chain("2026-10"), ["rows,id,chain"]
    packed = b""
    for block in blocks_of(rows):
        line = encode_rows(block)
        packed += line + b"\n"
        chain.add(line, len(block))
        links.append(f"{chain.rows},{block[-1].id},{chain.head.hex()}")
    (folder / pack.ROWS).write_bytes(lzma.compress(packed, preset=0))
    if with_chain:
        (folder / pack.CHAIN).write_text("\n".join(links) + "\n")
        edit_json(folder / pack.TOTALS, lambda totals: totals.update(chain_head=chain.head.hex()))


def test_a_pack_is_whole(packs: Packs) -> None:
    found = verify(packs.signed, PUBLIC)
    assert found.problems == ()
    assert (found.period, found.rows, found.signed_by) == (PERIOD, len(packs.rows), PUBLIC)
    exact = sum(row.evidence == "reported" or row.evidence == "drained" for row in packs.rows)
    assert found.figures["priced again"] == exact
    derived = [row for row in packs.rows if row.cost_nano is not None and row.evidence != "adjustment"]
    assert found.figures["billed amounts derived again"] == len(derived)
    assert verify(packs.plain).is_whole


def test_sha256sum_reads_the_manifest(packs: Packs) -> None:
    done = subprocess.run(["sha256sum", "--check", "--quiet", MANIFEST], cwd=packs.signed, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("name", ["signed", "plain"])
def test_any_changed_byte_of_any_file_is_found(packs: Packs, name: str, tmp_path: Path) -> None:
    source: Path = getattr(packs, name)
    folder = tmp_path / "pack"
    shutil.copytree(source, folder)
    dice = Random(name)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert len(files) > 15
    unseen = []
    for path in files:
        content = path.read_bytes()
        every = path.name in (MANIFEST, SIGNATURE)
        places = range(len(content)) if every else sorted({dice.randrange(len(content)) for _ in range(12)})
        for place in places:
            flipped = content[place] ^ (1 << dice.randrange(8))
            path.write_bytes(content[:place] + bytes([flipped]) + content[place + 1 :])
            if verify(folder).is_whole:
                unseen.append((path.name, place))
        for changed in (content[:-1], content + b"\n"):
            path.write_bytes(changed)
            if verify(folder).is_whole:
                unseen.append((path.name, len(changed)))
        path.write_bytes(content)
    assert unseen == []
    assert verify(folder).is_whole


def test_a_file_that_is_missing_or_too_many_is_found(packs: Packs, tmp_path: Path) -> None:
    folder = tmp_path / "pack"
    shutil.copytree(packs.plain, folder)
    (folder / "notes.txt").write_text("more")
    assert verify(folder).problems == ("notes.txt is not part of the pack",)
    (folder / "notes.txt").unlink()
    (folder / "plans" / ".more").write_text("more")
    assert verify(folder).problems == ("plans/.more is not part of the pack",)
    (folder / "plans" / ".more").unlink()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST):
        content = path.read_bytes()
        path.unlink()
        assert verify(folder).problems == (f"{path.relative_to(folder).as_posix()} is missing",)
        path.write_bytes(content)
    (folder / MANIFEST).unlink()
    assert "this is not a pack" in verify(folder).problems[0]


def test_a_row_that_is_left_out_everywhere_is_found_by_the_signature(packs: Packs, tmp_path: Path) -> None:
    """Chain, totals, bridge and digests are all written again, as only the key's holder may."""
    folder = tmp_path / "pack"
    asyncio.run(write_pack(folder, packs.rows[1:]))
    assert verify(folder).is_whole  # nothing in it says that it was another one
    assert "it is signed by nobody" in verify(folder, PUBLIC).problems[0]
    files = read_manifest((folder / MANIFEST).read_bytes()).files
    (folder / MANIFEST).write_bytes(write_manifest(Manifest(PERIOD, files, PUBLIC)))
    assert "MANIFEST.sig is missing" in verify(folder).problems[0]
    shutil.copy(packs.signed / SIGNATURE, folder)
    assert f"is not a signature of MANIFEST by {PUBLIC}" in verify(folder).problems[0]


def priced(rows: list[PackRow]) -> int:
    """The place of a row that OpenAI's figures price."""
    return next(place for place, row in enumerate(rows) if row.evidence == "reported")


def change_row(folder: Path, rows: list[PackRow], **changes: Any) -> None:
    place = priced(rows)
    write_rows(folder, [*rows[:place], msgspec.structs.replace(rows[place], **changes), *rows[place + 1 :]])


def change_bytes(name: str, content: bytes) -> Callable[[Path, list[PackRow]], None]:
    def change(folder: Path, rows: list[PackRow]) -> None:
        (folder / name).write_bytes(content)

    return change


def change_price(folder: Path, rows: list[PackRow]) -> None:
    change_text(folder / pack.PRICE_BOOKS / BOOK.version / "gpt-4o-and-4.1.toml", "2.5", "2.6")


def drop_book(folder: Path, rows: list[PackRow]) -> None:
    shutil.rmtree(folder / pack.PRICE_BOOKS / BOOK.version)


FORGED: dict[str, tuple[Callable[[Path, list[PackRow]], None], str]] = {
    "a row's billed amount": (
        lambda folder, rows: change_row(folder, rows, billed_nano=1),
        "billed amount is not what its plan makes of the cost",
    ),
    "a row's cost": (lambda folder, rows: change_row(folder, rows, cost_nano=1), "cost is not the sum of its lines"),
    "a row's usage": (
        lambda folder, rows: change_row(folder, rows, usage=msgspec.Raw(b'{"prompt_tokens":1}')), "usage block",
    ),
    "a row left out, the chain too": (
        lambda folder, rows: write_rows(folder, rows[1:]), "totals.json: total is not that of the rows"
    ),
    "a row left out, the chain as it was": (
        lambda folder, rows: write_rows(folder, rows[1:], with_chain=False), "chain.csv: the link after row 2000"
    ),
    "two blocks in another order": (
        lambda folder, rows: write_rows(folder, [*rows[2000:], *rows[:2000]]), "does not come after"
    ),
    "a row twice": (lambda folder, rows: write_rows(folder, [rows[0], *rows]), "does not come after"),
    "two rows in another order": (
        lambda folder, rows: write_rows(folder, [rows[1], rows[0], *rows[2:]]), "does not come after"
    ),
    "a row of another month": (
        lambda folder, rows: change_row(folder, rows, booked_at=OCTOBER - timedelta(seconds=1)),
        "was booked in another month",
    ),
    "a plan that is not there": (
        lambda folder, rows: change_row(folder, rows, plan_version="gold@3"), "names a plan that there is not"
    ),
    "rows that do not read": (change_bytes(pack.ROWS, lzma.compress(b"{}\n")), "does not read"),
    "no xz": (change_bytes(pack.ROWS, b"x"), "does not read"),
    "half an xz": (change_bytes(pack.ROWS, lzma.compress(b"{}\n")[:-9]), "does not read"),
    "another price": (change_price, "is not what its version says"),
    "no price book": (drop_book, "price books are missing"),
}  # fmt: skip


def change_text(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_pack_is_found_by_what_it_says(packs: Packs, tmp_path: Path, what: str) -> None:
    change, problem = FORGED[what]
    folder = tmp_path / "pack"
    shutil.copytree(packs.plain, folder)
    change(folder, packs.rows)
    write_digests(folder)
    found = verify(folder)
    assert any(problem in each for each in found.problems), found.problems


def change_line(key: str, nano: int) -> Callable[[dict[str, Any]], None]:
    def change(bridge: dict[str, Any]) -> None:
        (line,) = (line for line in bridge["total"]["lines"] if line["key"] == key)
        line["nano"] = str(int(line["nano"]) + nano)

    return change


@pytest.mark.parametrize("key", ["cost", "margin", "billed", "open", "at_stripe", "unexplained"])
def test_a_bridge_that_does_not_add_up_is_found(packs: Packs, tmp_path: Path, key: str) -> None:
    folder = tmp_path / "pack"
    shutil.copytree(packs.plain, folder)
    edit_json(folder / pack.BRIDGE, change_line(key, 1))
    write_digests(folder)
    assert any(each.startswith("bridge.json") for each in verify(folder).problems)


def swap_payers(bridge: dict[str, Any]) -> None:
    """The customer and the user whom nobody pays for."""
    first, second = bridge["payers"]
    first["lines"], second["lines"] = second["lines"], first["lines"]


def test_a_bridge_of_a_customer_that_is_not_that_of_its_rows_is_found(packs: Packs, tmp_path: Path) -> None:
    folder = tmp_path / "pack"
    shutil.copytree(packs.plain, folder)
    edit_json(folder / pack.BRIDGE, swap_payers)
    write_digests(folder)
    cost, billed = verify(folder).problems
    assert cost == "bridge.json: cost by customer is not that of the rows"
    assert billed == "bridge.json: billed by customer is not that of the rows"
    edit_json(folder / pack.BRIDGE, lambda bridge: bridge["payers"].pop())
    write_digests(folder)
    assert len(verify(folder).problems) == 2


def test_what_is_unexplained_has_to_be_accepted(packs: Packs, tmp_path: Path) -> None:
    folder = tmp_path / "pack"
    shutil.copytree(packs.plain, folder)

    def move(bridge: dict[str, Any]) -> None:
        change_line("open", -5)(bridge)
        change_line("unexplained", 5)(bridge)

    edit_json(folder / pack.BRIDGE, move)
    write_digests(folder)
    assert verify(folder).problems == ("bridge.json: 0.000000005 are unexplained, and nobody has accepted that",)
    edit_json(folder / pack.PERIOD, lambda period: period["accepted"].update(bridge="we know"))
    write_digests(folder)
    assert verify(folder).is_whole


def test_a_pack_of_somebody_else_is_found_by_its_signature(packs: Packs, tmp_path: Path) -> None:
    folder = tmp_path / "pack"
    shutil.copytree(packs.signed, folder)
    write_digests(folder, bytes(32))
    assert verify(folder).is_whole  # only whoever knows the key can tell
    assert "not by" in verify(folder, PUBLIC).problems[0]
    assert "nobody, not by" in verify(packs.plain, PUBLIC).problems[0]


def test_verify_needs_no_setting_and_says_what_it_found(packs: Packs, tmp_path: Path) -> None:
    done = gateway_now({}, "close", "verify", str(packs.signed), "--key", PUBLIC)
    assert (done.status, done.error) == (0, "")
    assert f"{PERIOD}: {len(packs.rows):,} rows" in done.out
    told = json.loads(gateway_now({}, "close", "verify", str(packs.plain), "--json").out)
    assert (told["is_whole"], told["signed_by"], told["rows"]) == (True, None, len(packs.rows))
    folder = tmp_path / "pack"
    shutil.copytree(packs.plain, folder)
    (folder / pack.AUDIT).write_text("[1]")
    done = gateway_now({}, "close", "verify", str(folder))
    assert (done.status, "audit.json was changed" in done.out) == (1, True)
    assert gateway_now({}, "close", "verify", str(tmp_path / "none")).status == 1


def test_text_of_others_is_no_formula_in_a_table(packs: Packs) -> None:
    assert (packs.plain / pack.CORRECTIONS).read_text() == "id,rows,why\nc,1,'=HYPERLINK(1)\n"
    assert (packs.plain / pack.STRIPE).read_text() == "kind,amount\nevent,-5\n"


def test_a_manifest_has_one_form() -> None:
    text = write_manifest(Manifest(PERIOD, {"a.csv": "0" * 64}, None))
    assert read_manifest(text) == Manifest(PERIOD, {"a.csv": "0" * 64}, None)
