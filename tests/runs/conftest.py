import pytest

import ginv.runs.train


@pytest.fixture
def trainings(monkeypatch):
    """The runs that were trained in this process."""
    trained, function = [], ginv.runs.train.train_stack

    def noted(runs, **options):
        trained.extend(runs)
        return function(runs, **options)

    monkeypatch.setattr(ginv.runs.train, "train_stack", noted)
    return trained
