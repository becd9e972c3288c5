"""The blocks as Markdown, and as one HTML page that needs no scripts and loads nothing."""

import html
import re

import numpy as np

TITLE = "The claims of EVA at a small scale"
WIDTH, HEIGHT = 640, 260
LEFT, TOP, BOTTOM = 56, 12, 30
STYLE = """
:root { color-scheme: light dark; --page: #fcfcfa; --text: #1c2024; --soft: #5a6068; --line: #d9dce0;
  --c0: #6b7076; --c1: #1c2024; --c2: #1f5f9e; --c3: #b4521c; --heat: 31 95 158; }
@media (prefers-color-scheme: dark) { :root { --page: #15181b; --text: #e6e8ea; --soft: #a0a7af; --line: #363b41;
  --c0: #8b9198; --c1: #e6e8ea; --c2: #6fb1ee; --c3: #f09a62; --heat: 111 177 238; } }
body { margin: 0 auto; max-width: 62rem; padding: 1rem 1.25rem 4rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .5rem; } p { max-width: 46rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .25rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { font-weight: 500; }
figure { margin: 1rem 0; max-width: 46rem; } figcaption { font-size: .9rem; color: var(--soft); }
svg { width: 100%; display: block; font-size: 13px; fill: var(--soft); }
.rule { stroke: var(--line); } .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.c0 { stroke: var(--c0); stroke-dasharray: 2 3; } .c1 { stroke: var(--c1); stroke-dasharray: 7 3; } .c2 { stroke: var(--c2); }
.c3 { stroke: var(--c3); } .band { stroke: none; opacity: .18; } .b0 { fill: var(--c0); } .b1 { fill: var(--c1); }
.b2 { fill: var(--c2); } .b3 { fill: var(--c3); }
.key { display: inline-flex; align-items: center; gap: .4rem; margin-right: 1rem; } .key svg { width: 2rem; }
.matrix td { text-align: center; }
"""


def markdown(blocks):
    lines = [f"# {TITLE}", ""]
    for kind, *parts in blocks:
        if kind == "heading":
            lines += [f"## {parts[0]}", ""]
        elif kind == "text":
            lines += [parts[0], ""]
        elif kind == "table":
            header, rows = parts
            lines += [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *(f"| {' | '.join(row)} |" for row in rows), ""]
    return "\n".join(lines)


def page(blocks):
    body = "\n".join(RENDERERS[kind](*parts) for kind, *parts in blocks)
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{TITLE}</title>\n'
        f'<meta name="viewport" content="width=device-width">\n<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{TITLE}</h1>\n{body}\n</body>\n</html>\n"
    )


def prose(text):
    """Text with its code marked."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text.replace("\\|", "|"), quote=False))


def table(header, rows):
    head = "".join(f'<th scope="col">{prose(cell)}</th>' for cell in header)
    body = "\n".join(
        f'<tr><th scope="row">{prose(row[0])}</th>' + "".join(f"<td>{prose(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def matrix(title, labels, values):
    """Figures of pairs; the shade runs from the least to 1."""
    least = min(map(min, values))
    shade = lambda value: 0.75 * (value - least) / max(1e-9, 1 - least)
    head = "".join(f'<th scope="col">{html.escape(label)}</th>' for label in labels)
    rows = "\n".join(
        f'<tr><th scope="row">{html.escape(label)}</th>'
        + "".join(f'<td style="background: rgb(var(--heat) / {shade(value):.2f})">{value:.3f}</td>' for value in row)
        + "</tr>"
        for label, row in zip(labels, values)
    )
    caption = f"<caption>{html.escape(title)}</caption>"
    return f'<div class="wide"><table class="matrix">{caption}\n<thead><tr><td></td>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>'


def chart(title, curves):
    """Lines of means with a band from the least to the most of all seeds; the scale is logarithmic where it spans much."""
    everything = np.concatenate([np.concatenate(of) for of in curves.values()])
    least, most = float(everything.min()), float(everything.max())
    is_log = least > 0 and most > 8 * least
    steps = max(len(mean) for mean, _, _ in curves.values())
    x = lambda step: LEFT + (WIDTH - LEFT - 8) * step / max(1, steps - 1)
    place = np.log if is_log else lambda value: value
    low, high = place(least), place(most)
    y = lambda value: TOP + (HEIGHT - TOP - BOTTOM) * (1 - (place(value) - low) / max(1e-12, high - low))
    parts = []
    for value in ticks(least, most, is_log):
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - 8}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    for step, anchor in {0: "start", (steps - 1) // 2: "middle", steps - 1: "end"}.items():
        parts.append(f'<text x="{x(step):.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">step {step + 1}</text>')
    for index, (_, lower, upper) in enumerate(curves.values()):
        corners = [(x(i), y(value)) for i, value in enumerate(upper)] + [(x(i), y(value)) for i, value in enumerate(lower)][::-1]
        parts.append(f'<path class="band b{index}" d="M{path(corners)}z"/>')
    for index, (mean, _, _) in enumerate(curves.values()):
        parts.append(f'<path class="line c{index}" d="M{path([(x(i), y(value)) for i, value in enumerate(mean)])}"/>')
    label = f"{title}: " + ", ".join(f"{name} from {mean[0]:.3g} to {mean[-1]:.3g}" for name, (mean, _, _) in curves.items())
    keys = "".join(
        f'<span class="key"><svg viewBox="0 0 32 8" aria-hidden="true"><path class="line c{index}" d="M0 4H32"/></svg>{html.escape(name)}</span>'
        for index, name in enumerate(curves)
    )
    scale = " Logarithmic scale." if is_log else ""
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(label)}">{"".join(parts)}</svg>\n'
        f"<figcaption>{html.escape(title)}: mean, and from the least to the most of all seeds.{scale}<br>{keys}</figcaption></figure>"
    )


def path(points):
    return "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def ticks(least, most, is_log):
    """Round numbers in the range: three to six."""
    if is_log:
        found = [m * 10.0**e for e in range(-9, 9) for m in (1, 2, 5)]
        found = [value for value in found if least <= value <= most]
        return found if len(found) <= 7 else found[:: -(-len(found) // 6)]
    step = 10 ** np.floor(np.log10(max(most - least, 1e-12) / 3))
    step *= next(m for m in (1, 2, 5, 10) if (most - least) / (m * step) <= 6)
    return [float(value) for value in np.arange(np.ceil(least / step), np.floor(most / step) + 1) * step]


RENDERERS = {
    "heading": lambda text: f"<h2>{html.escape(text)}</h2>",
    "text": lambda text: f"<p>{prose(text)}</p>",
    "table": table,
    "chart": chart,
    "matrix": matrix,
}
