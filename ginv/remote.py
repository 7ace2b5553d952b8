"""A second store, elsewhere: whatever fsspec reaches by a URL, such as s3://bucket/runs or file:///shared/runs.

It holds the records of `ginv.store` under their names, with the same files. `SHA256SUMS` is written last: a record that
has none yet does not count. One that is damaged is named in a line, kept aside there and, in time, made again.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from ginv import store
from ginv.parameters import require

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


def require_remote(url: str) -> None:
    """Raise ValueError for what is no URL and OSError where nothing can be written, in one line."""
    require(isinstance(url, str) and "://" in url, "store", url, "a URL that fsspec knows, such as s3://bucket/runs")
    try:
        files, folder = _open(url)
        files.makedirs(folder, exist_ok=True)
        files.pipe_file(f"{folder}/.ginv", b"")
    except Exception as error:  # each file system has its own
        raise OSError(f"the store {url} cannot be written: {' '.join(str(error).split()) or repr(error)}") from None


def pull(url: str, specifications: Sequence[dict]) -> None:
    """Take into the local store what it lacks of these records and is whole elsewhere."""
    files, folder = _open(url)
    for specification in specifications:
        there = f"{folder}/{store.record_name(specification)}"
        if store.load(specification) or not files.exists(f"{there}/{store.SUMS}"):
            continue
        try:
            store.adopt(specification, {name: files.cat_file(f"{there}/{name}") for name in store.FILES})
        except store.DAMAGED as error:
            aside = f"{folder}/set-aside-{store.record_name(specification)}-{time.time_ns()}"
            store.say(f"{there} at {url} cannot be used, {error}: it is kept as {aside}, and made again")
            with suppress(FileNotFoundError):  # another worker was faster
                files.mv(there, aside, recursive=True)


def push(url: str, specifications: Sequence[dict]) -> None:
    """Copy these records of the local store to where they are not."""
    files, folder = _open(url)
    for specification in specifications:
        here, there = (f"{place}/{store.record_name(specification)}" for place in (store.store_folder(), folder))
        if not files.exists(f"{there}/{store.SUMS}"):
            files.makedirs(there, exist_ok=True)
            for name in store.FILES:
                with open(f"{here}/{name}", "rb") as file:
                    files.pipe_file(f"{there}/{name}", file.read())


def _open(url: str) -> tuple["AbstractFileSystem", str]:
    import fsspec  # here, since it is needed with --store alone

    files, folder = fsspec.core.url_to_fs(url)
    files.invalidate_cache()  # others write too
    return files, folder
