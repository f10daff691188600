"""Amounts of resources as Kubernetes writes them.

Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/.
"""

import re
from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator

_FORM = re.compile(r"(\d+\.?\d*|\.\d+)(?:([KMGTPE]i)|([numkMGTPE])|[eE]([+-]?\d{1,3}))?")
_POWERS = {
    unit: Decimal(1000) ** power for power, unit in zip((-3, -2, -1, 1, 2, 3, 4, 5, 6), "numkMGTPE", strict=True)
}
_BINARY = {f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", start=1)}


def quantity(text: str | int) -> Decimal | None:
    """Return the amount that `text` names, in units of the resource, or None where it is no quantity."""
    match = _FORM.fullmatch(str(text))
    if match is None:
        return None
    number, binary, power, exponent = match.groups()
    if exponent:
        return Decimal(number) * Decimal(10) ** int(exponent)
    return Decimal(number) * (_BINARY[binary] if binary else _POWERS[power] if power else 1)


def _is_quantity(amount: str | int) -> str | int:
    if quantity(amount) is None:
        raise ValueError("is no quantity: write 500m, 2 or 4Gi")
    return amount


Amount = Annotated[str | int, AfterValidator(_is_quantity)]
"""Amount of a resource in the policy."""
