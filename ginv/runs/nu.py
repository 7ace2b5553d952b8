"""The weight nu of the regulariser: the smallest with SI >= 0.95 (Section 4.1).

`make tune` redoes the search; its table, `nu_sweep.csv`, is what every other run reads its nu from.
"""

import textwrap
from dataclasses import replace
from functools import lru_cache
from importlib.resources import files

import pandas as pd

from ginv.machine import choose_device
from ginv.recipe import INITIALISATIONS, REGULARISERS, Run
from ginv.refuse import require
from ginv.runs.measured import measured
from ginv.runs.train import train

TARGET = 0.95
WIDTH = 0.0025  # the mean SI of the answer is at most so far above: two standard errors of it
NARROW = 1.1  # or else nu is within this factor of one whose SI is below the target
SEEDS = (0, 1, 2, 3)
SEARCH_SEED = SEEDS[0]  # finds the neighbourhood; the answer is that of all seeds
DECADES = (1.0, 10.0, 100.0)  # and on, to LARGEST, while SI stays below the target
LARGEST, SMALLEST = 1e4, 1e-2
STEP = 10 ** (1 / 4)  # 1.8: how near one seed goes
FORM = ["group", "regulariser", "initialisation", "whole_orbit"]  # fields of Run
COLUMNS = [*FORM, "nu", "seed", "accuracy", "LI", "DI", "SI"]


def search(
    forms: list[Run], table: pd.DataFrame | None = None, *, device: str = "auto"
) -> pd.DataFrame:
    """Search for the smallest nu of each form of IR, on the validation images.

    forms: runs of IR, of which `FORM` counts. table: of a search before, which goes on. What is
    next for all forms trains together. Columns of the table: `COLUMNS`.
    """
    choose_device(device)
    fits = isinstance(forms, list) and bool(forms)
    require(fits, "forms", forms, "a list of runs such as Run('R4', 'IR', nu=1.0)")
    for form in forms:
        fits = isinstance(form, Run) and form.method == "IR"
        fits = fits and {*form.specification} <= {*FORM, "method", "nu", "seed"}
        require(fits, "form", form, f"a run of IR, which differs from others in {', '.join(FORM)}")
    table = pd.DataFrame(columns=COLUMNS) if table is None else table[COLUMNS]

    while runs := [run for form in forms for run in next_runs(table, form)]:
        rows = []
        for run, trained in train(runs, device=device).items():
            summary = measured(trained, "validation", device=device, progress=False).summary
            rows.append([getattr(run, name) for name in COLUMNS[:6]] + [*summary[COLUMNS[6:]]])
        added = pd.DataFrame(rows, columns=COLUMNS)
        table = added if table.empty else pd.concat([table, added])
    return table.sort_values(COLUMNS[:6], ignore_index=True)


def next_runs(table: pd.DataFrame, form: Run) -> list[Run]:
    """What the search for one form trains next, given the rows so far; nothing once it is done.

    With one seed: decades, then the decade in which SI passes the target is halved, in the
    logarithm, until it is a `STEP`. Where no decade reaches it, the middle of those around the
    best is tried. From there with all seeds, by their mean SI.
    """
    rows = rows_of(table, form)
    reached = rows[rows.seed == SEARCH_SEED].groupby("nu").SI.mean()
    passing = reached.index[reached >= TARGET]
    nus: list[float] = []
    seeds: tuple[int, ...] = (SEARCH_SEED,)
    if reached.empty:
        nus = [*DECADES]
    elif passing.empty and reached.index.max() < LARGEST:
        nus = [10 * reached.index.max()]
    elif passing.empty:
        best = reached.idxmax()
        near = [
            reached.index[reached.index < best].max(),
            reached.index[reached.index > best].min(),
        ]
        nus = [(best * nu) ** 0.5 for nu in near if max(best / nu, nu / best) > 5]
    elif (
        1.05 * STEP * (below := reached.index[reached.index < passing.min()].max()) < passing.min()
    ):
        nus = [(below * passing.min()) ** 0.5]
    nus = [float(f"{nu:.2g}") for nu in nus]
    if not nus:
        start = reached.idxmax() if passing.empty else passing.min()
        nus, seeds = _next_with_all_seeds(rows, start), SEEDS
    done = {*zip(rows.nu, rows.seed, strict=True)}
    return [
        replace(form, nu=nu, seed=seed)
        for nu in nus
        for seed in seeds
        if nu <= LARGEST and (nu, seed) not in done
    ]


