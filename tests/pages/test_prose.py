"""Prose that holds of the run that a page shows, or a banner."""

import ast
from itertools import pairwise
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
    """The calls of `expect` of a chapter, and where the next prose begins."""
    cells = jupytext.read(ROOT / f"{chapter}.py").cells
    for cell, after in pairwise(cells):
        if cell.cell_type == "code":
            for node in ast.walk(ast.parse(cell.source)):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "expect":
                    yield cell, after, node


@pytest.mark.parametrize("chapter", chapters(ROOT))
def test_a_check_can_fail_and_stands_above_its_prose(chapter):
    for cell, after, call in checks(chapter):
        words, condition = call.args
        assert isinstance(words, ast.Constant) and after.cell_type == "markdown", call.lineno
        names = {node.id for node in ast.walk(condition) if isinstance(node, ast.Name)}
        assert names, f"{ast.unparse(call)} compares nothing"
        assert "hide-input" not in cell.metadata.get("tags", []), "a check is to be seen"
