"""Numbers and strings as the report prints them: units, signs, intervals, and hostile text made harmless."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from typing import Any

from markupsafe import Markup, escape

MINUS = "\N{MINUS SIGN}"
# C0 and C1 controls but tab and newline; marks that reorder or hide text; lone surrogates
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: object) -> Markup:
    """Escape ``text`` for HTML, and show control, reordering and invisible characters by their code point."""
    parts: list[str] = []
    at, string = 0, str(text)
    for found in _HIDDEN.finditer(string):
        char = found.group()
        name = unicodedata.name(char, "control character")
        parts.append(str(escape(string[at : found.start()])))
        parts.append(f'<span class="ctl" title="{name}">U+{ord(char):04X}</span>')
        at = found.end()
    parts.append(str(escape(string[at:])))
    return Markup("".join(parts))


def prose(text: object) -> Markup:
    """``visible``, with intervals and percentages kept on one line."""
    whole = re.sub(r"\[[^\[\]<>]{1,32}\]", r'<span class="keep">\g<0></span>', str(visible(text)))
    return Markup(re.sub(r"(?<=\d) (?=%)", "\N{NO-BREAK SPACE}", whole))


def breakable(name: object) -> Markup:
    """``visible``, for identifiers: a line may break after an underscore, a slash or a dash."""
    parts = re.split(r"(?<=[_/-])", str(name))
    return Markup("<wbr>").join(visible(part) for part in parts)


def script_json(data: Any) -> Markup:
    """JSON that may stand inside a ``<script>`` element: no character of it can end or open markup."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def clip(text: str, limit: int) -> str:
    """The first ``limit`` characters, and how many were left out."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]} … [{len(text) - limit:,} more characters]"


def clip_middle(text: str, limit: int) -> str:
    """The beginning and the end, ``limit`` characters together, and how many were left out between: what is
    asked often stands last."""
    if len(text) <= limit:
        return text
    tail = limit // 2
    return f"{text[: limit - tail]} … [{len(text) - limit:,} more characters] … {text[len(text) - tail :]}"


def number(value: float | None, unit: str = "raw", *, sign: bool = False) -> str:
    """A rate in percent (or points) with one decimal, a raw value with about three digits; – if unknown."""
    if value is None:
        return "–"
    if unit == "rate":
        text = f"{abs(value) * 100:.1f}"
    else:
        size = abs(value)
        places = next(i for i, most in ((3, 1), (2, 10), (1, 100), (0, math.inf)) if size < most)
        text = f"{size:.1g}" if 0 < size < 0.0005 else f"{size:,.{places}f}"
    zero = not text.strip("0.,")
    if zero or (value > 0 and not sign):
        return text
    return ("+" if value > 0 else MINUS) + text


def interval(ci: tuple[float, float] | None, unit: str = "raw", *, sign: bool = False) -> str:
    """``[lo, hi]``, or a dash where there is none."""
    if ci is None:
        return "–"
    return f"[{number(ci[0], unit, sign=sign)}, {number(ci[1], unit, sign=sign)}]"


def axis_tick(value: float, unit: str = "raw") -> str:
    """A number on an axis: signed, without idle zeros."""
    text = number(value, unit, sign=unit == "rate")
    return text.rstrip("0").rstrip(".") if "." in text else text


def p_value(p: float | None) -> str:
    """A p-value with two significant digits, never ``0``."""
    if p is None:
        return "–"
    if p < 0.001:
        return "<0.001"
    return f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def count(n: int) -> str:
    """A count with thin spaces between thousands."""
    return f"{n:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def plural(n: int, word: str, words: str = "") -> str:
    """``1 policy``, ``2 policies``."""
    return f"{count(n)} {word if n == 1 else words or word + 's'}"


def direction(higher_is_better: bool | None, ideal: float | None, unit: str) -> str:
    """Which way is better, in two or three words."""
    if ideal is not None:
        return f"ideal {number(ideal, unit)}{' %' if unit == 'rate' else ''}"
    if higher_is_better is None:
        return "no better direction"
    return "higher is better" if higher_is_better else "lower is better"
