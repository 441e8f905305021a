"""The evaluation as one HTML file without network: figures with intervals, hallucinated captions first, a filter by category."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from capxai.recipes.evaluation_cards import Budget, render_cards
from capxai.recipes.evaluation_titles import CAPTION_METRICS, number, title
from capxai.types import JsonObject

_ROWS_AT_MOST = 30  # of the tables of confusions and co-occurrences


def render_page(report: JsonObject, paths: Mapping[int, Path], budget: Budget | None = None) -> str:
    """Write the page.

    Args:
        report: What eval.json holds.
        paths: Picture files by image id; none are needed.
        budget: How many pictures to show, and how large they may be together.

    Returns:
        HTML with style, script and pictures inside. Every text from outside is escaped.
    """
    categories = _category_names(report)
    places = {name: place for place, name in enumerate(categories)}
    cards = render_cards(report["images"], paths, places, budget or Budget())
    notes = [*report.get("notes", ()), *cards.left_out]
    fields = {
        "title": escape(f"{report['model']} on {report['corpus']} {report['split']} - capxai evaluation".strip()),
        "heading": escape(f"{report['model']} on {report['corpus']} {report['split']}".strip()),
        "about": escape(
            f"{len(report['images']):,} pictures, one caption each · 95 % bootstrap intervals over pictures"
        ),
        "notes": "\n".join(f'<p class="note" role="note">{escape(note)}</p>' for note in notes),
        "figures": _figures(report),
        "comparison": _comparison(report.get("comparison")),
        "categories": _details(_categories(report, places) + _frequent(report) + _pairs(report)),
        "pictures": _pictures(cards.html, report, places) if cards.count else "",
        "provenance": _provenance(report["provenance"]),
    }
    template = files("capxai.recipes").joinpath("evaluation_page.html").read_text(encoding="utf-8")
    return re.sub(r"@@([a-z-]+)@@", lambda found: fields[found[1]], template)


def _category_names(report: JsonObject) -> list[str]:
    """List every category that a picture of the report names, has or lacks, sorted."""
    names = set(report.get("categories", {}))
    for image in report["images"]:
        names.update(image.get("mentioned", ()), image.get("missed", ()))
    return sorted(names)


def _figures(report: JsonObject) -> str:
    overall, skipped = report["overall"], report.get("skipped", {})
    captions = {name: value for name, value in overall.items() if name in CAPTION_METRICS}
    objects = {name: value for name, value in overall.items() if name not in CAPTION_METRICS}
    panels = [
        _figure_panel("Captions against references", captions, skipped),
        _figure_panel("Objects", objects, {}),
    ]
    return "\n".join(panel for panel in panels if panel)


def _figure_panel(heading: str, figures: JsonObject, skipped: Mapping[str, str]) -> str:
    if not figures and not skipped:
        return ""
    largest = max((float(figure["high"]) for figure in figures.values() if figure), default=1.0)
    rows = [
        _figure_row(name, figure, 1.0 if largest <= 1 or figure["high"] <= 1 else largest)
        for name, figure in figures.items()
        if figure
    ]
    rows += [
        f'<tr><th scope="row">{escape(title(name).name)}</th><td class="reason" colspan="3">not defined here</td></tr>'
        for name, figure in figures.items()
        if not figure
    ]
    rows += [
        f'<tr><th scope="row">{escape(title(name).name)}</th><td class="reason" colspan="3">not run: {escape(reason)}</td></tr>'
        for name, reason in skipped.items()
    ]
    head = '<th scope="col">figure</th><th scope="col">value</th><th scope="col">95 % interval</th><th scope="col" class="interval"></th>'
    return (
        f'<div class="panel"><h2>{escape(heading)}</h2><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></div>"
    )


def _figure_row(name: str, figure: JsonObject, end: float) -> str:
    """Write a figure, its interval as numbers and on a track from 0 to ``end``."""
    shown = title(name)
    low, high, value = (max(0.0, min(100.0, 100 * figure[key] / end)) for key in ("low", "high", "value"))
    better = " <small>lower is better</small>" if shown.lower_is_better else ""
    track = f'<i style="left:{low:.2f}%;width:{high - low:.2f}%"></i><b style="left:{value:.2f}%"></b>'
    return (
        f'<tr><th scope="row" title="{escape(shown.meaning)}">{escape(shown.name)}{better}</th>'
        f'<td class="value">{number(figure["value"])}</td><td>{number(figure["low"])} – {number(figure["high"])}</td>'
        f'<td class="interval"><div class="track" aria-hidden="true">{track}</div></td></tr>'
    )


def _comparison(comparison: JsonObject | None) -> str:
    if not comparison:
        return ""
    rows = [
        _row(title(name).name, [number(one[key]) for key in ("this", "other", "difference", "low", "high", "p")])
        for name, one in comparison["overall"].items()
    ]
    header = ["figure", "this", "other", "difference", "low", "high", "p"]
    text = f"Paired bootstrap over the same pictures against {comparison['other']}; the interval is that of the difference, p is two-sided."
    return f'<section class="panel"><h2>Compared</h2><p class="hint">{escape(text)}</p>{_table(header, rows)}</section>'


def _categories(report: JsonObject, places: Mapping[str, int]) -> str:
    categories = report.get("categories", {})
    if not categories:
        return ""
    columns = list(dict.fromkeys(column for score in categories.values() for column in score))
    ordered = sorted(categories, key=lambda name: (-(categories[name].get("hallucinations") or 0), name))
    rows = [_category_row(name, categories[name], columns, places[name]) for name in ordered]
    hint = "A category's name shows its pictures below."
    table = _table(["category", *(column.replace("_", " ") for column in columns)], rows)
    return f'<h2>Categories</h2><p class="hint">{hint}</p><div class="tall" tabindex="0">{table}</div>'


def _frequent(report: JsonObject) -> str:
    """Write the table of frequent object words, where the report has one."""
    words = report.get("frequent_words", {}).get("words")
    if not words:
        return ""
    columns = list(next(iter(words.values())))
    rows = [_row(word, [_cell(score[column]) for column in columns]) for word, score in words.items()]
    hint = f"The list '{report['frequent_words']['list']}'. Pictures: with the word in a reference; mentioned: captions that say it."
    table = _table(["word", *columns], rows)
    return f'<h2>Frequent words</h2><p class="hint">{escape(hint)}</p><div class="tall" tabindex="0">{table}</div>'


def _category_row(name: str, score: JsonObject, columns: Sequence[str], place: int) -> str:
    button = f'<button type="button" class="link" data-category="{place}">{escape(name)}</button>'
    cells = "".join(f"<td>{_cell(score.get(column))}</td>" for column in columns)
    return f'<tr><th scope="row">{button}</th>{cells}</tr>'


def _cell(value: object) -> str:
    return number(value) if isinstance(value, float) or value is None else escape(str(value))


def _pairs(report: JsonObject) -> str:
    """Write the tables of confusions and co-occurrences, where the report has them."""
    texts = {
        "confusions": ("Confusions", "What was said, and what was there and not said instead."),
        "cooccurrences": ("Co-occurrences", "What was hallucinated, and what else the caption named."),
    }
    panels = []
    for key, (heading, hint) in texts.items():
        pairs = report.get(key) or []
        if pairs:
            columns = list(pairs[0])
            rows = [
                _row(str(pair[columns[0]]), [_cell(pair[column]) for column in columns[1:]])
                for pair in pairs[:_ROWS_AT_MOST]
            ]
            table = _table([column.replace("_", " ") for column in columns], rows)
            panels.append(
                f'<div><h2>{heading}</h2><p class="hint">{hint}</p><div class="tall" tabindex="0">{table}</div></div>'
            )
    return f'<div class="columns">{"".join(panels)}</div>' if panels else ""


def _details(tables: str) -> str:
    """Fold the tables away, so that the pictures come first."""
    if not tables:
        return ""
    return (
        f'<details class="panel tables"><summary>Categories, confusions and co-occurrences</summary>{tables}</details>'
    )


def _pictures(cards: str, report: JsonObject, places: Mapping[str, int]) -> str:
    """Write the filters and the cards."""
    false = any(image.get("hallucinated") for image in report["images"])
    options = "".join(f'<option value="{place}">{escape(name)}</option>' for name, place in places.items())
    category = (
        f'<label>Category <select id="category"><option value="">all</option>{options}</select></label>'
        if places
        else ""
    )
    side = (
        '<fieldset><legend class="unseen">Which pictures</legend><label><input type="radio" name="side" id="all" checked> all</label>'
        '<label><input type="radio" name="side" id="only"> hallucinated only</label></fieldset>'
        if false
        else ""
    )
    search = '<label>Words <input type="search" id="text" placeholder="in the caption"></label>'
    reset = '<button type="button" id="reset">Show all</button>'
    legend = "Tab reaches a picture, arrow keys move between pictures."
    if places:
        marks = (
            '<mark class="false">wavy, orange</mark> is not in the picture, <mark class="true">straight, blue</mark> is'
        )
        legend = f"Object words: {marks}. {legend}"
    heading = "Hallucinated captions first" if false else "Captions"
    count = '<span class="meta" id="count" role="status"></span>'
    return (
        f'<section id="pictures" aria-label="Pictures"><h2>{heading}</h2><p class="hint">{legend}</p>'
        f'<div class="filters" role="search">{category}{side}{search}{reset}{count}</div>'
        f'<p class="hint" id="nothing" hidden>No picture on this page fits.</p><div class="cards">\n{cards}\n</div></section>'
    )


def _provenance(provenance: JsonObject) -> str:
    rows = []
    for name, value in provenance.items():
        text = ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, dict) else str(value)
        rows.append(
            f'<tr><th scope="row">{escape(name.replace("_", " "))}</th><td class="reason">{escape(text)}</td></tr>'
        )
    return f'<div class="scroll"><table><tbody>{"".join(rows)}</tbody></table></div>'


def _table(header: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in header)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _row(head: str, cells: Sequence[str]) -> str:
    return f'<tr><th scope="row">{escape(head)}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
