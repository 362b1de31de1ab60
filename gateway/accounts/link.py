"""Who pays for a user from now on, and what becomes of what the user has accrued while nobody did.

One transaction: the period, the amounts, what was decided and who did it. An amount never moves from one customer to
another: usage belongs to whoever paid when it was completed.
"""

from datetime import datetime
from typing import Final, Literal, NamedTuple, get_args

from gateway.accounts.payers import AccruedWindow, CustomerRow, PayerStore
from gateway.accounts.store import User
from gateway.kit.errors import OptionError
from gateway.trail.record import TrailTransaction
from pricing import nano_text

Action = Literal["bill", "settle", "write-off"]
Mode = Literal["postpaid", "prepaid", "grants"]
MODES: Final = get_args(Mode)
ACTIONS: Final = get_args(Action)
_CREDIT_MODES: Final = (
    "prepaid: the credit pays first and what it does not cover is invoiced; postpaid: the credit pays nothing and all "
    "is invoiced"
)
_GRANTS_ELSEWHERE: Final = "grants live at Stripe. Take the credit back first"


class LinkOptions(NamedTuple):
    """What an operator wants."""

    customer: str | None
    """Stripe's id; None: nobody pays from now on."""
    since: datetime | None = None
    """From when on; None is now."""
    accrued: Action | None = None
    reference: str | None = None
    why: str | None = None
    mode: Mode | None = None
    yes: bool = False


class LinkedPayer(NamedTuple):
    """What was done, or would be."""

    before: str | None
    """Stripe's id of the customer who paid before."""
    customer: CustomerRow | None
    since: datetime
    windows: list[AccruedWindow]
    action: Action | None
    done: bool

    @property
    def nano(self) -> int:
        """What the user had accrued."""
        return sum(window.nano for window in self.windows)


def link_options(
    customer: str | None, since: datetime | None, accrued: str | None, reference: str | None, why: str | None,
    mode: str | None, *, yes: bool,
) -> LinkOptions:  # fmt: skip
    """From what was typed. Raises OptionError."""
    if accrued is not None and accrued not in ACTIONS:
        raise OptionError(f"--accrued: {accrued!r} is not one of {', '.join(ACTIONS)}")
    if mode is not None and mode not in MODES:
        raise OptionError(f"--mode: {mode!r} is not one of {', '.join(MODES)}")
    if customer is None and (since or accrued or mode):
        raise OptionError("--from, --accrued and --mode belong to --stripe-customer")
    if accrued == "settle" and not reference:
        raise OptionError("--reference: the invoice or credit note by which it was settled")
    if accrued == "write-off" and not why:
        raise OptionError("--why: why it is written off")
    for name, text, most in (("--reference", reference, 255), ("--why", why, 1000)):
        if text is not None and not (0 < len(text) <= most and text.isprintable()):
            raise OptionError(f"{name}: 1 to {most} printable characters on one line")
    return LinkOptions(customer, since, accrued, reference, why, mode, yes)  # type: ignore[arg-type]  # looked at above


