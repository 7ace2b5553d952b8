"""No record, whatever it holds, stops anything but the loading of itself; and no good one is
punished.
"""

import builtins
import json
import os
import shutil
import threading
from functools import partial
from unittest.mock import patch

import pytest
import safetensors.torch
import torch

from ginv import Run, train
from ginv.runs import checkpoints, store
from ginv.runs.measured import measured, named, robustness
from ginv.runs.train import load_run

SHORT = dict(epochs=1, train_images=200, width=16, depth=2)
RUN, OTHER = Run(**SHORT), Run(seed=1, **SHORT)


def trained(*runs):
    return train(runs, device="cpu", progress=False)


def seal(folder, record, tensors=None):
    """What it says now, with sums that are right."""
    folder.mkdir(parents=True, exist_ok=True)
    text = record if isinstance(record, bytes) else json.dumps(record).encode()
    (folder / store.RECORD).write_bytes(text)
    (folder / store.TENSORS).write_bytes(safetensors.torch.save(tensors or {"a": torch.zeros(3)}))
    content = {name: (folder / name).read_bytes() for name in (store.RECORD, store.TENSORS)}
    (folder / store.SUMS).write_text("".join(store._sums(content).values()))


ODD = {
    "a list": [],
    "nothing": None,
    "a number": 3,
    "a text": "specification",
    "no specification": {"a": 1},
    "a specification that is none": {"specification": 3},
    "another specification": {"specification": {"seed": 99}},
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "no JSON": b"\xff\x00",
    "empty": b"",
    "not a number": {"specification": {"seed": float("nan")}},
}


@pytest.mark.parametrize("record", ODD)
@pytest.mark.parametrize("where", ["run", "measurement", "checkpoint"])
def test_an_odd_record_stops_nothing(where, record, capsys):
    result = trained(RUN, OTHER)[RUN]
    measured(result, "test", 20, device="cpu")
    folders = {
        "run": store.record_folder(RUN.specification),
        "measurement": next(
            folder
            for folder in store.store_folder().glob("[!.]*")
            if "measurement" in json.loads((folder / store.RECORD).read_bytes())["specification"]
        ),
        "checkpoint": store.store_folder() / store.CHECKPOINTS / "checkpoint-0123456789abcdef",
    }
    seal(folders[where], ODD[record])
    again = trained(RUN, OTHER, Run(seed=2, **SHORT))
    assert torch.equal(again[RUN].model.output.weight, result.model.output.weight)
    assert len(measured(again[RUN], "test", 20, device="cpu").samples) == 20
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "specification",
    [
        {"checkpoint": 1, "runs": [{}], "state": 2},
        {"checkpoint": 1, "runs": 3, "state": 1},
        {"checkpoint": "x", "runs": [{"seed": 1}], "state": 1},
        {
            "checkpoint": 1,
            "runs": [{"seed": "x"}],
            "device": "cpu",
            "torch": torch.__version__,
            "state": 1,
        },
        {
            "checkpoint": 1,
            "runs": [RUN.specification],
            "device": "cpu",
            "torch": torch.__version__,
            "state": 1,
        },
        {"checkpoint": 1},
    ],
    ids=range(6),
)
def test_a_checkpoint_that_nobody_expected_stops_nothing(specification):
    """Sealed, under its own name, and with tensors of something else."""
    seal(store.record_folder(specification), {"specification": specification})
    assert trained(RUN)[RUN].record["best_epoch"] == 1


@pytest.mark.parametrize(
    "damage", ["a folder for a file", "a file for a folder", "a link", "nothing in it"]
)
def test_a_record_that_is_something_else_is_set_aside(damage, capsys):
    expected = trained(RUN)[RUN].model.output.weight
    folder = store.record_folder(RUN.specification)
    if damage == "a folder for a file":
        (folder / store.TENSORS).unlink()
        (folder / store.TENSORS).mkdir()
    else:
        shutil.rmtree(folder)
        if damage == "a link":
            folder.symlink_to("/nowhere")
        elif damage == "a file for a folder":
            folder.write_text("?")
        else:
            folder.mkdir()
    assert torch.equal(trained(RUN)[RUN].model.output.weight, expected)
    said = capsys.readouterr().err
    assert said.count("cannot be used") == 1 and "set-aside" in said


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
@pytest.mark.parametrize("name", store.FILES)
def test_a_file_of_a_record_that_never_ends_blocks_nobody(name, make, capsys):
    """A pipe or a device in its place; nor does one among the checkpoints."""
    trained(RUN)
    stray = store.store_folder() / store.CHECKPOINTS / "checkpoint-stray"
    stray.mkdir(parents=True)
    make(stray / store.RECORD)
    (store.record_folder(RUN.specification) / name).unlink()
    make(store.record_folder(RUN.specification) / name)
    assert trained(RUN)[RUN].model.output.weight.isfinite().all()
    said = capsys.readouterr().err
    assert f"cannot be used, {name} is no file" in said and "set-aside" in said


def test_what_is_expected_here_costs_no_record(capsys):
    """Its sums and its name are right: another version may have written it."""
    trained(RUN)
    folder = store.record_folder(RUN.specification)
    record = json.loads((folder / store.RECORD).read_bytes())
    seal(folder, record, {"another.weight": torch.zeros(3)})
    before = (folder / store.TENSORS).read_bytes()
    assert load_run(RUN) is None
    assert trained(RUN)[RUN].model.output.weight.isfinite().all()
    assert (folder / store.TENSORS).read_bytes() == before
    assert "it stays, and is not used" in capsys.readouterr().err
    assert not [*store.store_folder().glob("set-aside*")]


