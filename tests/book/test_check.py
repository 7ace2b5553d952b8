import sys

import pytest
import torch

from ginv import check
from ginv.data import _normalised


def lines(capsys):
    return {line.split()[1]: line for line in capsys.readouterr().out.splitlines()}


def test_every_line_is_ok(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", object())
    assert check.main() == 0
    names = ["versions", "torchvision", "data", "store", "device", "space"]
    assert {name: line[:2] for name, line in lines(capsys).items()} == dict.fromkeys(names, "OK")


@pytest.mark.parametrize("kind", [RuntimeError, ImportError, AttributeError])
def test_a_torchvision_that_does_not_fit_is_named_with_the_remedy(kind, capsys, monkeypatch):
    """It raises whatever its binaries do beside another torch; the book needs it for nothing."""

    def imported(name):
        raise kind("operator torchvision::nms does not exist")

    monkeypatch.setattr(check, "import_module", imported)
    assert check.main() == 0
    said = lines(capsys)["torchvision"]
    assert said.startswith("NOTE") and "goes with torch==" in said and "not needed" in said
    assert f"here is {torch.__version__} (operator torchvision::nms does not exist)" in said


@pytest.mark.parametrize("variable", ["GINV_DATA", "GINV_RUNS"])
def test_what_is_wrong_is_named(variable, capsys, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv(variable, str(tmp_path / "file" / "nowhere"))
    _normalised.cache_clear()
    assert check.main() == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    assert failed and all(str(tmp_path / "file") in line for line in failed)
