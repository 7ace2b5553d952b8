"""What a training run is (Sections 3.3 and 4.1), and the errors that it can penalise."""

import math
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any

import torch
from torch import Generator, Tensor

from ginv.data import CLASSES, DATASETS, IMAGE_SHAPE, SPLITS
from ginv.groups import Group, action_hash, group_named, is_own, require_commuting
from ginv.machine import plain_torch
from ginv.networks import INITIALISATIONS, MLP, POOLINGS
from ginv.refuse import require, require_tensor
from ginv.symmetry import symmetrise

GROUPS = ("R4", "T3")  # the paper's
METHODS = ("WT", "DA", "IR")  # weight-tying, data augmentation, invariance regularisation
UNTIED = ("DA", "IR")
MOST_WEIGHTS = 2**30  # of a network: more are a slip


def logit_error(a: Tensor, b: Tensor) -> Tensor:
    """`|a - b|^2 / 2` (Equation 2) of logits `[..., C]` -> `[...]`."""
    a, b = _logits(a, b)
    return (a - b).square().sum(-1) / 2


def kl_divergence(a: Tensor, b: Tensor) -> Tensor:
    """`KL(softmax(a) | softmax(b))` (Equation 1) in nats, of logits `[..., C]` -> `[...]`."""
    a, b = _logits(a, b)
    log_a, log_b = a.log_softmax(-1), b.log_softmax(-1)
    return (log_a.exp() * (log_a - log_b)).sum(-1)


def normalised_logit_error(a: Tensor, b: Tensor) -> Tensor:
    """`|a - b|^2 / |a|^2` (Section 4.4, form iii) of logits `[..., C]` -> `[...]`."""
    a, b = _logits(a, b)
    return (a - b).square().sum(-1) / a.square().sum(-1)


def _logits(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """In a type whose squares are finite; refuses what are no logits of the same classes.

    Their other axes broadcast.
    """
    for name, logits in (("a", a), ("b", b)):
        require_tensor(name, logits, "..., C")
        require(logits.is_floating_point(), name, logits, "logits of a floating-point type")
    others = zip(a.shape[-2::-1], b.shape[-2::-1], strict=False)
    fits = a.shape[-1] == b.shape[-1] and all(m == n or 1 in (m, n) for m, n in others)
    fits = fits and a.device == b.device
    require(fits, "b", b, f"logits that go with those of a, {[*a.shape]} on {a.device}")
    a, b = (each.float() if each.dtype is torch.float16 else each for each in (a, b))
    return a, b


def gradient_variance(gradients: Tensor, group: Group) -> Tensor:
    """How far gradients by the pixels do not follow the image, 0 to 1: `[G, n, C, H, W]` -> `[n]`.

    Of a logit, for gx in the order of the elements. Turned back, their variance over the orbit as a
    share of their mean squared norm. It is blind to their size, so that no network gains by
    shrinking them. (The norm counts as a thousandth of its mean over the images at least.)
    """
    turned = group.align(gradients).flatten(2)
    sizes = turned.square().sum(-1).mean(0)
    return turned.var(0, correction=0).sum(-1) / (sizes + sizes.mean().detach() / 1000)


REGULARISERS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "logit": logit_error,
    "kl": kl_divergence,
    "normalised": normalised_logit_error,
}

# A rule says of a value whether it fits, and what is allowed
Rule = Callable[["Run", Any], tuple[bool, str]]


def _ruled(default: Any, rule: Rule, only: tuple[str, ...] = METHODS) -> Any:
    """A field with its rule; `only`: the methods for which it may differ from its default."""
    return field(default=default, metadata={"rule": rule, "only": only})


def _one_of(allowed: Collection, default: Any = None, only: tuple[str, ...] = METHODS) -> Any:
    """One of these, the first by default."""
    first = next(iter(allowed))

    def rule(_: "Run", v: Any) -> tuple[bool, str]:
        return type(v) is type(first) and v in allowed, ", ".join(map(str, allowed))

    return _ruled(first if default is None else default, rule, only)


def _whole(default: int | None, least: int = 1, most: int = 2**63 - 1) -> Any:
    """An integer; None is allowed where it is the default."""
    allowed = f"integers from {least}" + f" to {most}" * (most < 2**63 - 1)

    def rule(_: "Run", v: Any) -> tuple[bool, str]:
        return (v is None and default is None) or (type(v) is int and least <= v <= most), allowed

    return _ruled(default, rule)


def _number(
    default: float,
    fits: Callable[["Run", float], bool],
    allowed: str,
    only: tuple[str, ...] = METHODS,
) -> Any:
    """A finite number from 0, within a limit of its own."""

    def rule(run: "Run", v: Any) -> tuple[bool, str]:
        is_number = isinstance(v, int | float) and not isinstance(v, bool)
        return is_number and 0 <= v <= sys.float_info.max and fits(run, v), allowed

    return _ruled(default, rule, only)


def _acts(_: "Run", name: Any) -> tuple[bool, str]:
    group = group_named(name)  # says itself what is allowed, as do the others
    with plain_torch():
        group.orbit(torch.empty(1, *IMAGE_SHAPE))
        require_commuting(group, (1, *IMAGE_SHAPE))
    return True, ""


