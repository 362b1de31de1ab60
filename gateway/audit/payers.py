"""INV-11: each billed amount has one payer. Judgements only."""

from typing import Final

from gateway.audit.reads.payers import Payers
from gateway.audit.reads.snapshot import unless
from gateway.audit.result import InvariantResult, judge
from gateway.audit.sums import usd

_LOOK: Final = (
    "Stop billing (unset STRIPE_SECRET_KEY at the workers). An amount is in the window of another payer than its row, "
    "or credit has paid it and nobody counted that: compare the rows of the named payer with billing_windows and "
    "credit_uses (docs/schema.md, 'Payers')."
)


def payers(read: Payers) -> InvariantResult:
    """INV-11 payer. Each billed amount has one payer: a customer's window, a user's own window, or prepaid credit.

    On a breach: an amount would be charged twice, to the wrong customer, or not at all.
    """
    used, paid = read.credit
    broken = {
        "payer's windows are not what their rows are billed": read.payers,
        "what became of accrued amounts is not what was decided": read.decided,
        "credit used is not the sum of its days": read.uses,
        "credit given is not the sum of its entries": read.given,
        "what balances have used is not what windows were paid by credit": unless(
            used == paid, f"{usd(used)} USD used, {usd(paid)} USD paid"
        ),
    }
    return judge("INV-11", "payer", {"USD of credit used": usd(used)}, broken, _LOOK)
