"""The store: records whole or absent, verified, and shared by processes that may die."""

import hashlib
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ginv.runs import store

SPECIFICATION = {"method": "DA", "seed": 0}


@pytest.fixture
def record():
    """The folder of a stored record."""
    store.save(SPECIFICATION, {"w": torch.eye(3)}, {"note": 1})
    return store.store_folder() / store.record_name(SPECIFICATION)


def names():
    """What is in the store, locks apart."""
    return sorted(path.name for path in store.store_folder().glob("[!.]*"))


def test_round_trip():
    assert store.load(SPECIFICATION) is None
    store.save(SPECIFICATION, {"w": torch.eye(3)}, {"note": 1})
    tensors, record = store.load({"seed": 0, "method": "DA"})
    assert torch.equal(tensors["w"], torch.eye(3)) and record["note"] == 1


def test_the_sums_are_those_of_sha256sum(record):
    expected = [
        f"{hashlib.sha256((record / n).read_bytes()).hexdigest()}  {n}"
        for n in (store.RECORD, store.TENSORS)
    ]
    assert (record / store.SUMS).read_text().splitlines() == expected


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    """One bit, in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage", [truncate, flip, Path.unlink, lambda path: path.write_bytes(b"")]
)
@pytest.mark.parametrize("name", [store.RECORD, store.TENSORS, store.SUMS])
def test_a_damaged_record_is_named_set_aside_and_made_anew(name, damage, record, capsys):
    if name == store.SUMS and damage is Path.unlink:
        pytest.skip("without its sums it is of an older version")
    damage(record / name)
    left = {path.name: path.read_bytes() for path in record.iterdir()}
    assert store.load(SPECIFICATION) is None
    (line,) = capsys.readouterr().err.splitlines()
    (aside,) = names()
    assert str(record) in line and aside in line and aside.startswith("set-aside-")
    assert {
        path.name: path.read_bytes() for path in (store.store_folder() / aside).iterdir()
    } == left
    store.save(SPECIFICATION, {"w": torch.ones(1)}, {})
    assert store.load(SPECIFICATION)[0]["w"] == 1 and len(names()) == 2
    assert capsys.readouterr().err == ""


def foreign_record(folder):
    """That of another specification, whole, under a wrong name."""
    shutil.rmtree(folder)
    store.save({"seed": 1}, {"w": torch.eye(3)}, {})
    (store.store_folder() / store.record_name({"seed": 1})).rename(folder)


def foreign_file(folder):
    shutil.rmtree(folder)
    folder.write_text("a file")


def foreign_link(folder):
    """To a folder outside the store, which must not get so much as its sums."""
    folder.rename(store.store_folder().parent / "outside")
    (store.store_folder().parent / "outside" / store.SUMS).unlink()
    folder.symlink_to(store.store_folder().parent / "outside")


@pytest.mark.parametrize("foreign", [foreign_record, foreign_file, foreign_link])
def test_what_is_not_a_record_is_set_aside(foreign, record, capsys):
    foreign(record)
    outside = sorted(store.store_folder().parent.rglob("outside/*"))
    assert store.load(SPECIFICATION) is None
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert [name[:10] for name in names()] == ["set-aside-"]
    assert sorted(store.store_folder().parent.rglob("outside/*")) == outside


def test_tensors_of_another_network_are_not_used(record, capsys):
    assert store.load(SPECIFICATION, {"w": torch.zeros(3, 3)}) is not None
    for like in ({"v": torch.eye(3)}, {"w": torch.eye(4)}, {"w": torch.eye(3).double()}):
        store.save(SPECIFICATION, {"w": torch.eye(3)}, {})
        assert store.load(SPECIFICATION, like) is None
        assert "it stays, and is not used" in capsys.readouterr().err


def test_an_older_record_is_used_and_gets_its_sums(record, capsys):
    sums = (record / store.SUMS).read_text()
    (record / store.SUMS).unlink()
    assert torch.equal(store.load(SPECIFICATION)[0]["w"], torch.eye(3))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{record} comes from a version without checksums")
    assert (record / store.SUMS).read_text() == sums and len(list(record.iterdir())) == 3
    assert store.load(SPECIFICATION) and capsys.readouterr().err == ""
    flip(record / store.TENSORS)
    assert store.load(SPECIFICATION) is None


def test_an_older_record_that_cannot_be_read_is_set_aside(record):
    (record / store.SUMS).unlink()
    truncate(record / store.TENSORS)
    assert store.load(SPECIFICATION) is None and names()[0].startswith("set-aside-")


@pytest.mark.parametrize("key", ["../../outside", "/outside", "a/b"])
def test_a_record_stays_in_the_store(key, tmp_path):
    specification = {"group": key, "checkpoint": key, key: key}
    store.save(specification, {"w": torch.eye(3)}, {key: key, "specification": specification})
    assert store.load(specification) and {path.name for path in tmp_path.iterdir()} == {"runs"}
    (folder,) = (store.store_folder() / store.CHECKPOINTS).iterdir()
    assert folder == store.record_folder(specification)


def test_what_a_killed_writer_left_is_cleared(record):
    left = store.store_folder() / f".writing-{os.getuid()}"
    left.mkdir()
    (left / store.TENSORS).write_bytes(b"half")
    store.save({"seed": 1}, {"w": torch.eye(3)}, {})
    assert not [*store.store_folder().glob(".writing*")] and len(names()) == 2


def _fill_the_disk(folder, queue):
    """A limit on the size of files is an error of the system at write, as a full disk is."""
    os.environ["GINV_RUNS"] = folder
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    try:
        store.save({"seed": 1}, {"w": torch.zeros(100_000)}, {})
    except OSError as error:
        queue.put(str(error))


def test_a_write_that_fails_is_one_line_and_leaves_nothing(record):
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=_fill_the_disk, args=(str(store.store_folder()), queue))
    process.start()
    process.join()
    assert not queue.empty()
    error = queue.get()
    assert error == f"the store {store.store_folder()} cannot be written (File too large); " + (
        "set GINV_RUNS to a folder that can"
    )
    assert names() == [record.name] and not [*store.store_folder().glob(".writing*")]
    assert store.load(SPECIFICATION) is not None


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), OSError(30, "Read-only file system")]
)
def test_a_store_that_cannot_be_written_is_one_line(error, record, monkeypatch):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(Path, "mkdir", refuse)
    for write in (
        lambda: store.save({"seed": 1}, {}, {}),
        lambda: store.claim([{"seed": 1}]).__enter__(),
    ):
        with pytest.raises(
            OSError, match=rf"^the store \S+ cannot be written \({error.strerror}\)[^\n]*$"
        ):
            write()
    assert store.load(SPECIFICATION) is not None  # reading needs no lock


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_read_only_store_is_read(record):
    store.store_folder().chmod(0o500)
    try:
        assert store.load(SPECIFICATION) is not None
        with pytest.raises(OSError, match=r"cannot be written \(Permission denied\)"):
            store.save({"seed": 1}, {}, {})
    finally:
        store.store_folder().chmod(0o700)


@pytest.mark.parametrize("mode", [0o555, 0o500, 0o455, 0o355, 0o070, 0o000], ids=oct)
def test_no_mode_of_the_store_is_more_than_a_line(mode, record, capsys):
    """Whoever may not write in it, root aside, is told so; nobody hears of the mode of a lock."""
    truncate(record / store.TENSORS)
    store.store_folder().chmod(mode)
    try:
        for use in (
            lambda: store.load(SPECIFICATION),
            lambda: store.remove({"seed": 2}),
            lambda: store.save({"seed": 1}, {}, {}),
        ):
            try:
                use()
            except OSError as error:
                assert "cannot be written" in str(error) and "\n" not in str(error)
    finally:
        store.store_folder().chmod(0o700)
    assert store.load(SPECIFICATION) is None


def _save(value):
    store.save(SPECIFICATION, {"w": torch.full((100, 100), float(value))}, {})


def test_the_first_writer_wins():
    _save(1)
    _save(2)
    assert (store.load(SPECIFICATION)[0]["w"] == 1).all()


def test_many_writers_leave_one_whole_record():
    with multiprocessing.get_context("fork").Pool(8) as pool:
        pool.map(_save, range(16))
    tensors, _ = store.load(SPECIFICATION)
    assert len(tensors["w"].unique()) == 1
    assert len(names()) == 1


def _find_it_damaged(_):
    found = store.load(SPECIFICATION)
    if found is None:
        _save(7)
    return found is None


def test_a_record_made_anew_is_not_set_aside_by_one_who_saw_the_old(record):
    flip(record / store.TENSORS)
    with multiprocessing.get_context("fork").Pool(8) as pool:
        pool.map(_find_it_damaged, range(64), chunksize=1)
    assert [name.startswith("set-aside-") for name in names()] == [False, True]


def _claim_and_die(folder, claimed):
    os.environ["GINV_RUNS"] = folder
    with store.claim([SPECIFICATION]) as ours:
        claimed.put(ours)
        os.kill(os.getpid(), 9)


def test_a_claim_is_exclusive_and_ends_with_its_holder():
    with store.claim([SPECIFICATION, {"seed": 1}]) as ours:
        assert ours == [True, True]
        with store.claim([{"seed": 2}, SPECIFICATION]) as theirs:
            assert theirs == [True, False]
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=_claim_and_die, args=(str(store.store_folder()), queue))
    process.start()
    assert queue.get() == [True]
    process.join()
    assert process.exitcode == -9
    with store.claim([SPECIFICATION]) as ours:
        assert ours == [True]


NO_FLOCK = """
import errno, fcntl, os, sys, warnings
def flock(*_): raise OSError(errno.ENOSYS, "Function not implemented")
fcntl.flock = flock
warnings.simplefilter("ignore")  # filelock says that it locks by files
from ginv.runs import store
with store.claim([{"a": 1}]) as ours:
    store.save({"b": 2}, {}, {"values": 3})
    print(*ours, store.load({"b": 2})[1]["values"], flush=True)
    if sys.argv[1:]:
        os._exit(9)
"""


def test_a_disk_without_flock_blocks_nobody(tmp_path):
    """Nor does a process there that died with its locks."""
    for options in ([], ["die"], []):
        command = [sys.executable, "-c", NO_FLOCK, *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.stdout == "True 3\n", done.stderr
        assert done.returncode == (9 if options else 0)


def test_all_of_a_shared_store_is_shared():
    """A second user may write checkpoints where the first has."""
    store.store_folder().mkdir(parents=True)
    store.store_folder().chmod(0o777)
    store.save({"checkpoint": 1, "runs": []}, {"a": torch.zeros(1)}, {})
    modes = {
        path.name: path.stat().st_mode & 0o777 for path in store.store_folder().glob(".[lc]*s")
    }
    assert modes == {".locks": 0o777, ".checkpoints": 0o777}
