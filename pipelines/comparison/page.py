"""`recsys compare --html`: a comparison as one interactive HTML file, which loads nothing and can be sent by mail.

The page's own policy (Content-Security-Policy) lets the browser run its scripts, by their hashes, and nothing else, and reach
no address: a name that slipped through as markup could still do nothing.
"""

import base64
import hashlib
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from pipelines.comparison.comparison import Comparison
from pipelines.comparison.details import Details, details
from pipelines.comparison.page_data import as_script, payload
from pipelines.comparison.page_table import tables
from pipelines.pages import base_style, page_file
from recsys.track import resolve_uri
from recsys.track.store import shown

SCRIPTS = ("compare_base.js", "compare_plots.js", "compare_users.js", "compare_app.js")


def write_page(comparison: Comparison, path: Path, *, uri: str | None = None) -> None:
    """Write the page to `path`, whole or not at all. `uri` is the store that the runs are read from."""
    page = compare_page(comparison, details(comparison, uri), uri=uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(page)
        os.chmod(aside, 0o644)
        os.replace(aside, path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


def compare_page(comparison: Comparison, found: Details, *, uri: str | None = None, now: datetime | None = None) -> str:
    """The page as text."""
    from plotly.offline import get_plotlyjs

    plotly = Markup(get_plotlyjs())
    own = Markup("\n").join(page_file(name) for name in SCRIPTS)
    assert "</script" not in plotly.lower()
    assert "</script" not in own.lower()
    store = resolve_uri(uri)
    content = payload(comparison, found, store)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(page_file("compare.html")).render(
        policy=policy(plotly, own), style=base_style() + page_file("compare.css"), plotly=plotly, own=own,
        data=as_script(content), content=content, tables=tables(comparison, content),
        store=shown(store), when=(now or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M UTC"),
        consensus=comparison.consensus, warnings=comparison.warnings,
    )  # fmt: skip


def policy(*scripts: str) -> str:
    """Only these scripts run; pictures are the page's own; no address is reached."""
    hashes = (base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in scripts)
    allowed = " ".join(f"'sha256-{each}'" for each in hashes)
    rest = "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; script-src {allowed}; {rest}"
