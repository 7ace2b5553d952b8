"""The tables of what invariance costs, against numbers worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from ginv import Run
from ginv.pages.prices import accuracy_at_target, lost_elsewhere, points_lost, price_table

BASE = "DA, same budget"


def test_points_lost_are_a_difference_of_means_with_welch_s_interval():
    """Of two spreads alike it is Student's, with 2 (n - 1) degrees of freedom."""
    low = pd.Series([1.0, 2.0, 3.0])
    points, least, most = points_lost(low + 5, low)
    assert points == pytest.approx(5) and most - 5 == pytest.approx(5 - least)
    assert most - 5 == pytest.approx(2.776 * np.sqrt(2 / 3), rel=1e-3)


def test_averaging_is_paid_for_in_use_and_a_reference_has_no_price():
    index = pd.MultiIndex.from_product([["DA", "DA, averaged"], [0, 1]])
    networks = pd.DataFrame({"accuracy": [90, 92, 95, 95], "SI_distinct": [0.5, 0.7, 1, 1]}, index)
    runs = dict.fromkeys(["DA", "DA, averaged"], Run("R4"))
    table = price_table(networks, runs, {"DA, averaged": (-4.0, -5.0, -3.0)}, {})
    assert [*table.loc["DA"]] == ["random", "91.0", "", "0.600", "1.0", "1.0"]
    assert [*table.loc["DA, averaged"]][2:] == ["-4.0 [-5.0, -3.0]", "1.000", "1.0", "4.0"]


@pytest.mark.parametrize(
    ("si", "expected"),
    [([0.90, 1.00], 85.0), ([0.96, 1.00], 90.0), ([0.90, 0.94], np.nan), ([0.95, 0.99], 90.0)],
)
def test_accuracy_is_read_off_at_si_095(si, expected):
    front = pd.DataFrame({"nu": [1, 10], "SI": si, "accuracy": [90.0, 80.0]})
    assert accuracy_at_target(front) == pytest.approx(expected, nan_ok=True)


def fronts(**changes):
    """A table in which the decay loses 1 point, and 3 with what is changed."""
    usual = {"group": "R4", "train_images": 10_000, "width": 128, "dataset": "MNIST", "nu": 0.0}
    rows = []
    for of, points in (({}, 1), (changes, 3)):
        for seed in (0, 1):
            for recipe, accuracy in ((BASE, 95), ("symmetry decay", 95 - points), ("IR", 90)):
                values = {"accuracy": accuracy + seed, "SI": 0.99}
                line = usual | of | {"recipe": recipe, "seed": seed}
                rows += [line | {"metric": m, "value": v} for m, v in values.items()]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"train_images": 3_000}, "3,000 images"),
        ({"width": 512}, "512 units"),
        ({"dataset": "FashionMNIST"}, "garments"),
        ({"group": "D4"}, "group D4"),
    ],
)
def test_each_setting_is_compared_with_its_own_augmentation(changes, name):
    table = lost_elsewhere(fronts(**changes), ["R4", "D4"], BASE)
    assert [*table.index] == ["as before", name]
    assert [*table["symmetry decay"]] == [1, 3] and [*table["IR"]] == [5, 5]
    assert len(lost_elsewhere(fronts(group="T3"), ["R4", "D4"], BASE)) == 1
