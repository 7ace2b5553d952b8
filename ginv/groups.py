"""Finite groups that act on images by moving pixels (Section 3.1).

Elements are the integers 0 ... order - 1 and 0 is the identity. The actions only permute pixels:
nothing is interpolated, so g^-1 (g x) is x to the last bit. `check_group` proves it of any other.
"""

import hashlib
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial, reduce
from itertools import permutations

import torch
from torch import Generator, Tensor

from ginv.machine import plain_torch
from ginv.refuse import in_one_line, require, require_tensor

# Of a group, and of a product with a name: more are a slip, and take hours or all memory
MOST_ELEMENTS, MOST_FACTORS = 4096, 16


class Group(ABC):
    """A finite group and its action on images `[..., H, W]`, or `[..., C, H, W]` for colours.

    A new group is a subclass with an `order`, a `name`, `product`, `inverse` and `act`; a line in
    `KINDS` lets `group_named` find it.
    """

    order: int
    identity = 0

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name: R4, T3."""

    @abstractmethod
    def product(self, g: int, h: int) -> int:
        """The element gh, which acts as h first and g second."""

    @abstractmethod
    def inverse(self, g: int) -> int:
        """The element with inverse(g) g = identity."""

    @abstractmethod
    def act(self, g: int, x: Tensor) -> Tensor:
        """gx for images x `[..., C, H, W]`; same shape.

        Raises ValueError where the group cannot act on C x H x W.
        """

    @property
    def elements(self) -> range:
        return range(self.order)

    def orbit(self, x: Tensor) -> Tensor:
        """All gx, in the order of `elements`: `[..., H, W]` -> `[order, ..., H, W]`."""
        require_tensor("x", x, "..., H, W")
        return torch.stack([self.act(g, x) for g in self.elements])

    def align(self, orbit: Tensor) -> Tensor:
        """Apply g^-1 to the entry of element g.

        Turns maps `[order, ..., H, W]` back to a common orientation.
        """
        fits = len(orbit) == self.order
        require(fits, "orbit", orbit, f"an entry for each of the {self.order} elements")
        entries = zip(self.elements, orbit, strict=True)
        return torch.stack([self.act(self.inverse(g), x) for g, x in entries])


@dataclass(frozen=True)
class _Cyclic(Group):
    order: int

    def __post_init__(self) -> None:
        fits = type(self.order) is int and self.order > 0
        require(fits, "order", self.order, "integers from 1")

    def product(self, g: int, h: int) -> int:
        return (g + h) % self.order

    def inverse(self, g: int) -> int:
        return -g % self.order


@dataclass(frozen=True)
class Rotations(_Cyclic):
    """Rotations by multiples of 360 / order degrees, counter-clockwise. R4 is the paper's group."""

    order: int = 4

    def __post_init__(self) -> None:
        allowed = "1, 2, 4: these permute the pixels of an image"
        fits = type(self.order) is int and self.order in (1, 2, 4)
        require(fits, "order of Rotations", self.order, allowed)

    @property
    def name(self) -> str:
        return f"R{self.order}"

    def act(self, g: int, x: Tensor) -> Tensor:
        if x.shape[-1] != x.shape[-2] and self.order == 4:
            raise ValueError(f"R4 needs square images, got {x.shape[-2]} x {x.shape[-1]}")
        return x.rot90(4 // self.order * g, (-2, -1))


@dataclass(frozen=True)
class Translations(_Cyclic):
    """Cyclic shifts by multiples of W / order pixels along x, or of H / order along y.

    T3 is the paper's group; V3 are its vertical ones, and T3xV3 their product, shifts in both
    directions.
    """

    order: int = 3
    axis: str = "x"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.axis in ("x", "y"), "axis", self.axis, "x, y")

    @property
    def name(self) -> str:
        return f"{'T' if self.axis == 'x' else 'V'}{self.order}"

    def act(self, g: int, x: Tensor) -> Tensor:
        dim, side = (-1, "width") if self.axis == "x" else (-2, "height")
        size = x.shape[dim]
        if size % self.order:
            raise ValueError(
                f"order {self.order} of Translations does not divide the image {side} {size}"
            )
        return x.roll(size // self.order * g, dim)


@dataclass(frozen=True)
class Dihedral(Group):
    """Rotations by multiples of 360 / n degrees, with and without a flip from left to right.

    D1: an image and its mirror image. D2: flips in both directions, and a half turn. D4: all that
    permutes the pixels of a square. Element `f * n + r` flips f times, then rotates r times.
    """

    n: int = 4
    order: int = field(init=False)

    def __post_init__(self) -> None:
        fits = type(self.n) is int and self.n in (1, 2, 4)
        require(fits, "n of Dihedral", self.n, "1, 2, 4")
        object.__setattr__(self, "order", 2 * self.n)

    @property
    def name(self) -> str:
        return f"D{self.n}"

    def product(self, g: int, h: int) -> int:
        (flipped, turns), (f, r) = divmod(g, self.n), divmod(h, self.n)
        turns = (turns - r if flipped else turns + r) % self.n
        return (flipped + f) % 2 * self.n + turns

    def inverse(self, g: int) -> int:
        flipped, turns = divmod(g, self.n)
        return g if flipped else -turns % self.n

    def act(self, g: int, x: Tensor) -> Tensor:
        flipped, turns = divmod(g, self.n)
        return Rotations(self.n).act(turns, x.flip(-1) if flipped else x)


@dataclass(frozen=True)
class Colours(Group):
    """All permutations of the channels of an image. S3: of red, green and blue."""

    channels: int = 3
    order: int = field(init=False)

    def __post_init__(self) -> None:
        fits = type(self.channels) is int and 1 <= self.channels <= 5
        require(fits, "channels of Colours", self.channels, "1 to 5")
        object.__setattr__(self, "order", len(self._permutations()))

    @property
    def name(self) -> str:
        return f"S{self.channels}"

    def _permutations(self) -> list[tuple[int, ...]]:
        """Where each channel goes, for each element."""
        return [*permutations(range(self.channels))]

    def product(self, g: int, h: int) -> int:
        elements = self._permutations()
        return elements.index(tuple(elements[g][place] for place in elements[h]))

    def inverse(self, g: int) -> int:
        elements = self._permutations()
        return elements.index(tuple(map(elements[g].index, range(self.channels))))

    def act(self, g: int, x: Tensor) -> Tensor:
        if x.ndim < 3 or x.shape[-3] != self.channels:
            shape = " x ".join(map(str, x.shape[-3:]))
            raise ValueError(f"{self.name} needs images of {self.channels} channels, got {shape}")
        return x[..., self._permutations()[self.inverse(g)], :, :]


@dataclass(frozen=True)
class Product(Group):
    """Two groups whose actions commute: T3xV3, R4xS3. Element `g * second.order + h` is (g, h)."""

    first: Group
    second: Group
    order: int = field(init=False)

    def __post_init__(self) -> None:
        for group in (self.first, self.second):
            require(isinstance(group, Group), "group", group, "a ginv.Group")
        order = self.first.order * self.second.order
        allowed = f"integers from 1 to {MOST_ELEMENTS}"
        require(order <= MOST_ELEMENTS, "order of a product", order, allowed)
        object.__setattr__(self, "order", order)

    @property
    def name(self) -> str:
        return f"{self.first.name}x{self.second.name}"

    def _parts(self, g: int) -> tuple[int, int]:
        return divmod(g, self.second.order)

    def product(self, g: int, h: int) -> int:
        (a, b), (c, d) = self._parts(g), self._parts(h)
        return self.first.product(a, c) * self.second.order + self.second.product(b, d)

    def inverse(self, g: int) -> int:
        a, b = self._parts(g)
        return self.first.inverse(a) * self.second.order + self.second.inverse(b)

    def act(self, g: int, x: Tensor) -> Tensor:
        a, b = self._parts(g)
        return self.first.act(a, self.second.act(b, x))


# By the letter of their names
KINDS: dict[str, Callable[[int], Group]] = {
    "R": Rotations,
    "T": Translations,
    "V": partial(Translations, axis="y"),
    "D": Dihedral,
    "S": Colours,
}


def group_named(name: str) -> Group:
    """The group of a name: "R4", "T3", "D4", a product "T3xV3". Raises ValueError for others."""
    parts = name.split("x") if isinstance(name, str) else []
    found = [re.fullmatch(r"([A-Z]+)(0|[1-9][0-9]{0,8})", part) for part in parts]
    kinds = [part and part[1] in KINDS for part in found]
    allowed = "R1, R2, R4 (rotations), T and an order (translations along x), V (along y), "
    allowed += "D1, D2, D4 (with flips), S3 (colours), or a product such as T3xV3"
    require(bool(kinds) and all(kinds), "group", name, allowed)
    require(len(parts) <= MOST_FACTORS, "group", name, f"products of at most {MOST_FACTORS}")
    return reduce(Product, [KINDS[part[1]](int(part[2])) for part in found if part])


@plain_torch()
def check_group(group: Group, shape: tuple[int, ...], *, exact: bool = True) -> float:
    """Prove that a group is one, and that it acts on images `shape`, C, H, W, by moving pixels.

    Every product of two elements is looked at, pixel by pixel. Raises ValueError that names the
    elements for which it is not so. `exact=False` allows an action that interpolates. Returns the
    error of the action on white noise: `|g^-1 gx - x| / |x|`, the largest over g; 0 where it is
    exact.
    """
    require(isinstance(group, Group), "group", group, "a ginv.Group, such as ginv.Rotations(4)")
    _require_shape(shape)
    with in_one_line(f"{type(group).__name__} fails on images {[*shape]}"), torch.no_grad():
        _check_products(group)
        noise = torch.randn(1, *shape, generator=Generator().manual_seed(0), dtype=torch.float32)
        _check_memory(group, noise)
        if exact:
            _check_pixels(group, tuple(shape))
            return 0.0
        return action_error(group, noise)


def require_commuting(group: Group, shape: tuple[int, ...]) -> None:
    """Refuse a product of groups whose actions on images `shape`, C, H, W, do not commute."""
    if isinstance(group, Product):
        require_commuting(group.first, shape)
        require_commuting(group.second, shape)
        x = _distinct_values(math.prod(shape)).float().view(shape)
        for a in group.first.elements:
            for b in group.second.elements:
                one_way = group.first.act(a, group.second.act(b, x))
                if not torch.equal(one_way, group.second.act(b, group.first.act(a, x))):
                    text = f"{group.first.name} and {group.second.name} do not commute"
                    raise ValueError(f"{group.name} is no group of images: {text}")


def action_hash(group: Group, shape: tuple[int, ...]) -> str:
    """Of what a group does to an image `shape`, C, H, W: two of one name may act differently."""
    pixels = torch.arange(math.prod(shape), dtype=torch.float32, device="cpu").view(shape)
    return hashlib.sha256(group.orbit(pixels).detach().contiguous().numpy().tobytes()).hexdigest()[
        :16
    ]


def is_own(group: Group) -> bool:
    """Whether a group is its user's, or a product with one."""
    if isinstance(group, Product):
        return is_own(group.first) or is_own(group.second)
    return type(group).__module__ != __name__


def _require_shape(shape: tuple[int, ...]) -> None:
    fits = isinstance(shape, tuple | list) and len(shape) == 3
    fits = fits and all(type(size) is int and size > 0 for size in shape)
    require(fits, "shape", shape, "three integers from 1: channels, height, width")


def action_error(group: Group, images: Tensor) -> float:
    """The largest `|g^-1 gx - x| / |x|` over g, with the norms taken over images `[n, C, H, W]`."""
    back = group.align(group.orbit(images)) - images
    return (back.flatten(1).norm(dim=1).max() / images.norm().clamp(min=1e-30)).item()


def _check_products(group: Group) -> None:
    name, order = group.name, group.order
    fits = type(order) is int and 0 < order <= MOST_ELEMENTS
    require(fits, "order", order, f"integers from 1 to {MOST_ELEMENTS}")
    for g in group.elements:
        for h in group.elements:
            if (product := group.product(g, h)) not in group.elements:
                raise ValueError(f"{name} is no group: {g} times {h} is {product}, no element")
    for g in group.elements:
        inverse = group.inverse(g)
        if not (group.product(0, g) == g == group.product(g, 0)):
            raise ValueError(f"{name} is no group: 0 times {g} is not {g}")
        if inverse not in group.elements or group.product(inverse, g) != 0:
            raise ValueError(f"{name} is no group: {inverse}, the inverse of {g}, does not undo it")


def _check_memory(group: Group, x: Tensor) -> None:
    """That no element writes into the images it is given, or into what it has returned before."""
    for g in group.elements:
        given = x.clone()
        moved = group.act(g, given)
        fits = isinstance(moved, Tensor)
        require(fits, f"what element {g} of {group.name} returns", moved, "a tensor, as the images")
        kept = moved.clone()
        group.act(g, -x)
        if not (torch.equal(given, x) and torch.equal(moved, kept)):
            text = f"element {g} of {group.name} writes into the images it is given"
            raise ValueError(f"{text}, or into those it has returned")


def _distinct_values(count: int) -> Tensor:
    """Of both signs, none of them whole, exact in 32 bits and, where there are many, not in 16."""
    factor = 2 ** max(0, 21 - (2 * count).bit_length()) + 1
    return (torch.arange(count, dtype=torch.float64) * 2 + 1 - count) * (factor / 2**14)


def _check_pixels(group: Group, shape: tuple[int, ...]) -> None:
    """That the action permutes pixels, images apart, and acts for gh as for h and then g."""
    count = torch.Size(shape).numel()
    pixels = _distinct_values(2 * count).view(2, *shape)
    moves = [_moves(group, g, pixels) for g in group.elements]
    if not torch.equal(moves[0], torch.arange(count)):
        raise ValueError(f"{group.name} is no action: its identity, 0, moves pixels")
    for g in group.elements:
        for h in group.elements:
            if not torch.equal(moves[h][moves[g]], moves[group.product(g, h)]):
                text = f"{group.name} is no action: {g} after {h} is not {group.product(g, h)}"
                raise ValueError(f"{text}, their product")


def _moves(group: Group, g: int, pixels: Tensor) -> Tensor:
    """Which pixel element g brings to each place, `[C * H * W]`."""
    count = pixels[0].numel()
    single = pixels if 2 * count > 2**24 else pixels.float()  # what most actions are written for
    moved = group.act(g, single.clone()).double()
    if moved.shape != pixels.shape:
        shapes = f"{list(pixels.shape)} into {list(moved.shape)}"
        raise ValueError(f"{group.name} is no action: element {g} makes images {shapes}")
    values, from_where = moved.flatten().sort()
    if not torch.equal(values, pixels.flatten()):
        text = f"element {g} of {group.name} does not only move pixels, it changes their values"
        raise ValueError(f"{text}; exact=False measures it all the same, and its own error")
    places = torch.empty_like(from_where)
    places[from_where] = torch.arange(2 * count)
    if not torch.equal(places[count:], places[:count] + count):
        raise ValueError(f"{group.name} is no action: element {g} does not treat all images alike")
    return places[:count]


@lru_cache
def _known(group: Group, shape: tuple[int, ...], exact: bool) -> None:
    check_group(group, shape, exact=exact)


def check_group_once(group: Group, shape: tuple[int, ...], exact: bool) -> None:
    """`check_group`, of a group that can be recognised only the first time."""
    require(isinstance(group, Group), "group", group, "a ginv.Group, such as ginv.Rotations(4)")
    _require_shape(shape)
    if _tells_itself_apart(group):
        _known(group, tuple(shape), exact)
    else:
        check_group(group, shape, exact=exact)  # its attributes may have changed since


def _tells_itself_apart(group: Group) -> bool:
    """Whether its class itself, and not one that it extends, says when two of it are equal."""
    parts = [part for part in vars(group).values() if isinstance(part, Group)]
    try:
        hash(group)
    except TypeError:  # it has a list, say
        return False
    return bool(vars(type(group)).get("__hash__")) and all(map(_tells_itself_apart, parts))


def move_map(group: Group, g: int, x: Tensor, channels: int) -> Tensor:
    """gx for what has pixels and no colours, such as the map of a hidden unit: `[..., H, W]`.

    It moves as an image does whose `channels` are all alike.
    """
    alike = x.unsqueeze(-3).expand(*x.shape[:-2], channels, *x.shape[-2:])
    return group.act(g, alike)[..., 0, :, :]


def moved_units(group: Group, g: int, units: int) -> list[int]:
    """Which unit g brings to each place, where units come as orbits: f * order + h goes to gh.

    Those beyond the last whole orbit stay. `x[:, moved_units(group, g, x.shape[1])]` moves them.
    """
    order, back = group.order, group.inverse(g)
    whole = units // order * order
    moved = [u - u % order + group.product(back, u % order) for u in range(whole)]
    return [*moved, *range(whole, units)]
