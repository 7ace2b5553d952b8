"""Small grids, and what their tables have to look like."""

import pandas as pd

from ginv import Run
from ginv.runs.grid import COLUMNS, Grid

TINY = dict(width=16, depth=2, epochs=2, train_images=200, batch_size=100)
RUNS = tuple(Run(method="IR", nu=nu, seed=seed, **TINY) for nu in (1.0, 10.0) for seed in (0, 1))
GRID = Grid({"IR": RUNS, "WT": (Run("T3", "WT", **TINY),)}, images=40)


def written(tmp_path, text):
    (tmp_path / "grid.yaml").write_text(text)
    return tmp_path / "grid.yaml"


def assert_tidy(table):
    """A row for each recipe, run and metric of `GRID`, once, and nothing missing."""
    key = ["group", "recipe", "nu", "seed", "metric"]
    assert list(table.columns) == COLUMNS
    assert not table.duplicated(key).any() and table.notna().all(axis=None)
    recipes = GRID.recipes.items()
    runs = {(run.group, name, run.nu, run.seed) for name, runs in recipes for run in runs}
    assert set(table[key[:-1]].itertuples(index=False, name=None)) == runs
    assert len(table) == len(runs) * table.metric.nunique()


def assert_close(table, other):
    pd.testing.assert_frame_equal(table, other, rtol=1e-3, atol=1e-5)
