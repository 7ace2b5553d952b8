"""Many runs at once: `python -m ginv.sweep GRID.yaml TABLE.csv` trains all runs of a grid and measures each.

A grid names recipes; each is a table, or a list of tables, of the fields of `Run`, where a list of values means all of
them in turn::

    split: validation
    recipes:
      DA: {method: DA, group: [R4, T3], seed: [0, 1]}
      IR:
        - {method: IR, group: R4, nu: [1, 10], seed: [0, 1]}
        - {method: IR, group: T3, nu: [10, 100], seed: [0, 1]}

What is in the store is neither trained nor measured again, so that a sweep which was stopped goes on where it was.

With `--scheduler tcp://HOST:PORT` the workers of a Dask that runs there do the work, a stack at a time, each with the
store that its own `GINV_RUNS` names: a folder that they share, or, with `--store URL`, one that all records come from
and go to.
"""

import argparse
import re
import sys
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, fields
from itertools import product
from math import prod
from pathlib import Path

import pandas as pd
import torch
import yaml
from torch import Tensor, nn
from tqdm import tqdm

from ginv import costs, store
from ginv.data import DATASETS, SPLITS, load_dataset
from ginv.groups import group_named
from ginv.metrics import distribution_invariance, measure
from ginv.parameters import require
from ginv.remote import pull, push, require_remote
from ginv.sensitivity import largest_singular_value
from ginv.training import LARGEST_STACK, Run, TrainedRun, choose_device, stacks, train

EVALUATION = 1  # a change in what `evaluate` computes counts this up, so that stored evaluations are redone
COLUMNS = ["group", "recipe", "nu", "seed", "metric", "value"]
DRIFT = 0.3
SENSITIVITY_IMAGES = 500
MOST_RUNS = 100_000  # of a table of a recipe
RETRIES = 2  # of a stack that failed on a worker; one whose worker died is not counted
SECONDS_TO_CONNECT = 5
Values = dict[Run, dict[str, float]]


@dataclass(frozen=True)
class Grid:
    """Runs by the name of their recipe, and the images that each is measured on: the first of a split."""

    recipes: dict[str, tuple[Run, ...]]
    split: str = "validation"
    images: int = SPLITS["validation"]

    @property
    def runs(self) -> list[Run]:
        """Each once."""
        return list(dict.fromkeys(run for runs in self.recipes.values() for run in runs))


def read_grid(file: str | Path) -> Grid:
    """The grid of a YAML file. Raises ValueError, in one line, for a key or a value that is not allowed."""
    try:
        content = _Loader(Path(file).read_text()).get_single_data()
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is no YAML: {' '.join(str(error).split())}") from None
    require(isinstance(content, dict) and "recipes" in content, str(file), content, "a table with recipes")
    unknown = [key for key in content if key not in ("recipes", "split", "images")]
    require(not unknown, "key", ", ".join(map(str, unknown)), "recipes, split, images")
    split = content.get("split", "validation")
    require(split in [*SPLITS], "split", split, ", ".join(SPLITS))
    images = content.get("images", SPLITS[split])
    require(type(images) is int and 1 <= images <= SPLITS[split], "images", images, f"1 to {SPLITS[split]}")
    recipes = content["recipes"]
    require(isinstance(recipes, dict) and bool(recipes), "recipes", recipes, "a table of at least one")
    return Grid({str(name): tuple(_runs(str(name), recipe)) for name, recipe in recipes.items()}, split, images)


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a table, of which the last would count in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [key for key in dict.fromkeys(keys) if keys.count(key) > 1]:
            raise yaml.YAMLError(f"{twice[0]} stands twice in the table{node.start_mark}")
        return super().construct_mapping(node, deep)


def _runs(name: str, recipe: object) -> list[Run]:
    """All combinations of the values in each table of a recipe."""
    names, runs = [field.name for field in fields(Run)], []
    tables: list = recipe if isinstance(recipe, list) else [recipe]
    require(bool(tables), f"recipe {name}", recipe, "a table of fields of ginv.Run, or a list of them")
    for table in tables:
        require(isinstance(table, dict), f"recipe {name}", table, "a table of fields of ginv.Run, or a list of them")
        unknown = [key for key in table if key not in names]
        require(not unknown, f"field of recipe {name}", ", ".join(map(str, unknown)), ", ".join(names))
        choices = [value if isinstance(value, list) else [value] for value in table.values()]
        count = prod(map(len, choices))
        require(1 <= count <= MOST_RUNS, f"number of runs of recipe {name}", count, f"1 to {MOST_RUNS} in a table")
        runs += [Run(**dict(zip(table, values, strict=True))) for values in product(*choices)]
    if len(runs) > len(set(runs)):
        twice = next(run for i, run in enumerate(runs) if run in runs[:i])
        raise ValueError(f"recipe {name} has a run twice: {twice}")
    return runs


