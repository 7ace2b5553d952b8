"""The weight nu of the regulariser: the smallest with SI >= 0.95 (Section 4.1).

`make tune` redoes the search; its table, `nu_sweep.csv`, is what every other run reads its nu from.
"""

import textwrap
from functools import lru_cache
from importlib.resources import files

import pandas as pd

from ginv.machine import choose_device
from ginv.recipe import REGULARISERS, Run
from ginv.refuse import require
from ginv.runs.measured import measured
from ginv.runs.train import train

TARGET = 0.95
SEEDS = (0, 1, 2, 3)
SEARCH_SEED = SEEDS[0]  # the search is done with this one; its answer must hold for all
DECADES = (1.0, 10.0, 100.0)  # and on, to LARGEST, while SI stays below the target
LARGEST = 1e4
STEP = 10 ** (1 / 4)  # 1.8: the answer is within this factor of the smallest nu
COLUMNS = ["group", "regulariser", "nu", "seed", "accuracy", "LI", "DI", "SI"]


def search(forms: list[tuple[str, str]], *, device: str = "auto") -> pd.DataFrame:
    """Search for the smallest nu of each (group, regulariser), on the validation images.

    What is next for all of them trains together. Columns of the table: `COLUMNS`.
    """
    choose_device(device)
    require(isinstance(forms, list), "forms", forms, "a list of pairs such as ('R4', 'logit')")
    for form in forms:
        fits = isinstance(form, tuple) and len(form) == 2 and all(isinstance(n, str) for n in form)
        require(fits, "form", form, "a group and a regulariser, such as ('R4', 'logit')")
        Run(form[0], "IR", nu=1.0, regulariser=form[1])  # refuses one that is not there
    rows: list[list] = []

    def wanted() -> list[Run]:
        table = pd.DataFrame(rows, columns=COLUMNS)
        return [run for form in forms for run in next_runs(table, *form)]

    while runs := wanted():
        for run, trained in train(runs, device=device).items():
            summary = measured(trained, "validation", device=device, progress=False).summary
            rows.append([run.group, run.regulariser, run.nu, run.seed, *summary[COLUMNS[4:]]])
    return pd.DataFrame(rows, columns=COLUMNS).sort_values(COLUMNS[:4], ignore_index=True)


def next_runs(table: pd.DataFrame, group: str, regulariser: str) -> list[Run]:
    """What the search for one form trains next, given the rows so far; nothing once it is done.

    With one seed: decades, then the decade in which SI passes the target is halved, in the
    logarithm, until it is a `STEP`. With all seeds: the nu so found, raised by a `STEP` at a time,
    a decade at most, until their mean SI reaches the target. Where no decade reaches it, the middle
    of those around the best is tried.
    """
    rows = table[(table.group == group) & (table.regulariser == regulariser)]
    reached = rows[rows.seed == SEARCH_SEED].groupby("nu").SI.mean()
    passing = reached.index[reached >= TARGET]
    nus: list[float] = []
    seeds: tuple[int, ...] = (SEARCH_SEED,)
    if reached.empty:
        nus = list(DECADES)
    elif passing.empty and reached.index.max() < LARGEST:
        nus = [10 * reached.index.max()]
    elif passing.empty:  # perhaps between the best decade and the next
        best = reached.idxmax()
        near = [
            reached.index[reached.index < best].max(),
            reached.index[reached.index > best].min(),
        ]
        nus = [(best * nu) ** 0.5 for nu in near if max(best / nu, nu / best) > 5]
    elif 1.05 * STEP * reached.index[reached.index < passing.min()].max() < passing.min():
        below = reached.index[reached.index < passing.min()].max()
        nus = [(below * passing.min()) ** 0.5]
    elif smallest_nu(rows) is None:
        confirmed = rows[rows.seed != SEARCH_SEED].nu
        nus, seeds = [passing.min() if confirmed.empty else confirmed.max() * STEP], SEEDS
        nus = [nu for nu in nus if nu <= 10 * passing.min()]
    nus = [float(f"{nu:.2g}") for nu in nus if nu <= LARGEST]
    done = set(zip(rows.nu, rows.seed, strict=True))
    return [
        Run(group, "IR", seed, nu, regulariser)
        for nu in nus
        for seed in seeds
        if (nu, seed) not in done
    ]


def smallest_nu(table: pd.DataFrame) -> float | None:
    """The smallest nu whose SI, averaged over all `SEEDS`, reaches the target, or None."""
    nus = table.groupby("nu").agg(SI=("SI", "mean"), seeds=("seed", "nunique"))
    return min(nus.index[(nus.SI >= TARGET) & (nus.seeds == len(SEEDS))], default=None)


def chosen_nu(group: str, regulariser: str = "logit") -> float:
    """nu for a group and a form of the regulariser, from the table of the search.

    The smallest that reaches the target or, where none does, the one that comes nearest. Raises
    ValueError where the table has no such rows.
    """
    require(isinstance(group, str), "group", group, "the name of a group, such as R4")
    fits = isinstance(regulariser, str)
    require(fits, "regulariser", regulariser, ", ".join(REGULARISERS))
    table = read_sweep()
    rows = table[(table.group == group) & (table.regulariser == regulariser)]
    if rows.empty:
        swept = sorted({f"{g} {r}" for g, r in zip(table.group, table.regulariser, strict=True)})
        form = textwrap.shorten(f"{group} {regulariser}", 200)
        raise ValueError(f"no sweep of nu for {form}; swept: {', '.join(swept)}")
    return smallest_nu(rows) or rows.groupby("nu").SI.mean().idxmax()


@lru_cache
def read_sweep() -> pd.DataFrame:
    """The table of the search that comes with the package."""
    with files("ginv.runs").joinpath("nu_sweep.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)
