"""Closes a month: finds what stands against it, writes its pack, and notes the month as closed.

In this order, so that a process killed at any point leaves nothing that the next close does not put right: the month is
noted as being closed, the pack is written, its digest is noted, it gets its name, the month is noted as closed. Whoever
closes holds a lock meanwhile that ends with the process.
"""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

import pricing
import pricing.data
from gateway.audit.result import AuditReport
from gateway.audit.stores import AuditOptions, audit_stores, keep
from gateway.billing.bridge import Bridge, build_bridge
from gateway.billing.bridge_store import BridgeFacts, Payer, read_bridge, read_names, reading_once
from gateway.billing.reconcile.run import reconcile
from gateway.close import pack, pack_reads
from gateway.close.facts_store import began_before, read_counts, read_journal
from gateway.close.findings import CloseFinding, MonthFacts, StripeCompared, find, refused
from gateway.close.manifest import public_key_of
from gateway.close.pack import PackWriter, RowsWritten, new_folder
from gateway.close.periods import BeingClosed, BookPeriod, Periods, Standing, closing_alone
from gateway.close.seal import after_end, seal
from gateway.config.close_settings import signing_key_of
from gateway.config.settings import Settings
from gateway.kit.errors import ConfigError, DependencyDown, OptionError
from gateway.kit.instants import Period, rfc3339
from gateway.kit.version import VERSION
from gateway.ledger.opening import open_buffer
from gateway.stores.one_connection import LONG_STATEMENT_S, database
from gateway.stores.postgres import Connections, Pool
from gateway.stores.postgres_share import OneTransaction
from gateway.trail.actor import operator
from gateway.trail.record import intending, recording
from gateway.trail.store import Deed
from gateway.usage.plan_store import PlanStore

_WHY: Final = "months are closed in PostgreSQL"


class CloseOptions(NamedTuple):
    """What a close is asked for."""

    month: Period
    accepted: Mapping[str, str]
    """Item → reason."""
    dry_run: bool = False
    output: Path | None = None
    """The pack's folder; None: `closes/<month>-v<version>` in the data folder."""


class Closed(NamedTuple):
    """How it went."""

    findings: tuple[CloseFinding, ...]
    refused: tuple[CloseFinding, ...]
    bridge: Bridge
    pack: Path | None = None
    """None where nothing was closed."""
    version: int | None = None
    rows: int = 0
    digest: str = ""
    signed_by: str | None = None


class _Month(NamedTuple):
    """A month with what was found of it in one snapshot."""

    span: Period
    facts: BridgeFacts
    bridge: Bridge
    findings: list[CloseFinding]
    audit: AuditReport


def month_of(span: Period) -> date:
    """Its first day."""
    return span.since.astimezone(UTC).date()


async def close(settings: Settings, wanted: CloseOptions, *, now: datetime) -> Closed:
    """Raises OptionError, ConfigError, DependencyDown, BeingClosed, PackNotWritten.

    `now` is this host's, for the audit only.
    """
    async with database(settings, _WHY) as pool, database(settings, _WHY, statement_s=LONG_STATEMENT_S) as reader:
        if wanted.dry_run:
            return await _look(settings, reader, wanted, now)
        async with closing_alone(pool) as locked:
            is_sealed = await _seal_first(settings, reader, wanted)
            period = await Periods(reader).latest(month_of(wanted.month)) if is_sealed else None
            _require_not_closed(period)
            texts = pricing.data.read_texts()
            await Periods(reader).keep_book(pricing.parse(texts).version, texts)
            async with reading_once(reader) as connection:
                month = await _find(settings, connection, wanted, now)
                against = tuple(refused(month.findings, wanted.accepted))
                if against or period is None:
                    return Closed(tuple(month.findings), against, month.bridge)
                return await _write(settings, connection, Periods(locked), wanted, month, period)


def _require_not_closed(period: BookPeriod | None) -> None:
    if period is not None and period.state == "closed":
        raise OptionError(
            f"{period.month:%Y-%m} is closed already: version {period.version}, at {rfc3339(period.closed_at)} by "
            f"{period.closed_by}. `gateway close reopen {period.month:%Y-%m} --why TEXT` makes a new version"
        )


