"""HTML pages that open offline."""
from pathlib import Path
from typing import Any

import jinja2


def render_page(template: Path, **values: Any) -> str:
    """Fill in a page that extends `page.html`, which lets no page load anything from outside.

    Args:
        template (Path): The template.
        **values: Its variables; all of them must be given.

    Returns:
        str: HTML. All text in the values is escaped.
    """
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, Path(__file__).parent]), autoescape=True,
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    return templates.get_template(template.name).render(values)
