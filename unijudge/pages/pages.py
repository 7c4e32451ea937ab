"""Self-contained HTML pages: one file for light and dark mode, without network and without foreign scripts.

The Jinja templates escape all values. `charts.py` draws the charts.
"""

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup


def page(template: Path, **values: object) -> str:
    """Renders a template that extends `page.html.jinja`. A name in the template without a value is an error.

    Args:
        template: The path of the template.
        values: The values of the names in the template.
    """
    folders = [template.parent, Path(__file__).parent]
    environment = Environment(
        loader=FileSystemLoader(folders), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(template.name).render(**values)


@dataclass(frozen=True)
class Script:
    """A script of our own inside a page, and the policy that forbids every other script."""

    source: str

    @property
    def policy(self) -> str:
        """Returns a `Content-Security-Policy` that allows only this script, the page's styles and embedded pictures."""
        digest = base64.b64encode(hashlib.sha256(self.source.encode()).digest()).decode()
        return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"

    @property
    def element(self) -> Markup:
        """Returns the script element."""
        return Markup("<script>{}</script>").format(Markup(self.source))  # noqa: S704  our own file


def data(name: str, value: object) -> Markup:
    """Returns an element with a JSON value for the page's script. No text in the value can end the element.

    Example:
        >>> data("rows", ["</script>"]).count("</script>")
        1
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace(
        "<", "\\u003c"
    )
    return Markup('<script type="application/json" id="{}">{}</script>').format(name, Markup(text))  # noqa: S704


def picture(data: bytes, *, alt: str, side: int = 84) -> Markup:
    """Returns an element with an embedded PNG."""
    source = base64.b64encode(data).decode()
    return Markup('<img src="data:image/png;base64,{}" alt="{}" width="{}" height="{}">').format(
        source, alt, side, side
    )
