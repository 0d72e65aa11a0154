"""Self-contained HTML pages of cards, figures and tables; read without server or network."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

Mood = Literal["plain", "good", "bad"]
# Colour-blind safe (Okabe and Ito 2008), in the order in which series are drawn.
COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")

_STYLE: Final = """
:root { --ink: #1a1d21; --soft: #5b636d; --line: #dde1e6; --paper: #ffffff; --card: #f6f7f9;
        --good: #00734f; --bad: #b3400a; }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 1080px; padding: 2.5rem 1.5rem 4rem; color: var(--ink);
       background: var(--paper); font: 16px/1.55 system-ui, sans-serif }
h1 { font-size: 1.9rem; margin: 0 0 .3rem; letter-spacing: -.01em }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .4rem }
p { margin: .3rem 0 1rem; color: var(--soft); max-width: 46rem }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); gap: .8rem;
         margin: 1.6rem 0 }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
        padding: .8rem 1rem }
.card b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums }
.card.good b { color: var(--good) } .card.bad b { color: var(--bad) }
.card span { color: var(--soft); font-size: .85rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: .92rem;
        font-variant-numeric: tabular-nums; margin: .6rem 0 }
th, td { text-align: right; padding: .38rem .7rem; border-bottom: 1px solid var(--line) }
th:first-child, td:first-child { text-align: left }
th { color: var(--soft); font-weight: 600 }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; font-size: .88rem }
dt { color: var(--soft) } dd { margin: 0; font-family: ui-monospace, monospace;
     overflow-wrap: anywhere }
"""


@dataclass(frozen=True)
class Card:
    """One figure that a reader wants first."""

    value: str
    label: str
    mood: Mood = "plain"


@dataclass
class Page:
    """A report under construction; its parts appear in the order in which they are added."""

    title: str
    lead: str
    parts: list[str] = field(default_factory=list)

    def cards(self, cards: Sequence[Card]) -> None:
        """A row of figures."""
        cells = "".join(
            f'<div class="card {card.mood}"><b>{html.escape(card.value)}</b>'
            f"<span>{html.escape(card.label)}</span></div>"
            for card in cards
        )
        self.parts.append(f'<div class="cards">{cells}</div>')

    def section(self, title: str, text: str = "") -> None:
        """A heading, with a sentence on what is to be seen below it."""
        self.parts.append(f"<h2>{html.escape(title)}</h2>")
        if text:
            self.parts.append(f"<p>{html.escape(text)}</p>")

    def figure(self, figure: go.Figure, height: int = 380) -> None:
        """A plot in the page's style."""
        figure.update_layout(
            template="plotly_white",
            colorway=COLOURS,
            height=height,
            margin={"l": 60, "r": 20, "t": 30, "b": 45},
            legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
            font={"family": "system-ui, sans-serif", "size": 13},
            hovermode="x unified",
        )
        self.parts.append(figure.to_html(full_html=False, include_plotlyjs=False))

    def table(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """A table; the keys of the first row are its head."""
        if not rows:
            return
        head = "".join(f"<th>{html.escape(str(name))}</th>" for name in rows[0])
        body = "".join(
            "<tr>"
            + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row.values())
            + "</tr>"
            for row in rows
        )
        self.parts.append(
            f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )

    def facts(self, facts: Mapping[str, Any]) -> None:
        """Name and value pairs: where the figures come from."""
        items = "".join(
            f"<dt>{html.escape(str(name))}</dt><dd>{html.escape(str(value))}</dd>"
            for name, value in facts.items()
        )
        self.parts.append(f"<dl>{items}</dl>")

    def write(self, path: Path) -> Path:
        """Write the page; returns its path."""
        title, body = html.escape(self.title), "\n".join(self.parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<style>{_STYLE}</style><script>{get_plotlyjs()}</script></head>"
            f"<body><h1>{title}</h1><p>{html.escape(self.lead)}</p>{body}</body></html>",
            encoding="utf-8",
        )
        return path
