"""What this machine offers: the folders that `ginv` reads and fills, and a device to compute on."""

import os
from pathlib import Path

import torch


def chosen_folder(variable: str) -> Path | None:
    """The folder that an environment variable names, None where it is empty or not set."""
    value = os.environ.get(variable)
    return Path(value).expanduser().absolute() if value else None


def cache_folder() -> Path:
    """`ginv` in the user's cache folder (XDG)."""
    return (chosen_folder("XDG_CACHE_HOME") or Path.home() / ".cache") / "ginv"


def choose_device(device: str = "auto") -> torch.device:
    """The GPU where there is one for "auto". Raises ValueError for a device that is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        here = "auto, cpu, cuda" if torch.cuda.is_available() else "auto, cpu (no GPU here)"
        raise ValueError(f"device is {device!r}; allowed: {here}")
    return torch.device(device)
