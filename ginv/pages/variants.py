"""Other readings of what the paper says about training, each with a network of its own."""

from dataclasses import replace
from typing import Any

from ginv.pages.settings import Settings
from ginv.recipe import Run

READINGS: list[tuple[str, str, str, dict[str, Any]]] = [
    # the choice, the other reading, the methods that it concerns, fields of Run
    ("hidden layers", "4", "WT DA IR", dict(depth=4)),
    ("pooling", "mean, then ReLU", "WT", dict(pooling="mean")),
    ("pooling", "ReLU, then mean", "WT", dict(pooling="mean after ReLU")),
    ("epoch kept", "the last", "WT DA IR", dict(selection="last")),
    ("split", "seed 1", "WT DA IR", dict(split_seed=1)),
    ("pairs in the penalty", "all pairs", "IR", dict(whole_orbit=True)),
]


def variant_runs(settings: Settings) -> dict[Run, tuple[str, str]]:
    """A run of the first seed for each reading, group and method; and its choice and reading."""
    return {
        replace(settings.run(group, method, settings.seeds[0]), **fields): (choice, reading)
        for group in settings.groups
        for choice, reading, methods, fields in READINGS
        for method in methods.split()
    }
