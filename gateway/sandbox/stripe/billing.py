"""What the Stripe stand-in makes of usage: subscriptions, invoices and all that they need; and what falls due."""

from collections.abc import Callable
from typing import Any, Final

from gateway.sandbox.stripe.alerts import Alerts
from gateway.sandbox.stripe.balances import Balances
from gateway.sandbox.stripe.catalog import Catalog
from gateway.sandbox.stripe.counted import CountedEvents
from gateway.sandbox.stripe.credit_grants import EXPIRE, GRANT, CreditGrants
from gateway.sandbox.stripe.credit_notes import CreditNotes
from gateway.sandbox.stripe.customers import Customers
from gateway.sandbox.stripe.cycle import PERIOD_END, Cycle
from gateway.sandbox.stripe.invoice_items import InvoiceItems
from gateway.sandbox.stripe.invoices import FINALIZE, Invoices
from gateway.sandbox.stripe.meters import Meter
from gateway.sandbox.stripe.objects import Account, Stored
from gateway.sandbox.stripe.subscriptions import Subscriptions
from gateway.sandbox.stripe.usage_lines import UsageLines


class StripeBilling:
    """The parts, wired together."""

    def __init__(
        self, account: Account, customers: Customers, meter: Callable[[str], Meter], events: CountedEvents
    ) -> None:
        """`meter` gives a meter by its id, or raises StripeApiError."""
        self._account: Final = account
        self.catalog: Final = Catalog(account, meter)
        self.balances: Final = Balances(account, customers)
        self.credit_grants: Final = CreditGrants(account, customers)
        self.invoice_items: Final = InvoiceItems(account, customers)
        lines = UsageLines(account, meter, events)
        self.invoices: Final = Invoices(
            account,
            customers,
            self.balances,
            refresh=lines.refresh,
            settle_credits=self.credit_grants.apply,
            reinstate_credits=self.credit_grants.reinstate,
        )
        self.alerts: Final = Alerts(account, meter, events)
        self.credit_notes: Final = CreditNotes(account, self.invoices, self.balances)
        cycle = Cycle(account, self.invoices, self.invoice_items, lines)
        self.subscriptions: Final = Subscriptions(account, customers, self.catalog, cycle)
        self._actions: Final[dict[str, Callable[[str, int], None]]] = {
            PERIOD_END: cycle.end_period,
            FINALIZE: self.invoices.finalize_due,
            EXPIRE: self.credit_grants.expire_due,
        }

    def settle(self) -> bool:
        """Does everything that has fallen due, each at its own instant and in order, and says whether there was any.
        Before every request, so that a request finds what Stripe would have done by then."""
        clock, is_changed = self._account.clock, False
        while (due := self._account.agenda.take_due(clock.latest())) is not None:
            with clock.at(due.at):
                self._actions[due.action](due.object_id, due.at)
            is_changed = True
        return is_changed

    def plan_all(self) -> None:
        """Plans what a former run had planned."""
        plan = self._account.agenda.plan
        for one in self._account.all("subscription")[::-1]:
            if one["status"] != "canceled":
                plan(one["items"]["data"][0]["current_period_end"], PERIOD_END, one["id"])
        for one in self._account.all("invoice")[::-1]:
            if one["automatically_finalizes_at"] is not None:
                plan(one["automatically_finalizes_at"], FINALIZE, one["id"])
        for one in self._account.all(GRANT):
            if (one["expires_at"] or 0) > self._account.now():
                plan(one["expires_at"], EXPIRE, one["id"])

    def create_invoice(self, form: dict[str, Any]) -> Stored:
        """POST /v1/invoices."""
        return self.invoices.create(form, self.invoice_items.take_pending)
