"""What is refused, in one line: what it was, its value and what is allowed."""

import os
import textwrap
from pathlib import Path

from torch import Tensor


def require(allowed: bool, name: str, value: object, instead: str) -> None:
    """Raise ValueError, in one line, for a value that is not allowed; `instead` says what is."""
    if not allowed:
        text = textwrap.shorten(repr(value), 200)
        if isinstance(value, Tensor):
            text = f"a tensor {list(value.shape)}"
        raise ValueError(f"{name} is {text}; allowed: {instead}")


def require_tensor(name: str, value: object, axes: str) -> None:
    """Refuse what is no tensor `[axes]`, or an empty one.

    axes: "n, C, H, W", with "..." in front for any others.
    """
    count = len(axes.split(", "))
    fits = isinstance(value, Tensor) and value.numel() > 0
    if fits:
        fits = value.ndim >= count - 1 if "..." in axes else value.ndim == count  # type: ignore[attr-defined]
    require(fits, name, value, f"a tensor [{axes}], not empty")


def require_folder(name: str, value: object) -> None:
    """Refuse what is no name of a folder that is there, or can be made, to write in."""
    path = Path(value).absolute() if isinstance(value, str) else None
    there = path and next(path for path in (path, *path.parents) if os.path.lexists(path))
    fits = there is not None and there.is_dir() and os.access(there, os.W_OK)
    require(fits, name, value, "a folder that can be written")
