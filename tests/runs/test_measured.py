"""A trained run is measured once, for the pages, the grids and the search for nu."""

import math
from dataclasses import replace

import pandas as pd
import pytest
import torch

import ginv.runs.measured
from ginv import (
    Rotations,
    Run,
    TrainedRun,
    distribution_invariance,
    largest_singular_value,
    load_dataset,
    measure,
    train,
)
from ginv.pages import Settings
from ginv.runs import nu, store
from ginv.runs.grid import read_grid, run_grid
from ginv.runs.measured import DRIFT, evaluated, measured, named, robustness

TINY = Run(width=16, depth=2, epochs=1, train_images=200, batch_size=100)


@pytest.fixture
def trained():
    return train([TINY], device="cpu", progress=False)[TINY]


@pytest.fixture
def counted(monkeypatch):
    """How many images each measurement took that was not in the store."""
    seen, function = [], ginv.runs.measured.measure

    def noted(model, images, *arguments, **options):
        seen.append(len(images))
        return function(model, images, *arguments, **options)

    monkeypatch.setattr(ginv.runs.measured, "measure", noted)
    return seen


def untrained(run=TINY):
    """What `train` would return had it done nothing."""
    model = run.model(torch.Generator().manual_seed(0)).requires_grad_(False)
    return TrainedRun(run, model, {"best_epoch": 1})


def test_what_was_measured_once_is_read(trained, counted):
    first = measured(trained, "test", 40, progress=False)
    again = measured(trained, "test", 40, progress=False)
    assert counted == [40]
    pd.testing.assert_frame_equal(again.samples, first.samples)
    assert again.sample_variance == first.sample_variance
    data = load_dataset().test.head(40)
    plain = measure(trained.model, data.images, data.labels, Rotations(4), progress=False)
    pd.testing.assert_frame_equal(again.samples, plain.samples)
    pd.testing.assert_series_equal(again.summary, plain.summary)


def test_other_images_and_another_split_are_another_measurement(trained, counted):
    for split, images in (("test", 40), ("test", 41), ("validation", 40), ("train", 40)):
        table = measured(trained, split, images, progress=False).samples
        labels = getattr(load_dataset(), split).labels[:images]
        assert table.label.tolist() == labels.tolist()
    assert counted == [40, 41, 40, 40]


def test_without_a_number_all_of_the_split_are_measured(trained, counted):
    everything = measured(trained, "validation", progress=False)
    assert len(everything.samples) == 2_000
    measured(trained, "validation", 2_000, progress=False)
    assert counted == [2_000]


def test_a_run_is_measured_on_its_own_data(counted):
    run = replace(TINY, dataset="FashionMNIST", split_seed=3)
    table = measured(untrained(run), "validation", 30, progress=False).samples
    assert table.label.tolist() == load_dataset("FashionMNIST", 3).validation.labels[:30].tolist()


def test_changed_weights_are_measured_anew(trained, counted):
    """Any of them, by however little."""
    names = {store.record_name(named("measurement", trained, "test", 40))}
    first = measured(trained, "test", 40, progress=False)
    for name, parameter in trained.model.named_parameters():
        with torch.no_grad():
            parameter.view(-1)[-1] *= 1 + 1e-6
        names.add(store.record_name(named("measurement", trained, "test", 40)))
        assert len(names) == 1 + len(counted), name
        measured(trained, "test", 40, progress=False)
    assert counted == [40] * (1 + len([*trained.model.parameters()]))
    trained.model.output.bias[0] += 5
    assert not measured(trained, "test", 40, progress=False).samples.equals(first.samples)


def test_the_name_is_that_of_the_weights_wherever_they_come_from(trained):
    """A run that was loaded is the run that was trained."""
    loaded = train([TINY], device="cpu", progress=False)[TINY]
    assert loaded is not trained
    for what in ("measurement", "robustness"):
        assert named(what, loaded, "test", 9) == named(what, trained, "test", 9)
    names = [named(what, trained, "test", 9) for what in ("measurement", "robustness")]
    assert names[0] != names[1]


