"""Amounts of resources as Kubernetes writes them.

Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/.
"""

import re
from decimal import Context, Decimal
from typing import Annotated

from pydantic import AfterValidator

_FORM = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(?:([KMGTPE]i)|([numkMGTPE])|[eE]([+-]?0*[0-9]{1,3}))?")
"""Without exponents of four digits, which Kubernetes cuts to 32 bits: to it 1e-4294967284 is 1e12."""
_LONGEST = 64
"""Characters of a quantity at most; the API server takes 32."""
_EXACT = Context(prec=2000)
"""Precise enough for all digits and exponents that are read: an amount that is rounded may pass for another."""
_POWERS = {
    unit: Decimal(1000) ** power for power, unit in zip((-3, -2, -1, 1, 2, 3, 4, 5, 6), "numkMGTPE", strict=True)
}
_BINARY = {f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", start=1)}


def quantity(text: str | int) -> Decimal | None:
    """Return the amount that `text` names, in units of the resource, or None where it is not one of at least 0."""
    match = _FORM.fullmatch(str(text)) if len(str(text)) <= _LONGEST else None
    if match is None:
        return None
    digits, binary, power, exponent = match.groups()
    number = Decimal(digits)
    if exponent:
        return _EXACT.scaleb(number, int(exponent))
    return _EXACT.multiply(number, _BINARY[binary] if binary else _POWERS[power] if power else Decimal(1))


def _is_quantity(amount: str | int) -> str | int:
    if quantity(amount) is None:
        raise ValueError("is not a quantity: write 500m, 2 or 4Gi")
    return amount


Amount = Annotated[str | int, AfterValidator(_is_quantity)]
"""Amount of a resource in the policy."""
