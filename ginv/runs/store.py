"""Trained runs and their measurements on disk: a record is named by the hash of its specification.

`GINV_RUNS` or the user's cache folder. A record is a folder with `record.json`,
`tensors.safetensors` and `SHA256SUMS` of the two, for `sha256sum -c`; written aside and renamed, it
is there whole or not at all. Whenever it is read it is verified. One that was truncated or altered,
or is another's, is named in a line and set aside, never used and never deleted; what it held counts
as missing. One without `SHA256SUMS` comes from a version that wrote none: whether it changed since,
nothing can tell. It is used if it can be read and fits, and gets its sums, with a line that says
so.

Nothing else is damage. What another version, user or setting causes is a line, and the record
stays.

The networks of Table 1 and Figure 5 come with a clone, as records in `data/runs` that are only
read: what the store lacks is looked up there, verified likewise. `GINV_FRESH=1` does without them.
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
from ginv.refuse import require
from ginv.runs.files import write_whole

# Counted up where what is stored changes its meaning: older records are then strangers
VERSIONS = {
    "record": 1,  # how every record is written
    "checkpoint": 1,  # what `ginv.stack.State` keeps
    "measurement": 3,  # what `ginv.measure` computes
    "robustness": 1,  # what `ginv.runs.measured.robustness` computes
}
CHECKPOINTS = ".checkpoints"
MOST_BYTES = 2**34  # of a file of a record, whatever its size says
SHIPPED = Path(__file__).resolve().parents[2] / "data" / "runs"  # of a clone
FILES = RECORD, TENSORS, SUMS = "record.json", "tensors.safetensors", "SHA256SUMS"  # the sums last
DAMAGED = (
    LookupError,
    TypeError,
    ValueError,
    RecursionError,  # JSON that is too deep
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    SafetensorError,
)
Stored = tuple[dict[str, Tensor], dict]  # tensors and record


def store_folder() -> Path:
    """`GINV_RUNS`, or `runs` in the user's cache folder; it is made when it is first written to."""
    return chosen_folder("GINV_RUNS") or cache_folder() / "runs"


def record_name(specification: dict) -> str:
    """Hash of a JSON-able specification; the order of its keys does not matter.

    That of a checkpoint says so.
    """
    text = json.dumps({"format": VERSIONS["record"], **specification}, sort_keys=True)
    kind = "checkpoint-" * ("checkpoint" in specification)
    return kind + hashlib.sha256(text.encode()).hexdigest()[:16]


def record_folder(specification: dict) -> Path:
    """Checkpoints lie apart: to find them, nobody looks through all records."""
    folder = store_folder()
    if "checkpoint" in specification:
        folder /= CHECKPOINTS
    return folder / record_name(specification)


def contains(specification: dict) -> bool:
    return record_folder(specification).is_dir() or _shipped(specification).is_dir()


def _shipped(specification: dict) -> Path:
    """Where a record of the clone would be; a place that is none where they are not wanted."""
    fresh = os.environ.get("GINV_FRESH") or "0"
    require(fresh in ("0", "1"), "GINV_FRESH", fresh, "0, 1")
    return SHIPPED / ("none" if fresh == "1" else record_name(specification))


def load(specification: dict, like: Mapping[str, Tensor] | None = None) -> Stored | None:
    """The tensors and the record of a specification, or None where it is not stored.

    `like`: tensors of the names, shapes and types that are expected; a record that has others is
    not used, and stays.
    """
    folder = record_folder(specification)
    found = _load(folder)
    if found is None and (shipped := _shipped(specification)).is_dir():
        found, folder = _load_shipped(shipped), shipped
    if found and like and _kinds(like) != _kinds(found[0]):
        say(f"{folder} has other tensors than are expected here: it stays, and is not used")
        return None
    return found


def checkpoints() -> list[dict]:
    """The records of all checkpoints, as they are: what they say is not verified yet."""
    found = []
    for folder in sorted((store_folder() / CHECKPOINTS).glob("checkpoint-*")):
        with suppress(OSError, ValueError, RecursionError):
            found.append(json.loads(_bytes(folder / RECORD)))
    return found


def save(specification: dict, tensors: Mapping[str, Tensor], record: dict) -> None:
    """Store a record; one that is there is kept: the same specification gives the same run.

    Raises OSError, in one line, where the store cannot be written.
    """
    folder = record_folder(specification)
    text = json.dumps({"specification": specification, **record}, indent=1)
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    content = {RECORD: text.encode(), TENSORS: safetensors.torch.save(tensors)}
    content[SUMS] = "".join(_sums(content).values()).encode()
    with _lock() as aside:
        _write(aside, content)
        if not os.path.lexists(folder):
            _make_shared(folder.parent)
            aside.rename(folder)


def adopt(specification: dict, content: Mapping[str, bytes]) -> None:
    """Store the bytes of a record that was made elsewhere, verified as any are.

    Raises one of `DAMAGED` where they are not what they ought to be.
    """
    folder = record_folder(specification)
    if missing := [name for name in FILES if name not in content]:
        raise LookupError(f"{' and '.join(missing)} is missing")
    with _lock() as aside:
        new = aside / folder.name
        new.mkdir()
        _write(new, content)
        _read(new)
        if not os.path.lexists(folder):
            new.rename(folder)


def content(specification: dict) -> dict[str, bytes]:
    """The files of a record that is stored, or came with the clone, for another store."""
    folder = record_folder(specification)
    if not folder.is_dir():
        folder = _shipped(specification)
    found = {name: _bytes(folder / name) for name in (RECORD, TENSORS)}
    if (folder / SUMS).exists():  # its own: new ones would say that what is damaged is right
        return found | {SUMS: _bytes(folder / SUMS)}
    return found | {SUMS: "".join(_sums(found).values()).encode()}


