"""What is refused, in one line: what it was, its value and what is allowed.

papermill only warns of a parameter that the chapter does not have.
"""

import ast
import os
import textwrap
from itertools import pairwise
from pathlib import Path

from torch import Tensor


def require(allowed: bool, name: str, value: object, instead: str) -> None:
    """Raise ValueError, in one line, for a value that is not allowed; `instead` says what is."""
    if not allowed:
        text = f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else textwrap.shorten(repr(value), 200)
        raise ValueError(f"{name} is {text}; allowed: {instead}")


def require_tensor(name: str, value: object, axes: str) -> None:
    """Refuse what is no tensor `[axes]`, or an empty one; axes: "n, C, H, W", with "..." in front for any others."""
    count = len(axes.split(", "))
    fits = isinstance(value, Tensor) and value.numel() > 0
    fits = fits and (value.ndim >= count - 1 if "..." in axes else value.ndim == count)  # type: ignore[attr-defined]
    require(fits, name, value, f"a tensor [{axes}], not empty")


def require_folder(name: str, value: object) -> None:
    """Refuse what is no name of a folder that is there, or can be made, to write in."""
    path = Path(value).absolute() if isinstance(value, str) else None
    there = path and next(path for path in (path, *path.parents) if os.path.lexists(path))
    fits = there is not None and there.is_dir() and os.access(there, os.W_OK)
    require(fits, name, value, "a folder that can be written")


def refuse_unknown(cells: list[str]) -> None:
    """Raise ValueError, in one line, for a name that papermill passed and the chapter's parameters cell lacks.

    cells: the code run so far, IPython's `In`. papermill puts its own cell right after the parameters cell.
    """
    for parameters, passed in pairwise(cells):
        if passed.startswith("# Parameters\n") and (unknown := _assigned(passed) - (known := _assigned(parameters))):
            raise ValueError(f"no parameter {', '.join(sorted(unknown))}; allowed: {', '.join(sorted(known))}")


def _assigned(cell: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(cell)) if isinstance(node, ast.Name)}
