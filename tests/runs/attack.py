"""Attacks on one store: `python tests/runs/attack.py [ROUNDS] [SEED]`, minutes; the weekly workflow
runs 200.

In each round a process that trains some runs is killed, forked, starved of disk, run as another
user or under settings that nobody expects, or a record is damaged or replaced by something odd.
Then another process asks for all runs. It has to come back, with the weights that an undisturbed
training has, up to rounding; and what was not touched must not be trained again.
"""

import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import torch
from processes import start

import ginv
from ginv import Run, train
from ginv.runs import checkpoints, store
from ginv.stack import Stack

SHORT = dict(epochs=6, train_images=200, batch_size=64, width=16, depth=2)
RUNS = [
    *(Run(seed=seed, **SHORT) for seed in range(3)),
    *(Run("T3", "IR", seed, 1.0, **SHORT) for seed in range(2)),
    *(Run("R4", "WT", seed, **SHORT) for seed in range(2)),
]
PATIENCE = 300  # seconds until a process counts as blocked


def work(folder, runs, before=lambda: None, threads=1):
    """Train runs in a process of its own, after whatever `before` does to it."""
    os.environ["GINV_RUNS"] = str(folder / "runs")
    sys.stderr = (folder / "said").open("a")
    checkpoints.MOST_LOST = 0.0
    results = Stack.results

    def noted(stack, seconds):
        with (folder / "trained").open("a") as file:
            file.writelines(f"{run}\n" for run in stack.runs)
        return results(stack, seconds)

    Stack.results = noted
    before()
    if threads == 1:
        with suppress(OSError):  # a line, and the next round goes on
            train(runs, device="cpu", progress=False)
        return
    options = dict(args=(runs,), kwargs=dict(device="cpu", progress=False))
    workers = [threading.Thread(target=train, **options) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


# --- What a process may find itself in


def double():
    torch.set_default_dtype(torch.float64)


def elsewhere():
    torch.set_default_device("meta")


def without_gradients():
    torch.inference_mode(True).__enter__()


def cast():
    torch.autocast("cpu", torch.bfloat16).__enter__()


def no_disk():
    """Files end after some kilobytes, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def another_user():
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    os.environ.pop("HOME", None)


def forked():
    """A child that measures what its parent has measured."""
    some = ginv.load_dataset().test.head(40)
    arguments = ginv.MLP(), some.images, some.labels, ginv.Rotations(4)
    ginv.measure(*arguments, progress=False)
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0
    else:
        ginv.measure(*arguments, progress=False)
        os._exit(0)


SETTINGS = [double, elsewhere, without_gradients, cast, no_disk, another_user, forked]


# --- What may become of a record


def truncate(record):
    os.truncate(record / store.TENSORS, 100)


def alter(record):
    content = bytearray((record / store.TENSORS).read_bytes())
    content[-1] ^= 1
    (record / store.TENSORS).write_bytes(content)


def empty(record):
    shutil.rmtree(record)
    record.mkdir()


def file_for_folder(record):
    shutil.rmtree(record)
    record.write_text("?")


def folder_for_file(record):
    (record / store.TENSORS).unlink()
    (record / store.TENSORS).mkdir()


def link(record):
    shutil.rmtree(record)
    record.symlink_to("/nowhere")


def deep(record):
    (record / store.RECORD).write_text("[" * 100_000)


def seal(record, content):
    """A record that says something else, with sums that are right."""
    (record / store.RECORD).write_text(content)
    files = {name: (record / name).read_bytes() for name in (store.RECORD, store.TENSORS)}
    (record / store.SUMS).write_text("".join(store._sums(files).values()))


def strange(record):
    seal(
        record, random.choice(["[]", "null", "3", '{"specification": 1}', '{"specification": {}}'])
    )


def strange_checkpoint(record):
    """Nothing that anybody trains, under the name that it says."""
    for odd in ({"runs": [{}], "state": 2}, {"runs": 3}, {"runs": [{"seed": "x"}], "state": 1}):
        specification = {"checkpoint": 1, **odd}
        folder = store.record_folder(specification)
        if not folder.exists():
            shutil.copytree(record, folder)
            seal(folder, json.dumps({"specification": specification}))


DAMAGE = [
    truncate,
    alter,
    empty,
    file_for_folder,
    folder_for_file,
    link,
    deep,
    strange,
    strange_checkpoint,
]


# --- The rounds


def weights():
    """All weights in the store, by run."""
    found = {str(run): store.load(run.specification) for run in RUNS}
    return {
        run: torch.cat([tensor.flatten() for _, tensor in sorted(each[0].items())])
        for run, each in found.items()
        if each
    }


def same(found, expected):
    """Up to rounding, and a ReLU that it switches; another seed is far off."""
    return found.keys() == expected.keys() and all(
        (found[run] - expected[run]).norm() < 0.01 * expected[run].norm() for run in expected
    )


def attack(chance, folder):
    """One of them, on some of the runs. Returns the runs that it may have cost."""
    runs = chance.sample(RUNS, chance.randint(1, len(RUNS)))
    kind = chance.choice(["kill", "setting", "damage", "together"])
    if kind == "damage":
        there = [run for run in runs if store.contains(run.specification)]
        for run in there:
            chance.choice(DAMAGE)(store.record_folder(run.specification))
        return kind, there
    for run in runs:  # so that there is something to do
        with suppress(OSError):
            shutil.rmtree(store.record_folder(run.specification))
    if kind == "setting":
        before = chance.choice(SETTINGS)
        process = start(work, folder, runs, before)
        process.join(PATIENCE)
        assert not process.is_alive(), f"blocked by {before.__name__}"
        return f"{kind} {before.__name__}", runs
    processes = [start(work, folder, runs, int, 2) for _ in range(3 if kind == "together" else 1)]
    for process in processes:
        process.join(chance.uniform(0, 2))
        number = chance.choice([signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
        if process.is_alive():
            os.kill(process.pid, number)
    for process in processes:
        process.join(PATIENCE)
        assert not process.is_alive(), "blocked after a signal"
    return kind, runs


def main(rounds, seed):
    chance = random.Random(seed)
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    os.environ["GINV_RUNS"] = str(folder / "runs")
    process = start(work, folder, RUNS)
    process.join()
    (folder / "runs").chmod(0o777)  # shared by all users
    expected = weights()
    assert process.exitcode == 0 and len(expected) == len(RUNS)
    began = time.monotonic()
    for number in range(1, rounds + 1):
        kind, touched = attack(chance, folder)
        (folder / "trained").write_text("")
        (folder / "trained").chmod(0o666)
        process = start(work, folder, RUNS)
        process.join(PATIENCE)
        assert process.exitcode == 0, f"round {number}, {kind}: {process.exitcode}, {folder}"
        again = set((folder / "trained").read_text().splitlines())
        assert again <= set(map(str, touched)), f"round {number}, {kind}: trained again {again}"
        assert same(weights(), expected), f"round {number}, {kind}: other weights, {folder}"
        left = (time.monotonic() - began) / number * (rounds - number)
        print(f"{number} of {rounds}: {kind}, {len(again)} trained again; {left / 60:.0f} min left")
    print(f"{rounds} rounds: no run lost, none wrong, none blocked")
    shutil.rmtree(folder)


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:]]
    main(*(given + [200, 0][len(given) :]))