def is_whole(content: Mapping[str, bytes]) -> bool:
    """Whether these are the files of one record, by their sums; some may be missing."""
    return {*content} == {*FILES} and not _altered(content, content[SUMS])


def _altered(content: Mapping[str, bytes], written: bytes) -> list[str]:
    sums = _sums({name: content[name] for name in (RECORD, TENSORS)})
    return [name for name, line in sums.items() if line.encode() not in written]


def remove(specification: dict) -> None:
    """Remove a record, whole or not at all; where the store cannot be written it stays."""
    with suppress(OSError), _lock() as aside:
        record_folder(specification).rename(aside / "removed")


@contextmanager
def claim(specifications: list[dict]) -> Iterator[list[bool]]:
    """Which of the specifications this process has to itself, until the block or it ends."""
    with ExitStack() as held:
        ours = []
        with _lock():  # all at once, so that a stack stays together
            for specification in specifications:
                lock = FileLock(_lock_file(specification), timeout=0, mode=_shared_mode())
                with suppress(Timeout):
                    held.enter_context(lock)
                ours.append(lock.is_locked)
        yield ours


def is_claimed(specification: dict) -> bool:
    """Whether a process has it to itself now."""
    try:
        with FileLock(_lock_file(specification), timeout=0, mode=_shared_mode()):
            return False
    except Timeout:
        return True


def _lock_file(specification: dict) -> Path:
    return store_folder() / ".locks" / record_name(specification)


def _shared_mode() -> int:
    """Of a lock: whoever can write in the store can take it.

    And its owner in any case: filelock refuses another one with a ValueError.
    """
    return store_folder().stat().st_mode & 0o666 | 0o600


@contextmanager
def _lock() -> Iterator[Path]:
    """The store for one process at a time, and an empty folder in it.

    The system frees the lock of a dead process.
    """
    folder = store_folder()
    aside = folder / f".writing-{os.getuid() if hasattr(os, 'getuid') else 0}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", mode=_shared_mode()):
            _make_shared(folder / ".locks")
            if aside.exists():  # of a dead process: a living one would hold the lock
                shutil.rmtree(aside)
            aside.mkdir()
            try:
                yield aside
            finally:
                shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or error
        remedy = "set GINV_RUNS to a folder that can"
        raise OSError(f"the store {folder} cannot be written ({reason}); {remedy}") from None


def _make_shared(folder: Path) -> None:
    """A folder in the store, for whoever can write in the store."""
    if not folder.is_dir():
        folder.mkdir()
        folder.chmod(store_folder().stat().st_mode & 0o777)


def _write(folder: Path, content: Mapping[str, bytes]) -> None:
    for name, data in content.items():
        with (folder / name).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # on the disk before it has its name, should the power fail


def _load(folder: Path) -> Stored | None:
    if not os.path.lexists(folder):
        return None
    try:
        return _read(folder)
    except DAMAGED as error:
        return _set_aside(folder, error)
    except OSError as error:  # another user's, or the disk's
        say(f"{folder} cannot be read ({error.strerror}): it stays, and is not used")
        return None


def _load_shipped(folder: Path) -> Stored | None:
    try:
        return _read(folder)
    except (*DAMAGED, OSError) as error:
        say(f"{folder} cannot be used, {error}: it stays; git checkout {folder} brings it back")
        return None


def _set_aside(folder: Path, found: BaseException) -> Stored | None:
    """Keep a damaged record under another name; where the store cannot be written it stays."""
    aside = folder.with_name(f"set-aside-{folder.name}-{time.time_ns()}")
    try:
        with _lock():  # another process may have set it aside, or removed it, just now
            try:
                return _read(folder) if os.path.lexists(folder) else None
            except DAMAGED as error:
                folder.rename(aside)
                kept = f"it is kept as {aside.name}, and what it held is missing now"
                say(f"{folder} cannot be used, {error}: {kept}")
    except OSError:
        say(f"{folder} cannot be used, {found}: it stays, since the store cannot be written")
    return None


def _read(folder: Path) -> Stored:
    """The content of a record, verified: what is hashed here is what is used."""
    if folder.is_symlink():
        raise ValueError("it is a link")
    content = {name: _bytes(folder / name) for name in (RECORD, TENSORS)}
    sums, sealed = _sums(content), (folder / SUMS).exists()
    written = _bytes(folder / SUMS) if sealed else b""
    if sealed and (altered := _altered(content, written)):
        raise ValueError(f"{' and '.join(altered)} differs from {SUMS}")
    record, tensors = json.loads(content[RECORD]), safetensors.torch.load(content[TENSORS])
    if record_name(record["specification"]) != folder.name:
        raise ValueError("it holds another specification than its name says")
    if not sealed:
        used = "it is used as it is"
        with suppress(OSError):
            write_whole(folder / SUMS, "".join(sums.values()))
            used += ", and has them from now on"
        say(f"{folder} comes from a version without checksums: {used}")
    return tensors, record


def _bytes(path: Path) -> bytes:
    """The content of a file. A pipe or a device might never end."""
    if not (path.is_file() or path.is_dir()) and path.exists():
        raise ValueError(f"{path.name} is no file")
    if path.is_symlink() and not path.exists():
        raise ValueError(f"{path.name} is a link that leads nowhere")
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path.name} has more than {MOST_BYTES:,} bytes")
    return path.read_bytes()


def _kinds(tensors: Mapping[str, Tensor]) -> dict:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def _sums(content: dict[str, bytes]) -> dict[str, str]:
    """A line of `sha256sum` for each file."""
    return {name: f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in content.items()}


def say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)  # leaves a progress bar whole
