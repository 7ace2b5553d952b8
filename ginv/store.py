"""Trained runs and their measurements on disk: a record is named by the hash of its specification.

`GINV_RUNS` or the user's cache folder. A record is a folder with `record.json` and `tensors.safetensors`, written
aside and renamed: it is there whole or not at all.
"""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from ginv.data import cache_folder

FORMAT = 1  # a change here makes every stored record a stranger


def store_folder() -> Path:
    return Path(os.environ.get("GINV_RUNS") or cache_folder() / "runs").absolute()


def record_name(specification: dict) -> str:
    """Hash of a JSON-able specification; the order of its keys does not matter."""
    text = json.dumps({"format": FORMAT, **specification}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def contains(specification: dict) -> bool:
    return (store_folder() / record_name(specification)).is_dir()


def load(specification: dict) -> tuple[dict[str, Tensor], dict] | None:
    """The tensors and the record of a specification, or None where it is not stored."""
    if not contains(specification):
        return None
    folder = store_folder() / record_name(specification)
    record = json.loads((folder / "record.json").read_text())
    if record["specification"] != json.loads(json.dumps(specification)):
        raise ValueError(f"{folder} holds another specification than its name says; move it away")
    return load_file(folder / "tensors.safetensors"), record


def save(specification: dict, tensors: dict[str, Tensor], record: dict) -> None:
    """Store a record; one that is there already is kept, since the same specification gives the same run."""
    folder = store_folder() / record_name(specification)
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder.parent))
    try:
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, aside / "tensors.safetensors")
        (aside / "record.json").write_text(json.dumps({"specification": specification, **record}, indent=1))
        aside.rename(folder)
    except OSError:
        if not folder.is_dir():  # not a race that another process won
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
