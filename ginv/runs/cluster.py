"""Runs on other machines: the workers of a Dask, and a second store, elsewhere.

That store is whatever fsspec reaches by a URL, such as s3://bucket/runs or file:///shared/runs. It
holds the records of `ginv.runs.store` under their names, with the same files. `SHA256SUMS` is
written last: a record that has none yet does not count. One that is damaged is named in a line,
kept aside there and, in time, made again. Dask and fsspec come with the extra `ginv[sweep]`.
"""

import ipaddress
import random
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import unquote

from tqdm import tqdm

from ginv.recipe import Run
from ginv.refuse import require
from ginv.runs import store
from ginv.runs.measured import evaluated, named
from ginv.runs.train import Failed, train

RETRIES = 2  # of a stack that failed on a worker; one whose worker died is not counted
SECONDS_TO_CONNECT = 5
SECONDS_TO_SETTLE = 5  # of a record elsewhere that another may be writing just now
ATTEMPTS = 8  # to write one that others write, too


Values = dict[str, float]


def work(
    specifications: list[dict],
    split: str,
    images: int,
    device: str = "auto",
    remote: str | None = None,
    progress: bool = False,
) -> list[Values | str]:
    """Train runs and evaluate them, on whichever machine this is called.

    For each run what was measured or, of one that failed, why there is nothing.
    """
    fields = [{k: v for k, v in each.items() if k != "action"} for each in specifications]
    runs = [Run(**each) for each in fields]  # refuses unknown fields
    records = [run.specification for run in runs]
    for run, asked, here in zip(runs, specifications, records, strict=True):
        if asked.get("action") != here.get("action"):
            raise ValueError(f"the group {run.group} acts otherwise on this machine")
    if remote:
        pull(remote, records)
    try:
        results, failed = [*train(runs, device=device, progress=progress).values()], {}
    except Failed as error:
        results, failed = error.trained, error.failed
    kinds = ("measurement", "robustness")
    measurements = [named(kind, result, split, images) for result in results for kind in kinds]
    if remote:
        pull(remote, measurements)
    bar = tqdm(results, desc="evaluate", disable=not progress)
    values = {each.run: evaluated(each, split, images, device=device) for each in bar}
    if remote:
        push(remote, [*[result.run.specification for result in results], *measurements])
    return [values[run] if run in values else failed[run] for run in runs]


def _work_there(versions: dict[str, int], *arguments: Any) -> Any:
    """`work`, on a worker that has the same ginv. It is pickled whole, not by its name: a worker
    that cannot import ginv would die of the name, and nobody would hear why.
    """
    from ginv.runs import cluster, store

    if versions != store.VERSIONS:
        raise RuntimeError(f"this worker's ginv stores {store.VERSIONS}, not {versions}")
    return cluster.work(*arguments)


_work_there.__module__ = "__main__"  # what cloudpickle takes whole


def on_workers(
    scheduler: str, stacks: list[list[Run]], *arguments: Any
) -> Iterator[dict[Run, Values | str]]:
    """`work` on the workers of a scheduler, a stack each, with these further arguments.

    As they are done; of a stack that failed, why. Raises ValueError and OSError, in one line, for
    an address that does not fit or does not answer.
    """
    with _connected(scheduler) as client:
        from distributed import as_completed

        futures = {}
        for stack in stacks:
            specifications = [run.specification for run in stack]
            task = (_work_there, store.VERSIONS, specifications, *arguments)
            futures[client.submit(*task, pure=False, retries=RETRIES)] = stack
        done = as_completed(futures, loop=client.loop)
        for future in tqdm(done, desc="stacks", total=len(stacks), unit="stack"):
            stack = futures[future]
            if future.status == "finished":
                yield dict(zip(stack, future.result(), strict=True))
            else:
                reason = repr(future.exception() or OSError(f"the scheduler {scheduler} went away"))
                yield dict.fromkeys(stack, " ".join(reason.split()))


def require_scheduler(address: str) -> None:
    """Raise ValueError, in one line, for what is no address of a scheduler."""
    fits = isinstance(address, str) and _is_address(address)
    require(fits, "scheduler", address, "an address such as tcp://127.0.0.1:8786")


def _is_address(text: str) -> bool:
    found = re.fullmatch(r"(tcp|tls|ws|wss|ucx)://(?:\[(.+)\]|([\w.-]+)):(\d{1,5})", text, re.ASCII)
    if not found or not 1 <= int(found[4]) < 2**16:
        return False
    if found[3]:
        return all(0 < len(part) < 64 for part in found[3].removesuffix(".").split("."))
    try:
        return bool(ipaddress.IPv6Address(found[2]))
    except ValueError:
        return False


