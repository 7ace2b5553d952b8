"""What is refused, in one line: what it was, its value and what is allowed."""

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

import torch
from torch import OutOfMemoryError, Tensor, strided
from torch.masked import MaskedTensor


def require(allowed: bool, name: str, value: object, instead: str) -> None:
    """Raise ValueError, in one line, for a value that is not allowed; `instead` says what is."""
    if not allowed:
        text = textwrap.shorten(_shown(value), 200)
        if isinstance(value, Tensor):
            text = f"a tensor {list(value.shape)}"
        raise ValueError(f"{name} is {text}; allowed: {instead}")


@contextmanager
def in_one_line(failed: str) -> Iterator[None]:
    """Raise ValueError, in one line, for what the code of others raises; `failed` says what did.

    Errors of files and memory are left as they are, and those of values that have one: they say
    enough, or others wait for them.
    """
    try:
        yield
    except (OSError, MemoryError, OutOfMemoryError):
        raise
    except Exception as error:
        if isinstance(error, ValueError) and "\n" not in str(error):
            raise
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 300)
        raise ValueError(f"{failed}: {reason}") from error


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # too many digits, too deep, or whatever another's `__repr__` raises
        return f"{type(value).__name__} that cannot be printed"


def require_tensor(name: str, value: object, axes: str) -> None:
    """Refuse what is no tensor `[axes]`, or an empty one.

    axes: "n, C, H, W", with "..." in front for any others.
    """
    count = len(axes.split(", "))
    fits = isinstance(value, Tensor) and value.numel() > 0
    if fits:
        fits = value.ndim >= count - 1 if "..." in axes else value.ndim == count  # type: ignore[attr-defined]
    require(fits, name, value, f"a tensor [{axes}], not empty")


def require_values(name: str, tensor: Tensor) -> None:
    """Refuse a tensor that is sparse, nested or masked, or has no values, on the meta device."""
    kind = "strided"
    if isinstance(tensor, MaskedTensor):
        kind = "masked"
    elif tensor.is_meta or tensor.is_nested:
        kind = "meta" if tensor.is_meta else "nested"
    elif tensor.layout is not strided:
        kind = str(tensor.layout).removeprefix("torch.")
    require(kind == "strided", f"kind of {name}", kind, "strided, each of its values in memory")


def is_finite(values: Tensor) -> bool:
    """Whether all are. `isfinite().all()` takes five passes over them, this one."""
    return bool(torch.stack(values.aminmax()).isfinite().all())


def require_folder(name: str, value: object) -> None:
    """Refuse what is no name of a folder that is there, or can be made, to write in."""
    fits = isinstance(value, str) and bool(value) and _can_be_folder(Path(value).absolute())
    require(fits, name, value, "a folder that can be written")


def _can_be_folder(path: Path) -> bool:
    """Whether a file can be made in it; what is made to find out is removed."""
    made = []
    try:
        for folder in (*reversed(path.parents), path):
            if not folder.exists():
                folder.mkdir()
                made.append(folder)
        TemporaryFile(dir=path).close()
        return True
    except (OSError, ValueError):  # no such name, or no room; a NUL in it
        return False
    finally:
        for folder in reversed(made):
            folder.rmdir()
