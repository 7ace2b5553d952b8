"""Transforming-MNIST and Transforming-FMNIST (Section 4.1, "Datasets").

The images as they are before the group acts: class 9 left out, padded from 28 x 28 to 36 x 36, split, normalised.
"""

import gzip
import hashlib
import os
import tempfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ginv.parameters import require

DATASETS = ("MNIST", "FashionMNIST")
CLASSES = 9  # the tenth class is left out: a 9 is a rotated 6, and the garments follow suit
SPLITS = {"train": 10_000, "validation": 2_000, "test": 50_000}
SEEDS = "integers from 0 to 2**63 - 1"
PADDING = 4  # 28 -> 36, which 3 divides
IMAGE_SHAPE = (36, 36)

# md5 of the unpacked files, as published
_MD5 = {
    "MNIST/raw/train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "MNIST/raw/train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "MNIST/raw/t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "MNIST/raw/t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    "FashionMNIST/raw/train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "FashionMNIST/raw/train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "FashionMNIST/raw/t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "FashionMNIST/raw/t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}


@dataclass(frozen=True)
class Split:
    """Normalised images `[n, 1, 36, 36]`, float32, and their labels `[n]`, int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def head(self, n: int | None) -> "Split":
        """The first n samples; the splits are shuffled, so this is a random sample of them."""
        return Split(self.images[:n], self.labels[:n])

    def to(self, device: torch.device | str) -> "Split":
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Dataset:
    """Disjoint train, validation and test splits, and the pixel mean and deviation that normalised them."""

    train: Split
    validation: Split
    test: Split
    mean: float
    std: float


@lru_cache(maxsize=4)
def load_dataset(name: str = "MNIST", split_seed: int = 0) -> Dataset:
    """Transforming-MNIST or, for "FashionMNIST", Transforming-FMNIST: 10k / 2k / 50k of the 70,000 images.

    `split_seed` shuffles before splitting. Mean and standard deviation are the padded training split's.
    Raises ValueError for another name or a file whose md5 is wrong, OSError for one that is missing.
    """
    require(name in DATASETS, "dataset", name, ", ".join(DATASETS))
    require(type(split_seed) is int and 0 <= split_seed < 2**63, "split_seed", split_seed, SEEDS)
    root = _data_folder(name)
    parts = [(_read(root, f"{name}/raw/{part}-images-idx3-ubyte", 16),
              _read(root, f"{name}/raw/{part}-labels-idx1-ubyte", 8)) for part in ("train", "t10k")]  # fmt: skip
    labels = torch.cat([part[1] for part in parts]).long()
    kept = torch.nonzero(labels < CLASSES).squeeze(1)
    order = kept[torch.randperm(len(kept), generator=torch.Generator().manual_seed(split_seed))]
    order = order[: sum(SPLITS.values())]
    images = torch.cat([part[0] for part in parts]).view(-1, 1, 28, 28)[order]
    images = F.pad(images, [PADDING] * 4).float().div_(255)
    train = images[: SPLITS["train"]]
    mean, std = train.mean().item(), train.std().item()
    sizes = [*SPLITS.values()]
    images = images.sub_(mean).div_(std).split(sizes)
    training, validation, test = map(Split, images, labels[order].split(sizes))
    return Dataset(training, validation, test, mean, std)


def _data_folder(name: str) -> Path:
    """`GINV_DATA`, else the clone's `data/`, else a cache folder that torchvision fills."""
    if folder := os.environ.get("GINV_DATA"):
        return Path(folder)
    clone = Path(__file__).resolve().parents[1] / "data"
    if (clone / name / "raw").is_dir():
        return clone
    cache = cache_folder() / "data"
    if not all(_find(cache, file) for file in _MD5 if file.startswith(f"{name}/")):
        _download(name, cache)
    return cache


def _download(name: str, cache: Path) -> None:
    """By torchvision, into a folder aside: in the cache the files are there whole and right, or not at all."""
    import torchvision.datasets  # only a download needs it

    kind, raw = getattr(torchvision.datasets, name), cache / name / "raw"
    try:
        raw.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=cache) as aside:
            kind(aside, download=True)
            for file in (Path(aside) / name / "raw").glob("*-ubyte"):
                file.replace(raw / file.name)
    except (OSError, EOFError, RuntimeError, zlib.error) as error:
        reason = " ".join(str(error).split())
        remedy = f"put the files there, or set GINV_DATA to a folder with {name}/raw"
        raise OSError(f"{raw} cannot be filled from {' or '.join(kind.mirrors)}: {reason}; {remedy}") from None


def cache_folder() -> Path:
    """`ginv` in the user's cache folder (XDG)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ginv"


def _find(root: Path, file: str) -> Path | None:
    return next((path for path in (root / f"{file}.gz", root / file) if path.is_file()), None)


def _read(root: Path, file: str, header: int) -> Tensor:
    """The bytes of an IDX file after its header, checked."""
    path = _find(root, file)
    if path is None:
        raise FileNotFoundError(f"no {file}.gz in {root}; set GINV_DATA to a folder that has it, or unset it")
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be unpacked ({error}); delete it or restore it") from None
    if (md5 := hashlib.md5(content).hexdigest()) != _MD5[file]:
        raise ValueError(f"{path} is corrupted: md5 {md5}, expected {_MD5[file]}; delete it or restore it")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=header).copy())
