"""Trained runs and their measurements on disk: a record is named by the hash of its specification.

`GINV_RUNS` or the user's cache folder. A record is a folder with `record.json`,
`tensors.safetensors` and `SHA256SUMS` of the two, for `sha256sum -c`; written aside and renamed, it
is there whole or not at all. Whenever it is read it is verified. One that was truncated or altered,
or is another's, is named in a line and set aside, never used and never deleted; what it held counts
as missing. One without `SHA256SUMS` comes from a version that wrote none: whether it changed since,
nothing can tell. It is used if it can be read and fits, and gets its sums, with a line that says
so.
"""

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import safetensors.torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from torch import Tensor
from tqdm import tqdm

from ginv.machine import cache_folder, chosen_folder

# Counted up where what is stored changes its meaning: older records are then strangers
VERSIONS = {
    "record": 1,  # how every record is written
    "checkpoint": 1,  # what `ginv.stack.State` keeps
    "measurement": 2,  # what `ginv.measure` computes
    "robustness": 1,  # what `ginv.runs.measured.robustness` computes
}
FILES = RECORD, TENSORS, SUMS = "record.json", "tensors.safetensors", "SHA256SUMS"  # the sums last
DAMAGED = (
    LookupError,
    TypeError,
    ValueError,
    FileNotFoundError,
    NotADirectoryError,
    SafetensorError,
)
Stored = tuple[dict[str, Tensor], dict]  # tensors and record


def store_folder() -> Path:
    return chosen_folder("GINV_RUNS") or cache_folder() / "runs"


def record_name(specification: dict) -> str:
    """Hash of a JSON-able specification; the order of its keys does not matter.

    That of a checkpoint says so.
    """
    text = json.dumps({"format": VERSIONS["record"], **specification}, sort_keys=True)
    return (
        "checkpoint-" * ("checkpoint" in specification)
        + hashlib.sha256(text.encode()).hexdigest()[:16]
    )


def contains(specification: dict) -> bool:
    return (store_folder() / record_name(specification)).is_dir()


def load(specification: dict, like: Mapping[str, Tensor] | None = None) -> Stored | None:
    """The tensors and the record of a specification, or None where it is not stored.

    `like`: tensors of the names, shapes and types that the record must have.
    """
    return _load(store_folder() / record_name(specification), like)


def checkpoints() -> list[Stored]:
    """Everything stored whose specification has `checkpoint` in it."""
    return [
        found for folder in sorted(store_folder().glob("checkpoint-*")) if (found := _load(folder))
    ]


def save(specification: dict, tensors: Mapping[str, Tensor], record: dict) -> None:
    """Store a record; one that is there is kept: the same specification gives the same run.

    Raises OSError, in one line, where the store cannot be written.
    """
    folder = store_folder() / record_name(specification)
    content = {
        RECORD: json.dumps({"specification": specification, **record}, indent=1).encode(),
        TENSORS: safetensors.torch.save(
            {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
        ),
    }
    content[SUMS] = "".join(_sums(content).values()).encode()
    with _lock() as aside:
        _write(aside, content)
        if not os.path.lexists(folder):
            aside.rename(folder)


def adopt(specification: dict, content: Mapping[str, bytes]) -> None:
    """Store the bytes of a record that was made elsewhere, verified as any are.

    Raises one of `DAMAGED` where they are not what they ought to be.
    """
    folder = store_folder() / record_name(specification)
    with _lock() as aside:
        new = aside / folder.name
        new.mkdir()
        _write(new, content)
        _read(new, None)
        if not os.path.lexists(folder):
            new.rename(folder)


def remove(specification: dict) -> None:
    """Remove a record, whole or not at all."""
    with _lock() as aside, suppress(FileNotFoundError):
        (store_folder() / record_name(specification)).rename(aside / "removed")


@contextmanager
def claim(specifications: list[dict]) -> Iterator[list[bool]]:
    """Which of the specifications this process has to itself, until the block or it ends."""
    with ExitStack() as held:
        ours = []
        with _lock():  # all at once, so that a stack stays together
            for specification in specifications:
                lock = FileLock(store_folder() / ".locks" / record_name(specification), timeout=0)
                with suppress(Timeout):
                    held.enter_context(lock)
                ours.append(lock.is_locked)
        yield ours


@contextmanager
def _lock() -> Iterator[Path]:
    """The store for one process at a time, and an empty folder in it.

    The system frees the lock of a dead process.
    """
    folder = store_folder()
    aside = folder / ".writing"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            for dead in folder.glob(".writing*"):  # a living writer would hold the lock
                shutil.rmtree(dead)
            aside.mkdir()
            try:
                yield aside
            finally:
                shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(
            f"the store {folder} cannot be written ({reason}); set GINV_RUNS to a folder that can"
        ) from None


def _write(folder: Path, content: Mapping[str, bytes]) -> None:
    for name, data in content.items():
        with (folder / name).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # on the disk before it has its name, should the power fail


def _load(folder: Path, like: Mapping[str, Tensor] | None = None) -> Stored | None:
    if not os.path.lexists(folder):
        return None
    with suppress(*DAMAGED):
        return _read(folder, like)
    with _lock():  # another process may have set it aside, or removed it, just now
        try:
            return _read(folder, like) if os.path.lexists(folder) else None
        except DAMAGED as error:
            aside = folder.with_name(f"set-aside-{folder.name}-{time.time_ns()}")
            kept = f"it is kept as {aside.name}, and what it held is missing now"
            say(f"{folder} cannot be used, {error}: {kept}")
            folder.rename(aside)
            return None


def _read(folder: Path, like: Mapping[str, Tensor] | None) -> Stored:
    """The content of a record, verified: what is hashed here is what is used."""
    if folder.is_symlink():
        raise ValueError("it is a link")
    content = {name: (folder / name).read_bytes() for name in (RECORD, TENSORS)}
    sums, sealed = _sums(content), (folder / SUMS).exists()
    written = (folder / SUMS).read_bytes() if sealed else b""
    if sealed and (
        altered := [name for name, line in sums.items() if line.encode() not in written]
    ):
        raise ValueError(f"{' and '.join(altered)} differs from {SUMS}")
    record, tensors = json.loads(content[RECORD]), safetensors.torch.load(content[TENSORS])
    if record_name(record["specification"]) != folder.name:
        raise ValueError("it holds another specification than its name says")
    if like and {n: (t.shape, t.dtype) for n, t in like.items()} != {
        n: (t.shape, t.dtype) for n, t in tensors.items()
    }:
        raise ValueError("its tensors are not those of the network")
    if not sealed:
        used = "it is used as it is, and has them from now on"
        say(f"{folder} comes from a version without checksums: {used}")
        with suppress(OSError):
            aside = folder / f".{SUMS}-{os.getpid()}"
            aside.write_text("".join(sums.values()))
            aside.replace(folder / SUMS)
    return tensors, record


def _sums(content: dict[str, bytes]) -> dict[str, str]:
    """A line of `sha256sum` for each file."""
    return {name: f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in content.items()}


def say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)  # leaves a progress bar whole
