"""Prose that holds of the run that a page shows, or a banner."""

import ast
import html
from pathlib import Path

import jupytext
import pandas as pd
import pytest
from execute import chapters

from ginv.pages import expect

ROOT = Path(__file__).parents[2]
TRUE = [True, pd.Series([True, True]), pd.DataFrame({"a": [True]}), [True, True]]
FALSE = [False, pd.Series([True, False]), pd.DataFrame({"a": [float("nan")]}) < 1, [False]]


@pytest.mark.parametrize("condition", TRUE)
def test_what_holds_says_nothing(condition, capsys):
    expect("SI is low", condition)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("condition", FALSE)
def test_what_does_not_hold_is_said(condition, monkeypatch):
    shown = []
    monkeypatch.setattr("ginv.pages.prose.display", lambda data, raw: shown.append(data))
    expect("SI < 1 & low", condition)
    (banner,) = shown
    assert "In this run it is different" in banner["text/plain"]
    assert "SI &lt; 1 &amp; low" in banner["text/html"] and 'role="note"' in banner["text/html"]


@pytest.mark.parametrize(
    ("words", "condition", "line"),
    [
        ("", True, "words is ''; allowed: a sentence"),
        ("SI is low", 1.0, "condition is 1.0; allowed: True, False or a table of them"),
        ("SI is low", [], "condition is []; allowed: True, False or a table of them"),
        ("SI is low", "no", "condition is 'no'; allowed: True, False or a table of them"),
    ],
)
def test_what_is_no_check_is_refused(words, condition, line):
    with pytest.raises(ValueError) as error:
        expect(words, condition)
    assert str(error.value) == line


def checks(chapter):
    """The calls of `expect` of a chapter, each with its cell and with what follows the checks."""
    waiting = []
    for cell in jupytext.read(ROOT / f"{chapter}.py").cells:
        found = [*calls(cell)]
        if waiting and not found:
            yield from ((*each, cell) for each in waiting)
            waiting = []
        waiting += [(call, cell) for call in found]
    assert not waiting, "a check is for the prose below it"


def calls(cell):
    tree = ast.parse(cell.source if cell.cell_type == "code" else "")
    found = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return (node for node in found if ast.unparse(node.func) == "expect")


@pytest.mark.parametrize("chapter", chapters(ROOT))
def test_a_check_can_fail_and_stands_above_its_prose(chapter):
    for call, cell, after in checks(chapter):
        words, condition = call.args
        assert isinstance(words, ast.Constant) and after.cell_type == "markdown", words.value
        names = {node.id for node in ast.walk(condition) if isinstance(node, ast.Name)}
        assert names, f"{ast.unparse(call)} compares nothing"
        assert "hide-input" not in cell.metadata.get("tags", []), "a check is to be seen"


@pytest.mark.parametrize("chapter", chapters(ROOT))
def test_each_banner_shows_its_words(chapter, monkeypatch):
    """As they were written, whatever marks they have in them."""
    shown = []
    monkeypatch.setattr("ginv.pages.prose.display", lambda data, raw: shown.append(data))
    for call, *_ in checks(chapter):
        words = call.args[0].value
        expect(words, False)
        banner = shown.pop()
        assert words in banner["text/plain"] and html.escape(words) in banner["text/html"]


@pytest.mark.parametrize("chapter", chapters(ROOT))
def test_a_chapter_is_no_program(chapter):
    """400 lines of code at most."""
    cells = [c for c in jupytext.read(ROOT / f"{chapter}.py").cells if c.cell_type == "code"]
    lines = [line for cell in cells for line in cell.source.splitlines() if line.strip()]
    assert len(lines) <= 400
