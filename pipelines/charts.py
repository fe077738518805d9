"""Small charts as SVG markup, for pages that load nothing; the page's style gives the colours."""

from collections.abc import Sequence

from markupsafe import Markup

WIDTH, HEIGHT, HEAD, FOOT = 640, 150, 16, 18  # in the chart's own units; head and foot hold the labels
MAX_LABELS = 13


def bars(counts: Sequence[float], labels: Sequence[str]) -> Markup:
    """A bar chart; where there are many bars, only some are labelled."""
    step, top, every = WIDTH / max(1, len(counts)), max(counts, default=0) or 1, -(-len(counts) // MAX_LABELS)
    bar = Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}: {:,}</title></rect>')
    name = Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>')
    drawn = Markup("")
    for place, (count, label) in enumerate(zip(counts, labels, strict=True)):
        height = count / top * HEIGHT
        drawn += bar.format((place + 0.08) * step, HEIGHT - height, step * 0.84, height, label, count)
        if place % every == 0:
            drawn += name.format((place + 0.5) * step, HEIGHT + FOOT - 4, label)
    return _svg(drawn, top)


def line(values: Sequence[float], first: str, last: str) -> Markup:
    """A filled line, labelled at both ends."""
    top, step = max(values, default=0) or 1, WIDTH / max(1, len(values) - 1)
    points = " ".join(f"{place * step:.1f},{HEIGHT - value / top * HEIGHT:.1f}" for place, value in enumerate(values))
    drawn = Markup('<polygon points="0,{h} {points} {w},{h}"/><polyline points="{points}"/>')
    ends = Markup('<text x="0" y="{y}">{first}</text><text x="{w}" y="{y}" text-anchor="end">{last}</text>')
    return _svg(
        drawn.format(h=HEIGHT, w=WIDTH, points=points) + ends.format(y=HEIGHT + FOOT - 4, w=WIDTH, first=first, last=last), top
    )


def _svg(drawn: Markup, top: float) -> Markup:
    frame = Markup(
        '<svg viewBox="0 -{head} {w} {full}" role="img">{drawn}<path d="M0 {h}H{w}"/><text x="0" y="-4">{top:,}</text></svg>'
    )
    return frame.format(head=HEAD, w=WIDTH, h=HEIGHT, full=HEAD + HEIGHT + FOOT, drawn=drawn, top=top)
