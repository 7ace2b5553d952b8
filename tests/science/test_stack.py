import copy
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import product
from threading import Event
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

import ginv
from ginv import Run, group_named, load_dataset
from ginv.data import Split
from ginv.recipe import REGULARISERS
from ginv.stack import Diverged, Recorded, Stack, train_stack

CPU = torch.device("cpu")


def stack(*runs):
    return train_stack(list(runs), device=CPU, progress=False)


def short(**changes):
    return Run(**{"epochs": 2, "train_images": 600, "batch_size": 128, **changes})


@pytest.fixture
def double_precision(monkeypatch):
    """In float32 one activation that is 0 up to rounding is a finite change of the gradient, and
    Adam enlarges it.
    """

    def double(*arguments):
        data = load_dataset(*arguments)
        train, validation = (
            Split(part.images.double(), part.labels) for part in (data.train, data.validation)
        )
        return replace(data, train=train, validation=validation)

    monkeypatch.setattr(ginv.stack, "load_dataset", double)


@pytest.mark.parametrize(
    "runs",
    [
        [short(seed=seed) for seed in (0, 1, 2)],
        [short(weight_decay=decay, seed=seed) for decay in (0.0, 30.0) for seed in (0, 1)],
        [short(symmetry_decay=decay, seed=seed) for decay in (1.0, 300.0) for seed in (0, 1)],
        [short(method="IR", nu=nu, seed=seed) for nu in (1.0, 10.0) for seed in (0, 1)],
        [short(method="WT", group="T3", seed=seed) for seed in (0, 1, 2)],
    ],
    ids=["DA", "weight decay", "symmetry decay", "IR", "WT"],
)
def test_a_run_does_not_depend_on_what_it_was_stacked_with(runs, double_precision):
    together, alone = stack(*runs)[-1], stack(runs[-1])[0]
    for name, value in alone.model.state_dict().items():
        torch.testing.assert_close(
            together.model.state_dict()[name], value, rtol=1e-9, atol=1e-11, msg=name
        )
    assert together.record["validation_accuracy"] == pytest.approx(
        alone.record["validation_accuracy"], abs=2e-3
    )
    other = stack(runs[0])[0].model.state_dict()["output.weight"]
    assert not torch.allclose(other, alone.model.state_dict()["output.weight"], atol=1e-3)


@pytest.mark.parametrize(
    "changes", [{}, {"method": "IR", "nu": 3.0}, {"method": "WT", "group": "T3"}]
)
def test_the_same_run_twice_is_the_same_and_threads_cost_rounding(changes, double_precision):
    """Bit for bit with as many threads, and up to rounding with others."""
    threads = torch.get_num_threads()
    try:
        once, twice, other = (
            torch.set_num_threads(n) or stack(short(**changes))[0].model.state_dict()
            for n in (1, 1, 2)
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
        {"method": "IR", "nu": 3.0, "whole_orbit": True, "all_views": True},
        {"method": "IR", "nu": 1e-3, "symmetric_start": True, "initialisation": "he"},
        {"method": "IR", "nu": 0.1, "gradient_nu": 50.0, "whole_orbit": True, "all_views": True},
        {"whole_orbit": True},
        {"symmetry_decay": 500.0},
        {"group": "T3", "symmetry_decay": 500.0, "symmetry_schedule": "constant"},
        {"method": "IR", "nu": 3.0, "symmetry_decay": 2000.0, "schedule": "cosine"},
        {"first_width": 32},
        {"schedule": "cosine", "weight_decay": 10.0},
        {"method": "WT", "group": "T3"},
        {"method": "WT", "pooling": "mean"},
        {"method": "WT", "pooling": "mean after ReLU"},
    ],
)
def test_stacked_training_is_plain_training(changes, double_precision):
    """The same run, written as anybody would write it: one network, whole images, nn.Linear's
    layout.
    """
    run = short(epochs=1, **changes)
    group, train = group_named(run.group), ginv.stack.load_dataset().train
    generator = torch.Generator().manual_seed(run.seed)
    model = run.model(generator).double()
    optimiser = torch.optim.Adam(model.parameters(), lr=run.learning_rate)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=5)  # steps
    shuffled = torch.randperm(600, generator=generator)
    elements = torch.randint(group.order, (2, 600), generator=generator)
    if run.gradient_nu:
        elements = torch.arange(group.order)[:, None].expand(-1, 600)
    elif run.whole_orbit:
        elements = torch.stack([(elements[0] + g) % group.order for g in group.elements])
    else:
        elements = elements[: run.views]
    batches = zip(shuffled.split(128), elements.split(128, 1), strict=True)
    for step, (batch, turns) in enumerate(batches):
        orbits = group.orbit(train.images[batch])
        logits = [model(orbits[turn, torch.arange(len(batch))]) for turn in turns]
        tasks = [F.cross_entropy(f, train.labels[batch]) for f in logits]
        loss = sum(tasks) / len(tasks) if run.all_views or run.method == "DA" else tasks[0]
        if run.method == "IR":
            pairs = [*product(logits, repeat=2)] if run.whole_orbit else [logits]
            errors = [(a - b).square().sum(1).mean() / 2 for a, b in pairs]
            loss = loss + run.nu * sum(errors) / len(errors)
        if run.gradient_nu:
            x = orbits.clone().requires_grad_()
            picked = [model(view)[range(len(batch)), train.labels[batch]].sum() for view in x]
            slopes = torch.autograd.grad(sum(picked), x, create_graph=True)[0][..., 4:-4, 4:-4]
            variance = ginv.recipe.gradient_variance(slopes, group)
            loss = loss + step / 5 * run.gradient_nu * variance.mean()
        optimiser.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1 - optimiser.param_groups[0]["lr"] * run.weight_decay)
        optimiser.step()
        if run.symmetry_decay:
            share = run.symmetry_decay * optimiser.param_groups[0]["lr"]
            share *= step / 5 if run.symmetry_schedule == "rising" else 1
            ginv.decay_asymmetry(model, group, min(1.0, share))
        if run.schedule == "cosine":
            decay.step()
    initial = run.model(torch.Generator().manual_seed(run.seed)).double().state_dict()
    plain = model.state_dict()
    for name, value in stack(run)[0].model.state_dict().items():
        assert (value - plain[name]).norm() < 1e-9 * (plain[name] - initial[name]).norm(), name


