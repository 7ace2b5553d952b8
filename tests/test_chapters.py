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


def check_metrics(results):
    table = pd.read_csv(results / "metrics-quick.csv")
    assert list(table.columns) == ["group", "method", "seed", "metric", "value"]
    assert table.value.notna().all()
    value = table.groupby(["method", "group", "metric"]).value.mean().unstack()
    wt, da, ir, shrunk = (value.loc[method] for method in ("WT", "DA", "IR", "DA / 100"))
    assert list(da.index) == list(shrunk.index) == ["R4", "T3"]
    least = 1 / pd.Series({"R4": 4, "T3": 3})  # of SI, since pairs of a map with itself are in
    # In the last layer: one point under WT, and under DA no further apart than two images of a class
    assert (wt.distance_ratio < 1e-3).all()
    assert (ir.distance_ratio < da.distance_ratio).all() and da.distance_ratio.between(0.2, 1.1).all()
    # SI: its ceiling, its floors, and the choices that it must not hang on
    assert (wt["SI (as in this book)"] > 0.999).all() and (wt["SI (before training)"] > 0.999).all()
    floor = da["SI floor (as in this book)"]
    assert (floor.between(least, da["SI (as in this book)"]) & (floor < least + 0.15)).all()
    assert da["SI (before training)"].between(least, 0.6).all()
    assert ((da["SI (as in this book)"] - da["SI (200 steps)"]).abs() < 0.05).all()
    distinct = (da["SI (as in this book)"] - least) / (1 - least)
    assert ((da["SI (without pairs g = h)"] - distinct).abs() < 1e-4).all()
    # The exact attributions are the limit of the sums
    trained = value.loc[["WT", "DA", "IR"]]
    assert trained["attribution error, 50 steps"].between(1e-6, 0.05).all()
    assert trained["attribution gap, 50 steps"].between(1e-8, 0.05).all()
    # Shrunk logits fool LI and DI and not their companions
    assert (shrunk.LI < 1e-3 * da.LI).all() and (shrunk.DI < 0.1 * da.DI).all()
    for honest in ("relative_LI", "flip_rate", "SI", "orbit_over_sample_variance"):
        assert (shrunk[honest] > 0.5 * da[honest]).all()  # of other images, hence the width
    convolutional = value.loc["CNN", "R4"]
    assert convolutional.accuracy > 50 and 0.25 < convolutional.SI < 0.95


CHECKS = {"book/table1": check_table1, "book/metrics": check_metrics}


@pytest.mark.parametrize("chapter", chapters(ROOT))
def test_chapter(chapter, book, monkeypatch):
    monkeypatch.setenv("GINV_RUNS", str(book / "runs"))  # empty at first; later chapters find what earlier ones trained
    execute(book / f"{chapter}.py", "quick")
    if chapter in CHECKS:
        CHECKS[chapter](book / "book" / "results")
    provenance = pd.read_csv(book / "book" / "results" / "provenance.csv").set_index("chapter")
    line = provenance.loc[Path(chapter).name]
    assert line.profile == "quick" and line.seconds > 0 and line.notna().all()


def test_every_check_has_its_chapter():
    assert CHECKS.keys() <= set(chapters(ROOT))
