"""What is almost right, or wrong, for chapters, tools and make: it is taken for what it means, or
refused in one line before any work.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import bench
import execute
import golden
import numpy as np
import pandas as pd
import publish
import pytest
import torch
import tune
import yaml
from papermill.cli import _resolve_type
from papermill.translators import translate_parameters

from ginv import Run, TrainedRun, check
from ginv.pages import Settings, refuse_unknown
from ginv.pages.figures import saliency_picture
from ginv.pages.paper import book_file, room
from ginv.pages.settings import announce

ROOT = Path(__file__).parents[2]
RUN = Run(width=4, depth=1, epochs=1)
TRAINED = TrainedRun(RUN, RUN.model(), {})
HUGE = 10**5000  # more digits than Python prints
FILE = str(Path(__file__))


@pytest.fixture(autouse=True)
def nothing_is_computed(monkeypatch):
    """No training, measurement, chapter or bench begins, and no address is written."""

    def began(*_, **__):
        pytest.fail("it began")

    for name in ("train.train_stack", "train.load_dataset", "measured._on_device", "nu.train"):
        monkeypatch.setattr(f"ginv.runs.{name}", began)
    places = ((execute, "execute"), (bench, "time_items"), (publish, "publish"), (golden, "train"))
    for module, name in places:
        monkeypatch.setattr(module, name, began)
    monkeypatch.setattr(execute, "_end_with_parent", lambda: None)
    monkeypatch.setattr(execute.signal, "signal", lambda *_: None)


def refused(call, line):
    """With an error of one line that begins so, and with an empty store."""
    with pytest.raises((ValueError, OSError), match=f"^{re.escape(line)}[^\n]*$"):
        call()
    assert not Path(os.environ["GINV_RUNS"]).exists()


# --- The parameters of a chapter

LIST = "allowed: a list of integers from 0 up, such as [0, 1]"
FOLDER = "allowed: a folder that can be written"
PARAMETERS = [
    ({"profile": np.array(["quick"])}, "profile is array(['quick']"),
    ({"profile": np.array(["quick", "paper"])}, "profile is array(['quick', 'paper']"),
    ({"profile": pd.NA}, "profile is <NA>; allowed: paper, sample, quick"),
    ({"profile": "Quick"}, "profile is 'Quick'; allowed: paper, sample, quick"),
    ({"profile": "quick\n"}, "profile is 'quick\\n'; allowed: paper, sample, quick"),
    ({"profile": b"quick"}, "profile is b'quick'; allowed: paper, sample, quick"),
    ({"profile": True}, "profile is True; allowed: paper, sample, quick"),
    ({"group": np.array(["R4"])}, "group is array(['R4']"),
    ({"group": np.array(["R4", "T3"])}, "group is array(['R4', 'T3']"),
    ({"group": pd.NA}, "group is <NA>; allowed: both, R4, T3"),
    ({"group": None}, "group is None; allowed: both, R4, T3"),
    ({"group": "r4"}, "group is 'r4'; allowed: both, R4, T3"),
    ({"group": "R\u0664"}, "group is 'R\u0664'; allowed: both, R4, T3"),
    ({"group": "R2"}, "group is 'R2'; allowed: both, R4, T3"),
    ({"seeds": HUGE}, f"seeds is int that cannot be printed; {LIST}"),
    ({"seeds": [HUGE]}, f"seeds is list that cannot be printed; {LIST}"),
    ({"seeds": range(2)}, f"seeds is range(0, 2); {LIST}"),
    ({"seeds": {0}}, f"seeds is {{0}}; {LIST}"),
    ({"seeds": {}}, f"seeds is {{}}; {LIST}"),
    ({"seeds": ()}, f"seeds is (); {LIST}"),
    ({"seeds": False}, f"seeds is False; {LIST}"),
    ({"seeds": [True]}, f"seeds is [True]; {LIST}"),
    ({"seeds": [None]}, f"seeds is [None]; {LIST}"),
    ({"seeds": [[0]]}, f"seeds is [[0]]; {LIST}"),
    ({"seeds": ["0"]}, f"seeds is ['0']; {LIST}"),
    ({"seeds": "[0, 1]"}, f"seeds is '[0, 1]'; {LIST}"),
    ({"seeds": [-0.0]}, f"seeds is [-0.0]; {LIST}"),
    ({"seeds": float("nan")}, f"seeds is nan; {LIST}"),
    ({"seeds": [np.int64(0)]}, f"seeds is [{np.int64(0)!r}]; {LIST}"),
    ({"seeds": np.array([0, 1])}, f"seeds is array([0, 1]); {LIST}"),
    ({"seeds": pd.Series([0])}, f"seeds is 0 0 dtype: int64; {LIST}"),
    ({"device": np.array(["auto"])}, "device is array(['auto']"),
    ({"device": np.array(["cpu", "cuda"])}, "device is array(['cpu', 'cuda']"),
    ({"device": torch.device("cpu")}, "device is device(type='cpu'); allowed: auto, cpu"),
    ({"device": None}, "device is None; allowed: auto, cpu"),
    ({"device": "cpu:0"}, "device is 'cpu:0'; allowed: auto, cpu"),
    ({"results": Path("results")}, f"results is PosixPath('results'); {FOLDER}"),
    ({"results": "~/results"}, f"results is '~/results'; {FOLDER}"),
    ({"results": "s3://bucket/results"}, f"results is 's3://bucket/results'; {FOLDER}"),
    ({"results": "a\nb"}, f"results is 'a\\nb'; {FOLDER}"),
    ({"results": " "}, f"results is ' '; {FOLDER}"),
    ({"results": "\ud800"}, f"results is '\\ud800'; {FOLDER}"),
    ({"results": b"results"}, f"results is b'results'; {FOLDER}"),
    ({"results": f"{FILE}/a/b"}, f"results is '{FILE}/a/b'; {FOLDER}"),
]
QUICK = Settings("quick", "R4", device="cpu")
SETTINGS = [
    (lambda: QUICK.run("R9", "IR", 0), "no sweep of nu for R9 logit; swept: R4 kl, R4 logit"),
    (lambda: QUICK.run(["R4"], "IR", 0), "group is ['R4']; allowed: the name of a group"),
    (lambda: QUICK.run("R4", "IR", 0, None), "regulariser is None; allowed: logit, kl, normalised"),
    (lambda: QUICK.run("both", "DA", 0), "group is 'both'; allowed: R1, R2, R4"),
    (lambda: QUICK.run("R4", "ir", 0), "method is 'ir'; allowed: WT, DA, IR"),
    (lambda: QUICK.measure("x"), "trained is 'x'; allowed: a ginv.TrainedRun"),
    (lambda: QUICK.measure(RUN, 5), "trained is Run("),
    (lambda: QUICK.measure(TRAINED, True), "images is True; allowed: 1 to 50000, or None"),
    (lambda: QUICK.measure(TRAINED, 5.0), "images is 5.0; allowed: 1 to 50000, or None"),
    (lambda: QUICK.table(None), "trained is None; allowed: runs and what was trained"),
    (lambda: QUICK.table([TRAINED]), "trained is [TrainedRun("),
    (lambda: QUICK.table({RUN: RUN}), "trained is Run("),
    (lambda: QUICK.save(None, "r", "t"), "table is None; allowed: a pandas.DataFrame"),
    (lambda: QUICK.save({"a": [1]}, "r", "t"), "table is {'a': [1]}; allowed: a pandas.DataFrame"),
    (lambda: QUICK.save(pd.DataFrame(), None, "t"), f"folder is None; {FOLDER}"),
    (lambda: QUICK.save(pd.DataFrame(), "~/r", "t"), f"folder is '~/r'; {FOLDER}"),
    (lambda: QUICK.save(pd.DataFrame(), FILE, "t"), f"{FILE}/t-quick.csv cannot be written ("),
    (lambda: QUICK.save(pd.DataFrame(), "r", "../t"), "name is '../t'; allowed: the name of a"),
    (lambda: QUICK.save(pd.DataFrame(), "r", "a\0b"), "name is 'a\\x00b'; allowed: the name of a"),
    (lambda: QUICK.save(pd.DataFrame(), "r", ""), "name is ''; allowed: the name of a chapter"),
    (lambda: QUICK.save(pd.DataFrame(), "r", None), "name is None; allowed: the name of a chapter"),
    (lambda: QUICK.load("r", "a\nb"), "name is 'a\\nb'; allowed: the name of a chapter"),
    (lambda: QUICK.load(None, "t"), f"folder is None; {FOLDER}"),
    (lambda: announce("quick", ["cpu"]), "device is ['cpu']; allowed: auto, cpu"),
    (lambda: announce(pd.NA), "profile is <NA>; allowed: paper, sample, quick"),
    (lambda: book_file(None), "name is None; allowed: a file that lies beside the chapters"),
    (lambda: book_file(""), "name is ''; allowed: a file that lies beside the chapters"),
    (lambda: book_file("a\nb"), "name is 'a\\nb'; allowed: a file that lies beside the chapters"),
    (lambda: book_file("paper.tsv"), "no paper.tsv here; run the chapter in the folder book/"),
    (lambda: room(0.1, 0), "seeds is 0; allowed: integers from 1"),
]
TABLES = [("", "No columns"), ("a\n1,2\n1,2,3", "Error token"), ("\udcff", "'utf-8' codec")]


@pytest.mark.parametrize(("changes", "line"), PARAMETERS)
def test_bad_parameters(changes, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(lambda: Settings(**{"profile": "quick", **changes}), line)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(("call", "line"), SETTINGS)
def test_bad_calls_of_a_chapter(call, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(call, line)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(("content", "reason"), TABLES)
def test_a_table_that_is_none_names_its_chapter(content, reason, tmp_path):
    file = tmp_path / "drift-quick.csv"
    file.write_bytes(content.encode(errors="surrogateescape"))
    refused(lambda: QUICK.load(str(tmp_path), "drift"), f"{file} is no table ({reason}")


def test_settings_that_are_almost_right_are_taken():
    assert Settings("quick", seeds=[1, 1, 0]).seeds == (1, 0)
    assert Settings(np.str_("quick"), np.str_("R4")).groups == ("R4",)


def test_a_picture_of_an_even_image_has_colours():
    assert saliency_picture(torch.ones(1, 4, 4), torch.zeros(1, 4, 4)).isfinite().all()


# --- What papermill passes

CELL = 'profile = "paper"\ngroup = "both"\nseeds = None\ndevice = "auto"\nresults = "results"'
PAPERMILL = [
    ("-p", "profile Quick", "profile is 'Quick'; allowed: paper, sample, quick"),
    ("-p", "profile None", "profile is None; allowed: paper, sample, quick"),
    ("-p", "profile 1", "profile is 1; allowed: paper, sample, quick"),
    ("-p", "group 4", "group is 4; allowed: both, R4, T3"),
    ("-p", "group R4,T3", "group is 'R4,T3'; allowed: both, R4, T3"),
    ("-p", "seeds 0", f"seeds is 0; {LIST}"),
    ("-p", "seeds [0]", f"seeds is '[0]'; {LIST}"),
    ("-p", "seeds True", f"seeds is True; {LIST}"),
    ("-p", "seeds nan", f"seeds is nan; {LIST}"),
    ("-p", "seeds 1e3", f"seeds is 1000.0; {LIST}"),
    ("-p", "device None", "device is None; allowed: auto, cpu"),
    ("-p", "device gpu", "device is 'gpu'; allowed: auto, cpu"),
    ("-p", "results ~/out", f"results is '~/out'; {FOLDER}"),
    ("-p", "results 1", f"results is 1; {FOLDER}"),
    ("-p", "sedes 0", "no parameter sedes; allowed: device, group, profile, results, seeds"),
    ("-p", "PROFILE quick", "no parameter PROFILE; allowed: device, group, profile, results, se"),
    ("-y", "seeds: .nan", f"seeds is nan; {LIST}"),
    ("-y", "seeds: [.inf]", f"seeds is [inf]; {LIST}"),
    ("-y", "seeds: 0, 1", f"seeds is '0, 1'; {LIST}"),
    ("-y", "seeds: [0, -1]", f"seeds is [0, -1]; {LIST}"),
    ("-y", "seeds: {0: 1}", f"seeds is {{'0': 1}}; {LIST}"),
    ("-y", "seeds: [[0]]", f"seeds is [[0]]; {LIST}"),
    ("-y", "profile: yes", "profile is True; allowed: paper, sample, quick"),
    ("-y", "group: [R4, T3]", "group is ['R4', 'T3']; allowed: both, R4, T3"),
    ("-y", "device: ", "device is None; allowed: auto, cpu"),
    ("-y", "{seeds: [0], sedes: .nan}", "no parameter sedes; allowed: device, group"),
]
CELLS = [
    (7, "cells is 7; allowed: the code cells so far, a list of texts"),
    ("abc", "cells is 'abc'; allowed: the code cells so far, a list of texts"),
    ([CELL, None], "cells is ['profile"),
    ([1, 2], "cells is [1, 2]; allowed: the code cells so far, a list of texts"),
    ([CELL, "# Parameters\nseeds ="], "a cell of parameters is no Python: invalid syntax"),
    (["%matplotlib inline", "# Parameters\nx = 1"], "a cell of parameters is no Python: inval"),
    ([CELL, "# Parameters\nseeds = None; sedes = 1"], "no parameter sedes; allowed: device"),
    ([CELL, "# Parameters\nfloat = 1"], "no parameter float; allowed: device"),
]


def begin_of_a_chapter(option, text):
    """What the first cells of a chapter do with a parameter of the command line."""
    name, _, value = text.partition(" ")
    passed = yaml.safe_load(text) if option == "-y" else {name: _resolve_type(value)}
    code = translate_parameters("python3", "python", passed, "Parameters")
    refuse_unknown(["", CELL, code])
    values = {}
    exec(f"{CELL}\nprofile = 'quick'\n{code}", values)
    names = ("profile", "group", "seeds", "device", "results")
    return Settings(**{name: values[name] for name in names})


@pytest.mark.parametrize(("option", "text", "line"), PAPERMILL)
def test_bad_values_from_papermill(option, text, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(lambda: begin_of_a_chapter(option, text), line)


@pytest.mark.parametrize(("cells", "line"), CELLS)
def test_bad_cells(cells, line):
    refused(lambda: refuse_unknown(cells), line)


def test_values_that_papermill_passes_on_are_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert begin_of_a_chapter("-y", "{seeds: [010, 1], group: T3}").seeds == (8, 1)  # its YAML 1.1
    assert begin_of_a_chapter("-p", "PAPERMILL_OUTPUT_PATH out.ipynb").seeds == (0,)


# --- Tools

COMMANDS = [
    (tune, ["--device", "GPU"], "device is 'GPU'; allowed: auto, cpu"),
    (tune, ["--device", ""], "device is ''; allowed: auto, cpu"),
    (tune, ["--devices", "cpu"], "unrecognized arguments: --devices cpu"),
    (golden, ["quick"], "unrecognized arguments: quick"),
    (golden, ["--epochs", "1"], "unrecognized arguments: --epochs 1"),
    (bench, ["full"], "unrecognized arguments: full"),
    (bench, ["--full=1"], "argument --full: ignored explicit argument '1'"),
    (bench, ["--folder"], "argument --folder: expected one argument"),
    (bench, ["--folder", FILE], f"folder is {FILE!r}; {FOLDER}"),
    (bench, ["--folder", "/dev/null/x"], f"folder is '/dev/null/x'; {FOLDER}"),
    (bench, ["--folder", "/proc/x"], f"folder is '/proc/x'; {FOLDER}"),
    (execute, ["TMP", "quick"], "folder is 'TMP'; allowed: one with _toc.yml and book/"),
    (execute, [FILE, "quick"], f"folder is {FILE!r}; allowed: one with _toc.yml and book/"),
    (execute, [str(ROOT), "Paper"], "profile is 'Paper'; allowed: paper, sample, quick"),
    (execute, [str(ROOT), ""], "profile is ''; allowed: paper, sample, quick"),
    (execute, [str(ROOT), "quick", ""], "chapter is ''; allowed: metrics, table1, "),
    (execute, [str(ROOT), "quick", "table1.py"], "chapter is 'table1.py'; allowed: metrics, tab"),
    (
        execute,
        [str(ROOT), "quick", "table1 drift"],
        "chapter is 'table1 drift'; allowed: metrics, ",
    ),
    (execute, [str(ROOT), "quick", "--", "-h"], "chapter is '-h'; allowed: metrics, table1, "),
    (execute, [str(ROOT), "quick", "--device", "cpu"], "unrecognized arguments: --device"),
    (publish, [""], "URL is ''; allowed: https://github.com/OWNER/NAME"),
    (publish, ["-h"], "URL is '-h'; allowed: https://github.com/OWNER/NAME"),
    (publish, ["https://github.com/a"], "URL is 'https://github.com/a'; allowed: https://github"),
    (publish, ["https://github.com/a/b/c"], "URL is 'https://github.com/a/b/c'; allowed: https"),
    (publish, ["https://github.com/a/b.git"], "URL is 'https://github.com/a/b.git'; allowed: ht"),
    (publish, ["https://github.com/a/.."], "URL is 'https://github.com/a/..'; allowed: https://"),
    (publish, ["https://github.com/a/b?x"], "URL is 'https://github.com/a/b?x'; allowed: https:"),
    (publish, ["https://github.com/\u00e9/b"], "URL is 'https://github.com/\u00e9/b'; allowed: ht"),
    (publish, ["git@github.com:a/b"], "URL is 'git@github.com:a/b'; allowed: https://github.com/"),
]
TOCS = ["", "[", "root", "root: a", "parts: []", "{root: a, parts: [{}]}", "\udcff", "a: b: c"]
BENCHES = ["", "a,b\n1,2", "item\n1,2\n1,2,3", "\udcff"]


def said(module, arguments, monkeypatch, capsys):
    """The line that a command ends with."""
    monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        module.main()
    out, err = capsys.readouterr()
    assert out == "" and not Path(os.environ["GINV_RUNS"]).exists()
    code = ended.value.code
    return err.splitlines()[-1].partition("error: ")[2] if code == 2 else code


@pytest.mark.parametrize(("module", "arguments", "line"), COMMANDS)
def test_bad_commands(module, arguments, line, tmp_path, monkeypatch, capsys):
    arguments = [each.replace("TMP", str(tmp_path)) for each in arguments]
    text = said(module, arguments, monkeypatch, capsys)
    assert text.startswith(line.replace("TMP", str(tmp_path))) and "\n" not in text


@pytest.mark.parametrize("content", TOCS)
def test_a_bad_table_of_contents_is_named(content, tmp_path, monkeypatch, capsys):
    (tmp_path / "_toc.yml").write_bytes(content.encode(errors="surrogateescape"))
    text = said(execute, [str(tmp_path), "quick"], monkeypatch, capsys)
    line = f"{tmp_path}/_toc.yml has no root, and parts with chapters: "
    assert text.startswith(line) and "\n" not in text


@pytest.mark.parametrize("content", BENCHES)
def test_a_bad_table_of_a_bench_is_named_before_the_next(content, tmp_path, monkeypatch, capsys):
    (tmp_path / "bench.csv").write_bytes(content.encode(errors="surrogateescape"))
    for name in ("items", "slow_items"):
        monkeypatch.setattr(bench, name, lambda size: [bench.Item("item", float)])
    text = said(bench, ["--folder", str(tmp_path)], monkeypatch, capsys)
    assert f"{tmp_path}/bench.csv is" in text and "\n" not in text


def test_a_search_whose_table_has_no_place_does_not_begin(monkeypatch, capsys):
    monkeypatch.setattr(tune, "TABLE", Path(FILE) / "nu_sweep.csv")
    line = f"folder of the table is {FILE!r}; {FOLDER}"
    assert said(tune, ["--device", "cpu"], monkeypatch, capsys) == line


@pytest.mark.parametrize("content", ["[project", "[project]\nversion = '1'", "project = 1"])
def test_a_bad_project_is_no_traceback(content, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(publish, "__file__", str(tmp_path / "tools" / "publish.py"))
    (tmp_path / "pyproject.toml").write_text(content)
    text = said(publish, [], monkeypatch, capsys)
    assert f"{tmp_path}/pyproject.toml" in text and "\n" not in text


# --- Variables

HERE = [
    ("GINV_RUNS", "s3://bucket/runs", "GINV_RUNS is 's3://bucket/runs'; allowed: a folder"),
    ("GINV_RUNS", FILE, f"GINV_RUNS is {FILE!r}; allowed: a folder"),
    ("GINV_RUNS", "\n", "GINV_RUNS is '\\n'; allowed: a folder"),
    ("GINV_RUNS", "x" * 300, "GINV_RUNS is [...]; allowed: a folder"),
    ("GINV_RUNS", "~nobody-here", "GINV_RUNS is '~nobody-here', and there is no such home folder"),
    ("XDG_CACHE_HOME", "~nobody-here", "XDG_CACHE_HOME is '~nobody-here', and there is no such"),
]
TARGETS = [
    (["book", "PROFILE=Paper"], "PROFILE is Paper; allowed: paper, sample, quick"),
    (["book", "PROFILE=paper,quick"], "PROFILE is paper,quick; allowed: paper, sample, quick"),
    (["book", "PROFILE=quick-1"], "PROFILE is quick-1; allowed: paper, sample, quick"),
    (["bench", "FULL=0"], "FULL is 0; allowed: 1"),
    (["bench", "FULL=no"], "FULL is no; allowed: 1"),
    (["notebooks", "PROFILE=quick"], "PROFILE is quick; allowed: paper"),
    (["book", "CHAPTER=table1"], "no variable CHAPTER; allowed: CHAPTERS, FRESH, FULL, PROFILE"),
    (["bench", "full=1"], "no variable full; allowed: CHAPTERS, FRESH, FULL, PROFILE, PYTHON, URL"),
    (
        ["tune", "DEVICE=cpu"],
        "no variable DEVICE; allowed: CHAPTERS, FRESH, FULL, PROFILE, PYTHON, URL",
    ),
    (
        ["publish-url", "REPO=a"],
        "no variable REPO; allowed: CHAPTERS, FRESH, FULL, PROFILE, PYTHON, URL",
    ),
    (
        ["clean", "STRICT=-W"],
        "no variable STRICT; allowed: CHAPTERS, FRESH, FULL, PROFILE, PYTHON, URL",
    ),
    (["html", "--profile=quick"], "unrecognized option '--profile=quick'"),
]


@pytest.mark.parametrize(("variable", "value", "line"), HERE)
def test_the_check_names_a_bad_variable(variable, value, line, monkeypatch, capsys):
    monkeypatch.setattr(check, "data", lambda: "not read")
    if variable == "XDG_CACHE_HOME":
        monkeypatch.delenv("GINV_RUNS")
    monkeypatch.setenv(variable, value)
    assert check.main() == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and lines[3].startswith(f"FAIL store - {line}")


@pytest.mark.parametrize(("arguments", "line"), TARGETS, ids=str)
def test_bad_targets(arguments, line, tmp_path):
    """Refused before anything is installed or removed."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / ".venv").mkdir()
    ours = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    alone = {name: value for name, value in os.environ.items() if name not in ours}
    command = ["make", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=alone)
    assert done.returncode == 2 and done.stdout == "" and line in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"Makefile", ".venv"}


@pytest.mark.parametrize("profile", ["nonsense", "quick paper"])
def test_a_bad_profile_in_the_environment_is_refused(profile, tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    alone = {"PATH": os.environ["PATH"], "PROFILE": profile}
    done = subprocess.run(["make", "book"], cwd=tmp_path, capture_output=True, text=True, env=alone)
    assert done.returncode == 2
    assert f"PROFILE is {profile}; allowed: paper, sample, quick" in done.stderr