@pytest.mark.parametrize("name", REGULARISERS)
def test_the_regulariser_reaches_the_weights(name):
    free, regularised = stack(short()), stack(short(method="IR", nu=10.0, regulariser=name))
    weights = [result[0].model.state_dict()["output.weight"] for result in (free, regularised)]
    assert not torch.allclose(*weights, atol=1e-4)


def test_the_best_epoch_is_kept():
    """The network that comes back has the best validation accuracy of the history, on the images as
    they are.
    """
    run = short(epochs=6, learning_rate=5e-3)
    result = stack(run)[0]
    validation = load_dataset().validation
    elements = torch.randint(4, (2000,), generator=torch.Generator().manual_seed(0)).tolist()
    turned = torch.stack(
        [group_named("R4").act(g, x) for g, x in zip(elements, validation.images, strict=True)]
    )
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
    turned = torch.stack(
        [group.act(g, x) for g, x in zip(elements, validation.images, strict=True)]
    )
    reached = (result.model(turned).argmax(1) == validation.labels).float().mean().item()
    history = result.record["validation_accuracy"]
    assert reached == pytest.approx(history[-1], abs=1e-3) and history[-1] < max(history)


@pytest.mark.parametrize("group", ["R4", "T3"])
def test_whole_orbits_in_the_loss_keep_a_symmetric_start_invariant(group):
    """The gradient then has the symmetry of the weights, and Adam treats all weights alike; one
    view breaks it.
    """
    acting, images = group_named(group), load_dataset().test.images[:64]
    start = dict(symmetric_start=True, initialisation="he", whole_orbit=True, selection="last")
    run = short(group=group, method="IR", nu=1.0, **start)
    error = {}
    for all_views in (True, False):
        model = stack(replace(run, all_views=all_views))[0].model
        logits = torch.stack([model(x) for x in acting.orbit(images)])
        error[all_views] = float(ginv.relative_logit_invariance(logits).mean())
        moved = (
            model.features[1].weight
            - run.model(torch.Generator().manual_seed(run.seed)).features[1].weight
        )
        assert moved.abs().mean() > 1e-3  # it learned
    assert error[True] < 1e-6 < 1e-3 < error[False], error


@pytest.mark.parametrize("group", ["R4", "T3", "D4", "T2xV2"])
def test_a_decay_of_the_asymmetry_makes_a_network_invariant(group):
    """From random weights; where it takes all in each step, to rounding."""
    acting, images = group_named(group), load_dataset().test.images[:64]
    error = {}
    for decay in (0.0, 300.0, 1e9):
        run = short(group=group, symmetry_decay=decay, symmetry_schedule="constant", epochs=3)
        model = stack(run)[0].model
        logits = torch.stack([model(x) for x in acting.orbit(images)])
        error[decay] = float(ginv.relative_logit_invariance(logits).mean())
    assert error[1e9] < 1e-9 < error[300.0] < error[0.0] / 2, error


@pytest.mark.parametrize("group", ["R4", "T3"])
def test_a_trained_weight_tied_network_is_invariant(group):
    acting, images = group_named(group), load_dataset().test.images[:64]
    model = stack(short(group=group, method="WT"))[0].model.double()
    logits = torch.stack([model(x) for x in acting.orbit(images.double())])
    assert logits.std() > 0.1
    for g in acting.elements:
        assert (logits[g] - logits[0]).abs().max() < 1e-10, f"{group}: {g}"