def sweep(grid: Grid, *, device: str = "auto", scheduler: str | None = None, remote: str | None = None) -> pd.DataFrame:
    """Train what is missing of a grid and evaluate each run: a row per recipe, run and metric.

    Columns: `COLUMNS` and, before the metric, whichever other fields of `Run` take several values in a recipe.
    scheduler: the address of a Dask scheduler whose workers do it. remote: the URL of a store for `ginv.remote`.
    Raises ValueError and OSError, in one line, for addresses that do not fit or do not answer; RuntimeError, once all
    others are done, where stacks failed on the workers.
    """
    if remote is not None:
        require_remote(remote)
    kind = device if scheduler and device != "auto" else choose_device(device).type
    parts = [part for part, _ in stacks(grid.runs, LARGEST_STACK[kind])]
    parts.sort(key=lambda part: -len(part) * costs.training_operations(part[0]))  # the short ones fill the gaps
    done = _here(parts, grid, device, remote)
    if scheduler is not None:
        done = _there(scheduler, parts, grid, device, remote)
    values = {run: measured for found in done for run, measured in found.items()}
    others = [
        field.name
        for field in fields(Run)
        if field.name not in COLUMNS
        and any(len({getattr(run, field.name) for run in runs}) > 1 for runs in grid.recipes.values())
    ]
    rows = [
        (run.group, recipe, run.nu, run.seed, *(getattr(run, name) for name in others), metric, value)
        for recipe, runs in grid.recipes.items()
        for run in runs
        for metric, value in values[run].items()
    ]
    return pd.DataFrame(rows, columns=[*COLUMNS[:-2], *others, *COLUMNS[-2:]])


def _here(parts: list[list[Run]], grid: Grid, device: str, remote: str | None) -> Iterator[Values]:
    """On this machine: all at once, or as many as it trains side by side before they go to a remote store."""
    size = torch.get_num_threads() if remote else len(parts)
    for some in (parts[i : i + size] for i in range(0, len(parts), size)):
        runs = [run for part in some for run in part]
        measured = work([run.specification for run in runs], grid.split, grid.images, device, remote, progress=True)
        yield dict(zip(runs, measured, strict=True))


def _there(scheduler: str, parts: list[list[Run]], grid: Grid, device: str, remote: str | None) -> Iterator[Values]:
    """On the workers of a scheduler, a stack each, as they are done."""
    pattern = r"(tcp|tls|ws|wss|ucx)://(\[[0-9a-fA-F:.]+\]|[\w.-]+):\d{1,5}"
    fits = isinstance(scheduler, str) and re.fullmatch(pattern, scheduler)
    require(bool(fits), "scheduler", scheduler, "an address such as tcp://127.0.0.1:8786")
    try:
        from distributed import Client, as_completed  # here, since it is an extra
    except ImportError:
        raise ImportError('a scheduler needs Dask: pip install "ginv[sweep]"') from None
    try:
        client = Client(scheduler, timeout=SECONDS_TO_CONNECT, set_as_default=False)
    except OSError as error:
        raise OSError(f"no scheduler at {scheduler}: {' '.join(str(error).split())}") from None
    with client:
        if not client.scheduler_info()["workers"]:
            tqdm.write(f"no workers at {scheduler} yet: waiting for them", file=sys.stderr)
        futures = {}
        for part in parts:
            specifications = [run.specification for run in part]
            task = (work, specifications, grid.split, grid.images, device, remote)
            futures[client.submit(*task, pure=False, retries=RETRIES)] = part
        failed = {}
        for future in tqdm(as_completed(futures, loop=client.loop), desc="sweep", total=len(parts), unit="stack"):
            if future.status == "finished":
                yield dict(zip(futures[future], future.result(), strict=True))
            else:
                failed[future] = repr(future.exception())
    if failed:
        reasons = " ".join("; ".join(dict.fromkeys(failed.values())).split())
        raise RuntimeError(f"{len(failed)} of {len(parts)} stacks failed; what is done is in the store. {reasons}")


def work(
    specifications: list[dict],
    split: str,
    images: int,
    device: str = "auto",
    remote: str | None = None,
    progress: bool = False,
) -> list[dict[str, float]]:
    """Train runs and evaluate them, on whichever machine this is called; small enough to be sent back."""
    runs = [Run(**specification) for specification in specifications]  # a field that is not known here is refused
    teachers = [run.teacher_run for run in runs if run.teacher]
    records = [run.specification for run in dict.fromkeys([*teachers, *runs])]
    records += [evaluation(run, split, images) for run in runs]
    if remote:
        pull(remote, records)
    trained = train(runs, device=device, progress=progress)
    bar = tqdm(runs, desc="evaluate", disable=not progress)
    measured = [evaluated(trained[run], split, images, device) for run in bar]
    if remote:
        push(remote, records)
    return measured


