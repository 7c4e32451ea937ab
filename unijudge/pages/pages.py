"""HTML pages that stand alone: one file, light and dark, no network, and no script but our own.

The templates are Jinja's and escape all that they are given. Their charts are of `charts.py`.
"""

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup


def page(template: Path, **values: object) -> str:
    """Renders a template that extends `page.html.jinja`; a name that it uses and is not given is an error.

    Args:
        template: The file.
        values: What it uses.
    """
    folders = [template.parent, Path(__file__).parent]
    environment = Environment(
        loader=FileSystemLoader(folders), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(template.name).render(**values)


@dataclass(frozen=True)
class Script:
    """A script of our own inside a page, and the policy under which it is the only one that runs."""

    source: str

    @property
    def policy(self) -> str:
        """For a `Content-Security-Policy`: this script, the page's own styles, embedded pictures, and nothing else."""
        digest = base64.b64encode(hashlib.sha256(self.source.encode()).digest()).decode()
        return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"

    @property
    def element(self) -> Markup:
        """The script, as it stands."""
        return Markup("<script>{}</script>").format(Markup(self.source))  # noqa: S704  our own file


def data(name: str, value: object) -> Markup:
    """A JSON value inside a page, for its script: no text in it can end the element.

    Example:
        >>> data("rows", ["</script>"]).count("</script>")
        1
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return Markup('<script type="application/json" id="{}">{}</script>').format(name, Markup(text))  # noqa: S704


def picture(data: bytes, *, alt: str, side: int = 84) -> Markup:
    """A PNG inside the page."""
    source = base64.b64encode(data).decode()
    return Markup('<img src="data:image/png;base64,{}" alt="{}" width="{}" height="{}">').format(
        source, alt, side, side
    )
