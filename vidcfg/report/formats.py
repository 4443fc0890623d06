"""How the page writes: numbers, changes, and templates filled with them."""

import base64
import io
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from vidcfg.progress import counted, printable

TEMPLATES = [Path(__file__).parents[1] / part / "templates" for part in ("report", "regress")]


def fill(template: str, **values: Any):
    """A file of `templates` with its values; text is escaped (in Markdown by `|plain`)."""
    from markupsafe import Markup

    return Markup(_environment().get_template(template).render(values))


@cache
def _environment():
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=lambda name: name is not None and not name.endswith((".md", ".css", ".js")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"number": number, "change": change_text, "counted": counted, "plain": _plain}
    # Inside a script element: compact, and without NaN.
    made.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    made.filters["px"] = lambda value: f"{value:.1f}"
    return made


def number(value: float | int, digits: int = 4) -> str:
    """Up to so many significant digits, with a minus sign."""
    text = f"{value:.{digits}g}"
    return text.replace("e-0", "e-").replace("e+0", "e").replace("-", "−")


def written(form: str, amount: float) -> str:
    """An amount as the form says. Noise of two prompts reaches percentages of 300 digits, which
    tell nothing."""
    return ">100000%" if form.endswith("%}") and amount > 1000 else form.format(amount)


def signed(form: str, amount: float, low: float | None, high: float | None) -> str:
    """An amount with its interval, each as `form` says."""
    text = written(form, amount)
    text = text if low is None else f"{text} ({written(form, low)} to {written(form, high)})"
    return text.replace("-", "−")


def change_text(change: Mapping[str, Any]) -> str:
    """A change as `+4.1% (+2.0% to +6.3%)`, from its dictionary."""
    form = "{:+.1%}" if change["is_ratio"] else "{:+.3g}"
    return signed(form, change["change"], change["low"], change["high"])


def picture_uri(picture_HWC: np.ndarray, kind: str, **options: Any) -> str:
    """A uint8 picture as a `data:` URI; `options` are Pillow's for that kind of file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture_HWC)).save(file, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _plain(text: str) -> str:
    """Text that stays text in a Markdown table."""
    text = printable(" ".join(text.split()))
    return "".join("\\" + c if c in "\\`*_{}[]<>|#!" else c for c in text)