def evaluation(run: Run, split: str, images: int) -> dict:
    """What names the evaluation of a run in the store."""
    return {"evaluation": EVALUATION, "run": run.specification, "split": split, "images": images}


def evaluated(trained: TrainedRun, split: str, images: int, device: str = "auto") -> dict[str, float]:
    """`evaluate` of a run on the first images of a split, from the store where it is there."""
    run = trained.run
    specification = evaluation(run, split, images)
    if stored := store.load(specification):
        return stored[1]["values"]
    model = trained.model.to(choose_device(device))
    values = evaluate(model, run.group, split, images, dataset=run.dataset, split_seed=run.split_seed)
    store.save(specification, {}, {"values": values})
    return values


def evaluate(
    model: nn.Module, group: str, split: str, images: int, *, dataset: str = DATASETS[0], split_seed: int = 0
) -> dict[str, float]:
    """`measure` and `robustness` of a network on the first images of a split, and sigma_max over the logit scale."""
    seen = getattr(load_dataset(dataset, split_seed), split).head(images).to(_device(model))
    values = measure(model, seen.images, seen.labels, group_named(group), progress=False).summary.to_dict()
    values |= robustness(model, group, split, images, dataset=dataset, split_seed=split_seed)
    return values | {"sigma_max_over_scale": values["sigma_max"] / values["logit_norm"]}


def robustness(
    model: nn.Module, group: str, split: str, images: int, *, dataset: str = DATASETS[0], split_seed: int = 0
) -> dict[str, float]:
    """What becomes of a network off its data, at the first images of a split.

    sigma_max: its mean over the first 500 of them (Section 4.4). DI_under_drift: DI of blends, 0.7 of an image and 0.3
    of one of the same class of the other data set (Section 4.3).
    """
    where, acting = _device(model), group_named(group)
    seen = getattr(load_dataset(dataset, split_seed), split).head(images).to(where)
    other = load_dataset(*(name for name in DATASETS if name != dataset), split_seed)
    others = getattr(other, split)
    blends = seen.images.lerp(others.images[partners(seen.labels.cpu(), others.labels)].to(where), DRIFT)
    with torch.no_grad():
        logits = torch.stack([model(acting.act(g, blends)) for g in acting.elements])  # one orientation at a time
    return {
        "sigma_max": largest_singular_value(model, seen.images[:SENSITIVITY_IMAGES]).mean().item(),
        "DI_under_drift": distribution_invariance(logits).mean().item(),
    }


def _device(model: nn.Module) -> torch.device:
    return next((leaf.device for leaf in model.parameters()), torch.device("cpu"))


def partners(labels: Tensor, others: Tensor) -> Tensor:
    """For each label the index of one of `others` that is equal to it: the next one, and the first after the last."""
    chosen = torch.empty_like(labels)
    for label in labels.unique():
        here, there = torch.where(labels == label)[0], torch.where(others == label)[0]
        chosen[here] = there[torch.arange(len(here)) % len(there)]
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ginv.sweep", description=__doc__.splitlines()[0])
    parser.add_argument("grid", type=Path, help="a table of recipes")
    parser.add_argument("table", type=Path, nargs="?", help="the file for the results; the standard output without one")
    parser.add_argument("--device", default="auto", help="cuda for workers that have a GPU: larger stacks")
    parser.add_argument("--scheduler", help="of a Dask that is trusted: tcp://HOST:PORT")
    parser.add_argument("--store", metavar="URL", help="where all records come from and go to: s3://bucket/runs")
    arguments = parser.parse_args()
    try:
        require(arguments.device in ("auto", *LARGEST_STACK), "device", arguments.device, "auto, cpu, cuda")
        grid = read_grid(arguments.grid)
        if arguments.table:
            arguments.table.open("a").close()  # now, and not after the sweep
        table = sweep(grid, device=arguments.device, scheduler=arguments.scheduler, remote=arguments.store)
    except (ValueError, TypeError, OSError, ImportError, RuntimeError, ArithmeticError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on where it was")
    table.to_csv(arguments.table or sys.stdout, index=False, float_format="%.6g")


if __name__ == "__main__":
    import ginv.sweep

    ginv.sweep.main()  # and not this copy of it: workers are sent functions by the name of their module
