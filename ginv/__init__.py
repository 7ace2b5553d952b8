"""Measure, and learn, invariance of image classifiers: the code behind the book.

After "On genuine invariance learning without weight-tying" (Moskalev, Sepliarskaia, Bekkers, Smeulders, 2023).
"""

from ginv.data import Dataset, Split, load_dataset
from ginv.groups import Group, Rotations, Translations, group_named
from ginv.metrics import (
    Measurement,
    accuracy,
    distribution_invariance,
    flip_rate,
    jensen_shannon,
    logit_invariance,
    measure,
    relative_logit_invariance,
    saliency_invariance,
)
from ginv.models import MLP, WeightTiedLinear, symmetrise
from ginv.parameters import refuse_unknown
from ginv.saliency import integrated_gradients, saliency_map
from ginv.sensitivity import jacobian, largest_singular_value
from ginv.settings import Settings
from ginv.training import Run, TrainedRun, kl_divergence, logit_error, normalised_logit_error, train
from ginv.tuning import chosen_nu

__all__ = [
    "MLP",
    "Dataset",
    "Group",
    "Measurement",
    "Rotations",
    "Run",
    "Settings",
    "Split",
    "TrainedRun",
    "Translations",
    "WeightTiedLinear",
    "accuracy",
    "chosen_nu",
    "distribution_invariance",
    "flip_rate",
    "group_named",
    "integrated_gradients",
    "jacobian",
    "jensen_shannon",
    "kl_divergence",
    "largest_singular_value",
    "load_dataset",
    "logit_error",
    "logit_invariance",
    "measure",
    "normalised_logit_error",
    "refuse_unknown",
    "relative_logit_invariance",
    "saliency_invariance",
    "saliency_map",
    "symmetrise",
    "train",
]