def test_the_state_after_each_epoch_is_one_to_go_on_from():
    """In the same bits, from any of them; they are not copied on the way."""
    runs, states = [short(epochs=4, seed=seed, selection="last") for seed in (0, 1)], []

    def keep(state):
        states.append(copy.deepcopy(state))

    whole = train_stack(runs, device=CPU, progress=False, keep=keep)
    assert [state.epoch for state in states] == [1, 2, 3, 4]
    assert sorted(state.seconds for state in states) == [state.seconds for state in states]
    for state in states:
        rest = train_stack(runs, device=CPU, progress=False, start=state)
        for once, again in zip(whole, rest, strict=True):
            assert once.record["validation_accuracy"] == again.record["validation_accuracy"]
            assert all(map(torch.equal, once.model.parameters(), again.model.parameters()))


def test_a_stack_can_be_stopped():
    stop, run = Event(), short(epochs=9)

    def after_two(state):
        if state.epoch == 2:
            stop.set()

    with pytest.raises(InterruptedError, match=r"^stopped in epoch 3 of Run\("):
        train_stack([run], device=CPU, progress=False, stop=stop, keep=after_two)


def test_a_diverged_run_stops_with_its_name():
    with pytest.raises(FloatingPointError, match=r"not finite after epoch \d+ of Run\(.*seed=7"):
        stack(short(seed=7, learning_rate=1e30, epochs=3))


def test_an_infinite_loss_costs_its_run_alone():
    """Adam divides it away: the weights stay finite, and would be worthless."""
    lost, beside = short(method="IR", nu=1e300, seed=5), short(method="IR", nu=1.0, seed=4)
    message = r"^the loss or the logits are not finite after epoch 1 of Run\(.*seed=5.*\)$"
    with pytest.raises(Diverged, match=message) as error:
        stack(beside, lost)
    assert error.value.failed == {lost: 1}
    assert [result.run for result in error.value.trained] == [beside]
    assert error.value.trained[0].model.output.weight.isfinite().all()


def test_a_state_of_another_stack_is_not_gone_on_from(capsys):
    """Whatever its name says: another width, another count of runs, more epochs than there are."""
    states = []
    for runs in ([short(width=16)], [short(), short(seed=1)], [short(epochs=3)]):
        train_stack(runs, device=CPU, progress=False, keep=states.append)
    expected = stack(short())[0].model.output.weight
    for state in (states[0], states[3], states[-1]):
        found = train_stack([short()], device=CPU, progress=False, start=state)[0]
        assert torch.equal(found.model.output.weight, expected)
    assert capsys.readouterr().err.count("a checkpoint does not fit") == 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method": "WT"},
        {"method": "IR", "nu": 3.0},
        {"method": "IR", "nu": 3.0, "whole_orbit": True},
        {"symmetry_decay": 500.0, "schedule": "cosine", "weight_decay": 1.0},
    ],
)
def test_the_gpu_trains_the_same_network(changes):
    """With steps that are recorded and repeated: the second of a size is the first of these."""
    run = short(**changes)
    there = (
        train_stack([run], device=torch.device("cuda"), progress=False)[0].model.cpu().state_dict()
    )
    for name, value in stack(run)[0].model.state_dict().items():
        torch.testing.assert_close(there[name], value, rtol=1e-2, atol=1e-3, msg=name)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_an_epoch_on_the_gpu_waits_for_it_once():
    stack = Stack([short(), short(seed=1)], torch.device("cuda"))
    for epoch in range(2):  # the second repeats what the first recorded
        torch.cuda.set_sync_debug_mode("error" if epoch else "default")
        try:
            total = stack.train_epoch(epoch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert stack.validate(epoch, total)


def test_a_step_is_recorded_once_a_shape_and_then_repeated(monkeypatch):
    """On a GPU that is not there: a graph runs the step on the places that it was recorded with."""

    class Graph:
        def replay(self):
            result.copy_(made["step"]() - 100)

    made, steps, result = {}, [], torch.zeros(())

    def step(x):
        steps.append(len(x))
        made["step"] = x.sum
        return result if len(steps) % 2 == 0 else x.sum()

    @contextmanager
    def recording(graph, **_):
        yield

    def wait(_):
        pass

    stream = SimpleNamespace(wait_stream=wait)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    recorded = Recorded(step)
    assert recorded(torch.ones(3)) == 3  # as it is
    assert [float(recorded(torch.full((3,), x))) for x in (1.0, 2.0, 5.0)] == [-97, -94, -85]
    assert steps == [3, 3]
    assert recorded(torch.ones(2)) == 2 and steps == [3, 3, 2]  # another shape