def _next_with_all_seeds(rows: pd.DataFrame, start: float) -> list[float]:
    """From the start a `STEP` up, a decade at most, or down until two nu have the target between
    them; then by interpolation, in the logarithm.
    """
    reached = _with_all_seeds(rows)
    passing = reached.index[reached >= TARGET]
    if reached.empty:
        return [start]
    if passing.empty:
        return [nu for nu in [float(f"{reached.index.max() * STEP:.2g}")] if nu <= 10 * start]
    above = passing.min()
    failing = reached.index[reached.index < above]
    if reached[above] <= TARGET + WIDTH:
        return []
    if failing.empty:  # where SI is 1 whatever nu is, it has no end
        return [nu for nu in [float(f"{above / STEP:.2g}")] if nu >= SMALLEST]
    below = failing.max()
    if above <= NARROW * below:
        return []
    share = (TARGET + WIDTH / 2 - reached[below]) / (reached[above] - reached[below])
    return [float(f"{below * (above / below) ** min(max(share, 0.1), 0.9):.3g}")]


def rows_of(table: pd.DataFrame, form: Run) -> pd.DataFrame:
    """The rows of a search for one form."""
    return table[(table[FORM] == [getattr(form, name) for name in FORM]).all(axis=1)]


def _with_all_seeds(rows: pd.DataFrame) -> pd.Series:
    """Mean SI by nu, where all `SEEDS` are there."""
    reached = rows.groupby("nu").agg(SI=("SI", "mean"), seeds=("seed", "nunique"))
    return reached.SI[reached.seeds == len(SEEDS)]


def smallest_nu(rows: pd.DataFrame) -> float | None:
    """The smallest nu of a form whose mean SI over all `SEEDS` reaches the target, or None."""
    reached = _with_all_seeds(rows)
    return min(reached.index[reached >= TARGET], default=None)


def chosen_nu(
    group: str,
    regulariser: str = "logit",
    initialisation: str = "pytorch",
    *,
    whole_orbit: bool = False,
) -> float:
    """nu for a form of IR, from the table of the search.

    The smallest that reaches the target or, where none does, the one that comes nearest. Raises
    ValueError where the table has no such rows.
    """
    require(isinstance(group, str), "group", group, "the name of a group, such as R4")
    for name, value, allowed in (
        ("regulariser", regulariser, REGULARISERS),
        ("initialisation", initialisation, INITIALISATIONS),
    ):
        require(isinstance(value, str), name, value, ", ".join(allowed))
    require(isinstance(whole_orbit, bool), "whole_orbit", whole_orbit, "False, True")
    form = group, regulariser, initialisation, whole_orbit
    table = whole_sweep()
    rows = table[(table[FORM] == [*form]).all(axis=1)]
    if rows.empty:
        swept = sorted({_words(*each) for each in table[FORM].itertuples(index=False)})
        asked = textwrap.shorten(_words(*form), 200)
        raise ValueError(f"no sweep of nu for {asked}; swept: {', '.join(swept)}")
    return smallest_nu(rows) or rows.groupby("nu").SI.mean().idxmax()


def _words(group: str, regulariser: str, initialisation: str, whole_orbit: bool) -> str:
    """A form, what is as in Table 1 left out."""
    further = [initialisation] * (initialisation != "pytorch") + ["whole orbit"] * whole_orbit
    return " ".join([group, regulariser, *further])


def read_sweep() -> pd.DataFrame:
    """The search for the forms of Table 1 and Figure 5: PyTorch's weights and random pairs."""
    table = whole_sweep()
    return table[(table.initialisation == "pytorch") & ~table.whole_orbit]


def whole_sweep() -> pd.DataFrame:
    """The table of the search that comes with the package; a copy."""
    return _whole_sweep().copy()


@lru_cache
def _whole_sweep() -> pd.DataFrame:
    with files("ginv.runs").joinpath("nu_sweep.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)
