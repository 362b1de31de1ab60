"""Marks in an audit: which one it may go on from, and which one it leaves."""

from datetime import datetime
from typing import Final, NamedTuple

from gateway.audit.marks import Mark, MarkSigner, digest, find_faults
from gateway.audit.reads.marks import SumsSince, is_cut, measure, read_marks, read_since
from gateway.audit.reads.snapshot import EXAMPLES_MAX, Offenders, Snapshot
from gateway.config.key_ring import parse_ring
from gateway.config.settings import Settings
from gateway.kit.instants import rfc3339
from gateway.stores.postgres import Pool, translating_errors

CHECKED: Final = 2
"""Marks that are checked where they are not all checked: the newest, and what it names."""
_KEEP: Final = """
insert into public.audit_marks (until, as_of, made_by, rows, key_calls, owed_nano, credit_nano, previous, mac)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict on constraint audit_marks_chain do nothing
"""
NO_SECRETS: Final = "without GATEWAY_SECRETS no result is kept, so sums of all time were compared from nothing"
NO_MARK: Final = "no result is kept, so sums of all time were compared from nothing; `gateway audit --all` keeps one"
WHOLE: Final = "sums of all time were compared from nothing"
NOT_GENUINE: Final = "the kept result is not genuine, so sums of all time were compared from nothing"
IS_CUT: Final = "a billing window lies across the kept result, so sums of all time were compared from nothing"


class Kept(NamedTuple):
    """What there is of marks."""

    says: str
    newest: Mark | None = None
    since: SumsSince | None = None
    """None: sums of all time are to be compared from nothing."""
    faults: Offenders = Offenders()


def build_mark_signer(settings: Settings) -> MarkSigner | None:
    """None without GATEWAY_SECRETS."""
    if settings.gateway_secrets is None:
        return None
    return MarkSigner(parse_ring(settings.gateway_secrets.get_secret_value()))


async def read_kept(view: Snapshot, signer: MarkSigner | None, *, is_whole: bool) -> Kept:
    """`is_whole`: whether sums of all time are compared from nothing, and all marks are checked."""
    if signer is None:
        return Kept(NO_SECRETS)
    marks = await read_marks(view, None if is_whole else CHECKED)
    newest = marks[0] if marks else None
    if found := find_faults(marks, signer):
        return Kept(NOT_GENUINE, newest, faults=Offenders(len(found), tuple(found[:EXAMPLES_MAX])))
    if is_whole or newest is None:
        return Kept(WHOLE if is_whole else NO_MARK, newest)
    if await is_cut(view, newest.until):
        return Kept(IS_CUT, newest)
    return Kept(describe(newest), newest, await read_since(view, newest))


def describe(mark: Mark) -> str:
    """What an audit that goes on from a mark has not compared."""
    return (
        f"sums of what was booked before {rfc3339(mark.until)} were compared at {rfc3339(mark.as_of)} ({mark.made_by}) "
        "and found right; they were carried on, not compared again: `gateway audit --all` does"
    )


async def make_mark(view: Snapshot, newest: Mark | None, now: datetime) -> Mark | None:
    """The mark of an audit that has compared all and found it right; None where there is nothing to carry on."""
    measured = await measure(view)
    if measured is None or measured.sums != measured.counters:
        return None
    return Mark(measured.until, now, "", measured.kept, None if newest is None else digest(newest))


async def keep_mark(pool: Pool, signer: MarkSigner, mark: Mark, by: str) -> None:
    """Signs and writes it, unless another one has followed the same mark meanwhile. Raises DependencyDown."""
    signed = signer.sign(mark._replace(made_by=by))
    with translating_errors():
        await pool.execute(_KEEP, *signed[:3], *signed.sums, *signed[4:])
