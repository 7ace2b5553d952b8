"""The golden numbers: what Table 1 is at the quick profile, and how far rounding alone moves it.

`python tools/golden.py` redoes `tests/book/golden.csv`, in a quarter of an hour: for a change of
the science that is meant.

Training makes rounding errors grow. So the networks are trained a number of times: on one thread
and on two, alone and stacked with another seed, each time from initial weights that are off by a
rounding error. A golden number is the mean of these; its tolerance is four times the largest
distance from it, or `FLOOR` where that is more.

After the quick profile's 20 epochs an error has grown to the size of the spread over seeds: these
numbers catch a wrong method, and no learning rate of 9e-4. After the first epoch an error is still
small: those numbers do.
"""

import argparse
import os
import tempfile
from dataclasses import replace
from itertools import product
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch

from ginv import Run, train
from ginv.pages import Settings

FILE = Path(__file__).parents[1] / "tests" / "book" / "golden.csv"
KEY = ["epochs", "group", "method", "metric"]
FLOOR = {"accuracy": 0.1, "LI": 1e-6, "DI": 1e-6, "SI": 1e-4}
ROUNDING = 1e-7  # relative, of float32
QUICK = Settings("quick", device="cpu")
REPEATS = {1: 5, 20: 2}  # of each way to train, by epochs


def table1(epochs: int, seeds: list[int]) -> pd.DataFrame:
    """Table 1 of seed 0 after so many epochs at the quick profile; these seeds are stacked."""
    runs = [replace(run, epochs=epochs) for run in QUICK.runs()]
    # One call each: of two stacks at a time, `train` gives each half the threads
    trained = {
        run: train([replace(run, seed=seed) for seed in seeds], device="cpu")[run] for run in runs
    }
    return QUICK.table(trained)


def values(table: pd.DataFrame, epochs: int) -> pd.Series:
    """The golden metrics of a table in long form."""
    return table[table.metric.isin(FLOOR)].assign(epochs=epochs).set_index(KEY).value


def assert_golden(table: pd.DataFrame, epochs: int) -> None:
    """That Table 1 after these epochs is what it was, up to rounding."""
    golden = pd.read_csv(FILE).set_index(KEY).loc[[epochs]]
    golden["found"] = values(table, epochs)
    moved = golden[~((golden.found - golden.value).abs() <= golden.tolerance)]
    assert moved.empty, (
        f"moved by more than rounding:\n{moved}\nIf that is meant: python tools/golden.py"
    )


def with_rounding(epochs: int, repeat: int, threads: int, seeds: list[int]) -> pd.Series:
    """The golden metrics, trained in one way from initial weights off by a rounding error."""
    model, generator = Run.model, torch.Generator().manual_seed(repeat)

    def rounded(*arguments):
        network = model(*arguments)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter *= 1 + ROUNDING * torch.randn(parameter.shape, generator=generator)
        return network

    torch.set_num_threads(threads)
    with (
        tempfile.TemporaryDirectory() as store,
        patch.dict(os.environ, GINV_RUNS=store),
        patch.object(Run, "model", rounded),
    ):
        return values(table1(epochs, seeds), epochs)


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()  # refuses any
    parts = []
    for epochs, repeats in REPEATS.items():
        ways = product(range(repeats), (1, 2), ([0], [0, 1]))
        trained = pd.DataFrame([with_rounding(epochs, i, *way[1:]) for i, way in enumerate(ways)])
        spread = (trained - trained.mean()).abs().max()
        floor = spread.index.get_level_values("metric").map(FLOOR)
        parts.append(
            pd.DataFrame({"value": trained.mean(), "tolerance": np.maximum(4 * spread, floor)})
        )
    pd.concat(parts).to_csv(FILE, float_format="%.6g")


if __name__ == "__main__":
    main()