async def link(record: TrailTransaction, user: User, wanted: LinkOptions) -> LinkedPayer:
    """Makes a customer pay for a user, or nobody. Changes nothing where it has to be agreed to first (`done` is False).

    Raises OptionError, DependencyDown.
    """
    payers = PayerStore(record.connections)
    now, today = await payers.lock(user.id)
    user = user._replace(stripe_customer_id=today)
    since = now if wanted.since is None else wanted.since
    if since > now:
        raise OptionError("--from: a past instant, or leave it out: then it is now")
    period = await payers.period(user.id, since)
    if wanted.since is None and period is not None and period.is_ahead:
        raise OptionError(f"user_customers says who pays for {user.email} at a later time; take that back first")
    if wanted.customer is None:
        if period is not None:
            await payers.end(period.id, now)
        return LinkedPayer(today, None, now, [], None, done=True)
    if period is not None and wanted.since is not None:
        raise OptionError("--from: somebody else pays at that time, and what is booked stays with them; leave it out")
    windows = [] if wanted.customer == today and wanted.accrued is None else await payers.accrued(user.id)
    _require_action(user, windows, wanted)
    await _require_mode(payers, user, wanted)
    if (windows or wanted.since is not None) and not wanted.yes:
        shown = CustomerRow("", None, wanted.customer, "usd", wanted.mode or "postpaid", None, now)
        return LinkedPayer(today, shown, since, windows, wanted.accrued, done=False)
    customer = await payers.find_or_make(wanted.customer, wanted.mode or "postpaid")
    if wanted.mode is not None and customer.mode != wanted.mode:
        customer = await change_mode(payers, customer, wanted.mode)
    if customer.mode == "grants" and (left := await payers.credit(user.id)):
        raise OptionError(f"{user.email} has {nano_text(left)} USD of credit here, and {_GRANTS_ELSEWHERE}")
    if period is None or period.customer_id != customer.id:
        if period is not None:
            await payers.end(period.id, since)
        await payers.begin(user.id, customer.id, since, accrued=wanted.accrued, by=record.actor.name)
    if windows and wanted.accrued is not None:
        if wanted.accrued == "bill":
            await payers.take_over(customer.id, windows)
        else:
            await payers.settle(windows, is_written_off=wanted.accrued == "write-off")
        who_why = {"by": record.actor.name, "reference": wanted.reference, "why": wanted.why}
        await payers.decide(user.id, customer.id, wanted.accrued, windows, **who_why)  # type: ignore[arg-type]
    return LinkedPayer(today, customer, since, windows, wanted.accrued, done=True)


async def change_mode(payers: PayerStore, customer: CustomerRow, mode: str) -> CustomerRow:
    """Makes a customer pay in another way. Raises OptionError where users have credit that could not be used then."""
    left, users = await payers.credit_of(customer.id)
    require_usd(customer._replace(mode=mode))
    if mode == "grants" and users:
        raise OptionError(
            f"--mode: {users} user(s) of this customer have credit here ({nano_text(left)} USD left), and "
            f"{_GRANTS_ELSEWHERE}"
        )
    return await payers.change(customer._replace(mode=mode))


def require_usd(customer: CustomerRow) -> None:
    """Amounts here are USD, so credit in another currency cannot bound calls. Raises OptionError."""
    if customer.mode == "grants" and customer.currency != "usd":
        raise OptionError(f"--mode: grants bound amounts in USD, and this customer is invoiced in {customer.currency}")


def _require_action(user: User, windows: list[AccruedWindow], wanted: LinkOptions) -> None:
    """What was used before anybody paid is not billed to whoever comes without a decision."""
    if not windows:
        if wanted.accrued is not None:
            raise OptionError(f"--accrued: {user.email} has accrued nothing")
        return
    if wanted.accrued is None:
        nano = sum(window.nano for window in windows)
        raise OptionError(
            f"{user.email} has accrued {nano_text(nano)} USD in {len(windows)} window(s) since "
            f"{windows[0].window_start:%Y-%m-%d %H:%M} UTC. Say what becomes of it: --accrued bill (this customer is "
            "charged), settle (--reference: it was charged elsewhere) or write-off (--why). Nothing was changed"
        )


async def _require_mode(payers: PayerStore, user: User, wanted: LinkOptions) -> None:
    """Credit and an invoice for the same call are never mixed without a decision."""
    left = await payers.credit(user.id)
    if left is None or wanted.mode is not None or wanted.customer == user.stripe_customer_id:
        return
    known = [each for each in await payers.find(wanted.customer or "") if each.stripe_customer_id == wanted.customer]
    if known and known[0].mode == "prepaid":
        return
    raise OptionError(
        f"{user.email} has prepaid credit ({nano_text(left)} USD left), and this customer would be invoiced beside it. "
        f"Say how it pays, with --mode: {_CREDIT_MODES}. Nothing was changed"
    )