async def _look(settings: Settings, pool: Pool, wanted: CloseOptions, now: datetime) -> Closed:
    versions = await Periods(pool).versions(month_of(wanted.month))
    _require_not_closed(versions[-1] if versions else None)
    async with reading_once(pool) as connection:
        month = await _find(settings, connection, wanted, now)
    return Closed(tuple(month.findings), tuple(refused(month.findings, wanted.accepted)), month.bridge)


async def _seal_first(settings: Settings, pool: Pool, wanted: CloseOptions) -> bool:
    """Seals the month where it may be, or where somebody has accepted that. Whether it is sealed now."""
    standing = await _standing(settings, pool, wanted.month)
    if not standing.is_sealed and standing.is_over and (standing.may_seal or "seal" in wanted.accepted):
        await seal(pool, wanted.month.until)
        return True
    return standing.is_sealed


async def _standing(settings: Settings, pool: Connections, month: Period) -> Standing:
    return await Periods(pool).standing(month.until, after_end(settings.billing.invoice_grace_h))


async def _find(settings: Settings, connection: Any, wanted: CloseOptions, now: datetime) -> _Month:
    """What stands against closing, all of PostgreSQL from the snapshot of `connection`."""
    span = wanted.month
    standing = await _standing(settings, OneTransaction(connection), span)
    facts = await read_bridge(connection, *span)
    bridge = build_bridge(facts.total)
    counts = await read_counts(connection, *span)
    earlier = await Periods(OneTransaction(connection)).not_closed_before(span.since)
    journal = await read_journal(connection, settings.gateway_data_dir / "journal", span.until)
    day = f"{span.since:%Y-%m}", f"{span.until:%Y-%m}"
    audit = await audit_stores(settings, now=now, wanted=AuditOptions(*day, is_whole=True))
    compared = await _compare_stripe(settings, span, now)
    found = MonthFacts(
        **standing._asdict(),
        earlier=earlier,
        journal_segments=journal.segments,
        journal_open=journal.open,
        stream=await _count_stream(settings, span),
        **counts._asdict(),
        stripe=compared,
        audit_breaches=[verdict.name for verdict in audit.verdicts if verdict.state == "breach"],
    )
    return _Month(span, facts, bridge, find(found, bridge, settings.close.estimated_max_percent), audit)


async def _compare_stripe(settings: Settings, span: Period, now: datetime) -> StripeCompared:
    """What `gateway reconcile stripe` says of the month."""
    if settings.stripe_secret_key is None:
        return StripeCompared(why_not="STRIPE_SECRET_KEY is not set")
    try:
        found = await reconcile(settings, span, now)
    except (ConfigError, DependencyDown) as error:
        return StripeCompared(why_not=str(error))
    return StripeCompared(sum(payer.fails for payer in found.payers))


async def _count_stream(settings: Settings, span: Period) -> int | None:
    """Entries of the stream that may be of the month or earlier; None where there is no Redis to ask."""
    if settings.redis_url is None:
        return None
    async with AsyncExitStack() as stack:
        buffer = open_buffer(stack, settings, settings.redis_url.get_secret_value())
        return sum([began_before(event_id, span.until) async for event_id in buffer.event_ids()])


async def _write(
    settings: Settings, connection: Any, locked: Periods, wanted: CloseOptions, month: _Month, period: BookPeriod
) -> Closed:
    """Writes the pack and notes the month as closed."""
    by, version = operator(settings).name, period.version
    name = f"{period.month:%Y-%m} v{version}"
    target = wanted.output or settings.gateway_data_dir / "closes" / name.replace(" ", "-")
    accepted = {found.item: wanted.accepted[found.item] for found in month.findings}
    deed = Deed("close", "period", name, {"state": period.state}, {"accepted": accepted})
    async with intending(settings, deed) as intent:
        async with database(settings, _WHY) as pool:
            await Periods(pool).begin(period.month, version, by, accepted)
        with new_folder(target, period.pack_digest) as folder:
            written, digest = await _write_pack(settings, folder, connection, month, name, accepted, by)
            async with database(settings, _WHY) as pool:
                await Periods(pool).note_pack(period.month, version, digest)
        await keep(settings, month.audit, f"gateway close {name}, {by}")
        totals = written.totals.to_json()
        if not await locked.finish(period.month, version, totals, written.chain_head, digest):
            raise BeingClosed(f"{name} was closed or reopened by somebody else meanwhile; {target} is not its pack")
        intent.learn({"accepted": accepted, "pack_digest": digest, "rows": written.totals.sum("rows")})
    key = settings.close.signing_key
    signed_by = None if key is None else public_key_of(signing_key_of(key.get_secret_value()))
    rows = written.totals.sum("rows")
    return Closed(tuple(month.findings), (), month.bridge, target, version, rows, digest, signed_by)


