"""Which layer loses the invariance: against values by hand, and networks of which it is known."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Generator, nn

from ginv import MLP, Averaged, Rotations, group_named, measure, symmetrise
from ginv.layers import COLUMNS, Layers, relative_variance, relative_variances

pytestmark = pytest.mark.usefixtures("one_thread")

R4 = Rotations(4)
NOTHING = 1e-9  # but for rounding


def layers(model, images, group=R4, chosen=True, **changes):
    options = dict(saliency=False, layers=chosen, progress=False)
    return measure(model, images, None, group, **{**options, **changes}).layers


def images(*shape, n=4):
    return torch.randn(n, *shape, generator=Generator().manual_seed(0), dtype=torch.float64)


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().double()


def convnet():
    """Averaged over all places: turning the image turns the maps of the symmetric kernels."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


def with_round_kernels(model):
    """Each kernel is the mean of itself over the group: every map moves with the image."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data = group_named("D4").orbit(layer.weight.data).mean(0)
    return model


def test_relative_variance_by_hand():
    """Of (3, 4) and (3, -4) the mean is (3, 0): 16 of 25 is variance."""
    values = torch.tensor([[[3.0, 4.0], [1.0, 1.0], [0.0, 0.0], [1e-30, 0.0]],
                           [[3.0, -4.0], [1.0, 1.0], [0.0, 0.0], [-1e-30, 0.0]]])  # fmt: skip
    assert relative_variance(values).tolist() == pytest.approx([0.64, 0, 0, 1])


def test_the_three_columns_by_hand():
    """Two units: the first sees the left pixel, the second the right one; flips exchange them."""
    pixels = torch.tensor([[1.0, 3.0], [3.0, 1.0]])  # x and its mirror image
    flips = group_named("D1")
    units = pixels[:, None]  # [G, n, units]
    as_it_is, turned, both = relative_variances(units, flips, 1)
    assert as_it_is.item() == pytest.approx(0.2)  # variances of 1 and 1, squares of 10
    assert turned.isnan().all() and both.item() == 0
    maps = units[:, :, None, None]  # one map of two pixels: [G, n, 1, 1, 2]
    as_it_is, turned, both = (value.item() for value in relative_variances(maps, flips, 1))
    assert (as_it_is, turned, both) == (pytest.approx(0.2), 0, 0)
    tokens = units[:, :, None].expand(-1, -1, 5, -1)  # [G, n, tokens, width]
    as_it_is, turned, both = relative_variances(tokens, flips, 1)
    assert as_it_is.item() == pytest.approx(0.2) and turned.isnan().all() and both.isnan().all()


def test_each_row_is_the_mean_over_images_of_its_module(generator):
    """However many modules there are, and whatever goes through at once."""
    model, x = (
        MLP(width=8, depth=2, image_shape=(6, 6), generator=generator).double(),
        images(1, 6, 6),
    )
    table = layers(model, x)
    orbit = R4.orbit(x)
    hidden = torch.stack([model.features(each) for each in orbit])
    outputs = torch.stack([model(each) for each in orbit])
    assert table.as_it_is["features.1"] == pytest.approx(relative_variance(hidden).mean().item())
    assert table.as_it_is["output"] == pytest.approx(relative_variance(outputs).mean().item())
    found = [layers(model, x, batch_size=size) for size in (1, 7, 8, 10**6)]
    found.append(layers(model, [(x[:1], [0]), (x[1:], [1, 2, 0])]))
    for other in found:
        pd.testing.assert_frame_equal(other, table)
    expected = [f"features.{i}" for i in (0, 1)] + ["features"]
    expected += [f"hidden.{i}" for i in range(3)] + ["hidden", "output"]
    assert [*table.index] == expected and table.index.name == "module"
    assert [*table.kind[:3]] == ["Flatten", "Linear", "Sequential"]


@pytest.mark.parametrize("name", ["R4", "T3", "D4", "T3xV3"])
def test_a_tied_network_is_invariant_from_its_first_layer_on(name, generator):
    group = group_named(name)
    model = MLP(group, width=8, image_shape=(6, 6), generator=generator).double()
    table = layers(model, images(1, 6, 6), group)
    assert table.as_it_is["features.0"] > 0.1
    assert (table.as_it_is["features.1":] < NOTHING).all()


@pytest.mark.parametrize("name", ["R4", "T3", "D4", "T3xV3"])
def test_units_of_a_symmetric_perceptron_move_as_orbits(name, generator):
    group = group_named(name)
    options = dict(width=2 * group.order + 1, depth=3, image_shape=(6, 6), generator=generator)
    model = symmetrise(MLP(**options).double(), group, (1, 6, 6))
    table = layers(model, images(1, 6, 6), group)
    hidden = table["features.1":"hidden"]
    assert (hidden.units_moved_back < NOTHING).all() and (hidden.as_it_is > 1e-4).all()
    assert table.as_it_is["output"] < NOTHING


def test_channels_of_a_symmetric_convnet_move_as_orbits():
    model = symmetrise(seeded(convnet), R4, (1, 6, 6))
    table = layers(model, images(1, 6, 6))
    assert (table.units_moved_back[:-1] < NOTHING).all() and table.as_it_is.iloc[-1] < NOTHING
    assert (table.turned_back[:4] > 1e-3).all() and (table.as_it_is[:4] > 1e-3).all()


def test_maps_of_round_kernels_move_with_the_image():
    table = layers(with_round_kernels(seeded(convnet)), images(1, 6, 6))
    assert (table.turned_back[:5] < NOTHING).all()
    assert (table.as_it_is[:4] > 1e-2).all() and (table.as_it_is[4:] < NOTHING).all()


class Broken(nn.Module):
    """Looks at the top more than at the bottom."""

    def forward(self, x):
        return x * torch.linspace(1, 2, x.shape[-2], dtype=x.dtype)[:, None]


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("made", ["symmetric", "round"])
def test_the_first_row_that_is_not_zero_is_the_layer_to_blame(made, place):
    model = seeded(convnet)
    model = symmetrise(model, R4, (1, 6, 6)) if made == "symmetric" else with_round_kernels(model)
    model.insert(place, Broken())
    table = layers(model, images(1, 6, 6))
    lost = table[[*COLUMNS]].min(axis=1) > 1e-6
    assert table.kind[lost.idxmax()] == "Broken" and lost[str(place)]


def test_a_network_that_was_made_for_another_group_has_no_zero_row(generator):
    model = MLP(R4, width=8, image_shape=(6, 6), generator=generator).double()
    assert (layers(model, images(1, 6, 6), group_named("T3"))[[*COLUMNS]].min(axis=1) > 1e-4).all()


class Twice(nn.Module):
    """A module at two places, one that returns a tuple, and two of which nothing is to be seen."""

    def __init__(self):
        super().__init__()
        self.relu, self.layer, self.flat = nn.ReLU(), nn.Linear(36, 36), nn.Flatten()
        self.split, self.whole, self.unused = Split(), Whole(), nn.Linear(2, 2)

    def forward(self, x):
        both, _ = self.split(self.relu(self.layer(self.relu(self.flat(x)))))
        return both + 0 * self.whole(x)


class Split(nn.Module):
    def forward(self, x):
        return x[:, :3], x


class Whole(nn.Module):
    """One number for the whole batch."""

    def forward(self, x):
        return x.mean()


def test_a_module_that_runs_twice_has_two_rows_and_one_that_does_not_none():
    table = layers(seeded(Twice), images(1, 6, 6))
    assert [*table.index] == ["flat", "relu", "layer", "relu'", "split"]
    assert table.as_it_is["relu"] != table.as_it_is["relu'"]


def test_modules_by_name():
    model, x = seeded(convnet), images(1, 6, 6)
    table = layers(model, x)
    pd.testing.assert_frame_equal(layers(model, x, chosen=["0", "6"]), table.loc[["0", "6"]])
    pd.testing.assert_frame_equal(layers(model, x, chosen="3"), table.loc[["3"]])
    empty = layers(model, x, chosen=False)
    assert len(empty) == 0 and [*empty] == [*table]


BAD = {
    "an unknown one": (
        seeded(convnet),
        ["0", "9"],
        r"layers is '9'; allowed: True, or names of 0, 1",
    ),
    "a number": (seeded(convnet), 3, "layers is 3; allowed: True, False, names"),
    "a function": (lambda x: x[:, 0, 0], True, "layers is True; allowed: False, of a function"),
}


@pytest.mark.parametrize("what", BAD)
def test_modules_that_are_not_there_are_refused(what):
    model, chosen, line = BAD[what]
    with pytest.raises(ValueError, match=f"^{line}[^\n]*$"):
        layers(model, images(1, 6, 6), chosen=chosen)


def test_no_hook_stays_and_halves_are_watched_too(generator):
    model, x = MLP(width=8, image_shape=(6, 6), generator=generator), images(1, 6, 6).float()
    before = layers(model, x)
    assert not any(module._forward_hooks for module in model.modules()) and model.is_as_built
    pd.testing.assert_frame_equal(layers(model.half(), x), before, rtol=0.05)


def test_threads_that_look_at_one_network_do_not_see_each_other():
    """Both are within it at once, with as many images."""
    both, model = threading.Barrier(2), seeded(convnet)
    model.append(Meets(both))
    x = images(1, 6, 6, n=8)
    with ThreadPoolExecutor(2) as threads:
        options = dict(batch_size=16)
        found = [threads.submit(layers, model, part, **options) for part in x.split(4)]
        found = [each.result() for each in found]
    for table, part in zip(found, x.split(4), strict=True):
        pd.testing.assert_frame_equal(table[:-1], layers(model[:-1], part))


class Meets(nn.Module):
    def __init__(self, barrier):
        super().__init__()
        self.barrier = barrier

    def forward(self, x):
        self.barrier.wait(60)
        return x


def test_groups_that_cannot_act_on_smaller_maps_are_not_asked_to():
    """A third of 4 pixels: the map of the second convolution."""
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.Conv2d(3, 3, 3), nn.Flatten(), nn.Linear(48, 3))
    table = layers(model.double(), images(1, 6, 6), group_named("T3"))
    assert table.turned_back["0"] < NOTHING
    assert np.isnan(table.turned_back["1"]) and np.isnan(table.units_moved_back["1"])
    assert table.as_it_is["1"] > 0.01


def test_colours_move_no_map():
    """What has no colours moves as an image of which all are alike: not at all."""
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten(), nn.Linear(96, 2)).double()
    table = layers(model, images(3, 6, 6), group_named("S3"))
    assert (
        table.turned_back["0"] == pytest.approx(table.as_it_is["0"]) and table.as_it_is["0"] > 0.1
    )


def test_the_layers_of_an_averaged_network_see_more_than_an_orbit():
    """Of which no row can be made; its logits are invariant all the same."""
    assert len(layers(Averaged(seeded(convnet), R4), images(1, 6, 6))) == 0


def test_adding_is_a_mean_over_all_images_that_a_module_has_seen():
    def seen(name, values, images):
        return Layers(
            {name: torch.tensor(values, dtype=torch.float64)}, {name: images}, {name: "ReLU"}
        )

    both = seen("a", [1.0, 2.0, torch.nan], 2) + seen("a", [5.0, 0.0, torch.nan], 4)
    table = (both + seen("b", [1.0, 1.0, 1.0], 10)).table
    np.testing.assert_array_equal(table.loc["a", [*COLUMNS]].astype(float), [1, 1 / 3, np.nan])
    np.testing.assert_array_equal(table.loc["b", [*COLUMNS]].astype(float), [0.1, 0.1, 0.1])


def normalised_variance(values):
    """tmeasures': the variance over transformations over that over samples, of values [G, n]."""
    return (values.var(0, correction=0).mean() / values.var(1, correction=0).mean()).item()


