"""The published files of MNIST and Fashion-MNIST: found or downloaded, and verified."""

import gzip
import hashlib
import tempfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ginv.machine import cache_folder, chosen_folder

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


def published(name: str) -> tuple[Tensor, Tensor]:
    """All 70,000 images `[n, 1, 28, 28]`, bytes, and their labels `[n]`, of MNIST or FashionMNIST.

    Raises ValueError for a file whose md5 is wrong, OSError for one that is missing.
    """
    root, read = _data_folder(name), []
    for what, header in (("images-idx3", 16), ("labels-idx1", 8)):
        files = [f"{name}/raw/{part}-{what}-ubyte" for part in ("train", "t10k")]
        read.append(torch.cat([_read(root, file, header) for file in files]))
    return read[0].view(-1, 1, 28, 28), read[1].long()


def _data_folder(name: str) -> Path:
    """`GINV_DATA`, else the clone's `data/`, else a cache folder that torchvision fills."""
    if folder := chosen_folder("GINV_DATA"):
        return folder
    clone = Path(__file__).resolve().parents[1] / "data"
    if (clone / name / "raw").is_dir():
        return clone
    cache = cache_folder() / "data"
    if not all(_find(cache, file) for file in _MD5 if file.startswith(f"{name}/")):
        _download(name, cache)
    return cache


def _download(name: str, cache: Path) -> None:
    """By torchvision, into a folder aside: in the cache a file is whole and right, or not there."""
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
        raise OSError(
            f"{raw} cannot be filled from {' or '.join(kind.mirrors)}: {reason}; {remedy}"
        ) from None


def _find(root: Path, file: str) -> Path | None:
    return next((path for path in (root / f"{file}.gz", root / file) if path.is_file()), None)


def _read(root: Path, file: str, header: int) -> Tensor:
    """The bytes of an IDX file after its header, checked."""
    path = _find(root, file)
    if path is None:
        raise FileNotFoundError(
            f"no {file}.gz in {root}; set GINV_DATA to a folder that has it, or unset it"
        )
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be unpacked ({error}); delete it or restore it") from None
    if (md5 := hashlib.md5(content).hexdigest()) != _MD5[file]:
        raise ValueError(
            f"{path} is corrupted: md5 {md5}, expected {_MD5[file]}; delete it or restore it"
        )
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=header).copy())
