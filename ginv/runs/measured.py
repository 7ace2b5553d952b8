"""What a trained run reaches, measured once: for the pages, the grids and the search for nu.

A measurement belongs to the weights that it measured: their sum is in its name.
"""

import copy
import hashlib
import math
from collections.abc import Callable
from dataclasses import fields
from typing import TypeVar

import pandas as pd
import torch
from torch import Tensor, nn

from ginv.data import DATASETS, SPLITS, Split, blend, load_dataset, partners
from ginv.groups import Group, group_named
from ginv.machine import choose_device, plain_torch
from ginv.measurement import Measurement, Totals, measure
from ginv.measures import (
    COMPANIONS,
    distribution_invariance,
    largest_singular_value,
    orbit_logits,
)
from ginv.recipe import Run
from ginv.refuse import require
from ginv.runs import store
from ginv.stack import TrainedRun

DRIFT = 0.3
Found = TypeVar("Found")
SENSITIVITY_IMAGES = 500


def measured(
    trained: TrainedRun,
    split: str = "test",
    images: int | None = None,
    *,
    device: str = "auto",
    progress: bool = True,
) -> Measurement:
    """`ginv.measure` of a run on the first images of a split of its data, all without a number."""
    images = _checked(trained, split, images, device)
    require(isinstance(progress, bool), "progress", progress, "False, True")
    run = trained.run

    def compute() -> store.Stored:
        model, seen = _on_device(trained, split, images, device)
        group = group_named(run.group)
        try:
            found = measure(model, seen.images, seen.labels, group, progress=progress)
        except ValueError as error:
            epoch = trained.record.get("best_epoch", 0)
            raise ValueError(f"{error}: that of epoch {epoch} of {run}") from None
        samples = found.samples
        columns = {
            name: torch.from_numpy(column.to_numpy().copy()) for name, column in samples.items()
        }
        totals = {each.name: getattr(found.totals, each.name) for each in fields(Totals)}
        tensors = {name: value for name, value in totals.items() if isinstance(value, Tensor)}
        numbers = {name: value for name, value in totals.items() if name not in tensors}
        return columns | tensors, {"columns": [*columns], "totals": numbers}

    def read(tensors: dict[str, Tensor], record: dict) -> Measurement:
        samples = pd.DataFrame({name: tensors[name] for name in record["columns"]})
        others = {name: value for name, value in tensors.items() if name not in samples}
        totals = Totals(**record["totals"], **others)  # type: ignore[arg-type]
        if len(samples) != images or totals.images != images:
            raise ValueError("it is of another number of images")
        return Measurement(samples, totals, group_named(run.group).order)

    return _stored(named("measurement", trained, split, images), read, compute)


def robustness(
    trained: TrainedRun, split: str = "test", images: int | None = None, *, device: str = "auto"
) -> dict[str, float]:
    """What becomes of a run off its data, at the first images of a split.

    sigma_max: its mean over the first 500 of them (Section 4.4). DI_under_drift: DI of blends, 0.7
    of an image and 0.3 of one of the same class of the other data set (Section 4.3).
    """
    images = _checked(trained, split, images, device)

    def compute() -> store.Stored:
        model, seen = _on_device(trained, split, images, device)
        drifted = _drifted(trained.run, split, seen)
        return {}, {"values": _off_data(model, seen, drifted, group_named(trained.run.group))}

    def read(_: dict[str, Tensor], record: dict) -> dict[str, float]:
        return {name: float(record["values"][name]) for name in ("sigma_max", "DI_under_drift")}

    return _stored(named("robustness", trained, split, images), read, compute)


def evaluated(
    trained: TrainedRun, split: str, images: int | None = None, *, device: str = "auto"
) -> dict[str, float]:
    """The means of all measures, `robustness`, and sigma_max over the scale of the logits."""
    summary = measured(trained, split, images, device=device, progress=False).summary
    values = summary.to_dict() | robustness(trained, split, images, device=device)
    scale = values["logit_norm"] or math.nan  # of a network whose logits are all alike
    return values | {"sigma_max_over_scale": values["sigma_max"] / scale}


def named(what: str, trained: TrainedRun, split: str, images: int) -> dict:
    """What names a measurement in the store; what: "measurement" or "robustness"."""
    digest = hashlib.sha256()
    for name, value in sorted(trained.model.state_dict().items()):
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return {
        what: store.VERSIONS[what],
        **({"companions": [*COMPANIONS]} if what == "measurement" else {}),
        "run": trained.run.specification,
        "weights": digest.hexdigest()[:16],
        "split": split,
        "images": images,
    }


def _checked(trained: TrainedRun, split: str, images: int | None, device: str) -> int:
    """The number of images; refuses what is wrong with any of these."""
    fits = isinstance(trained, TrainedRun) and isinstance(trained.run, Run)
    fits = fits and isinstance(trained.model, nn.Module)
    require(fits, "trained", trained, "a ginv.TrainedRun, as ginv.train returns it")
    choose_device(device)
    require(isinstance(split, str) and split in SPLITS, "split", split, ", ".join(SPLITS))
    images, most = SPLITS[split] if images is None else images, SPLITS[split]
    fits = type(images) is int and 1 <= images <= most
    require(fits, "images", images, f"1 to {most}, or None")
    return images


def _stored(
    specification: dict,
    read: Callable[[dict[str, Tensor], dict], Found],
    compute: Callable[[], store.Stored],
) -> Found:
    """What is read from a record; computed where there is none, or it is not as it should be."""
    if (found := store.load(specification)) is not None:
        try:
            return read(*found)
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
            folder = store.record_folder(specification)
            store.say(f"{folder} is no measurement: it stays, and is not used")
    found = compute()
    store.save(specification, *found)
    return read(*found)


def _on_device(
    trained: TrainedRun, split: str, images: int, device: str
) -> tuple[nn.Module, Split]:
    where, run = choose_device(device), trained.run
    seen = getattr(load_dataset(run.dataset, run.split_seed), split).head(images)
    with plain_torch():
        return copy.deepcopy(trained.model).to(where), seen.to(where)


def _drifted(run: Run, split: str, seen: Split) -> Tensor:
    """Images that have drifted a little towards those of the other data set."""
    (other,) = (name for name in DATASETS if name != run.dataset)
    others = getattr(load_dataset(other, run.split_seed), split)
    partner = partners(seen.labels.cpu(), others.labels)
    return blend(seen.images, others.images[partner].to(seen.images.device), DRIFT)


def _off_data(model: nn.Module, seen: Split, drifted: Tensor, group: Group) -> dict[str, float]:
    parts = [orbit_logits(model, part, group) for part in drifted.split(4096)]
    sensitivity = largest_singular_value(model, seen.images[:SENSITIVITY_IMAGES])
    return {
        "sigma_max": sensitivity.double().mean().item(),
        "DI_under_drift": distribution_invariance(torch.cat(parts, 1)).mean().item(),
    }
