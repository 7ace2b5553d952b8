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
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, fields
from itertools import product
from math import prod
from pathlib import Path

import pandas as pd
import torch
import yaml

from ginv.data import SPLITS
from ginv.machine import choose_device
from ginv.recipe import Run
from ginv.refuse import require
from ginv.runs import costs
from ginv.runs.cluster import on_workers, require_remote, work
from ginv.runs.train import LARGEST_STACK, stacks

COLUMNS = ["group", "recipe", "nu", "seed", "metric", "value"]
MOST_RUNS = 100_000  # of a table of a recipe


@dataclass(frozen=True)
class Grid:
    """Runs by the name of their recipe, and the first images of a split, to measure them on."""

    recipes: dict[str, tuple[Run, ...]]
    split: str = "validation"
    images: int = SPLITS["validation"]

    @property
    def runs(self) -> list[Run]:
        """Each once."""
        return list(dict.fromkeys(run for runs in self.recipes.values() for run in runs))


def read_grid(file: str | Path) -> Grid:
    """The grid of a YAML file.

    Raises ValueError, in one line, for a key or a value that is not allowed.
    """
    try:
        content = _Loader(Path(file).read_text()).get_single_data()
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is no YAML: {' '.join(str(error).split())}") from None
    require(
        isinstance(content, dict) and "recipes" in content,
        str(file),
        content,
        "a table with recipes",
    )
    unknown = [key for key in content if key not in ("recipes", "split", "images")]
    require(not unknown, "key", ", ".join(map(str, unknown)), "recipes, split, images")
    split = content.get("split", "validation")
    require(split in [*SPLITS], "split", split, ", ".join(SPLITS))
    images = content.get("images", SPLITS[split])
    require(
        type(images) is int and 1 <= images <= SPLITS[split],
        "images",
        images,
        f"1 to {SPLITS[split]}",
    )
    recipes = content["recipes"]
    require(
        isinstance(recipes, dict) and bool(recipes), "recipes", recipes, "a table of at least one"
    )
    return Grid(
        {str(name): tuple(_runs(str(name), recipe)) for name, recipe in recipes.items()},
        split,
        images,
    )


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a table, of which the last would count in silence."""

    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Hashable, object]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [key for key in dict.fromkeys(keys) if keys.count(key) > 1]:
            raise yaml.YAMLError(f"{twice[0]} stands twice in the table{node.start_mark}")
        return super().construct_mapping(node, deep)


def _runs(name: str, recipe: object) -> list[Run]:
    """All combinations of the values in each table of a recipe."""
    names, runs = [field.name for field in fields(Run)], []
    tables: list = recipe if isinstance(recipe, list) else [recipe]
    require(
        bool(tables), f"recipe {name}", recipe, "a table of fields of ginv.Run, or a list of them"
    )
    for table in tables:
        require(
            isinstance(table, dict),
            f"recipe {name}",
            table,
            "a table of fields of ginv.Run, or a list of them",
        )
        unknown = [key for key in table if key not in names]
        require(
            not unknown, f"field of recipe {name}", ", ".join(map(str, unknown)), ", ".join(names)
        )
        choices = [value if isinstance(value, list) else [value] for value in table.values()]
        count = prod(map(len, choices))
        require(
            1 <= count <= MOST_RUNS,
            f"number of runs of recipe {name}",
            count,
            f"1 to {MOST_RUNS} in a table",
        )
        runs += [Run(**dict(zip(table, values, strict=True))) for values in product(*choices)]
    if len(runs) > len(set(runs)):
        twice = next(run for i, run in enumerate(runs) if run in runs[:i])
        raise ValueError(f"recipe {name} has a run twice: {twice}")
    return runs


def run_grid(
    grid: Grid, *, device: str = "auto", scheduler: str | None = None, remote: str | None = None
) -> pd.DataFrame:
    """Train what is missing of a grid and evaluate each run: a row per recipe, run and metric.

    Columns: `COLUMNS` and, before the metric, whichever other fields of `Run` take several values
    in a recipe. scheduler: the address of a Dask scheduler whose workers do it. remote: the URL of
    a store for `ginv.runs.cluster`. Raises what `ginv.train` and `ginv.runs.cluster.on_workers`
    raise.
    """
    if remote is not None:
        require_remote(remote)
    kind = device if scheduler and device != "auto" else choose_device(device).type
    parts = [part for part, _ in stacks(grid.runs, LARGEST_STACK[kind])]
    # The longest first: the short ones fill the gaps
    parts.sort(key=lambda part: -len(part) * costs.training_operations(part[0]))
    done = _here(parts, grid, device, remote)
    if scheduler is not None:
        done = on_workers(scheduler, parts, grid.split, grid.images, device, remote)
    return _table(grid, {run: values for found in done for run, values in found.items()})


def _here(
    parts: list[list[Run]], grid: Grid, device: str, remote: str | None
) -> Iterator[dict[Run, dict[str, float]]]:
    """On this machine: all at once, or as many as it trains side by side before a remote store."""
    size = torch.get_num_threads() if remote else len(parts)
    for some in (parts[i : i + size] for i in range(0, len(parts), size)):
        runs = [run for part in some for run in part]
        specifications = [run.specification for run in runs]
        values = work(specifications, grid.split, grid.images, device, remote, progress=True)
        yield dict(zip(runs, values, strict=True))


def _table(grid: Grid, values: dict[Run, dict[str, float]]) -> pd.DataFrame:
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
        for metric, value in values[run].items()
    ]
    return pd.DataFrame(rows, columns=[*COLUMNS[:-2], *others, *COLUMNS[-2:]])


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ginv.runs.grid", description=__doc__.splitlines()[0]
    )
    parser.add_argument("grid", type=Path, help="a table of recipes")
    parser.add_argument(
        "table",
        type=Path,
        nargs="?",
        help="the file for the results; the standard output without one",
    )
    parser.add_argument(
        "--device", default="auto", help="cuda for workers that have a GPU: larger stacks"
    )
    parser.add_argument("--scheduler", help="of a Dask that is trusted: tcp://HOST:PORT")
    parser.add_argument(
        "--store", metavar="URL", help="where all records come from and go to: s3://bucket/runs"
    )
    arguments = parser.parse_args()
    try:
        require(
            arguments.device in ("auto", *LARGEST_STACK),
            "device",
            arguments.device,
            "auto, cpu, cuda",
        )
        grid = read_grid(arguments.grid)
        if arguments.table:
            arguments.table.open("a").close()  # now, and not after the work
        table = run_grid(
            grid, device=arguments.device, scheduler=arguments.scheduler, remote=arguments.store
        )
    except (ValueError, TypeError, OSError, ImportError, RuntimeError, ArithmeticError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on where it was")
    table.to_csv(arguments.table or sys.stdout, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
