from dataclasses import replace

import pytest

from ginv import Run, train
from ginv.pages import Settings
from ginv.pages.settings import PROFILES, READINGS, Profile, announce


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"profile": "fast"}, "profile is 'fast'; allowed: paper, sample, quick"),
        ({"group": "R8"}, "group is 'R8'; allowed: both, R4, T3"),
        ({"seeds": "0"}, "seeds is '0'; allowed: a list of integers from 0 up"),
        ({"seeds": [0, -1]}, "seeds is .*allowed"),
        ({"seeds": []}, "seeds is .*allowed"),
        ({"device": "tpu"}, "device is 'tpu'; allowed"),
    ],
)
def test_a_bad_parameter_is_refused_in_one_line(parameters, message):
    with pytest.raises(ValueError, match=message) as error:
        Settings(**parameters)
    assert "\n" not in str(error.value)


def test_the_paper_profile_is_table_1():
    settings = Settings()
    assert len(settings.runs()) == 2 * 3 * 4 and settings.test_images == 50_000
    assert {run.epochs for run in settings.runs()} == {300}
    assert Settings(group="T3", seeds=[1]).runs()[0] == Run("T3", "WT", 1)
    assert "quick" in Settings("quick").label


def test_announce_counts_what_is_missing():
    assert announce("quick").startswith("18 of 18 runs of Table 1 and Figure 5 are missing")


@pytest.fixture
def tiny(monkeypatch):
    """A profile of one epoch and ten images."""
    monkeypatch.setitem(PROFILES, "quick", Profile((0,), 1, 10))
    return Settings("quick", "R4", device="cpu")


def test_announce_counts_down(tiny):
    """Once all is trained and measured nothing is left to do; a measurement alone is work."""
    train([tiny.run("R4", "WT", 0)], device="cpu", progress=False)
    assert announce("quick", "cpu").startswith("17 of 18 runs")
    everything = [*Settings("quick").runs(), *Settings("quick").spectral_runs()]
    trained = train(everything, device="cpu", progress=False)
    assert "0 of 18 runs" in announce("quick", "cpu") and "minutes" in announce("quick", "cpu")
    for run in Settings("quick").runs():
        tiny.measure(trained[run])
    for run in Settings("quick").spectral_runs():
        tiny.measure(trained[run], tiny.fewer_images)
    assert announce("quick", "cpu").endswith(": nothing to train")


def test_a_table_has_a_row_for_each_run_and_metric(tiny, tmp_path, capsys):
    table = tiny.table(tiny.train())
    assert list(table.columns) == ["group", "method", "seed", "nu", "metric", "value"]
    assert not table.duplicated(["group", "method", "seed", "metric"]).any()
    assert set(table.method) == {"WT", "DA", "IR"} and table.notna().all(axis=None)
    with pytest.raises(FileNotFoundError, match=r"run the chapter nothing at the quick profile"):
        tiny.load(str(tmp_path), "nothing")
    committed = tiny.load(str(tmp_path), "table1")
    assert {*committed.seed} == {0, 1, 2, 3}
    said = "table1 has not been run here at the quick profile: these are its committed numbers"
    assert said in capsys.readouterr().out
    tiny.save(table, str(tmp_path / "new"), "table1")
    assert (tmp_path / "new" / "table1-quick.csv").is_file()
    assert tiny.load(str(tmp_path / "new"), "table1").metric.equals(table.metric)


def test_fewer_images_are_a_fifth():
    assert [Settings(name).fewer_images for name in PROFILES] == [10_000, 1_000, 200]


def test_another_reading_changes_one_choice_of_a_run_of_table_1():
    settings = Settings("quick", "T3", [5, 6])
    runs = settings.readings()
    assert {(run.group, run.seed, run.epochs) for run in runs} == {("T3", 5, 20)}
    assert len(runs) == sum(len(methods.split()) for _, _, methods, _ in READINGS)
    for run, (choice, reading) in runs.items():
        (changes,) = (c for a, b, _, c in READINGS if (a, b) == (choice, reading))
        assert replace(settings.run("T3", run.method, 5), **changes) == run not in settings.runs()
