"""The weekly comparison sees what moved, and nothing else."""

import shutil
import sys

import numpy as np
import pandas as pd
import pytest
from compare import COMMITTED, TABLES, main, moved_means, moved_verdicts

SEEDS = range(4)


def table(shift=0.0, draw=0):
    """Two quantities over four seeds, drawn anew: one varies, one is exact."""
    noise = np.random.default_rng(draw).normal(size=4)
    varies = [("R4", "accuracy", seed, 90 + shift + noise[seed]) for seed in SEEDS]
    exact = [("R4", "SI", seed, 1.0 + shift / 100) for seed in SEEDS]
    return pd.DataFrame(varies + exact, columns=["group", "metric", "seed", "value"])


def test_another_training_of_the_same_has_not_moved():
    found = sum(len(moved_means(table(), table(draw=draw))) for draw in range(1, 100))
    assert found <= 2


@pytest.mark.parametrize("shift", [-6, 6])
def test_what_moved_is_found(shift):
    assert len(moved_means(table(), table(shift, draw=1))) == 2


def test_a_missing_row_or_a_number_that_is_none_has_moved():
    assert len(moved_means(table(), table().query("metric == 'SI'"))) == 1
    assert len(moved_means(table().query("metric == 'SI'"), table())) == 1
    broken = table().assign(value=lambda t: t.value.where(t.metric == "SI"))
    assert len(moved_means(table(), broken)) == 1


def test_a_turned_verdict_is_found():
    before = pd.DataFrame({"id": ["a", "b"], "verdict": ["reproduced", "undecided"]})
    turned = before.assign(verdict=["reproduced", "reproduced"])
    assert moved_verdicts(before, before).empty
    assert moved_verdicts(before, turned).index.tolist() == ["b"]
    assert moved_verdicts(before, turned[:1]).after.tolist() == ["no row"]


def test_the_command(tmp_path, capsys, monkeypatch):
    """The committed tables have not moved from themselves; one that is altered has."""
    for name in (*TABLES, "claims"):
        shutil.copy(COMMITTED / f"{name}.csv", tmp_path)
    monkeypatch.setattr(sys, "argv", ["compare", str(tmp_path)])
    assert main() == 0
    altered = pd.read_csv(tmp_path / "table1.csv")
    altered.assign(value=altered.value + 10.0).to_csv(tmp_path / "table1.csv", index=False)
    assert main() == 1 and "table1:\n" in capsys.readouterr().out
