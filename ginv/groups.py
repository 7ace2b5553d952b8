"""Finite groups that act on images by moving pixels (Section 3.1).

Elements are the integers 0 ... order - 1 and 0 is the identity. The actions only permute pixels:
nothing is interpolated, so g^-1 (g x) is x to the last bit.
"""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ginv.refuse import require, require_tensor


class Group(ABC):
    """A finite group and its action on images `[..., H, W]`.

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
        """gx for images x `[..., H, W]`; same shape.

        Raises ValueError where the group cannot act on H x W.
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
        require(self.order in (1, 2, 4), "order of Rotations", self.order, allowed)

    @property
    def name(self) -> str:
        return f"R{self.order}"

    def act(self, g: int, x: Tensor) -> Tensor:
        if x.shape[-1] != x.shape[-2] and self.order == 4:
            raise ValueError(f"R4 needs square images, got {x.shape[-2]} x {x.shape[-1]}")
        return x.rot90(4 // self.order * g, (-2, -1))


@dataclass(frozen=True)
class Translations(_Cyclic):
    """Cyclic shifts along x by multiples of W / order pixels. T3 is the paper's group."""

    order: int = 3

    @property
    def name(self) -> str:
        return f"T{self.order}"

    def act(self, g: int, x: Tensor) -> Tensor:
        width = x.shape[-1]
        if width % self.order:
            raise ValueError(
                f"order {self.order} of Translations does not divide the image width {width}"
            )
        return x.roll(width // self.order * g, -1)


# By the letter of their names
KINDS: dict[str, type] = {"R": Rotations, "T": Translations}


def group_named(name: str) -> Group:
    """The group of a name such as "R4" or "T3". Raises ValueError for anything else."""
    found = isinstance(name, str) and re.fullmatch(r"([A-Z]+)(0|[1-9][0-9]{0,8})", name)
    if not found or found[1] not in KINDS:
        allowed = "R1, R2, R4 (rotations) or T followed by an order (translations)"
        raise ValueError(f"group is {name!r}; allowed: {allowed}")
    return KINDS[found[1]](int(found[2]))
