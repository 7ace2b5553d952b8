"""What invariance costs, as tables: for the chapter on its price."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import stats

from ginv.groups import group_named
from ginv.recipe import Run
from ginv.runs import costs
from ginv.runs.nu import TARGET

Price = tuple[float, float, float]  # points of accuracy, and the ends of their interval


def points_lost(base: pd.Series, other: pd.Series) -> Price:
    """How much lower the accuracies of some seeds are than others', with Welch's 95 % interval."""
    low, high = stats.ttest_ind(base, other, equal_var=False).confidence_interval()
    return base.mean() - other.mean(), low, high


def price_table(
    networks: pd.DataFrame, runs: dict[str, Run], prices: dict[str, Price], starts: dict[str, str]
) -> pd.DataFrame:
    """A row a recipe: its start, accuracy, points lost, SI, and operations over those of DA.

    networks: columns accuracy and SI_distinct, rows by recipe and seed. runs: one of each recipe,
    averaged over the orbit in use where its name says so. prices: of those that have one. starts:
    of those that do not begin at random weights.
    """
    rows = {}
    for recipe, run in runs.items():
        means, plain = networks.loc[recipe].mean(), Run(run.group, dataset=run.dataset)
        passes = group_named(run.group).order if recipe.endswith("averaged") else 1
        training = costs.training_operations(run) / costs.training_operations(plain)
        use = passes * costs.inference_operations(run) / costs.inference_operations(plain)
        price = "{:.1f} [{:.1f}, {:.1f}]".format(*prices[recipe]) if recipe in prices else ""
        rows[recipe] = [
            starts.get(recipe, "random"),
            f"{means.accuracy:.1f}",
            price,
            f"{means.SI_distinct:.3f}",
            f"{training:.1f}",
            f"{use:.1f}",
        ]
    columns = ["start", "accuracy", "points lost", "SI, distinct", "training", "in use"]
    return pd.DataFrame(rows, columns).T


def lost_elsewhere(table: pd.DataFrame, groups: Sequence[str], base: str) -> pd.DataFrame:
    """Points of accuracy lost to `base`, the mean of the seeds: a row a setting, a column a way.

    table: of `book/fronts.yaml`. Of the paper's recipe, IR, at SI 0.95 between the nu that were
    tried, at the least of them where that is above, and none where all are below.
    """
    some = table[table.group.isin(groups)]
    usual = replace(Run(groups[0]), dataset="MNIST")
    named = {
        "train_images": "{:,} images".format,
        "width": "{} units".format,
        "dataset": {"FashionMNIST": "garments"}.get,
        "group": "group {}".format,
    }
    setting = pd.Series("as before", some.index)
    for field, words in named.items():
        setting = setting.where(some[field] == getattr(usual, field), some[field].map(words))
    keys = ["recipe", "nu", "seed"]
    long = some.assign(setting=setting).pivot_table(
        "value", ["setting", *keys], "metric", sort=False
    )
    means = long.accuracy.groupby(["setting", "recipe"], sort=False).mean().unstack()
    fronts = long.xs("IR", level="recipe").groupby("setting")
    means["IR"] = fronts.apply(accuracy_at_target).reindex(means.index)
    return means.drop(columns=base).rsub(means[base], axis=0)


def accuracy_at_target(front: pd.DataFrame) -> float:
    """At SI 0.95, between the points of a front over nu; NaN where all are below."""
    curve = front.groupby("nu")[["SI", "accuracy"]].mean().sort_values("SI")
    return float(np.interp(TARGET, curve.SI, curve.accuracy, right=np.nan))
