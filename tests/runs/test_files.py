"""Files are there whole or not at all, and what cannot be written is refused before the work."""

import os
from pathlib import Path

import pandas as pd
import pytest
from processes import start

from ginv.pages import Settings
from ginv.runs.files import one_writer, require_writable, write_whole


@pytest.mark.parametrize("fails", ["fdopen", "chmod", "replace"])
def test_a_file_is_whole_or_as_it_was(fails, tmp_path, monkeypatch):
    file = tmp_path / "table.csv"
    write_whole(file, "old")

    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, fails, refuse)
        with pytest.raises(
            OSError, match=r"table.csv cannot be written \(No space left on device\)$"
        ):
            write_whole(file, "new")
    assert file.read_text() == "old" and [*tmp_path.iterdir()] == [file]
    write_whole(file, "ν")
    assert file.read_bytes() == "ν".encode()


def test_a_new_file_has_the_rights_of_any(tmp_path):
    write_whole(tmp_path / "a", "")
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode
    (tmp_path / "b").chmod(0o640)
    write_whole(tmp_path / "b", "")
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o640


def add_lines(file, name, count):
    for i in range(count):
        with one_writer(file):
            write_whole(file, (file.read_text() if file.exists() else "") + f"{name} {i}\n")


def test_several_writers_lose_no_line(tmp_path):
    file = tmp_path / "lines"
    processes = [start(add_lines, file, name, 10) for name in range(3)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert sorted(file.read_text().splitlines()) == sorted(
        f"{n} {i}" for n in range(3) for i in range(10)
    )


def test_places_are_refused_before_the_work(tmp_path):
    grid = tmp_path / "grid.yaml"
    grid.write_text("")
    (tmp_path / "link").symlink_to(grid)
    for path in (grid, tmp_path / "link", tmp_path / "." / "grid.yaml"):
        with pytest.raises(ValueError, match="allowed: another file than that which is read"):
            require_writable("table", path, grid)
    with pytest.raises(ValueError, match="allowed: a file, not a folder"):
        require_writable("table", tmp_path, grid)
    require_writable("table", tmp_path / "new" / "table.csv", grid)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "results", ["", "a\0b", "x" * 300, "/proc/nothing", "/dev/null/x", 3, None]
)
def test_results_that_cannot_be_written_are_refused_at_once(results, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^results is .*; allowed: a folder that can be written$"):
        Settings("quick", results=results)
    assert [*tmp_path.iterdir()] == []


def test_results_that_can_be_made_leave_nothing_yet(tmp_path):
    settings = Settings("quick", results=str(tmp_path / "a" / "b"))
    assert [*tmp_path.iterdir()] == []
    settings.save(pd.DataFrame({"x": [1]}), str(tmp_path / "a" / "b"), "table")
    assert Path(tmp_path / "a" / "b" / "table-quick.csv").read_text() == "x\n1\n"


def test_a_link_stays_one(tmp_path):
    (tmp_path / "link").symlink_to("target")
    for content in ("first", "second"):
        write_whole(tmp_path / "link", content)
        assert (tmp_path / "target").read_text() == content and (tmp_path / "link").is_symlink()


def test_no_pipe_or_device_is_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match=r"^table is '.*pipe'; allowed: a file, not a folder$"):
        require_writable("table", tmp_path / "pipe")
    for place in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(OSError, match=r" cannot be written \(it is no file\)$"):
            write_whole(place, "table")
    assert (tmp_path / "pipe").is_fifo() and Path("/dev/null").is_char_device()
