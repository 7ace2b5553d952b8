import itertools
from dataclasses import dataclass
from functools import partial

import pytest
import torch

from ginv import (
    Colours,
    Dihedral,
    Group,
    Product,
    Rotations,
    Run,
    Translations,
    check_group,
    group_named,
    measure,
)
from ginv.groups import MOST_ELEMENTS, MOST_FACTORS, moved_units

NAMES = [
    "R1",
    "R2",
    "R4",
    "T1",
    "T3",
    "T12",
    "V1",
    "V3",
    "D1",
    "D2",
    "D4",
    "S1",
    "S2",
    "S3",
    "T3xV3",
    "T2xV2xS3",
    "D4xS2",
    "R2xD2",
]
GROUPS = [group_named(name) for name in NAMES]
named = pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)


@named
def test_axioms(group):
    elements = group.elements
    for a, b, c in itertools.product(elements, repeat=3):
        assert group.product(a, b) in elements
        assert group.product(group.product(a, b), c) == group.product(a, group.product(b, c))
    for a in elements:
        assert group.product(group.identity, a) == group.product(a, group.identity) == a
        assert (
            group.product(group.inverse(a), a)
            == group.product(a, group.inverse(a))
            == group.identity
        )


def channels(group):
    """That the group acts on."""
    return max([int(part[1:]) for part in group.name.split("x") if part[0] == "S"], default=2)


@named
def test_action_is_a_faithful_permutation_of_pixels(group):
    pixels = torch.arange(2 * channels(group) * 144).view(2, channels(group), 12, 12)
    assert torch.equal(group.act(group.identity, pixels), pixels)
    for g, h in itertools.product(group.elements, repeat=2):
        moved = group.act(g, group.act(h, pixels))
        assert torch.equal(moved, group.act(group.product(g, h), pixels)), f"{group.name}: {g}, {h}"
        assert torch.equal(moved[1].unique(), pixels[1].unique())
        if group.name != "R2xD2":  # where an element of either is a half turn
            assert (g == h) == torch.equal(group.act(g, pixels), group.act(h, pixels))


@named
def test_align_undoes_the_orbit(group, generator):
    x = torch.randn(3, channels(group), 12, 12, generator=generator)
    assert torch.equal(group.align(group.orbit(x)), x.expand(group.order, *x.shape))


def test_actions_are_the_ones_they_are_called():
    corner = torch.zeros(6, 6)
    corner[0, 0] = 1
    # A quarter turn counter-clockwise: top left to bottom left
    assert Rotations(4).act(1, corner)[5, 0] == 1
    # Two of six pixels to the right, or down
    assert Translations(3).act(1, corner)[0, 2] == 1
    assert Translations(3, axis="y").act(1, corner)[2, 0] == 1
    # Element g of the first and h of the second: g * 3 + h
    assert Product(Translations(3), Translations(3, "y")).act(1 * 3 + 2, corner)[4, 2] == 1
    # From left to right; and then a quarter turn
    assert Dihedral(1).act(1, corner)[0, 5] == 1
    assert Dihedral(4).act(4, corner)[0, 5] == Dihedral(4).act(4 + 1, corner)[0, 0] == 1
    # A cyclic permutation of red, green and blue
    colour = torch.zeros(3, 1, 1)
    colour[0] = 1
    assert {Colours(3).act(g, colour).argmax().item() for g in range(6)} == {0, 1, 2}
    assert [Colours(2).act(g, colour[:2]).argmax().item() for g in range(2)] == [0, 1]


def test_an_order_that_does_not_fit_is_refused():
    with pytest.raises(
        ValueError, match="order 5 of Translations does not divide the image width 36"
    ):
        Translations(5).orbit(torch.zeros(1, 36, 36))
    with pytest.raises(ValueError, match="square images, got 28 x 36"):
        Rotations(4).orbit(torch.zeros(28, 36))
    with pytest.raises(ValueError, match="order of Rotations is 3"):
        Rotations(3)
    with pytest.raises(ValueError, match="divide the image height 28"):
        Translations(5, "y").orbit(torch.zeros(1, 28, 35))
    with pytest.raises(ValueError, match="S3 needs images of 3 channels, got 1 x 36 x 36"):
        Colours(3).orbit(torch.zeros(1, 36, 36))
    for name in (
        "Q3",
        "R",
        "T-1",
        "",
        None,
        "R3",
        "D3",
        "S9",
        "T3x",
        "xT3",
        "T3xR3",
        "T3 xV3",
        "t3",
    ):
        with pytest.raises(ValueError):
            group_named(name)