class First(nn.Module):
    """Logits a and -a of the first pixel: centred as they are."""

    def forward(self, x):
        return torch.cat([x[..., 0, :1].flatten(1), -x[..., 0, :1].flatten(1)], 1)


def test_the_normalised_variance_of_tmeasures():
    """By hand: pixels (1, 3) and (5, 11) have flips (3, 1) and (11, 5).

    Over flips the variances are 1 and 9; means of an orbit are 2 and 8, of variance 9. Over
    samples they are 4 and 16. On whole orbits as data, tmeasures' is r / (1 + r) of ours.
    """
    pixels, flips = torch.tensor([[1.0, 3.0], [5.0, 11.0]]), group_named("D1")
    images = pixels.view(2, 1, 1, 2)
    options = dict(saliency=False, progress=False)
    ours = measure(First(), images, None, flips, **options).summary.orbit_over_sample_variance
    assert ours == pytest.approx(5 / 9)
    assert normalised_variance(pixels.T) == pytest.approx(5 / 10)
    closed = flips.orbit(images).flatten(0, 1)
    ours = measure(First(), closed, None, flips, **options).summary.orbit_over_sample_variance
    theirs = normalised_variance(torch.stack([closed[..., 0].flatten(), closed[..., 1].flatten()]))
    assert ours == pytest.approx(5 / 9) and theirs == pytest.approx(ours / (1 + ours))


def test_modules_that_nobody_calls_are_refused_in_one_line():
    """Those of a compiled model are called until it has run, and not after that."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    in_place = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    in_place.compile(backend="eager")
    for model in (torch.compile(network, backend="eager"), nn.Sequential(in_place)):
        with pytest.raises(ValueError, match="^layers is True; allowed: False, of a compiled mod"):
            layers(model, images(1, 6, 6).float())
    with pytest.raises(ValueError, match="^module 0 cannot be looked at: [^\n]*$"):
        layers(torch.jit.script(network), images(1, 6, 6).float())
