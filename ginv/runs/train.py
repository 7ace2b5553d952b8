"""Trained runs, from the store where they are there.

A trained run is stored at once, and the state of a long training once a minute: interrupted in
whatever way, it goes on where it was. Two processes that want the same run train it once.
"""

import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Event

import torch
from tqdm import tqdm

from ginv.data import load_dataset
from ginv.machine import choose_device
from ginv.recipe import Run
from ginv.refuse import require
from ginv.runs import checkpoints, costs, store
from ginv.runs.checkpoints import Checkpoint, Keeper
from ginv.stack import TrainedRun, shared_by_stack, train_stack

# On a CPU more runs in a stack are no faster: their parameters and Adam's moments leave its cache
LARGEST_STACK = {"cpu": 4, "cuda": 64}


def train(
    runs: Iterable[Run], *, device: str = "auto", progress: bool = True
) -> dict[Run, TrainedRun]:
    """Load the runs that are in the store and train the others, those of one architecture stacked.

    device: "auto", "cpu" or "cuda". Raises FloatingPointError where a run diverges, ValueError for
    what is no `Run` or no device, OSError where the store cannot be written.
    """
    require(isinstance(runs, Iterable), "runs", runs, "ginv.Run objects in a list")
    for run in (wanted := list(runs)):
        require(isinstance(run, Run), "run", run, "a ginv.Run")
    wanted, where = list(dict.fromkeys(wanted)), choose_device(device)
    trained = {run: loaded for run in wanted if (loaded := load_run(run))}
    if trained and progress:
        _say(f"{len(trained)} of {len(wanted)} runs are in the store: loaded, not trained")
    training = _Training(wanted, where, progress)
    told = 0
    with ThreadPoolExecutor(training.workers) as executor:
        try:
            while missing := [run for run in wanted if run not in trained]:
                parts = training.parts(missing)
                futures = [executor.submit(training.train_part, *part) for part in parts]
                for done in as_completed(futures):
                    trained.update((result.run, result) for result in done.result())
                if (others := len(wanted) - len(trained)) and others != told and progress:
                    _say(f"{others} runs are trained by another process: waiting for them")
                told = others
                time.sleep(min(others, 1))
        except BaseException:  # Ctrl-C too
            training.stop.set()
            raise
    checkpoints.stored(where.type)  # removes what a killed process left
    return {run: trained[run] for run in wanted}


def load_run(run: Run) -> TrainedRun | None:
    """A run from the store, or None."""
    model = run.model()
    if (stored := store.load(run.specification, model.state_dict())) is None:
        return None
    model.load_state_dict(stored[0])
    return TrainedRun(run, model.requires_grad_(False), stored[1])


def stacks(
    runs: list[Run], largest: int, kept: Sequence[Checkpoint] = ()
) -> Iterator[tuple[list[Run], Checkpoint | None]]:
    """Runs that train together, and where they go on.

    Those of a checkpoint first: what was a stack stays one.
    """
    for checkpoint in kept:
        if stack := [run for run in runs if run.specification in checkpoint.runs]:
            yield stack, checkpoint
            runs = [run for run in runs if run not in stack]
    alike = defaultdict(list)
    for run in runs:
        alike[shared_by_stack(run)].append(run)
    for stack in alike.values():
        yield from ((stack[i : i + largest], None) for i in range(0, len(stack), largest))


class _Training:
    """Stacks side by side, each on cores of its own.

    That is faster than one on all: the cores need not wait for each other after every product. On
    how many must not hang on what is missing, or an interrupted training might not end in the same
    bits.
    """

    def __init__(self, wanted: list[Run], device: torch.device, progress: bool) -> None:
        self.device, self.progress, self.stop = device, progress, Event()
        self.largest = LARGEST_STACK[device.type]
        self.cores = torch.get_num_threads() if device.type == "cpu" else 1
        self.workers = max(1, min(self.cores, len([*stacks(wanted, self.largest)])))

    def parts(self, missing: list[Run]) -> list[tuple[list[Run], Checkpoint | None]]:
        """The stacks to train, the longest first: the short ones fill the gaps."""
        for run in missing:  # cached from here on: the threads need not read it again
            load_dataset(run.dataset, run.split_seed)
        parts = [*stacks(missing, self.largest, checkpoints.stored(self.device.type))]
        return sorted(parts, key=lambda part: -len(part[0]) * costs.training_operations(part[0][0]))

    def train_part(self, stack: list[Run], checkpoint: Checkpoint | None) -> list[TrainedRun]:
        """What no other process trains of a stack."""
        if self.device.type == "cpu":
            torch.set_num_threads(self.cores // self.workers)  # of this thread alone
        with store.claim([run.specification for run in stack]) as ours:
            claimed = [run for run, mine in zip(stack, ours, strict=True) if mine]
            # Another process may have been faster
            found = {run: loaded for run in claimed if (loaded := load_run(run))}
            missing = [run for run in claimed if run not in found]
            results = self._train_and_store(missing, checkpoint) if missing else []
        return [*found.values(), *results]

    def _train_and_store(self, runs: list[Run], checkpoint: Checkpoint | None) -> list[TrainedRun]:
        """From a checkpoint that has these runs, and perhaps others, which need it too."""
        specifications = [run.specification for run in runs]
        own = checkpoint if checkpoint and checkpoint.runs == specifications else None
        keep = Keeper(runs, self.device.type, own)
        results = train_stack(
            runs,
            device=self.device,
            progress=self.progress,
            stop=self.stop,
            start=checkpoint.of(specifications) if checkpoint else None,
            keep=keep,
        )
        for result in results:
            store.save(result.run.specification, result.model.state_dict(), result.record)
        keep.remove()
        return results


def _say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)
