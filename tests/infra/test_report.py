"""Reports: self-contained, escaped, and with every part that was added."""

from pathlib import Path

import plotly.graph_objects as go

from infra.report import Card, Page


def test_a_page_holds_its_parts_and_needs_no_network(tmp_path: Path) -> None:
    page = Page("A & B", "what <this> is")
    page.cards([Card("12 %", "saved", "good")])
    page.section("Course", "of the day")
    page.figure(go.Figure(go.Scatter(x=[1, 2], y=[3, 4], name="load")))
    page.table([{"policy": "ours", "cost": "1.2"}, {"policy": "theirs", "cost": "1.5"}])
    page.facts({"seed": 7})
    text = page.write(tmp_path / "deep" / "report.html").read_text()
    assert "<title>A &amp; B</title>" in text
    assert "what &lt;this&gt; is" in text
    assert '<div class="card good"><b>12 %</b>' in text
    assert "<td>theirs</td>" in text
    assert "<dt>seed</dt><dd>7</dd>" in text
    assert "Plotly.newPlot" in text
    assert "<script src=" not in text


def test_an_empty_table_leaves_nothing_behind(tmp_path: Path) -> None:
    page = Page("t", "l")
    page.table([])
    assert page.parts == []
