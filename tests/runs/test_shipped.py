"""The trained networks that come with a clone: read only, verified, and what training gives."""

from dataclasses import replace

import pytest
import torch
from ship import shipped_runs

from ginv import Run, train
from ginv.runs import store
from ginv.runs.train import load_run

HERE = sorted(path.name for path in store.SHIPPED.glob("*"))


@pytest.fixture
def shipped(monkeypatch, tmp_path):
    """A clone with one of its own, and a store that is empty."""
    monkeypatch.setenv("GINV_FRESH", "0")
    run = Run(epochs=1, train_images=64, width=8)
    (trained,) = train([run], progress=False).values()
    monkeypatch.setattr(store, "SHIPPED", tmp_path / "shipped")
    store.SHIPPED.mkdir()
    store.record_folder(run.specification).rename(
        store.SHIPPED / store.record_name(run.specification)
    )
    return trained


def same(a, b):
    pairs = zip(a.model.parameters(), b.model.parameters(), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


def test_what_the_store_lacks_is_found_in_the_clone(shipped, trainings):
    (found,) = train([shipped.run], progress=False).values()
    assert same(found, shipped) and trainings == []
    assert store.contains(shipped.run.specification)
    assert not store.record_folder(shipped.run.specification).exists()


def test_what_is_in_the_store_comes_first(shipped):
    store.save(shipped.run.specification, shipped.model.state_dict(), {"mine": True})
    assert load_run(shipped.run).record["mine"]


def test_fresh_does_without(shipped, monkeypatch):
    monkeypatch.setenv("GINV_FRESH", "1")
    assert load_run(shipped.run) is None and not store.contains(shipped.run.specification)
    monkeypatch.setenv("GINV_FRESH", "yes")
    with pytest.raises(ValueError, match="^GINV_FRESH is 'yes'; allowed: 0, 1$"):
        load_run(shipped.run)


def test_an_altered_one_is_named_and_stays(shipped, capsys):
    folder = store.SHIPPED / store.record_name(shipped.run.specification)
    file = folder / store.TENSORS
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert load_run(shipped.run) is None
    assert "differs from SHA256SUMS: it stays" in capsys.readouterr().err and folder.is_dir()


def test_the_clone_has_the_networks_of_the_pages():
    runs = shipped_runs()
    assert sorted(store.record_name(run.specification) for run in runs) == HERE
    size = sum(path.stat().st_size for path in store.SHIPPED.glob("*/*"))
    assert size < 100e6


@pytest.mark.parametrize("name", HERE)
def test_each_is_whole(name):
    tensors, record = store._read(store.SHIPPED / name)
    run = Run(**{k: v for k, v in record["specification"].items() if k != "format"})
    like = run.model(torch.Generator()).state_dict()
    assert store._kinds(tensors) == store._kinds(like)
    assert len(record["validation_accuracy"]) == run.epochs


CONSTANT = [run for run in shipped_runs() if run.seed == 1 and run.schedule == "constant"]


@pytest.mark.parametrize("run", CONSTANT[::3], ids=str)
def test_training_begins_as_it_did(run, monkeypatch):
    """Rounding moves the first epochs little, and the learning rate is constant."""
    monkeypatch.setenv("GINV_FRESH", "0")
    before = load_run(run).record["validation_accuracy"][:2]
    (again,) = train([replace(run, epochs=2)], progress=False).values()
    assert again.record["validation_accuracy"] == pytest.approx(before, abs=0.02)
