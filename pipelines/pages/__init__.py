"""What the pages share: a style, and the files that stand in this folder. A page is one file that loads nothing."""

from pathlib import Path

from markupsafe import Markup


def page_file(name: str) -> Markup:
    """A file of this folder, as it is."""
    return Markup((Path(__file__).parent / name).read_text("utf-8"))


def base_style() -> Markup:
    """Colours for light and dark, type and tables."""
    return page_file("base.css")