def _connected(scheduler: str) -> Any:
    """A client of a scheduler."""
    try:
        from distributed import Client  # here, since it is an extra
    except ImportError:
        raise ImportError('a scheduler needs Dask: pip install "ginv[sweep]"') from None
    try:
        client = Client(scheduler, timeout=SECONDS_TO_CONNECT, set_as_default=False)
    except Exception as error:  # each protocol has its own
        reason = " ".join(str(error).split()) or repr(error)
        raise OSError(f"no scheduler at {scheduler}: {reason}") from None
    if not client.scheduler_info()["workers"]:
        tqdm.write(f"no workers at {scheduler} yet: waiting for them", file=sys.stderr)
    return client


def require_remote(url: str) -> None:
    """Raise ValueError for what is no URL and OSError where nothing can be written, in one line."""
    fits = isinstance(url, str) and url.isprintable() and url == url.strip()
    fits = fits and bool(re.fullmatch(r"(\w+::)*(?!file://[^/])[a-z][a-z0-9+.-]+://.+", url))
    shown = redacted(url, url) if isinstance(url, str) else url
    require(fits, "store", shown, "a URL that fsspec knows, such as s3://bucket/runs")
    with _reaching(url, "written"):
        files, folder = _open(url)
        files.makedirs(folder, exist_ok=True)
        files.pipe_file(f"{folder}/.ginv", b"")


@contextmanager
def _reaching(url: str, what: str) -> Iterator[None]:
    """Raise OSError, in one line, for whatever another store's file system raises."""
    try:
        yield
    except Exception as error:  # each file system has its own
        reason = " ".join(str(error).split()) or repr(error)
        raise OSError(redacted(f"the store {url} cannot be {what}: {reason}", url)) from None


def redacted(text: str, url: str | None) -> str:
    """A text without what a URL may keep secret.

    That is a name and a password, all in front of an `@`, and what follows a `?` or `#`. The URL
    may be misspelt.
    """
    url = url or ""
    owner = re.match(r"(?:[A-Za-z][\w+.-]*:(?=/))?/*(.*)@", url)
    asked = url[len(re.split("[?#]", url)[0]) + 1 :]
    parts = [asked, *re.findall("=([^&#]+)", asked)]
    if owner:
        parts += [owner[1], *re.split("[:/]", owner[1])]
    for part in sorted({*parts, *map(unquote, parts)}, key=len, reverse=True):
        if len(part) > 1:  # a letter alone would be all over the text
            text = text.replace(part, "***")
    return text


def pull(url: str, specifications: Sequence[dict]) -> None:
    """Take into the local store what it lacks of these records and is whole elsewhere."""
    with _reaching(url, "read"):
        files, folder = _open(url)
    for specification in specifications:
        name = store.record_name(specification)
        there = f"{folder}/{name}"
        if store.load(specification):
            continue
        with _reaching(url, "read"):
            if not files.exists(f"{there}/{store.SUMS}"):
                continue
            found = _settled(files, there)
        try:
            store.adopt(specification, found)
        except store.DAMAGED as error:
            aside = f"{folder}/set-aside-{name}-{time.time_ns()}"
            kept = f"it is kept as {aside}, and made again"
            store.say(redacted(f"{there} at {url} cannot be used, {error}: {kept}", url))
            with _reaching(url, "written"), suppress(FileNotFoundError):  # another was faster
                files.mv(there, aside, recursive=True)


def push(url: str, specifications: Sequence[dict]) -> None:
    """Copy these records of the local store to where they are not."""
    with _reaching(url, "written"):
        files, folder = _open(url)
    for specification in specifications:
        there = f"{folder}/{store.record_name(specification)}"
        content = store.content(specification)
        with _reaching(url, "written"):
            if not files.exists(f"{there}/{store.SUMS}"):
                _write(files, there, content)


def _write(files: Any, there: str, content: dict[str, bytes]) -> None:
    """Several may write one record at a time, whose seconds differ: the last leaves it whole."""
    for attempt in range(ATTEMPTS):
        with suppress(FileNotFoundError):  # another has set it aside
            files.makedirs(there, exist_ok=True)
            for name, data in content.items():
                files.pipe_file(f"{there}/{name}", data)
            if store.is_whole(_read(files, there)):
                return
        time.sleep(random.uniform(0, 0.1 * 2**attempt))


def _read(files: Any, there: str) -> dict[str, bytes]:
    """Those of its files that are there."""
    found = {}
    for name in store.FILES:
        with suppress(FileNotFoundError):
            found[name] = files.cat_file(f"{there}/{name}")
    return found


def _settled(files: Any, there: str) -> dict[str, bytes]:
    """The files of a record: whole, or not whole for longer than it takes to write them."""
    found, before = _read(files, there), None
    for _ in range(ATTEMPTS):
        if store.is_whole(found) or found == before:
            break
        time.sleep(SECONDS_TO_SETTLE)
        found, before = _read(files, there), found
    return found


def _open(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the folder in it."""
    import fsspec  # here, since it is needed with --store alone

    files, folder = fsspec.core.url_to_fs(url)
    files.invalidate_cache()  # others write too
    return files, folder
