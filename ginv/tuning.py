"""The weight nu of the regulariser: the smallest that reaches SI >= 0.95 on the validation images (Section 4.1).

`python -m ginv.tuning SWEEP.csv` redoes the sweep; the committed table is what every other run reads its nu from.
"""

import argparse
import sys
from functools import lru_cache
from pathlib import Path

import pandas as pd

from ginv.data import load_dataset
from ginv.groups import group_named
from ginv.metrics import measure
from ginv.training import REGULARISERS, Run, TrainedRun, choose_device, train

GROUPS = ("R4", "T3")
TARGET = 0.95
SEEDS = (0, 1, 2, 3)
SEARCH_SEED = SEEDS[0]  # the search is done with this one; its answer must hold for all
DECADES = (1.0, 10.0, 100.0)  # and on, to LARGEST, while SI stays below the target
LARGEST = 1e4
STEP = 10 ** (1 / 4)  # 1.8: the answer is within this factor of the smallest nu
COLUMNS = ["group", "regulariser", "nu", "seed", "accuracy", "LI", "DI", "SI"]


def sweep(forms: list[tuple[str, str]], *, device: str = "auto") -> pd.DataFrame:
    """Sweep nu for each (group, regulariser) until its smallest nu is known; what is next for all trains together."""
    rows: list[list] = []
    while runs := [run for form in forms for run in next_runs(pd.DataFrame(rows, columns=COLUMNS), *form)]:
        rows += [_row(trained, device) for trained in train(runs, device=device).values()]
    return pd.DataFrame(rows, columns=COLUMNS).sort_values(COLUMNS[:4], ignore_index=True)


def next_runs(table: pd.DataFrame, group: str, regulariser: str) -> list[Run]:
    """What the sweep of one form trains next, given the rows so far; nothing once it is done.

    With one seed: decades, then the decade in which SI passes the target is halved, in the logarithm, until it is a
    `STEP`. With all seeds: the nu so found, raised by a `STEP` at a time, a decade at most, until their mean SI reaches
    the target. Where no decade reaches it, the middle of those around the best is tried.
    """
    rows = table[(table.group == group) & (table.regulariser == regulariser)]
    search = rows[rows.seed == SEARCH_SEED].groupby("nu").SI.mean()
    passing = search.index[search >= TARGET]
    nus: list[float] = []
    seeds: tuple[int, ...] = (SEARCH_SEED,)
    if search.empty:
        nus = list(DECADES)
    elif passing.empty and search.index.max() < LARGEST:
        nus = [10 * search.index.max()]
    elif passing.empty:  # perhaps between the best decade and the next
        best = search.idxmax()
        near = [search.index[search.index < best].max(), search.index[search.index > best].min()]
        nus = [(best * nu) ** 0.5 for nu in near if max(best / nu, nu / best) > 5]
    elif 1.05 * STEP * (below := search.index[search.index < passing.min()].max()) < passing.min():
        nus = [(below * passing.min()) ** 0.5]
    elif smallest_nu(rows) is None:
        confirmed = rows[rows.seed != SEARCH_SEED].nu
        nus, seeds = [passing.min() if confirmed.empty else confirmed.max() * STEP], SEEDS
        nus = [nu for nu in nus if nu <= 10 * passing.min()]
    nus = [float(f"{nu:.2g}") for nu in nus if nu <= LARGEST]
    done = set(zip(rows.nu, rows.seed, strict=True))
    return [Run(group, "IR", seed, nu, regulariser) for nu in nus for seed in seeds if (nu, seed) not in done]


def smallest_nu(table: pd.DataFrame) -> float | None:
    """The smallest nu whose SI, averaged over all of `SEEDS`, reaches the target; None where none does."""
    nus = table.groupby("nu").agg(SI=("SI", "mean"), seeds=("seed", "nunique"))
    return min(nus.index[(nus.SI >= TARGET) & (nus.seeds == len(SEEDS))], default=None)


def chosen_nu(group: str, regulariser: str = "logit") -> float:
    """nu for a group and a form of the regulariser, from the committed sweep: the smallest that reaches the target or,
    where none does, the one that comes nearest. Raises ValueError where the sweep has no such rows.
    """
    table = read_sweep()
    rows = table[(table.group == group) & (table.regulariser == regulariser)]
    if rows.empty:
        swept = sorted({f"{g} {r}" for g, r in zip(table.group, table.regulariser, strict=True)})
        raise ValueError(f"no sweep of nu for {group} {regulariser}; swept: {', '.join(swept)}")
    return smallest_nu(rows) or rows.groupby("nu").SI.mean().idxmax()


@lru_cache
def read_sweep() -> pd.DataFrame:
    """The committed table, in the clone or in the installed package."""
    here = Path(__file__).resolve().parent
    clone = here.parent / "book" / "results" / "nu_sweep.csv"
    return pd.read_csv(clone if clone.is_file() else here / "nu_sweep.csv")


def _row(trained: TrainedRun, device: str) -> list:
    where, run = choose_device(device), trained.run
    images = load_dataset(run.dataset).validation.to(where)
    group = group_named(run.group)
    measured = measure(trained.model.to(where), images.images, images.labels, group, progress=False).summary
    return [run.group, run.regulariser, run.nu, run.seed, *measured[COLUMNS[4:]]]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    try:
        choose_device(arguments.device)
        arguments.output.open("a").close()
    except (ValueError, OSError) as error:  # now, and not after the sweep
        sys.exit(str(error))
    forms = [(group, regulariser) for group in GROUPS for regulariser in REGULARISERS]
    sweep(forms, device=arguments.device).round(6).to_csv(arguments.output, index=False)
