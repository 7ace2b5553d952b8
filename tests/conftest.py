import pytest
import torch


@pytest.fixture(autouse=True)
def empty_store(tmp_path, monkeypatch):
    """No test reads or writes the user's store."""
    monkeypatch.setenv("GINV_RUNS", str(tmp_path / "runs"))


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)
