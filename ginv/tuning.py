"""The weight nu of the regulariser: the smallest that reaches SI >= 0.95 on the validation images (Section 4.1).

`python -m ginv.tuning SWEEP.csv` redoes the sweep; the committed table is what every other run reads its nu from.
"""

import argparse
from functools import lru_cache
from pathlib import Path

import pandas as pd

from ginv.data import load_dataset
from ginv.groups import group_named
from ginv.metrics import measure
from ginv.training import Run, choose_device, train

TARGET = 0.95
SEEDS = (0, 1)
COARSE = (0.1, 1.0, 10.0, 100.0)
BISECTIONS = 3  # of a factor of 10: the answer is within a factor of 10 ** (1 / 8) = 1.33
COLUMNS = ["group", "regulariser", "nu", "seed", "accuracy", "LI", "DI", "SI"]


def sweep(group: str, regulariser: str = "logit", *, device: str = "auto") -> pd.DataFrame:
    """Train IR over a coarse grid of nu, then halve (in the logarithm) the interval in which SI passes the target."""
    table = pd.DataFrame(_rows(group, regulariser, COARSE, device), columns=COLUMNS)
    for _ in range(BISECTIONS):
        similarity = table.groupby("nu").SI.mean()
        above = smallest_nu(table)
        if above is None or not (below := similarity.index[similarity.index < above]).size:
            break
        middle = float(f"{(below.max() * above) ** 0.5:.2g}")
        table = pd.concat([table, pd.DataFrame(_rows(group, regulariser, [middle], device), columns=COLUMNS)])
    return table.sort_values(["nu", "seed"], ignore_index=True)


def smallest_nu(table: pd.DataFrame) -> float | None:
    """The smallest nu of a sweep whose SI, averaged over seeds, reaches the target; None where none does."""
    similarity = table.groupby("nu").SI.mean()
    return min(similarity.index[similarity >= TARGET], default=None)


def chosen_nu(group: str, regulariser: str = "logit") -> float:
    """nu for a group and a form of the regulariser, from the committed sweep.

    Raises ValueError where the sweep has no such rows or none of them reaches the target.
    """
    table = read_sweep()
    rows = table[(table.group == group) & (table.regulariser == regulariser)]
    if (nu := smallest_nu(rows)) is None:
        swept = sorted({f"{g} {r}" for g, r in zip(table.group, table.regulariser, strict=True)})
        raise ValueError(f"no nu reaches SI {TARGET} for {group} {regulariser}; swept: {', '.join(swept)}")
    return nu


@lru_cache
def read_sweep() -> pd.DataFrame:
    """The committed table, in the clone or in the installed package."""
    here = Path(__file__).resolve().parent
    clone = here.parent / "book" / "results" / "nu_sweep.csv"
    return pd.read_csv(clone if clone.is_file() else here / "nu_sweep.csv")


def _rows(group: str, regulariser: str, nus: tuple[float, ...] | list[float], device: str) -> list[list]:
    runs = [Run(group, "IR", seed, nu, regulariser) for nu in nus for seed in SEEDS]
    where, rows = choose_device(device), []
    for run, trained in train(runs, device=device).items():
        images = load_dataset(run.dataset).validation.to(where)
        measured = measure(trained.model.to(where), images.images, images.labels, group_named(group)).summary
        rows.append([group, regulariser, run.nu, run.seed, *measured[COLUMNS[4:]]])
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    pd.concat([sweep(group, device=arguments.device) for group in ("R4", "T3")]).round(6).to_csv(
        arguments.output, index=False
    )
