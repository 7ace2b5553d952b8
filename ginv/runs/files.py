"""Files that are there whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from ginv.refuse import require, require_folder


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file aside and rename it, so that a reader sees the old one or the new one.

    Text is UTF-8. Raises OSError, in one line, where the folder cannot be written.
    """
    content = content.encode() if isinstance(content, str) else content
    path, aside = Path(os.path.realpath(path)), None  # a link stays one
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is no file")
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = path.stat().st_mode if path.exists() else 0o666 & ~_umask()
        handle, aside = tempfile.mkstemp(prefix=".writing-", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(aside, mode)
        os.replace(aside, path)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"{path} cannot be written ({reason})") from None
    finally:
        if aside:
            with suppress(FileNotFoundError):
                os.unlink(aside)


def require_writable(name: str, path: Path, *inputs: Path) -> None:
    """Refuse what cannot be written as a file, or is one of the inputs; before the work is done."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError):  # too long a name, a NUL in it
        require(False, name, str(path), "a file that can be written")
    for source in inputs:
        same = path.exists() and source.exists() and path.samefile(source)
        require(not same, name, str(path), "another file than that which is read")
    fits = path.is_file() or not path.exists()  # nor a device or a pipe
    require(fits, name, str(path), "a file, not a folder")
    require_folder(f"folder of the {name}", str(path.absolute().parent))


@contextmanager
def one_writer(path: Path) -> Iterator[None]:
    """For a file that is read, changed and written: one process at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        yield


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
