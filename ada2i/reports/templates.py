"""Jinja templates of pages and cards, which lie next to the code that fills them."""

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup


@lru_cache
def template(package: str, name: str) -> "Template":
    """Return a template: ``*.html.j2`` escapes everything, ``*.md.j2`` nothing. It may extend ``page.html.j2``.

    Its filters are ``svg``, which passes our own plots on unescaped, ``cell``, and ``code``.

    Markdown is not HTML, and every text in a card's YAML is written as JSON, which is YAML.

    Args:
        package: The package that holds the file.
        name: The file's name.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, "."), PackageLoader(__package__, ".")]),
        autoescape=name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=name.endswith(".md.j2"),
    )
    environment.filters |= {"svg": Markup, "cell": _html_cell, "code": _code}
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}
    return environment.get_template(name)


def cell(value: str | float) -> str:
    """Return the text of a table's cell: numbers have four digits."""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _html_cell(value: str | float) -> str:
    """Return a cell that breaks only before a sign or a number with its unit."""
    return cell(value).replace("± ", "±\N{NO-BREAK SPACE}").replace("% ", "%\N{NO-BREAK SPACE}")


def _code(text: str) -> "Markup":
    """Return text whose parts between backticks are code."""
    from markupsafe import Markup

    parts = text.split("`")
    if len(parts) % 2 == 0:
        return Markup("{}").format(text)
    return Markup("").join(Markup("<code>{}</code>" if place % 2 else "{}").format(p) for place, p in enumerate(parts))
