import time
from dataclasses import asdict, replace
from itertools import product

import pytest
import torch

import ginv.training
from ginv import Run, group_named, load_dataset, store, train
from ginv.data import Split
from ginv.training import REGULARISERS, load_run, train_stack
from ginv.window import Window

CPU = torch.device("cpu")


def stack(*runs):
    return train_stack(list(runs), device=CPU, progress=False)


def short(**changes):
    return Run(**{"epochs": 2, "train_images": 600, "batch_size": 128, **changes})


@pytest.fixture
def double_precision(monkeypatch):
    """In float32 one activation that is 0 up to rounding is a finite change of the gradient, and Adam enlarges it."""

    def double(*arguments):
        data = load_dataset(*arguments)
        train, validation = (Split(part.images.double(), part.labels) for part in (data.train, data.validation))
        return replace(data, train=train, validation=validation)

    monkeypatch.setattr(ginv.training, "load_dataset", double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "runs",
    [
        [short(seed=seed) for seed in (0, 1, 2)],
        [short(weight_decay=decay, seed=seed) for decay in (0.0, 30.0) for seed in (0, 1)],
        [short(method="IR", nu=nu, seed=seed) for nu in (1.0, 10.0) for seed in (0, 1)],
        [short(method="WT", group="T3", seed=seed) for seed in (0, 1, 2)],
    ],
    ids=["DA", "weight decay", "IR", "WT"],
)
def test_a_run_does_not_depend_on_what_it_was_stacked_with(runs, double_precision):
    together, alone = stack(*runs)[-1], stack(runs[-1])[0]
    for name, value in alone.model.state_dict().items():
        torch.testing.assert_close(together.model.state_dict()[name], value, rtol=1e-9, atol=1e-11, msg=name)
    assert together.record["validation_accuracy"] == pytest.approx(alone.record["validation_accuracy"], abs=2e-3)
    other = stack(runs[0])[0].model.state_dict()["output.weight"]
    assert not torch.allclose(other, alone.model.state_dict()["output.weight"], atol=1e-3)


@pytest.mark.parametrize("changes", [{}, {"method": "IR", "nu": 3.0}, {"method": "WT", "group": "T3"}])
def test_the_same_run_twice_is_the_same_and_threads_cost_rounding(changes, double_precision):
    """Bit for bit with as many threads, and up to rounding with others."""
    threads = torch.get_num_threads()
    try:
        once, twice, other = (
            torch.set_num_threads(n) or stack(short(**changes))[0].model.state_dict() for n in (1, 1, 2)
        )
    finally:
        torch.set_num_threads(threads)
    for name, value in once.items():
        assert torch.equal(twice[name], value)
        torch.testing.assert_close(other[name], value, rtol=1e-9, atol=1e-11, msg=name)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"weight_decay": 10.0},
        {"method": "IR", "nu": 3.0},
        {"method": "IR", "nu": 3.0, "whole_orbit": True},
        {"method": "IR", "nu": 3.0, "all_views": True},
        {"method": "IR", "nu": 3.0, "teacher": True},
        {"method": "IR", "nu": 3.0, "whole_orbit": True, "all_views": True},
        {"method": "IR", "nu": 3.0, "whole_orbit": True, "all_views": True, "teacher": True},
        {"method": "IR", "nu": 1e-3, "symmetric_start": True, "initialisation": "he"},
        {"first_width": 32},
        {"schedule": "cosine", "weight_decay": 10.0},
        {"method": "WT", "group": "T3"},
        {"method": "WT", "pooling": "mean"},
        {"method": "WT", "pooling": "mean after ReLU"},
    ],
)
def test_stacked_training_is_plain_training(changes, double_precision):
    """The same run, written as anybody would write it: one network, whole images, nn.Linear's layout."""
    run = short(epochs=1, **changes)
    group, data = group_named(run.group), ginv.training.load_dataset()
    generator = torch.Generator().manual_seed(run.seed)
    model = run.model(generator)
    teacher = train([run.teacher_run], progress=False)[run.teacher_run].model if run.teacher else None
    optimiser = torch.optim.Adam(model.parameters(), lr=run.learning_rate)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=5)  # steps
    shuffled = torch.randperm(600, generator=generator)
    elements = torch.randint(group.order, (2, 600), generator=generator)
    if run.whole_orbit:
        elements = torch.stack([(elements[0] + g) % group.order for g in group.elements])
    for batch, turns in zip(shuffled.split(128), elements.split(128, 1), strict=True):
        logits, target = [], None
        for turn in turns:
            x = torch.stack([group.act(g, x) for g, x in zip(turn.tolist(), data.train.images[batch], strict=True)])
            logits.append(model(x))
            target = teacher(x) if teacher and not logits[1:] else target
        cross_entropies = [torch.nn.functional.cross_entropy(f, data.train.labels[batch]) for f in logits]
        loss = sum(cross_entropies) / len(logits) if run.all_views else cross_entropies[0]
        if run.method == "IR":
            if run.teacher:
                pairs = [(f, target) for f in (logits if run.whole_orbit else logits[:2])]
            else:
                pairs = product(logits, repeat=2) if run.whole_orbit else [logits]
            loss = loss + run.nu * torch.stack([(a - b).square().sum(1).mean() / 2 for a, b in pairs]).mean()
        optimiser.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1 - optimiser.param_groups[0]["lr"] * run.weight_decay)
        optimiser.step()
        if run.schedule == "cosine":
            decay.step()
    initial, plain = run.model(torch.Generator().manual_seed(run.seed)).state_dict(), model.state_dict()
    for name, value in stack(run)[0].model.state_dict().items():
        assert (value - plain[name]).norm() < 1e-9 * (plain[name] - initial[name]).norm(), name


