"""Prices each row of a pack again, from the price books and plans in the pack, as the audit's INV-3 does.

An adjustment is not derived again: what it rests on is the row that it corrects, which may be in another month's pack.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

import pricing
from gateway.audit.reads.plans import ReadPlans
from gateway.audit.reads.rows import PricedRow
from gateway.audit.reads.snapshot import Offenders
from gateway.audit.reprice import Reprice
from gateway.close.rows import PackRow
from gateway.usage.plans import PlanBook, PlanVersion
from gateway.usage.usage_block import BLOCK_BYTES_MAX, NO_USAGE

_EXAMPLES_MAX: Final = 5


class PackPrices:
    """Takes rows one by one."""

    def __init__(self, books: Mapping[str, Mapping[str, str]], plans: object) -> None:
        """`books`: version → texts; `plans`: as JSON has them. Raises BookError, PlanError, ValidationError."""
        parsed = {version: pricing.parse(dict(texts)) for version, texts in books.items()}
        known = ReadPlans(PlanBook(msgspec.convert(plans, tuple[PlanVersion, ...])), Offenders())
        self._forged: Final = [version for version, book in parsed.items() if book.version != version]
        self._repricing: Final = {book.version: Reprice(book, known) for book in parsed.values()}
        self._newest: Final = max(self._repricing, default=None)
        self._adjustments = 0
        self._without_book = 0
        self.books_missing: Final[set[str]] = set()
        """Versions that rows name and the pack lacks."""

    def take(self, row: PackRow) -> None:
        """One more row."""
        if row.evidence == "adjustment":
            self._adjustments += 1
            return
        version: str | None = row.price_version
        if version not in self._repricing:
            if row.price_version:
                self._without_book += 1
                self.books_missing.add(row.price_version)
            version = self._newest
        if version is not None:
            self._repricing[version].take(_priced_row(row))

    def problems(self) -> list[str]:
        """What does not follow from the pack's price books and plans, how often, and some of the rows."""
        forged = [f"the price book {version} is not what its version says" for version in self._forged]
        verdicts = [each.verdict() for each in self._repricing.values()]
        return forged + [
            f"{wrong}: {', '.join(verdict.examples[:_EXAMPLES_MAX])}" for verdict in verdicts for wrong in verdict.wrong
        ]

    def figures(self) -> dict[str, int]:
        """How much of it could be derived again."""
        found = [each.verdict().figures for each in self._repricing.values()]
        return {
            "priced again": sum(int(each["re-priced"]) for each in found),
            "of a price book that is not in the pack": self._without_book,
            "billed amounts derived again": sum(int(each["billed amounts derived"]) for each in found),
            "adjustments, not derived": self._adjustments,
        }


def _priced_row(row: PackRow) -> PricedRow:
    usage = None if row.usage == NO_USAGE else bytes(row.usage)
    if usage is None and row.usage_raw is not None and len(row.usage_raw) < BLOCK_BYTES_MAX:
        usage = row.usage_raw
    metadata = msgspec.json.decode(row.metadata, type=dict[str, msgspec.Raw])
    billable, asked = metadata.get("billable"), metadata.get("service_tier_asked")
    return PricedRow(
        row.id,
        row.endpoint,
        row.model,
        row.service_tier,
        row.started_at,
        usage,
        None if billable is None else bytes(billable).decode(),
        row.prompt_tokens,
        row.completion_tokens,
        row.total_tokens,
        row.cost_nano,
        row.billed_nano,
        row.price_version,
        bytes(row.cost_lines).decode(),
        evidence=row.evidence,
        user_id=row.user_id,
        api_key_id=row.api_key_id,
        plan_version=row.plan_version or None,
        is_old=row.books_version == 0,
        tier_asked=None if asked is None else msgspec.json.decode(asked, type=str),
        is_not_billed="not_billed" in metadata,
        is_by_hand="correction" in metadata,
        exact=None,
    )
