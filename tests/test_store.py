import json
import multiprocessing

import pytest
import torch

from ginv import store

SPECIFICATION = {"method": "DA", "seed": 0}


def test_round_trip():
    assert store.load(SPECIFICATION) is None
    store.save(SPECIFICATION, {"w": torch.eye(3)}, {"note": 1})
    tensors, record = store.load({"seed": 0, "method": "DA"})
    assert torch.equal(tensors["w"], torch.eye(3)) and record["note"] == 1


def test_a_failed_write_leaves_nothing(monkeypatch):
    monkeypatch.setattr(store.json, "dumps", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    monkeypatch.setattr(store, "record_name", lambda _: "name")
    with pytest.raises(OSError, match="disk full"):
        store.save(SPECIFICATION, {"w": torch.eye(3)}, {})
    assert list(store.store_folder().iterdir()) == []


def test_a_record_under_a_wrong_name_is_not_used():
    store.save(SPECIFICATION, {"w": torch.eye(3)}, {})
    file = store.store_folder() / store.record_name(SPECIFICATION) / "record.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "specification": {"seed": 1}}))
    with pytest.raises(ValueError, match="holds another specification"):
        store.load(SPECIFICATION)


def _save(value):
    store.save(SPECIFICATION, {"w": torch.full((100, 100), float(value))}, {})


def test_the_first_writer_wins():
    _save(1)
    _save(2)
    assert (store.load(SPECIFICATION)[0]["w"] == 1).all()


def test_many_writers_leave_one_whole_record():
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.map(_save, range(8))
    tensors, _ = store.load(SPECIFICATION)
    assert len(tensors["w"].unique()) == 1
    assert len(list(store.store_folder().iterdir())) == 1
