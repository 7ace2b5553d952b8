"""Has this machine what the book needs? `python -m ginv.check` says OK or FAIL for each thing.

One FAIL, and it exits with 1. A NOTE is of what is wrong and does no harm here.
"""

import argparse
import shutil
import sys
import tomllib
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from tempfile import TemporaryFile

import torch
from packaging.requirements import Requirement

from ginv.data import DATASETS, load_dataset
from ginv.machine import choose_device
from ginv.runs.stopping import end_when_told
from ginv.runs.store import store_folder


def _project() -> tuple[str, list[str]]:
    """The version of ginv and what it requires: as installed, or as in the clone it runs in."""
    try:
        return version("ginv"), requires("ginv") or []
    except PackageNotFoundError:
        file = Path(__file__).parents[1] / "pyproject.toml"
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        return project["version"], project["dependencies"]


def versions() -> str:
    ours, required = _project()
    # Those of the extras have a marker
    needed = [r for r in map(Requirement, required) if not r.marker]
    if wrong := [
        f"{r.name} is {version(r.name)}, not {r.specifier}"
        for r in needed
        if version(r.name) not in r.specifier
    ]:
        raise ValueError(", ".join(wrong))
    return f"ginv {ours}, torch {torch.__version__}, Python {sys.version.split()[0]}"


def torchvision() -> str:
    try:
        import_module("torchvision")  # a RuntimeError where it was built for another torch
        return f"torchvision {version('torchvision')}"
    except Exception as error:
        remedy = "it downloads the images where they are not here, and is not needed otherwise"
        wanted = [r for r in map(Requirement, requires("torchvision") or []) if r.name == "torch"]
        fits = f"torchvision {version('torchvision')} goes with torch{wanted[0].specifier}"
        raise Warning(
            f"{fits} from the same index, here is {torch.__version__} ({error}): {remedy}"
        ) from None


def data() -> str:
    return ", ".join(
        f"{name} with {len(load_dataset(name).test):,} test images" for name in DATASETS
    )


def store() -> str:
    store_folder().mkdir(parents=True, exist_ok=True)
    TemporaryFile(dir=store_folder()).close()  # can be written
    records = [
        *store_folder().glob("?" * 16 + "/record.json")
    ]  # no checkpoint, nothing that was set aside
    return f"{len(records)} records in {store_folder()}"


def device() -> str:
    return (
        torch.cuda.get_device_name()
        if choose_device().type == "cuda"
        else "CPU; there is no GPU, none is needed"
    )


def space() -> str:
    if (free := shutil.disk_usage(store_folder()).free / 1e9) < 1:
        raise ValueError(f"{free:.1f} GB free for the store, 1 GB is needed")
    return f"{free:.0f} GB free for the store"


def main() -> int:
    failed = 0
    for check in (versions, torchvision, data, store, device, space):
        try:
            print("OK  ", check.__name__, "-", check())
        except Warning as note:
            print("NOTE", check.__name__, "-", note)
        except Exception as error:  # whatever it is, the line says it
            failed = 1
            print("FAIL", check.__name__, "-", error)
    return failed


if __name__ == "__main__":
    end_when_told()
    argparse.ArgumentParser(description=__doc__).parse_args()  # refuses any
    sys.exit(main())
