import hypothesis
import pytest
import torch

# The same examples in every run, and no file of them
hypothesis.settings.register_profile("fixed", derandomize=True, database=None, deadline=None, max_examples=60)
hypothesis.settings.load_profile("fixed")


@pytest.fixture(autouse=True)
def empty_store(tmp_path, monkeypatch):
    """No test reads or writes the user's store."""
    monkeypatch.setenv("GINV_RUNS", str(tmp_path / "runs"))


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)