@dataclass(frozen=True)
class Run:
    """The specification of one training run. The defaults are the paper's (Section 4.1)."""

    # Which of the runs
    group: str = _ruled("R4", _acts)
    method: str = _one_of(METHODS, default="DA")
    seed: int = _whole(0, least=0)

    # The penalty of IR (Equation 4)
    nu: float = _number(  # its weight
        0.0, lambda run, v: (v > 0) == (run.method == "IR"), "above 0 for IR, 0 for WT and DA"
    )
    regulariser: str = _one_of(REGULARISERS)
    # a step sees all orientations of an image: the penalty takes all pairs of them, and not one;
    # DA's task loss takes each
    whole_orbit: bool = _one_of((False, True), only=UNTIED)
    # the task loss of IR takes all views that the penalty takes, and not the first alone
    all_views: bool = _one_of((False, True), only=("IR",))
    # the weight of a penalty on the gradients by the pixels, turned back, for their variance over
    # the orbit; the border that all images share is left out. It rises from 0 in proportion to the
    # share of the training that has passed
    gradient_nu: float = _number(
        0.0,
        lambda run, v: v == 0 or (run.whole_orbit and run.all_views),
        "0, or more with whole_orbit and all_views",
        only=("IR",),
    )

    # The data
    dataset: str = _one_of(DATASETS)
    train_images: int = _whole(10_000, most=SPLITS["train"])
    split_seed: int = _whole(0, least=0)

    # The network
    width: int = _whole(128, most=2**16)
    depth: int = _whole(5, most=1_000)  # hidden layers
    # of the first hidden layer; None: as the others
    first_width: int | None = _whole(None, most=2**16)
    pooling: str = _one_of(POOLINGS, only=("WT",))  # over the group
    # the size of the initial weights: pytorch's are the smallest, he's 2.4 times as large
    initialisation: str = _one_of(INITIALISATIONS)
    # initial weights that make the network invariant; nothing is tied
    symmetric_start: bool = _one_of((False, True), only=UNTIED)

    # The training
    epochs: int = _whole(300, most=1_000_000)
    learning_rate: float = _number(8e-4, lambda run, v: v > 0, "above 0")
    # decoupled: each step takes learning_rate * weight_decay of the weights away
    weight_decay: float = _number(
        0.0, lambda run, v: v * run.learning_rate < 1, "0 to 1 / learning_rate"
    )
    # the same of what is not symmetric in them; learning_rate times it counts up to 1
    symmetry_decay: float = _number(0.0, lambda run, v: v <= 1e30, "0 to 1e30", only=UNTIED)
    # rising: in proportion to the share of the training that has passed
    symmetry_schedule: str = _one_of(("rising", "constant"), only=UNTIED)
    batch_size: int = _whole(512)
    schedule: str = _one_of(("constant", "cosine"))  # of the learning rate; a cosine goes down to 0
    # the weights that are kept: of the best validation accuracy, or the last
    selection: str = _one_of(("best", "last"))
    precision: str = _one_of(("float32", "bfloat16"))  # of the matrix products

    def __post_init__(self) -> None:
        for each in fields(self):
            name, value, default = each.name, getattr(self, each.name), each.default
            if isinstance(value, str):  # of a NumPy array or an enumeration, too
                value = str.__str__(value)
                object.__setattr__(self, name, value)
            fits, allowed = each.metadata["rule"](self, value)
            require(fits, name, value, allowed)
            only = each.metadata["only"]  # the group comes before the method, and is for all
            fits = only == METHODS or self.method in only or value == default
            require(fits, name, value, f"{default!r} for {self.method}")
            if isinstance(default, float):
                # 10 and 10.0 are one run, and so are 0.0 and -0.0
                object.__setattr__(self, name, float(value) + 0.0)
        widths = [self.first_width or self.width, *[self.width] * (self.depth - 1)]
        layers = pairwise([math.prod(IMAGE_SHAPE), *widths, CLASSES])
        weights = sum(inputs * outputs for inputs, outputs in layers)
        allowed = f"up to {MOST_WEIGHTS}, of a smaller width or depth"
        require(weights <= MOST_WEIGHTS, "number of weights", weights, allowed)

    @property
    def specification(self) -> dict:
        """What names the run in the store.

        A field at its default is left out: a new one orphans no stored run. With a group of the
        user's own goes what it does to an image: it may do something else tomorrow.
        """
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        defaults = {each.name: each.default for each in fields(self)}
        named = {name: value for name, value in values.items() if value != defaults[name]}
        group = group_named(self.group)
        return named | ({"action": action_hash(group, (1, *IMAGE_SHAPE))} if is_own(group) else {})

    @property
    def views(self) -> int:
        """How many orientations of an image a step takes."""
        if self.whole_orbit:
            return group_named(self.group).order
        return 2 if self.method == "IR" else 1

    def model(self, generator: Generator | None = None) -> MLP:
        """Its network, with initial weights from the generator."""
        group = group_named(self.group)
        model = MLP(
            group if self.method == "WT" else None,
            width=self.width,
            depth=self.depth,
            first_width=self.first_width,
            pooling=self.pooling,
            initialisation=self.initialisation,
            dtype=torch.float32,
            generator=generator,
        )
        if self.symmetric_start:
            symmetrise(model, group)
        return model

    def learning_rate_at(self, passed: float) -> float:
        """After a share of the training, 0 to 1, has passed."""
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * (1 + math.cos(math.pi * passed)) / 2

    def symmetry_rate_at(self, passed: float) -> float:
        """What multiplies `symmetry_decay` there: the share of a step, before it is cut at 1."""
        rise = passed if self.symmetry_schedule == "rising" else 1.0
        return rise * self.learning_rate_at(passed)
