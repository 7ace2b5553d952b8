"""Measure, and learn, invariance of image classifiers: the code behind the book.

After "On genuine invariance learning without weight-tying" (Moskalev, Sepliarskaia, Bekkers,
Smeulders, 2023). What is here is the science, and `train`, which keeps what it trains; `ginv.runs`
has the rest of that, `ginv.pages` what the chapters of the book share.
"""

from ginv.data import Dataset, Split, blend, load_dataset, partners
from ginv.groups import (
    Colours,
    Dihedral,
    Group,
    Product,
    Rotations,
    Translations,
    check_group,
    group_named,
)
from ginv.measurement import Measurement, measure
from ginv.measures import (
    accuracy,
    distribution_invariance,
    flip_rate,
    jacobian,
    jensen_shannon,
    largest_singular_value,
    logit_invariance,
    orbit_logits,
    orbit_maps,
    relative_logit_invariance,
    saliency_invariance,
)
from ginv.networks import MLP, Ensemble, WeightTiedLinear
from ginv.recipe import Run, kl_divergence, logit_error, normalised_logit_error
from ginv.runs.nu import chosen_nu
from ginv.runs.train import train
from ginv.saliency import gradients, integrated_gradients, saliency_map
from ginv.stack import TrainedRun
from ginv.symmetry import Averaged, assert_invariant, decay_asymmetry, symmetrise

__all__ = [
    "MLP",
    "Averaged",
    "Colours",
    "Dataset",
    "Dihedral",
    "Ensemble",
    "Group",
    "Measurement",
    "Product",
    "Rotations",
    "Run",
    "Split",
    "TrainedRun",
    "Translations",
    "WeightTiedLinear",
    "accuracy",
    "assert_invariant",
    "blend",
    "check_group",
    "chosen_nu",
    "decay_asymmetry",
    "distribution_invariance",
    "flip_rate",
    "gradients",
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
    "orbit_logits",
    "orbit_maps",
    "partners",
    "relative_logit_invariance",
    "saliency_invariance",
    "saliency_map",
    "symmetrise",
    "train",
]
