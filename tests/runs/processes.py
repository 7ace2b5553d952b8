"""What the processes of the tests do.

A fork server has this module loaded, with the data: a process trains at once.
"""

import asyncio
import multiprocessing
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import torch
import torch._dynamo  # Adam asks for it at its first step: seconds in which a kill hits nothing

from ginv import load_dataset, train
from ginv.data import DATASETS
from ginv.runs import checkpoints, cluster
from ginv.runs.train import LARGEST_STACK
from ginv.stack import Stack

torch.set_num_threads(1)  # a process with threads of its own must not fork
for name in DATASETS:
    load_dataset(name, 0)
LOADED_BY = os.getpid()

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["processes"])


def start(function, *arguments):
    process = CONTEXT.Process(target=function, args=arguments)
    # Before Python 3.12.4 the server does not hear where to import from, and says nothing of what
    # it misses
    with patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
        process.start()
    return process


def train_in(folder, runs, largest=4):
    """Train runs with the store in a folder; a line in `epochs` for each epoch, one in `trained`
    for each run.

    `largest`: the most runs in a stack, 64 as on a GPU.
    """
    assert os.getpid() != LOADED_BY, "the fork server has not loaded this module"
    os.environ["GINV_RUNS"] = str(folder / "runs")
    folder.mkdir(exist_ok=True)
    checkpoints.MOST_LOST = 0.0  # a checkpoint every epoch
    LARGEST_STACK["cpu"] = largest
    _note_work(folder, lambda: "epoch")
    train(runs, device="cpu", progress=False)


def work_for(scheduler, folder, seconds, name):
    """A Dask worker with the store in a folder, and epochs of so many seconds. It notes as
    `train_in` does; an epoch with its name. The first task of all fails.
    """
    from distributed import Worker

    os.environ["GINV_RUNS"] = str(folder / "runs")
    checkpoints.MOST_LOST = 0.0
    _note_work(folder, lambda: time.sleep(seconds) or name)
    whole = cluster.train

    def fails_once(*arguments, **options):
        with suppress(FileExistsError):
            (folder / "failed").touch(exist_ok=False)
            raise ConnectionError("the first task of all")
        return whole(*arguments, **options)

    cluster.train = fails_once

    async def serve():
        async with Worker(scheduler, nthreads=1, name=name, dashboard=False) as worker:
            await worker.finished()

    asyncio.run(serve())


def _note_work(folder, epoch):
    """Each epoch in `epochs`, and each run that was trained to its end in `trained`."""
    _note_calls(Stack, "_shuffled", lambda _: f"{epoch()}\n", folder / "epochs")
    _note_calls(Stack, "results", _runs, folder / "trained")


def _runs(results):
    return "".join(f"{result.run}\n" for result in results)


def _note_calls(owner, name, line, file):
    function = getattr(owner, name)

    def noted(*arguments, **options):
        result = function(*arguments, **options)
        with Path(file).open("a") as opened:
            opened.write(line(result))
        return result

    setattr(owner, name, noted)