@pytest.mark.parametrize("factors", [7, 12, 2000])
@pytest.mark.parametrize("factor", ["R4", "R2", "R1"])
def test_no_product_is_larger_than_memory(factor, factors):
    """Nor so deep that Python gives up: it is a group, or a line."""
    name = "x".join([factor] * factors)
    if int(factor[1]) ** factors <= MOST_ELEMENTS and factors <= MOST_FACTORS:
        assert group_named(name).order == int(factor[1]) ** factors
        return
    for make in (group_named, Run):
        with pytest.raises(ValueError, match=r"^[^\n]*; allowed: [^\n]*$"):
            make(name)


@pytest.mark.parametrize("order", [MOST_ELEMENTS + 1, 10**5, 10**9])
def test_a_group_of_too_many_elements_is_refused_at_once(order, generator):
    """And not looked at, product by product."""
    images, group = torch.randn(2, 1, 6, 6, generator=generator), Translations(order)
    for look in (
        lambda: check_group(group, (1, 6, 6)),
        lambda: check_group(group, (1, 6, 6), exact=False),
        lambda: measure(torch.nn.Flatten(), images, [0, 1], group, progress=False),
    ):
        with pytest.raises(ValueError, match=rf"^order is {order}; allowed: integers from 1 to "):
            look()


@named
def test_names_round_trip(group):
    assert group_named(group.name) == group


@named
def test_every_group_passes_its_own_check(group):
    assert check_group(group, (channels(group), 12, 12)) == 0


class Turns(Group):
    """Quarter turns, written anew by somebody, with a mistake to be chosen."""

    order, name = 4, "turns"

    def __init__(self, mistake=None):
        self.mistake = mistake

    def product(self, g, h):
        return {"product": g, "range": g + h}.get(self.mistake, (g + h) % 4)

    def inverse(self, g):
        return g if self.mistake == "inverse" else -g % 4

    def act(self, g, x):
        turned = x.rot90(g, (-2, -1))
        mistakes = {
            "identity": lambda: x.rot90(g + 1, (-2, -1)),
            "direction": lambda: x.rot90(g * g, (-2, -1)),
            "values": lambda: turned * (1 + g),
            "smoothing": lambda: (turned + turned.roll(1, -1)) / 2 if g else x,
            "shape": lambda: turned[..., 1:] if g else x,
            "batch": lambda: turned.flip(0) if g else x,
            "error": lambda: x.view(7, -1),
            "lines": lambda: self.refuse(),
        }
        return mistakes.get(self.mistake, lambda: turned)()

    def refuse(self):
        raise ValueError("of\ntwo lines")


MISTAKES = {
    "product": "turns is no group: 0 times 1 is not 1",
    "range": "turns is no group: 1 times 3 is 4, no element",
    "inverse": "turns is no group: 1, the inverse of 1, does not undo it",
    "identity": "turns is no action: its identity, 0, moves pixels",
    "direction": "turns is no action: 1 after 1 is not 2, their product",
    "values": "element 1 of turns does not only move pixels, it changes their values; exact=False",
    "smoothing": "element 1 of turns does not only move pixels",
    "shape": "turns is no action: element 1 makes images",
    "batch": "turns is no action: element 1 does not treat all images alike",
    "error": "Turns fails on images [1, 6, 6]: RuntimeError: shape '[7, -1]' is invalid",
    "lines": "Turns fails on images [1, 6, 6]: ValueError: of two lines",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_group_is_found_before_it_is_measured(mistake, generator):
    """With its name, by the check and by the measure that first meets it."""
    images = torch.randn(2, 1, 6, 6, generator=generator)
    assert check_group(Turns(), (1, 6, 6)) == 0
    for look in (
        lambda: check_group(Turns(mistake), (1, 6, 6)),
        lambda: measure(torch.nn.Flatten(), images, [0, 1], Turns(mistake), progress=False),
    ):
        with pytest.raises(ValueError) as caught:
            look()
        assert str(caught.value).startswith(MISTAKES[mistake])
        assert "\n" not in str(caught.value)


def test_a_group_may_have_weights_of_its_own(generator):
    """Which no measure needs the slopes of."""
    images, scale = torch.randn(2, 1, 6, 6, generator=generator), torch.nn.Parameter(torch.ones(1))

    class Scaled(Turns):
        def act(self, g, x):
            return super().act(g, x) * scale

    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 3))
    found, plain = (
        measure(network, images, [0, 1], group, keep_maps=True, progress=False)
        for group in (Scaled(), Turns())
    )
    assert found.samples.equals(plain.samples) and not found.maps.requires_grad


def test_actions_that_do_not_commute_make_no_product():
    with pytest.raises(ValueError, match="R4xT3 is no action: 1 after 3 is not 4"):
        check_group(group_named("R4xT3"), (1, 12, 12))