@pytest.mark.parametrize("name", REGULARISERS)
def test_the_regulariser_reaches_the_weights(name):
    """Its gradient is not zero, and is the finite difference of its value."""
    a, b = torch.randn(2, 5, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    a.requires_grad_()
    assert torch.autograd.gradcheck(lambda a: REGULARISERS[name](a, b), a)
    (gradient,) = torch.autograd.grad(REGULARISERS[name](a, b).sum(), a)
    assert gradient.norm() > 1e-2
    unregularised, regularised = stack(short()), stack(short(method="IR", nu=10.0, regulariser=name))
    weights = [result[0].model.state_dict()["output.weight"] for result in (unregularised, regularised)]
    assert not torch.allclose(*weights, atol=1e-4)


def test_the_best_epoch_is_kept():
    """The network that comes back has the best validation accuracy of the history, on the images as they are."""
    run = short(epochs=6, learning_rate=5e-3)
    result = stack(run)[0]
    validation = load_dataset().validation
    elements = torch.randint(4, (2000,), generator=torch.Generator().manual_seed(0)).tolist()
    turned = torch.stack([group_named("R4").act(g, x) for g, x in zip(elements, validation.images, strict=True)])
    reached = (result.model(turned).argmax(1) == validation.labels).float().mean().item()
    history = result.record["validation_accuracy"]
    assert reached == pytest.approx(max(history), abs=1e-3)
    assert history[result.record["best_epoch"] - 1] == max(history) > 1.5 / 9


def test_the_last_epoch_is_kept_where_that_is_asked_for():
    """The last epoch of a run is what a run of as many epochs, each the best so far, ends with."""
    run = short(epochs=6, learning_rate=5e-3, selection="last")
    result = stack(run)[0]
    validation, group = load_dataset().validation, group_named("R4")
    elements = torch.randint(4, (2000,), generator=torch.Generator().manual_seed(0)).tolist()
    turned = torch.stack([group.act(g, x) for g, x in zip(elements, validation.images, strict=True)])
    reached = (result.model(turned).argmax(1) == validation.labels).float().mean().item()
    history = result.record["validation_accuracy"]
    assert reached == pytest.approx(history[-1], abs=1e-3) and history[-1] < max(history)


@pytest.mark.parametrize("group", ["R4", "T3"])
def test_whole_orbits_in_the_loss_keep_a_symmetric_start_invariant(group):
    """The gradient then has the symmetry of the weights, and Adam treats all weights alike; one view breaks it."""
    acting, images = group_named(group), load_dataset().test.images[:64]
    start = dict(symmetric_start=True, initialisation="he", whole_orbit=True, selection="last")
    run = short(group=group, method="IR", nu=1.0, **start)
    error = {}
    for all_views in (True, False):
        model = stack(replace(run, all_views=all_views))[0].model
        logits = torch.stack([model(x) for x in acting.orbit(images)])
        error[all_views] = float(ginv.relative_logit_invariance(logits).mean())
        moved = model.features[1].weight - run.model(torch.Generator().manual_seed(run.seed)).features[1].weight
        assert moved.abs().mean() > 1e-3  # it learned
    assert error[True] < 1e-6 < 1e-3 < error[False], error


@pytest.mark.parametrize("group", ["R4", "T3"])
def test_a_trained_weight_tied_network_is_invariant(group):
    acting, images = group_named(group), load_dataset().test.images[:64]
    model = stack(short(group=group, method="WT"))[0].model.double()
    logits = torch.stack([model(x) for x in acting.orbit(images.double())])
    assert logits.std() > 0.1
    for g in acting.elements:
        assert (logits[g] - logits[0]).abs().max() < 1e-10, f"{group}: {g}"


def test_a_stored_run_is_loaded_and_not_trained_again(monkeypatch):
    run = short(epochs=1)
    first = train([run], device="cpu", progress=False)[run]
    monkeypatch.setattr(ginv.training, "train_stack", lambda *_, **__: pytest.fail("trained again"))
    again = train([run, run], device="cpu", progress=False)[run]
    assert again.record["validation_accuracy"] == first.record["validation_accuracy"]
    for name, value in first.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value)
    assert load_run(short(epochs=1, seed=1)) is None


