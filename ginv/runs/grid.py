"""Many runs: `python -m ginv.runs.grid GRID.yaml TABLE.csv` trains and measures each of a grid.

A grid names recipes; each is a table, or a list of tables, of the fields of `Run`, where a list of
values means all of them in turn::

    split: validation
    recipes:
      DA: {method: DA, group: [R4, T3], seed: [0, 1]}
      IR:
        - {method: IR, group: R4, nu: [1, 10], seed: [0, 1]}
        - {method: IR, group: T3, nu: [10, 100], seed: [0, 1]}

What is in the store is neither trained nor measured again, so that a sweep which was stopped goes
on where it was.

With `--scheduler tcp://HOST:PORT` the workers of a Dask that runs there do the work, a stack at a
time, each with the store that its own `GINV_RUNS` names: a folder that they share, or, with
`--store URL`, one that all records come from and go to.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import product
from math import prod
from pathlib import Path

import pandas as pd
import torch

from ginv.data import SPLITS
from ginv.machine import choose_device
from ginv.recipe import Run
from ginv.refuse import require
from ginv.runs import costs
from ginv.runs.cluster import (
    Values,
    on_workers,
    redacted,
    require_remote,
    require_scheduler,
    work,
)
from ginv.runs.files import require_writable, write_whole
from ginv.runs.stopping import end_when_told
from ginv.runs.strict_yaml import read_yaml
from ginv.runs.train import LARGEST_STACK, MOST_RUNS, stacks

COLUMNS = ["group", "recipe", "nu", "seed", "metric", "value"]
SUMMARY = (__doc__ or "Many runs.").splitlines()[0]  # there is none with python -OO


@dataclass(frozen=True)
class Grid:
    """Runs by the name of their recipe, and the first images of a split, to measure them on.

    Raises ValueError, in one line, for a value that is not allowed.
    """

    recipes: dict[str, tuple[Run, ...]]
    split: str = "validation"
    images: int = SPLITS["validation"]

    def __post_init__(self) -> None:
        _require_split(self.split)
        most = SPLITS[self.split]
        fits = type(self.images) is int and 1 <= self.images <= most
        require(fits, "images", self.images, f"1 to {most}")
        _require_recipes(self.recipes)
        for name, runs in self.recipes.items():
            fits = isinstance(runs, list | tuple) and bool(runs)
            fits = fits and all(isinstance(run, Run) for run in runs)
            require(fits, f"recipe {name}", runs, "ginv.Run objects in a list, at least one")
            if twice := [run for run, count in Counter(runs).items() if count > 1]:
                raise ValueError(f"recipe {name} has a run twice: {twice[0]}")

    @property
    def runs(self) -> list[Run]:
        """Each once."""
        return list(dict.fromkeys(run for runs in self.recipes.values() for run in runs))


def read_grid(file: str | Path) -> Grid:
    """The grid of a YAML file.

    Raises ValueError, in one line, for a key or a value that is wrong.
    """
    fits = isinstance(file, str | Path) and str(file).isprintable()
    require(fits, "grid", file, "the name of a YAML file")
    content = read_yaml(Path(file))
    fits = isinstance(content, dict) and "recipes" in content
    require(fits, str(file), content, "a table with recipes")
    table: dict = content  # type: ignore[assignment]
    unknown = [key for key in table if key not in ("recipes", "split", "images")]
    require(not unknown, "key", ", ".join(unknown), "recipes, split, images")
    split = table.get("split", "validation")
    _require_split(split)
    images = table.get("images", SPLITS[split])
    recipes = table["recipes"]
    _require_recipes(recipes)
    return Grid({name: tuple(_runs(name, each)) for name, each in recipes.items()}, split, images)


def _require_split(split: object) -> None:
    require(isinstance(split, str) and split in SPLITS, "split", split, ", ".join(SPLITS))


def _require_recipes(recipes: object) -> None:
    fits = isinstance(recipes, dict) and bool(recipes)
    require(fits, "recipes", recipes, "a table of at least one")
    for name in recipes:  # type: ignore[attr-defined]
        fits = isinstance(name, str) and name.isprintable() and bool(name.strip())
        require(fits, "recipe", name, "a name that can be printed")


def _runs(name: str, recipe: object) -> list[Run]:
    """All combinations of the values in each table of a recipe."""
    tables: list = recipe if isinstance(recipe, list) else [recipe]
    fits = bool(tables) and all(isinstance(table, dict) for table in tables)
    require(fits, f"recipe {name}", recipe, "a table of fields of ginv.Run, or a list of them")
    return [run for table in tables for run in _combinations(name, table)]


def _combinations(name: str, table: dict) -> Iterator[Run]:
    names = [field.name for field in fields(Run)]
    unknown = [key for key in table if key not in names]
    require(not unknown, f"field of recipe {name}", ", ".join(unknown), ", ".join(names))
    choices = [value if isinstance(value, list) else [value] for value in table.values()]
    count = prod(map(len, choices))
    fits = 1 <= count <= MOST_RUNS
    require(fits, f"number of runs of recipe {name}", count, f"1 to {MOST_RUNS} in a table")
    for values in product(*choices):
        yield Run(**dict(zip(table, values, strict=True)))


class Incomplete(RuntimeError):
    """Runs of a grid that failed, each with its reason; `table` has the others."""

    def __init__(self, failed: dict[Run, str], count: int, table: pd.DataFrame) -> None:
        self.failed, self.table = failed, table
        why = "; ".join(dict.fromkeys(failed.values()))
        done = "the others are in the store and in the table"
        super().__init__(f"{len(failed)} of {count} runs failed, {done}: {why}")


def run_grid(
    grid: Grid, *, device: str = "auto", scheduler: str | None = None, remote: str | None = None
) -> pd.DataFrame:
    """Train what is missing of a grid and evaluate each run: a row per recipe, run and metric.

    Columns: `COLUMNS` and, before the metric, whichever other fields of `Run` take several values
    in a recipe. scheduler: the address of a Dask scheduler whose workers do it. remote: the URL of
    a store for `ginv.runs.cluster`. Raises Incomplete, with the table of the others, where runs
    failed; ValueError and OSError, in one line, for places that do not fit or do not answer.
    """
    require(isinstance(grid, Grid), "grid", grid, "a ginv.runs.grid.Grid, such as read_grid gives")
    if scheduler is not None:
        require_scheduler(scheduler)
        _require_some_device(device)
    away = scheduler is not None and device != "auto"
    kind = device if away else choose_device(device).type
    if remote is not None:
        require_remote(remote)
    parts = [part for part, _ in stacks(grid.runs, LARGEST_STACK[kind])]
    # The longest first: the short ones fill the gaps
    parts.sort(key=lambda part: -len(part) * costs.training_operations(part[0]))
    done = _here(parts, grid, device, remote)
    if scheduler is not None:
        done = on_workers(scheduler, parts, grid.split, grid.images, device, remote)
    values, failed = {}, {}
    for run, found in (pair for part in done for pair in part.items()):
        if isinstance(found, str):
            failed[run] = redacted(found, remote)
        else:
            values[run] = found
    table = _table(grid, values)
    if failed:
        raise Incomplete(failed, len(grid.runs), table)
    return table


def _require_some_device(device: str) -> None:
    """One that this machine may lack, and the workers of a scheduler have."""
    fits = isinstance(device, str) and device in ("auto", *LARGEST_STACK)
    require(fits, "device", device, "auto, cpu, cuda")


def _here(
    parts: list[list[Run]], grid: Grid, device: str, remote: str | None
) -> Iterator[dict[Run, Values | str]]:
    """On this machine: all at once, or as many as it trains side by side before a remote store."""
    size = torch.get_num_threads() if remote else len(parts)
    for some in (parts[i : i + size] for i in range(0, len(parts), size)):
        runs = [run for part in some for run in part]
        specifications = [run.specification for run in runs]
        values = work(specifications, grid.split, grid.images, device, remote, progress=True)
        yield dict(zip(runs, values, strict=True))


def _table(grid: Grid, values: dict[Run, Values]) -> pd.DataFrame:
    """In long form."""
    others = [
        field.name
        for field in fields(Run)
        if field.name not in COLUMNS
        and any(
            len({getattr(run, field.name) for run in runs}) > 1 for runs in grid.recipes.values()
        )
    ]
    rows = [
        (run.group, recipe, run.nu, run.seed, *(getattr(run, n) for n in others), metric, value)
        for recipe, runs in grid.recipes.items()
        for run in runs
        if run in values
        for metric, value in values[run].items()
    ]
    return pd.DataFrame(rows, columns=[*COLUMNS[:-2], *others, *COLUMNS[-2:]])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ginv.runs.grid", description=SUMMARY)
    parser.add_argument("grid", type=Path, help="a table of recipes")
    parser.add_argument(
        "table", type=Path, nargs="?", help="for the results; else they are printed"
    )
    parser.add_argument("--device", default="auto", help="cuda for workers that have a GPU")
    parser.add_argument("--scheduler", help="of a Dask that is trusted: tcp://HOST:PORT")
    parser.add_argument("--store", metavar="URL", help="where records come from and go to")
    given = parser.parse_args()
    failed = None
    try:
        _require_some_device(given.device)
        grid = read_grid(given.grid)
        if given.table:
            require_writable("table", given.table, given.grid)
        places = dict(scheduler=given.scheduler, remote=given.store)
        try:
            table = run_grid(grid, device=given.device, **places)
        except Incomplete as error:
            table, failed = error.table, str(error)
        text = table.to_csv(index=False, float_format="%.6g")
        if given.table:
            write_whole(given.table, text)
        else:
            print(text, end="")
    except (ValueError, TypeError, OSError, ImportError, RuntimeError, ArithmeticError) as error:
        failed = redacted(redacted(str(error), given.store), given.scheduler)
    if failed:
        sys.exit(failed)


if __name__ == "__main__":
    end_when_told()
    main()
