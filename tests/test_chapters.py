"""Every chapter through papermill at the quick profile; the numbers that it records lie in ranges.

Ranges, since digits differ between machines: wide enough for that, too narrow for a wrong method.
"""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from execute import chapters, execute

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """A copy of the book without its results."""
    folder = tmp_path_factory.mktemp("book")
    shutil.copytree(ROOT / "book", folder / "book")
    for table in (folder / "book" / "results").iterdir():
        if table.name != "nu_sweep.csv":  # an input: `make tune` writes it
            table.unlink()
    return folder


def check_table1(results):
    table = pd.read_csv(results / "table1-quick.csv")
    assert list(table.columns) == ["group", "method", "seed", "nu", "metric", "value"]
    value = table.pivot_table(index=["group", "method"], columns="metric", values="value")
    assert sorted(value.index) == [(group, method) for group in ("R4", "T3") for method in ("DA", "IR", "WT")]
    wt, da, ir = (value.xs(method, level="method") for method in ("WT", "DA", "IR"))
    assert (wt[["LI", "DI"]] < 1e-6).all(axis=None) and (wt.SI > 0.999).all()
    assert wt.accuracy.between(90, 98).all() and da.accuracy.between(84, 97).all()
    assert ir.accuracy.between(50, 95).all() and (ir.accuracy < da.accuracy).all()
    assert da.LI.between(0.7, 5).all() and (ir.LI < da.LI / 10).all()
    assert da.DI.between(0.02, 0.5).all() and (ir.DI < da.DI).all()
    assert da.SI.between(0.35, 0.85).all() and ir.SI.between(0.75, 0.995).all() and (ir.SI > da.SI).all()


CHECKS = {"book/table1": check_table1}


@pytest.mark.parametrize("chapter", chapters(ROOT))
def test_chapter(chapter, book, monkeypatch):
    monkeypatch.setenv("GINV_RUNS", str(book / "runs"))  # empty at first; later chapters find what earlier ones trained
    execute(book / f"{chapter}.py", "quick")
    if chapter in CHECKS:
        CHECKS[chapter](book / "book" / "results")


def test_every_check_has_its_chapter():
    assert CHECKS.keys() <= set(chapters(ROOT))