async def _write_pack(
    settings: Settings,
    folder: Path,
    connection: Any,
    month: _Month,
    name: str,
    accepted: Mapping[str, str],
    by: str,
) -> tuple[RowsWritten, str]:
    """All files of a pack, and the digest of its manifest."""
    since, until = month.span
    writer = PackWriter(folder, f"{since:%Y-%m}")
    written = await writer.write_rows(pack_reads.read_blocks(connection, since, until))
    books = await pack_reads.read_books(
        connection, written.price_versions | {pricing.parse(pricing.data.read_texts()).version}
    )
    for version, texts in books.items():
        for file, text in sorted(texts.items()):
            writer.write_text(f"{pack.PRICE_BOOKS}/{version}/{file}", text)
    writer.write_json(pack.TOTALS, {**written.totals.to_json(), "chain_head": written.chain_head.hex(), "period": name})
    writer.write_json(pack.BRIDGE, await _bridges(connection, month.facts, written))
    writer.write_json(pack.AUDIT, [verdict.to_json() for verdict in month.audit.verdicts])
    for file, query in ((pack.CORRECTIONS, pack_reads.CORRECTIONS), (pack.OPEN_ITEMS, pack_reads.OPEN_ITEMS),
                        (pack.STRIPE, pack_reads.STRIPE), (pack.ACCRUED, pack_reads.ACCRUED)):  # fmt: skip
        await writer.write_csv(file, pack_reads.read_table(connection, query, since, until))
    writer.write_json(pack.PLANS, msgspec.to_builtins(await PlanStore(OneTransaction(connection)).every()))
    made_at = await connection.fetchval("select transaction_timestamp()")
    writer.write_json(
        pack.PERIOD,
        {
            "period": name,
            "from": rfc3339(since),
            "until": rfc3339(until),
            "as_of": rfc3339(made_at),
            "closed_by": by,
            "gateway": VERSION,
            "findings": [finding.to_json() for finding in month.findings],
            "accepted": dict(accepted),
            "price_books_missing": sorted(written.price_versions - books.keys()),
        },
    )
    key = settings.close.signing_key
    private = None if key is None else signing_key_of(key.get_secret_value())
    return written, writer.finish(name, private).hex()


async def _bridges(connection: Any, facts: BridgeFacts, written: RowsWritten) -> dict[str, Any]:
    """The bridge in total and of each payer."""
    names = await read_names(connection, facts.payers)

    def identify(payer: Payer) -> dict[str, Any]:
        payer_id = payer[0] or payer[1]
        return {"id": str(payer_id), "is_customer": payer[0] is not None, "name": payer_id and names.get(payer_id)}

    return {
        "total": build_bridge(facts.total, written.totals.margins()).to_json(),
        "payers": [
            {**identify(payer), **build_bridge(one).to_json()}
            for payer, one in sorted(facts.payers.items(), key=lambda each: str(each[0]))
        ],
    }


async def reopen(settings: Settings, month: Period, why: str) -> int:
    """Makes a new version of a closed month, to be closed again; the old one and its pack stay. Returns its number.

    Raises OptionError, ConfigError, DependencyDown.
    """
    if not why.strip():
        raise OptionError("--why: say why the month is closed again")
    async with database(settings, _WHY) as pool, recording(settings, pool) as record:
        periods = Periods(record.connections)
        versions = await periods.versions(month_of(month))
        if not versions or not await periods.reopen(month_of(month), versions[-1].version, why.strip()):
            raise OptionError(f"{month.since:%Y-%m} is not closed, so there is nothing to reopen")
        name = f"{month.since:%Y-%m} v{versions[-1].version}"
        await record.write(
            Deed("reopen", "period", name, {"state": "closed"}, {"state": "reopened", "why": why.strip()})
        )
    return versions[-1].version + 1
