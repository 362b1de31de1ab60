"""What the audit reads of plans: all versions that there have ever been, and who pays for whom."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from gateway.audit.reads.snapshot import EXAMPLES_MAX, Offenders, Snapshot
from gateway.usage.plan_store import PAYERS, plan_of
from gateway.usage.plans import Payer, PlanBook, PlanError, PlanVersion, digest_of, terms_of

_PLANS: Final = """
select name, version, kind, rates::text as rates, valid_from, valid_to, user_id::text as user_id,
  customer_id::text as customer_id, api_key_id::text as api_key_id, model, endpoint, digest
from public.plans order by id
"""
# Of these rows, those that a person has corrected since.
_CORRECTED: Final = """
select count(distinct adjusts) as corrected from public.openai_usage
where adjusts = any($1::uuid[]) and metadata ? 'correction'
"""


class ReadPlans(NamedTuple):
    """Plans as the database has them."""

    book: PlanBook
    changed: Offenders
    """Versions whose content is not that of their digest, or does not read."""


async def read_plans(view: Snapshot) -> ReadPlans:
    """Raises DependencyDown, as the other one does."""
    plans: list[PlanVersion] = []
    changed: list[str] = []
    for row in await view.rows(_PLANS):
        fields = dict(row)
        digest = fields.pop("digest")
        plan = plan_of(fields)
        if not _reads(plan) or digest_of(plan) != digest:
            changed.append(plan.plan_version)
        else:
            plans.append(plan)
    payers = [Payer(*row.values()) for row in await view.rows(PAYERS, None)]
    return ReadPlans(PlanBook(plans, payers), Offenders(len(changed), tuple(changed[:EXAMPLES_MAX])))


async def count_corrected(view: Snapshot, rows: Sequence[str]) -> int:
    """Of these rows, those that a person has corrected since."""
    return int((await view.row(_CORRECTED, list(rows)))["corrected"]) if rows else 0


def _reads(plan: PlanVersion) -> bool:
    try:
        terms_of(plan)
    except PlanError:
        return False
    return True