def test_specification_leaves_defaults_out_and_tells_runs_apart():
    assert Run().specification == {}
    assert Run(method="IR", nu=10) == Run(method="IR", nu=10.0) and Run(method="IR", nu=10).specification["nu"] == 10.0
    # Stored runs are named without the defaults: one that changes here must count up store.FORMAT
    assert asdict(Run()) == {
        "group": "R4", "method": "DA", "seed": 0, "nu": 0.0, "regulariser": "logit", "dataset": "MNIST", "epochs": 300,
        "learning_rate": 8e-4, "weight_decay": 0.0, "batch_size": 512, "train_images": 10_000, "width": 128, "depth": 5,
        "pooling": "max", "selection": "best", "split_seed": 0, "whole_orbit": False,
        "all_views": False, "schedule": "constant", "first_width": None, "teacher": False, "precision": "float32",
        "initialisation": "pytorch", "symmetric_start": False,
    }  # fmt: skip
    names = {store.record_name(run.specification) for run in (Run(), Run(seed=1), Run("T3"), Run(method="WT"))}
    assert len(names) == 4


@pytest.mark.parametrize("group", ["R4", "T3"])
def test_window_leaves_the_network_as_it_is(group, generator):
    images, run = load_dataset().train.images[:200], Run(group, "WT")
    window = Window.around(images, group_named(group))
    model = run.model(generator)
    stacked = {name: value[None] for name, value in model.state_dict().items()}
    leaves = window.split(stacked, CPU)
    for name, value in window.merge(leaves).items():
        assert torch.equal(value[0], model.state_dict()[name])
    skeleton = run.model()
    skeleton.features[1].image_shape = window.shape
    joined = {name: value[0] for name, value in window.join(leaves).items()}
    seen = torch.func.functional_call(skeleton, joined, window.crop(images))
    torch.testing.assert_close(seen, model(images), rtol=1e-4, atol=1e-5)
    assert window.shape[0] < 36