def test_a_store_that_cannot_be_written_loads(monkeypatch, capsys):
    """With an obsolete checkpoint and a damaged record in it, which then stay."""
    trained(RUN, OTHER)
    here = {"device": "cpu", "torch": torch.__version__, "state": store.VERSIONS["checkpoint"]}
    obsolete = {"checkpoint": 1, "runs": [RUN.specification], **here}
    seal(store.record_folder(obsolete), {"specification": obsolete, "seconds": 1.0})
    os.truncate(store.record_folder(OTHER.specification) / store.TENSORS, 10)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(store, "FileLock", refuse)
    assert load_run(RUN) and load_run(OTHER) is None
    assert "it stays, since the store cannot be written" in capsys.readouterr().err
    assert trained(RUN)[RUN].record["best_epoch"] == 1
    checkpoints.stored("cpu")
    assert store.record_folder(obsolete).is_dir()
    with pytest.raises(
        OSError, match=r"^the store .* cannot be written \(Permission denied\); set GINV_RUNS"
    ):
        trained(OTHER)


def test_nothing_lists_the_store(monkeypatch):
    """To save, to claim and to find checkpoints costs no more in a store of many records."""
    trained(RUN)
    listed, scandir, listdir = [], os.scandir, os.listdir

    def noting(function):
        return lambda path=".": listed.append(str(path)) or function(path)

    monkeypatch.setattr(os, "scandir", noting(scandir))
    monkeypatch.setattr(os, "listdir", noting(listdir))
    trained(OTHER, RUN)
    measured(load_run(RUN), "test", 10, device="cpu")
    assert str(store.store_folder()) not in listed


SPOILT = {
    "no columns": lambda r, t: r.pop("columns"),
    "a column too many": lambda r, t: r["columns"].append("SX"),
    "no totals": lambda r, t: r.update(totals=None),
    "empty totals": lambda r, t: r.update(totals={}),
    "another total": lambda r, t: r["totals"].update(more=1),
    "images as text": lambda r, t: r["totals"].update(images="10"),
    "no images": lambda r, t: r["totals"].update(images=0),
    "a tensor too few": lambda r, t: t.pop("SI"),
    "fewer rows": lambda r, t: t.update({name: t[name][:5] for name in r["columns"]}),
    "no values": lambda r, t: r.update(values=None),
    "a text of values": lambda r, t: r.update(values="x"),
    "empty values": lambda r, t: r.update(values={}),
    "a value that is none": lambda r, t: r["values"].update(sigma_max="large"),
    "a value of many digits": lambda r, t: r["values"].update(sigma_max=10**400),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_whole_record_that_is_no_measurement_is_measured_anew(name, capsys):
    (result,) = trained(RUN).values()
    is_robust = "value" in name
    ask = partial(robustness if is_robust else measured, result, "test", 10, device="cpu")
    before = ask()
    what = named("robustness" if is_robust else "measurement", result, "test", 10)
    tensors, record = store.load(what)
    SPOILT[name](record, tensors)
    seal(store.record_folder(what), record, tensors or {"a": torch.zeros(1)})
    again = ask()
    assert again == before if is_robust else again.samples.equals(before.samples)
    assert "is no measurement: it stays, and is not used" in capsys.readouterr().err
    assert store.record_folder(what).is_dir()


def test_a_file_that_says_it_is_huge_is_no_record(capsys):
    (result,) = trained(RUN).values()
    os.truncate(store.record_folder(RUN.specification) / store.TENSORS, 2**40)
    assert load_run(RUN) is None and "bytes" in capsys.readouterr().err
    assert load_run(next(iter(trained(RUN)))).record["best_epoch"] == result.record["best_epoch"]


def test_several_readers_give_a_record_of_an_older_version_its_sums():
    """The one opens a file for them when the other has written its own: none is ever in half."""
    specification = {"of": "a record"}
    store.save(specification, {"x": torch.ones(3)}, {})
    sums = store.record_folder(specification) / store.SUMS
    text = sums.read_text()
    sums.unlink()
    (stopped, go), opened = (threading.Event(), threading.Event()), builtins.open

    class Slow:
        """What a thread has opened, and not yet written to."""

        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, content):
            stopped.set()
            go.wait(60)
            return self.file.write(content)

    def slowly(*arguments, **options):
        file = opened(*arguments, **options)
        mode = str(arguments[1:2] or options.get("mode", "r"))
        is_late = threading.current_thread().name == "late" and "w" in mode
        return Slow(file) if is_late else file

    late = threading.Thread(target=store.load, args=[specification], name="late")
    replace = os.replace

    def meanwhile(*names):
        if not late.ident:
            late.start()
            stopped.wait(60)
        replace(*names)

    with patch("io.open", slowly), patch("os.fdopen", slowly), patch("os.replace", meanwhile):
        assert store.load(specification)
        assert sums.read_text() == text and store.load(specification)
        go.set()
        late.join()
    assert store.load(specification) and sums.read_text() == text


@pytest.mark.parametrize("name", [store.RECORD, store.TENSORS])
@pytest.mark.parametrize("target", ["nowhere", ""], ids=["to nothing", "in a circle"])
def test_a_record_whose_file_leads_nowhere_is_made_again(name, target):
    (result,) = trained(RUN).values()
    file = store.record_folder(RUN.specification) / name
    file.unlink()
    file.symlink_to(target or file)
    assert load_run(RUN) is None
    (again,) = trained(RUN).values()
    assert again.record["validation_accuracy"] == result.record["validation_accuracy"]
    assert load_run(RUN)
