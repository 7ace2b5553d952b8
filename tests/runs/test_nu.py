import math
from types import SimpleNamespace

import pandas as pd
import pytest

from ginv import chosen_nu
from ginv.runs.nu import (
    COLUMNS,
    SEEDS,
    STEP,
    TARGET,
    next_runs,
    read_sweep,
    search,
    smallest_nu,
)


def swept(similarity):
    """The sweep over runs whose SI is `similarity(nu, seed)`."""
    table = pd.DataFrame(columns=COLUMNS)
    while runs := next_runs(table, "R4", "logit"):
        rows = [
            ["R4", "logit", run.nu, run.seed, 90, 0, 0, similarity(run.nu, run.seed)]
            for run in runs
        ]
        table = pd.DataFrame([*table.to_numpy().tolist(), *rows], columns=COLUMNS)
        assert len(table) < 40 and not table.duplicated(["nu", "seed"]).any()
    return smallest_nu(table)


@pytest.mark.parametrize("answer", [2.0, 9.0, 40.0, 3000.0])
@pytest.mark.parametrize("luck", [0.0, 0.002])
def test_the_sweep_finds_the_smallest_nu_for_all_seeds(answer, luck):
    """Also where the seed of the search does better than the others."""
    nu = swept(lambda nu, seed: 1 - 0.05 * (answer / nu) ** 0.3 + luck * (seed == 0) - luck / 4)
    assert answer <= nu < 1.1 * STEP * answer  # the tenth is for two digits of nu


def test_the_committed_sweep_is_what_the_search_asks_for():
    """Replayed on its own numbers, it asks for the rows of the table and for no other."""
    table = read_sweep()
    for (group, regulariser), rows in table.groupby(["group", "regulariser"]):
        keys, seen = list(zip(rows.nu, rows.seed, strict=True)), []
        while runs := next_runs(rows[[key in seen for key in keys]], group, regulariser):
            assert {(run.nu, run.seed) for run in runs} <= set(keys)
            seen += [(run.nu, run.seed) for run in runs]
        assert sorted(seen) == sorted(keys)


def test_the_sweep_ends_where_no_nu_will_do():
    assert swept(lambda nu, seed: 0.6) is None
    assert swept(lambda nu, seed: 0.96 if seed == 0 else 0.9) is None


def test_the_sweep_looks_beside_the_best_decade():
    """SI that rises, passes the target between two decades and falls again, as where a network
    dies.
    """
    nu = swept(lambda nu, seed: 0.97 - 0.1 * abs(math.log10(nu / 2500)))
    smallest = 2500 * 10**-0.2
    assert smallest <= nu < 1.1 * STEP * smallest


def test_nu_counts_only_with_all_seeds():
    rows = [(nu, seed, si) for nu, si in ((1.0, 0.9), (10.0, 0.96)) for seed in SEEDS] + [
        (3.0, 0, 0.97)
    ]
    assert smallest_nu(pd.DataFrame(rows, columns=["nu", "seed", "SI"])) == 10.0


def test_the_search_asks_for_what_is_next_until_nothing_is(monkeypatch):
    """With networks whose SI is known beforehand; all forms together."""
    rounds, smallest = [], {"logit": 9.0, "kl": 200.0}

    def train(runs, device):
        rounds.append(runs)
        return {run: run for run in runs}

    def measured(run, split, *, device, progress):
        assert split == "validation" and device == "cpu"
        similarity = 1 - 0.05 * (smallest[run.regulariser] / run.nu) ** 0.3
        return SimpleNamespace(summary=pd.Series(dict(accuracy=90, LI=0, DI=0, SI=similarity)))

    monkeypatch.setattr("ginv.runs.nu.train", train)
    monkeypatch.setattr("ginv.runs.nu.measured", measured)
    table = search([("R4", "logit"), ("R4", "kl")], device="cpu")
    assert list(table.columns) == COLUMNS and len(table) == sum(map(len, rounds))
    assert {run.regulariser for run in rounds[0]} == set(smallest)
    for form, rows in table.groupby("regulariser"):
        assert smallest[form] <= smallest_nu(rows) < 1.1 * STEP * smallest[form]
        assert next_runs(rows, "R4", form) == []


def test_the_chosen_nu_reaches_the_target_in_the_committed_sweep():
    table = read_sweep().set_index(["group", "regulariser"])
    for group in ("R4", "T3"):
        rows = table.loc[(group, "logit")]
        assert rows[rows.nu == chosen_nu(group)].SI.mean() >= TARGET
    with pytest.raises(ValueError, match=r"^no sweep of nu for R9 logit; swept: R4 kl, R4 logit"):
        chosen_nu("R9")
