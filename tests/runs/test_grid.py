"""Many runs: a grid says what it says, and is worked through once."""

import io
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pandas as pd
import pytest
from tiny import GRID, RUNS, TINY, assert_tidy, written

from ginv import Run
from ginv.runs import grid as grids
from ginv.runs.grid import COLUMNS, Grid, read_grid, run_grid
from ginv.runs.stopping import STOPPED

MANY = [*range(401)]


class TestGrid:
    def test_lists_are_all_of_their_values_in_turn(self, tmp_path):
        text = """
        split: test
        images: 70
        recipes:
          DA: {method: DA, group: [R4, T3], seed: [0, 3]}
          IR:
            - {method: IR, group: R4, nu: [1, 10]}
            - {method: IR, group: T3, nu: 0.5, dataset: FashionMNIST}
        """
        grid = read_grid(written(tmp_path, text))
        assert grid.recipes == {
            "DA": tuple(Run(group, seed=seed) for group in ("R4", "T3") for seed in (0, 3)),
            "IR": (
                Run("R4", "IR", nu=1),
                Run("R4", "IR", nu=10),
                Run("T3", "IR", nu=0.5, dataset="FashionMNIST"),
            ),
        }
        assert (grid.split, grid.images) == ("test", 70)

    def test_every_field_of_a_run_can_be_swept(self, tmp_path):
        values = {
            "group": ["R2", "T3"],
            "seed": [1, 2],
            "dataset": ["MNIST", "FashionMNIST"],
            "epochs": [1, 2],
        }
        values |= {
            "learning_rate": [0.1, 0.01],
            "width": [8, 9],
            "depth": [1, 2],
            "pooling": ["max", "mean"],
        }
        runs = read_grid(written(tmp_path, f"recipes: {{a: {dict(values, method='WT')}}}")).runs
        assert len(set(runs)) == math.prod(map(len, values.values())) == 2 ** len(values)
        for name, chosen in values.items():
            assert {getattr(run, name) for run in runs} == set(chosen)

    def test_a_run_of_two_recipes_is_one(self, tmp_path):
        text = "recipes: {a: &all {method: WT, seed: [0, 1]}, b: {<<: *all, seed: [1, 2]}}"
        grid = read_grid(written(tmp_path, text))
        assert grid.runs == [Run(method="WT", seed=seed) for seed in (0, 1, 2)]

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("", "FILE is None; allowed: a table with recipes"),
            ("[1, 2]", "FILE is [1, 2]; allowed: a table with recipes"),
            ("recipes: {}", "recipes is {}; allowed: a table of at least one"),
            ("recipes: {a: }", "recipe a is None; allowed: a table of fields of ginv.Run"),
            ("recipes: {a: []}", "recipe a is []; allowed: a table of fields of ginv.Run"),
            ("recipes: {a: {}}\nimage: 3", "key is 'image'; allowed: recipes, split, images"),
            ("recipes: {a: {}}\nimages: 2001", "images is 2001; allowed: 1 to 2000"),
            ("recipes: {a: {}}\nsplit: [test]", "split is ['test']; allowed: train, validation"),
            ("recipes: {a: {sede: 1}}", "field of recipe a is 'sede'; allowed: group, method"),
            ("recipes: {a: {seed: [0, -1]}}", "seed is -1; allowed: integers from 0"),
            ("recipes: {a: {seed: [[0]]}}", "seed is [0]; allowed: integers from 0"),
            ("recipes: {a: {seed: []}}", "number of runs of recipe a is 0; allowed: 1 to 100000"),
            (f"recipes: {{a: {{seed: {MANY}, width: {MANY}}}}}", "number of runs of recipe a is 1"),
            ("recipes: {a: {seed: [0, 1, 0]}}", "recipe a has a run twice: Run(group='R4'"),
            ("recipes: {a: [{seed: 1}, {seed: [0, 1]}]}", "recipe a has a run twice: Run(group="),
            ("recipes: {a: {seed: 0}, a: {seed: 1}}", "FILE is no YAML: a stands twice in the tab"),
            ("recipes: {a: {seed: 0, seed: 1}}", "FILE is no YAML: seed stands twice in the table"),
            ("recipes: {a: {seed: !!python/object/apply:os.getpid []}}", "FILE is no YAML: could"),
            ("!!python/object:ginv.Run {seed: 1}", "FILE is no YAML: could not determine"),
            ("recipes: {a: {seed: 0}", "FILE is no YAML: while parsing"),
        ],
    )  # fmt: skip
    def test_refuses_in_a_line(self, text, line, tmp_path):
        file = written(tmp_path, text)
        line = re.escape(line.replace("FILE", str(file)))
        with pytest.raises(ValueError, match=f"^{line}[^\n]*$"):
            read_grid(file)