@pytest.mark.parametrize("lit", [slice(0, 1), slice(0, 2), slice(0, 0)], ids=["9 wide", "10 wide", "constant"])
def test_window_is_the_whole_image_where_the_group_needs_it(lit):
    """A cropped image 9 or 10 wide shifts by another distance, or not at all."""
    images = torch.zeros(2, 1, 12, 12)
    images[1, 0, 3, lit] = 1
    group = group_named("T3")
    window = Window.around(images, group)
    assert torch.equal(window.crop(group.orbit(images)), group.orbit(window.crop(images)))
    assert window.shape[1] == 12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "GAN"}, "method is 'GAN'; allowed: WT, DA, IR"),
        ({"regulariser": "l1"}, "regulariser is 'l1'; allowed: logit, kl, normalised"),
        ({"nu": 1.0}, "nu is 1.0; allowed: above 0 for IR, 0 for WT and DA"),
        ({"method": "IR"}, "nu is 0.0; allowed: above 0 for IR"),
        ({"epochs": 0}, "epochs is 0; allowed: integers from 1"),
        ({"epochs": 1.5}, "epochs is 1.5; allowed: integers"),
        ({"seed": "a"}, "seed is 'a'; allowed: integers"),
        ({"method": "IR", "nu": float("inf")}, "nu is inf"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0; allowed: above 0"),
        ({"weight_decay": 2000.0}, "weight_decay is 2000.0; allowed: 0 to 1 / learning_rate"),
        ({"pooling": "sum"}, "pooling is 'sum'; allowed: max, mean, mean after ReLU"),
        ({"pooling": "mean"}, "pooling is 'mean'; allowed: 'max' for DA"),
        ({"whole_orbit": True}, "whole_orbit is True; allowed: False for DA"),
        ({"symmetric_start": True}, "symmetric_start is True; allowed: False for DA"),
        ({"initialisation": "glorot"}, "initialisation is 'glorot'; allowed: pytorch, he"),
        ({"selection": "first"}, "selection is 'first'; allowed: best, last"),
        ({"dataset": "x"}, "dataset is 'x'; allowed: MNIST, FashionMNIST"),
        ({"train_images": 20_000}, "train_images is 20000; allowed: 1 to 10000"),
        ({"group": "D4"}, "group is 'D4'; allowed"),
        ({"group": "T5"}, "order 5 of Translations does not divide the image width 36"),
    ],
)
def test_a_bad_specification_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Run(**changes)


def test_a_diverged_run_stops_with_its_name():
    with pytest.raises(FloatingPointError, match=r"not finite after epoch \d+ of Run\(.*seed=7"):
        stack(short(seed=7, learning_rate=1e30, epochs=3))


def test_an_infinite_loss_stops_the_run():
    """Adam divides it away: the weights stay finite, and would be worthless."""
    with pytest.raises(FloatingPointError, match=r"^the loss is not finite after epoch 1 of Run\(.*seed=5.*\)$"):
        stack(*(short(seed=seed, method="IR", nu=nu, learning_rate=3.0) for seed, nu in ((4, 1.0), (5, 1e19))))


def test_an_error_in_one_stack_ends_the_others():
    """And does not wait for the one that began first and would take minutes."""
    diverging, long = short(learning_rate=1e30, epochs=3), short(method="WT", epochs=3_000)
    start, threads = time.perf_counter(), torch.get_num_threads()
    torch.set_num_threads(2)  # so that two stacks train side by side
    try:
        with pytest.raises(FloatingPointError):
            train([diverging, long], device="cpu", progress=False)
    finally:
        torch.set_num_threads(threads)
    assert time.perf_counter() - start < 60 and load_run(long) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("changes", [{}, {"method": "WT"}, {"method": "IR", "nu": 3.0}])
def test_the_gpu_trains_the_same_network(changes):
    run = short(epochs=1, **changes)
    there = train_stack([run], device=torch.device("cuda"), progress=False)[0].model.cpu().state_dict()
    for name, value in stack(run)[0].model.state_dict().items():
        torch.testing.assert_close(there[name], value, rtol=1e-2, atol=1e-4, msg=name)
