"""Numbers as the page's text has them: few digits, a real minus sign, raised exponents."""

from __future__ import annotations

MINUS = "\N{MINUS SIGN}"
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


DIGITS = 3
"""Of a number in the text."""


def brief(x: float) -> str:
    """A number with few digits.

    >>> brief(505133.95), brief(4.457e-07), brief(0.0), brief(16066858.4), brief(0.39966)
    ('505,134', '4.46 · 10⁻⁷', '0', '1.61 · 10⁷', '0.4')
    """
    mantissa, _, power = f"{x:.{DIGITS - 1}e}".partition("e")
    if x and not -4 <= int(power) < 7:
        return f"{minus(mantissa)} · 10{str(int(power)).translate(RAISED)}"
    plain = f"{x:,.{max(DIGITS - 1 - int(power), 0)}f}"
    return minus(plain.rstrip("0").rstrip(".") if "." in plain else plain)


def minus(text: str) -> str:
    """A number's text with a minus sign for each hyphen, and the exponent raised.

    >>> minus("1.5e-07")
    '1.5 · 10⁻⁷'
    """
    mantissa, _, power = text.partition("e")
    signed = mantissa.replace("-", MINUS)
    return f"{signed} · 10{str(int(power)).translate(RAISED)}" if power else signed