@pytest.mark.parametrize("module", ["ginv.runs.grid", "ginv.check"])
def test_a_command_needs_no_docstring(module):
    command = [sys.executable, "-OO", "-m", module, "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_grid_goes_on_where_it_was(trainings, monkeypatch):
    some = RUNS[1:3]
    run_grid(replace(GRID, recipes={"some": some}))
    assert sorted(map(str, trainings)) == sorted(map(str, some))
    table = run_grid(GRID)
    assert_tidy(table)
    assert sorted(map(str, trainings)) == sorted(map(str, GRID.runs))
    for name in ("measure", "_off_data"):
        monkeypatch.setattr(
            f"ginv.runs.measured.{name}", lambda *_, **__: pytest.fail("measured again")
        )
    pd.testing.assert_frame_equal(run_grid(GRID), table)
    assert len(trainings) == len(GRID.runs)


def test_the_table_says_what_differs(monkeypatch):
    monkeypatch.setattr("ginv.runs.cluster.evaluated", lambda *_, **__: {"accuracy": 1.0})
    sizes = [dict(width=width, depth=depth) for width in (4, 5) for depth in (1, 2)]
    runs = tuple(Run(**TINY | size) for size in sizes)
    table = run_grid(Grid({"DA": runs, "other epochs": (Run(**TINY | {"epochs": 1}),)}))
    assert list(table.columns) == [*COLUMNS[:-2], "width", "depth", *COLUMNS[-2:]]
    assert table.groupby("recipe").size().to_dict() == {"DA": 4, "other epochs": 1}


def command(tmp_path, monkeypatch, *arguments):
    """What `python -m ginv.runs.grid` does on a tiny grid."""
    file = written(tmp_path, f"images: 20\nrecipes: {{DA: {TINY | {'epochs': 1}}}}")
    monkeypatch.setattr(sys, "argv", ["grid", str(file), *arguments])
    grids.main()


def test_the_command_prints_the_table_or_writes_it(tmp_path, monkeypatch, capsys):
    command(tmp_path, monkeypatch)
    out = capsys.readouterr().out
    assert list(pd.read_csv(io.StringIO(out)).columns) == COLUMNS
    command(tmp_path, monkeypatch, str(tmp_path / "table.csv"))
    assert capsys.readouterr().out == "" and (tmp_path / "table.csv").read_text() == out


def test_without_dask_a_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(SystemExit, match=r'^a scheduler needs Dask: pip install "ginv\[sweep\]"$'):
        command(tmp_path, monkeypatch, "--scheduler", "tcp://127.0.0.1:8786")
    command(tmp_path, monkeypatch)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_command_with_one_line(number, times, tmp_path):
    """And waits for no step, however long: this one's is of minutes."""
    text = f"recipes: {{DA: {dict(epochs=1, width=16_000, depth=3, batch_size=10_000)}}}"
    table, store = tmp_path / "table.csv", tmp_path / "runs"
    process = subprocess.Popen(
        [sys.executable, "-m", "ginv.runs.grid", str(written(tmp_path, text)), str(table)],
        env={**os.environ, "GINV_RUNS": str(store)},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not store.joinpath(".locks").is_dir():  # it trains, or begins to
        assert process.poll() is None
        time.sleep(0.1)
    time.sleep(1)
    for _ in range(times):
        process.send_signal(number)
    said = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 1 and not table.exists()
    assert said[-1] == STOPPED and not any("Traceback" in line for line in said)
