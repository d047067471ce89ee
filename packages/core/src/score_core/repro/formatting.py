"""Numbers as people read them, the same in the terminal and on the page."""

import math

from score_core.repro.compare import Comparison
from score_core.repro.schema import Reference


def number(value: float | None) -> str:
    """A number with four significant digits; a dash for none."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e12 else f"{value:.4g}"


def with_error(value: float, error: float | None) -> str:
    """A number with its standard error, both cut where the error has two significant digits."""
    if error is None:
        return number(value)
    if not (math.isfinite(value) and math.isfinite(error) and error > 0):
        return f"{number(value)} ± {number(error)}"
    digits = 1 - math.floor(math.log10(error))
    return " ± ".join(f"{round(x, digits):,.{max(digits, 0)}f}" for x in (value, error))


def with_unit(text: str, unit: str | None) -> str:
    """A number followed by its unit, if both exist."""
    return f"{text} {unit}" if unit and text != "–" else text


def measured_text(comparison: Comparison) -> str:
    """The measured value with its standard error and unit."""
    measured = comparison.measured
    if measured is None:
        return "–"
    return with_unit(with_error(measured.value, measured.standard_error), comparison.reference.unit)


def tolerance_text(reference: Reference) -> str:
    """The tolerance with the sign of the side on which it counts; a dash for none."""
    sign = {"lower": "+", "higher": "−", "band": "±"}[reference.direction]
    return "–" if reference.tolerance is None else sign + number(reference.tolerance)


def duration(seconds: float) -> str:
    """Seconds as 12.3 s, 4 min 05 s, 3 h 20 min or 12 days."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds >= 3 * 86400:
        return f"{seconds / 86400:,.0f} days"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def size(count: int | None) -> str | None:
    """A number of bytes in GB (10^9), or MB below one."""
    if count is None:
        return None
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
