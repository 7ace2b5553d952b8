import pytest

from ginv import check
from ginv.data import _normalised


def test_every_line_is_ok(capsys):
    assert check.main() == 0
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [
        ["OK", name] for name in ("versions", "data", "store", "device", "space")
    ]


@pytest.mark.parametrize("variable", ["GINV_DATA", "GINV_RUNS"])
def test_what_is_wrong_is_named(variable, capsys, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv(variable, str(tmp_path / "file" / "nowhere"))
    _normalised.cache_clear()
    assert check.main() == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    assert failed and all(str(tmp_path / "file") in line for line in failed)
