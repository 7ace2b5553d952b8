"""Transforming-MNIST and Transforming-FMNIST (Section 4.1, "Datasets"), and drift (Section 4.3).

The images as they are before the group acts: class 9 left out, padded from 28 x 28 to 36 x 36,
split, normalised.
"""

import os
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral, Real
from threading import Lock

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ginv.machine import OneCopy, choose_device, plain_torch
from ginv.published import published
from ginv.refuse import require, require_tensor

DATASETS = ("MNIST", "FashionMNIST")
CLASSES = 9  # the tenth class is left out: a 9 is a rotated 6, and the garments follow suit
SPLITS = {"train": 10_000, "validation": 2_000, "test": 50_000}
PADDING = 4  # 28 -> 36, which 3 divides
IMAGE_SHAPE = (36, 36)


@dataclass(frozen=True)
class Split:
    """Normalised images `[n, 1, 36, 36]`, float32, and their labels `[n]`, int64."""

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        require_tensor("images", self.images, "n, C, H, W")
        n = len(self.images)
        fits = isinstance(self.labels, Tensor) and self.labels.shape == (n,)
        require(fits, "labels", self.labels, f"a tensor [{n}], one for each image")

    def __len__(self) -> int:
        return len(self.labels)

    def head(self, n: int | None) -> "Split":
        """The first n samples; the splits are shuffled, so this is a random sample of them."""
        fits = isinstance(n, Integral) and not isinstance(n, bool) and 1 <= n <= len(self)
        require(n is None or fits, "n", n, f"1 to {len(self)}, or None for all")
        return Split(self.images[:n], self.labels[:n])

    def to(self, device: torch.device | str) -> "Split":
        where = device if isinstance(device, torch.device) else choose_device(device)
        choose_device(where.type)  # refuses one that is not here
        return Split(self.images.to(where), self.labels.to(where))


@dataclass(frozen=True)
class Dataset:
    """Disjoint splits, and the mean and deviation of the pixels that normalised them."""

    train: Split
    validation: Split
    test: Split
    mean: float
    std: float


def load_dataset(name: str = "MNIST", split_seed: int = 0) -> Dataset:
    """Transforming-MNIST or Transforming-FMNIST: 10k / 2k / 50k of the 70,000 images.

    `split_seed` shuffles before splitting. Mean and standard deviation are the padded training
    split's. All calls share one copy in memory, and a caller who changes its tensors changes them
    for itself alone. Raises ValueError for another name or a file whose md5 is wrong, OSError for
    one that is missing.
    """
    require(isinstance(name, str) and name in DATASETS, "dataset", name, ", ".join(DATASETS))
    fits = type(split_seed) is int and 0 <= split_seed < 2**63
    require(fits, "split_seed", split_seed, "integers from 0 to 2**63 - 1")
    with plain_torch():
        with _LOADING:  # once, however many threads ask
            images, labels, mean, std = _normalised(name, split_seed)
        sizes = [*SPLITS.values()]
        parts = images.view().split(sizes), labels.clone().split(sizes)
        training, validation, test = map(Split, *parts)
    return Dataset(training, validation, test, mean, std)


_LOADING = Lock()


def _renew_after_fork() -> None:
    """A lock that another thread of the parent holds is never given back in a child."""
    global _LOADING
    _LOADING = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_after_fork)


@lru_cache(maxsize=4)
def _normalised(name: str, split_seed: int) -> tuple[OneCopy, Tensor, float, float]:
    """All splits in a row, and the mean and deviation of the first."""
    pixels, labels = published(name)
    kept = torch.nonzero(labels < CLASSES).squeeze(1)
    shuffle = torch.randperm(len(kept), generator=Generator().manual_seed(split_seed))
    order = kept[shuffle][: sum(SPLITS.values())]
    images = F.pad(pixels[order], [PADDING] * 4).float().div_(255)
    train = images[: SPLITS["train"]]
    mean, std = train.mean().item(), train.std().item()
    return OneCopy(images.sub_(mean).div_(std)), labels[order], mean, std


_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def _kind(tensor: Tensor) -> tuple:
    return tensor.shape, tensor.dtype, tensor.device


@plain_torch()
def blend(images: Tensor, others: Tensor, beta: float) -> Tensor:
    """Images drifted towards others by a degree beta (Section 4.3): (1 - beta) x + beta x'."""
    require_tensor("images", images, "..., H, W")
    require(images.is_floating_point(), "images", images, "a tensor of a floating-point type")
    fits = isinstance(others, Tensor) and _kind(others) == _kind(images)
    require(fits, "others", others, "a tensor of the shape, type and device of the images")
    fits = isinstance(beta, Real) and not isinstance(beta, bool) and 0 <= beta <= 1
    require(fits, "beta", beta, "0 to 1")
    return images.lerp(others, beta)


@plain_torch()
def partners(labels: Tensor, others: Tensor, generator: Generator | None = None) -> Tensor:
    """Which image of another data set each one drifts to: one of its class.

    labels `[n]` and the labels `others` `[m]` of the other data set -> indices into it `[n]`. Those
    of a class are taken in order, or with a generator in a random one, and again from the first
    after the last. Raises ValueError for a class that the other data set lacks.
    """
    for which, given in (("labels", labels), ("others", others)):
        fits = isinstance(given, Tensor) and given.ndim == 1 and given.dtype in _INTEGERS
        require(fits, which, given, "a tensor [n] of integers")
    fits = others.device == labels.device
    require(fits, "others", others, f"a tensor on {labels.device}, as the labels are")
    fits = generator is None or isinstance(generator, Generator)
    require(fits, "generator", generator, "a torch.Generator, or None")
    labels, others = labels.long(), others.long()  # indices, whatever the type of the labels
    chosen = torch.empty_like(labels)
    for label in labels.unique():
        here, there = torch.where(labels == label)[0], torch.where(others == label)[0]
        require(len(there) > 0, "label", label.item(), "those of the other data set")
        if generator is not None:
            there = there[torch.randperm(len(there), generator=generator)]
        chosen[here] = there[torch.arange(len(here)) % len(there)]
    return chosen