def test_pages_grids_and_the_search_for_nu_share_one_record(tmp_path, counted, monkeypatch):
    """Each comes first once, and the others find what it measured."""
    settings = Settings("quick", "R4", device="cpu")
    fields = "method: IR, nu: 2, width: 16, depth: 2, epochs: 1, train_images: 200"
    runs = {}
    for seed, (split, images) in enumerate((("test", 30), ("test", 40), ("validation", 2_000))):
        text = f"{{split: {split}, images: {images}, recipes: {{a: {{{fields}, seed: {seed}}}}}}}"
        (tmp_path / f"{seed}.yaml").write_text(text)
        runs[seed] = read_grid(tmp_path / f"{seed}.yaml")
    trained = train([run for grid in runs.values() for run in grid.runs], progress=False)
    first, second, third = trained.values()

    run_grid(runs[0], device="cpu")
    settings.measure(first, 30)
    assert counted == [30]

    settings.measure(second, 40)
    run_grid(runs[1], device="cpu")
    evaluated(second, "test", 40)
    assert counted == [30, 40]

    asked = iter([[third.run], []])
    monkeypatch.setattr(nu, "next_runs", lambda *_: next(asked))
    table = nu.search([Run(method="IR", nu=1.0)], device="cpu")
    value = run_grid(runs[2], device="cpu").set_index("metric").value
    assert counted == [30, 40, 2_000]
    for metric in nu.COLUMNS[6:]:
        assert table[metric].item() == value[metric]


def test_an_evaluation_has_the_means_and_what_becomes_of_them_off_the_data(trained):
    values = evaluated(trained, "validation", 30)
    summary = measured(trained, "validation", 30).summary
    assert {name: values[name] for name in summary.index} == summary.to_dict()
    off_data = robustness(trained, "validation", 30)
    assert off_data.items() <= values.items()
    assert values.keys() - summary.keys() - off_data.keys() == {"sigma_max_over_scale"}
    share = values["sigma_max"] / values["logit_norm"]
    assert values["sigma_max_over_scale"] == pytest.approx(share)


def test_drift_is_measured_on_blends_of_one_class():
    result = untrained(replace(TINY, width=8, depth=1))
    values = robustness(result, "validation", 30)
    digits, garments = (load_dataset(name).validation for name in ("MNIST", "FashionMNIST"))
    seen, blends = dict.fromkeys(range(9), 0), []
    for image, label in zip(digits.images[:30], digits.labels[:30].tolist(), strict=True):
        of_class = [i for i, other in enumerate(garments.labels.tolist()) if other == label]
        blends.append((1 - DRIFT) * image + DRIFT * garments.images[of_class[seen[label]]])
        seen[label] += 1
    logits = torch.stack([result.model(x) for x in Rotations(4).orbit(torch.stack(blends))])
    expected = distribution_invariance(logits).mean().item()
    assert values["DI_under_drift"] == pytest.approx(expected, rel=1e-4)
    tied = untrained(Run(method="WT", width=8, depth=1))
    invariant = robustness(tied, "validation", 30)["DI_under_drift"]
    assert invariant < 1e-6 < values["DI_under_drift"]


def test_sigma_max_is_that_of_the_first_images(monkeypatch):
    monkeypatch.setattr(ginv.runs.measured, "SENSITIVITY_IMAGES", 7)
    result = untrained()
    images = load_dataset().test.images[:7]
    expected = largest_singular_value(result.model, images).mean().item()
    assert robustness(result, "test", 12)["sigma_max"] == pytest.approx(expected, rel=1e-5)


def test_the_mean_of_the_largest_slopes_is_a_number(monkeypatch):
    """As each of them is."""
    huge = torch.full((8,), 3e38)
    monkeypatch.setattr(ginv.runs.measured, "largest_singular_value", lambda *_: huge)
    assert robustness(untrained(), "test", 8)["sigma_max"] == pytest.approx(3e38)


def test_robustness_is_kept_too(trained, monkeypatch):
    first = robustness(trained, "test", 20)
    monkeypatch.setattr(ginv.runs.measured, "_off_data", lambda *_: pytest.fail("computed again"))
    assert robustness(trained, "test", 20) == first


def test_what_is_not_finite_names_its_run_and_is_not_kept():
    result = untrained(replace(TINY, seed=3))
    result.model.output.bias.fill_(math.inf)
    line = r"the logits are not finite; [^\n]* epoch 1 of Run\([^\n]*seed=3[^\n]*\)"
    with pytest.raises(ValueError, match=f"^{line}$"):
        measured(result, "test", 20, progress=False)
    assert not store.contains(named("measurement", result, "test", 20))


@pytest.mark.parametrize("function", [measured, robustness, evaluated])
@pytest.mark.parametrize(
    ("split", "images", "line"),
    [
        ("tests", 3, "split is 'tests'; allowed: train, validation, test"),
        (["test"], 3, r"split is \['test'\]; allowed"),
        ("test", 0, "images is 0; allowed: 1 to 50000, or None"),
        ("validation", 2_001, "images is 2001; allowed: 1 to 2000, or None"),
        ("test", True, "images is True; allowed"),
        ("test", 3.0, "images is 3.0; allowed"),
    ],
)
def test_bad_splits_and_numbers_are_refused(function, split, images, line):
    with pytest.raises(ValueError, match=f"^{line}[^\n]*$"):
        function(untrained(), split, images)