class Shifts(Group):
    """By half a pixel, forth and back: it interpolates."""

    order, name = 2, "half"

    def product(self, g, h):
        return g ^ h

    def inverse(self, g):
        return g

    def act(self, g, x):
        return (x + x.roll(1, -1)) / 2 if g else x


def test_an_action_that_interpolates_tells_its_own_error(generator):
    images = torch.randn(3, 1, 4, 4, generator=generator)
    back = Shifts().act(1, Shifts().act(1, images))
    measured = measure(
        torch.nn.Flatten(), images, [0, 1, 2], Shifts(), exact=False, steps=2, progress=False
    )
    expected = (back - images).norm() / images.norm()
    assert measured.summary.action_error == pytest.approx(expected.item(), rel=1e-5)
    assert 0.1 < check_group(Shifts(), (1, 8, 8), exact=False) < 2


@named
def test_units_that_come_as_orbits_are_moved_by_the_group(group):
    """As a representation, and those beyond the last whole orbit stay."""
    units = torch.arange(2 * group.order + min(1, group.order - 1))
    for g, h in itertools.product(group.elements, repeat=2):
        once = units[moved_units(group, h, len(units))][moved_units(group, g, len(units))]
        assert torch.equal(once, units[moved_units(group, group.product(g, h), len(units))])
        assert once[2 * group.order :].tolist() == units[2 * group.order :].tolist()
    for g in group.elements:  # the unit of the identity goes to the place of g
        assert units[moved_units(group, g, len(units))][g] == 0


class OfTwo(Group):
    """The identity, and whatever is done to an image."""

    order, name = 2, "own"

    def __init__(self, action):
        self.action = action

    def product(self, g, h):
        return (g + h) % 2

    def inverse(self, g):
        return g

    def act(self, g, x):
        return self.action(x) if g else x


def into_one_buffer():
    buffer = torch.zeros(4096)

    def act(x):
        into = buffer.to(x.dtype)[: x.numel()].view(x.shape) if x.is_floating_point() else x
        return kept.setdefault((x.shape, x.dtype), into).copy_(x.flip(-1))

    kept = {}
    return act


WRONG = {
    "in place": (lambda x: x.copy_(x.flip(-1)), "writes into the images it is given"),
    "into one buffer": (into_one_buffer(), "writes into the images it is given, or into those"),
    "sizes": (lambda x: x.flip(-1).abs(), "does not only move pixels"),
    "rounded": (lambda x: x.flip(-1).round(), "does not only move pixels"),
    "whole": (lambda x: x.flip(-1).long().to(x.dtype), "does not only move pixels"),
    "halves": (lambda x: x.flip(-1).half().to(x.dtype), "does not only move pixels"),
    "nothing": (lambda x: None, "what element 1 of own returns is None; allowed: a tensor"),
    "an array": (lambda x: x.numpy(), "what element 1 of own returns is array"),
}


@pytest.mark.parametrize("size", [4, 8, 36])
@pytest.mark.parametrize("name", WRONG)
def test_actions_that_are_more_or_less_than_moving_pixels_are_refused(name, size):
    action, line = WRONG[name]
    with pytest.raises(ValueError, match=rf"^[^\n]*{line}[^\n]*$"):
        check_group(OfTwo(action), (1, size, size))
    assert check_group(OfTwo(lambda x: x.flip(-1)), (1, size, size)) == 0


@pytest.mark.parametrize("name", ["R4xT3", "D4xV3", "T2xR4xS1"])
def test_a_product_that_does_not_commute_is_no_run(name):
    """Before any run of its grid trains."""
    with pytest.raises(
        ValueError, match=r"^[^\n]* is no group of images: \w+ and \w+ do not commu"
    ):
        Run(group=name)


class Careless(Translations):
    """Equal to another of its order, whatever it does."""

    def __init__(self, skips):
        super().__init__(6)
        object.__setattr__(self, "skips", skips)

    def act(self, g, x):
        return x.roll(g + (self.skips and g > 0), -1)


@pytest.mark.parametrize("wrap", [lambda group: group, lambda group: Product(group, Rotations(1))])
def test_a_check_that_another_group_passed_is_no_check_of_this_one(wrap, generator):
    x = torch.rand(2, 1, 6, 6, generator=generator)
    ask = partial(measure, torch.nn.Flatten(), x, saliency=False, progress=False)
    ask(group=wrap(Careless(False)))
    with pytest.raises(ValueError, match="is no action"):
        ask(group=wrap(Careless(True)))


def test_a_group_that_has_a_list_is_measured(generator):
    """It has no hash, so nobody remembers that it was checked."""

    @dataclass(frozen=True)
    class Listing(Turns):
        some: list
        mistake = None

    images = torch.randn(2, 1, 6, 6, generator=generator)
    network, group = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 3)), Listing([1])
    assert measure(network, images, [0, 1], group, progress=False).order == 4
