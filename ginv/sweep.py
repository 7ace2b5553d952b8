"""Many runs at once: `python -m ginv.sweep GRID.yaml TABLE.csv` trains all runs of a grid and measures each.

A grid names recipes; each is a table, or a list of tables, of the fields of `Run`, where a list of values means all of
them in turn:

    split: validation
    recipes:
      DA: {method: DA, group: [R4, T3], seed: [0, 1]}
      IR:
        - {method: IR, group: R4, nu: [1, 10], seed: [0, 1]}
        - {method: IR, group: T3, nu: [10, 100], seed: [0, 1]}

What is in the store is neither trained nor measured again, so that a sweep which was stopped goes on where it was.
"""

import argparse
import sys
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path

import pandas as pd
import torch
import yaml
from torch import Tensor, nn
from tqdm import tqdm

from ginv import store
from ginv.data import DATASETS, SPLITS, load_dataset
from ginv.groups import group_named
from ginv.metrics import distribution_invariance, measure
from ginv.parameters import require
from ginv.sensitivity import largest_singular_value
from ginv.training import Run, TrainedRun, choose_device, train

EVALUATION = 1  # a change in what `evaluate` computes counts this up, so that stored evaluations are redone
COLUMNS = ["group", "recipe", "nu", "seed", "metric", "value"]
DRIFT = 0.3
SENSITIVITY_IMAGES = 500


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
        content = yaml.safe_load(Path(file).read_text())
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


def _runs(name: str, recipe: object) -> list[Run]:
    """All combinations of the values in each table of a recipe."""
    names, runs = [field.name for field in fields(Run)], []
    tables: list = recipe if isinstance(recipe, list) else [recipe]
    for table in tables:
        require(isinstance(table, dict), f"recipe {name}", table, "a table of fields of ginv.Run, or a list of them")
        unknown = [key for key in table if key not in names]
        require(not unknown, f"field of recipe {name}", ", ".join(map(str, unknown)), ", ".join(names))
        choices = [value if isinstance(value, list) else [value] for value in table.values()]
        runs += [Run(**dict(zip(table, values, strict=True))) for values in product(*choices)]
    return runs


def sweep(grid: Grid, *, device: str = "auto") -> pd.DataFrame:
    """Train what is missing of a grid and evaluate each run: a row per recipe, run and metric, in `COLUMNS`."""
    trained = train(grid.runs, device=device)
    values = {run: evaluated(trained[run], grid.split, grid.images, device) for run in tqdm(grid.runs, desc="evaluate")}
    rows = [
        (run.group, recipe, run.nu, run.seed, metric, value)
        for recipe, runs in grid.recipes.items()
        for run in runs
        for metric, value in values[run].items()
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def evaluated(trained: TrainedRun, split: str, images: int, device: str = "auto") -> dict[str, float]:
    """`evaluate` of a run on the first images of a split, from the store where it is there."""
    run = trained.run
    specification = {"evaluation": EVALUATION, "run": run.specification, "split": split, "images": images}
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
    parser.add_argument("grid", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    try:
        choose_device(arguments.device)
        grid = read_grid(arguments.grid)
        arguments.table.open("a").close()
    except (ValueError, TypeError, OSError) as error:  # now, and not after the sweep
        sys.exit(str(error))
    sweep(grid, device=arguments.device).to_csv(arguments.table, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
