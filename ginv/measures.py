"""The measures of invariance (Section 3.2) and of sensitivity (Section 4.4), for any classifier.

Functions of logits or maps over the orbit give a value per image; `ginv.measure` computes them all.

The paper averages over x -> gx. We average over all ordered pairs (gx, hx) of the orbit, so that no
orientation is special; pairs with g = h are in, as the sums of Equations 1 to 3 have the identity
in. `distinct=True` leaves them out. Over all pairs each measure has a closed form, which is what is
computed: LI is the variance of the logits over the orbit, DI a mean cross-entropy less a mean
entropy, SI the squared length of the mean unit map.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ginv.classifier import (
    BUDGET,
    as_classifier,
    as_images,
    as_labels,
    as_seen_by,
    require_classes,
)
from ginv.groups import Group
from ginv.machine import plain_torch
from ginv.refuse import in_one_line, is_finite, require, require_tensor
from ginv.saliency import (
    SIGMA,
    THRESHOLD,
    integrated_gradients,
    passes,
    saliency_map,
    slope_of,
)


@plain_torch()
def orbit_logits(
    model: nn.Module | Callable, images: Tensor, group: Group, *, batch_size: int | None = None
) -> Tensor:
    """The logits of all gx: images `[n, C, H, W]` -> `[G, n, classes]`, without gradients.

    In the mode that the model is in, as all functions here: a BatchNorm in training mode looks at
    the batch, and learns from it.
    batch_size: how many of the G * n images go through the model at once; all where it is None.
    """
    _require_size(batch_size)
    require(isinstance(group, Group), "group", group, "a ginv.Group, such as ginv.Rotations(4)")
    model = as_classifier(model)
    orbit = group.orbit(as_seen_by(model, as_images(images)))
    rows = orbit.flatten(0, 1)
    with torch.no_grad():
        # Copies: a model may write its next output over this one
        parts = [model(part).detach().clone() for part in rows.split(batch_size or len(rows))]
    return torch.cat(parts).unflatten(0, orbit.shape[:2])


@plain_torch()
def orbit_maps(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    group: Group,
    *,
    attribute: Callable[[nn.Module, Tensor, Tensor], Tensor] = integrated_gradients,
    threshold: float = THRESHOLD,
    sigma: float = SIGMA,
    batch_size: int | None = None,
) -> Tensor:
    """The saliency maps of all gx, turned back: g^-1 m_f(gx).

    images `[n, C, H, W]`, labels `[n]` -> `[G, n, C, H, W]`. attribute: another attribution, called
    with the model, images `[m, C, H, W]` and labels `[m]`; m is G * n, or batch_size at most.
    """
    _require_size(batch_size)
    require(isinstance(group, Group), "group", group, "a ginv.Group, such as ginv.Rotations(4)")
    fits = callable(attribute)
    require(fits, "attribute", attribute, "a function of a model, images and labels")
    model = as_classifier(model)
    orbit = group.orbit(as_seen_by(model, as_images(images)))
    targets = as_labels(labels, len(images)).to(orbit.device).repeat(group.order)
    size, parts = batch_size or len(targets), []
    for rows, chosen in zip(orbit.flatten(0, 1).split(size), targets.split(size), strict=True):
        with in_one_line(f"the attribution fails on images {[*rows.shape]}"):
            found = attribute(model, rows, chosen)
        fits = isinstance(found, Tensor) and found.shape == rows.shape
        allowed = f"a tensor {list(rows.shape)}, as the images"
        require(fits, "what attribute returned", found, allowed)
        kind = torch.promote_types(found.dtype, torch.float32)
        parts.append(found.detach().to(kind, copy=True))  # it may be written over
    found = torch.cat(parts).unflatten(0, orbit.shape[:2])
    # A group of the user's may have weights of its own
    return group.align(saliency_map(found, threshold=threshold, sigma=sigma)).detach()


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Per cent of the orbit classified as the label: logits `[G, n, C]`, labels `[n]` -> `[n]`."""
    logits = _checked(logits)
    labels, classes = as_labels(labels, logits.shape[1]).to(logits.device), logits.shape[2]
    require_classes(labels, classes)
    return 100 * (logits.argmax(-1) == labels).float().mean(0)


def logit_invariance(logits: Tensor, *, distinct: bool = False) -> Tensor:
    """LI (Equation 2): the mean of `|f(gx) - f(hx)|^2 / 2` over pairs of the orbit.

    logits `[G, n, C]` -> `[n]`.
    """
    logits = _checked(logits)
    return logits.var(0, correction=0).sum(-1) * _per_pair(len(logits), distinct)


def distribution_invariance(logits: Tensor, *, distinct: bool = False) -> Tensor:
    """DI (Equation 1): the mean KL divergence of predictions, in nats, over pairs of the orbit.

    logits `[G, n, C]` -> `[n]`.
    """
    log_p = _checked(logits).log_softmax(-1)
    divergence = (log_p.exp() * (log_p - log_p.mean(0))).sum(-1).mean(0)
    return divergence.clamp(min=0) * _per_pair(len(logits), distinct)  # rounding can leave -1e-9


def saliency_invariance(maps: Tensor, *, distinct: bool = False) -> Tensor:
    """SI (Equation 3): mean cosine similarity of the saliency maps of pairs of the orbit.

    maps `[G, n, ...]`, already turned back to a common orientation (`Group.align`) -> `[n]`. The
    similarity with an empty map is 0.
    """
    return similarity_of_pairs(unit_maps(maps), distinct)


def unit_maps(maps: Tensor) -> Tensor:
    """Maps `[G, n, ...]` as vectors of length 1, or 0 where they are empty: `[G, n, pixels]`."""
    maps = _checked(maps, "maps", "G, n, pixels, ...").flatten(2)
    # By the largest value first: the square of a tiny one would be 0, of a huge one infinite
    return nn.functional.normalize(maps / _not_zero(maps.abs().amax(-1, keepdim=True)), dim=-1)


def similarity_of_pairs(unit: Tensor, distinct: bool) -> Tensor:
    """The mean of <u, v> over pairs of the orbit: `[G, n, pixels]` -> `[n]`."""
    order, similarity = len(unit), unit.mean(0).square().sum(-1)
    if not distinct:
        return similarity
    return (similarity * order**2 - unit.square().sum((0, -1))) * _per_pair(order, True) / order**2


def relative_logit_invariance(logits: Tensor) -> Tensor:
    """LI as a share of the logits' size, 0 to 1: blind to their common factor, and to a shift.

    The variance over the orbit over the mean squared norm, of logits `[G, n, C]` less their mean
    over classes -> `[n]`. 0 where all logits of a sample are equal.
    """
    centred = centre(_checked(logits))
    return centred.var(0, correction=0).sum(-1) / _not_zero(mean_squared_norm(centred))


def jensen_shannon(logits: Tensor) -> Tensor:
    """Jensen-Shannon divergence of the predicted distributions over the orbit, in nats: 0 to log G.

    The entropy of their mean less their mean entropy. DI without its unbounded logarithm; logits
    `[G, n, C]` -> `[n]`.
    """
    p = _checked(logits).softmax(-1)
    return (torch.special.entr(p.mean(0)) - torch.special.entr(p).mean(0)).sum(-1).clamp(min=0)


def flip_rate(logits: Tensor) -> Tensor:
    """Share of the pairs of the orbit whose classes differ; logits `[G, n, C]` -> `[n]`."""
    logits = _checked(logits)
    share = nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype).mean(0)
    return 1 - share.square().sum(-1)


@plain_torch()
def jacobian(model: nn.Module, images: Tensor) -> Tensor:
    """J = df/dx of a classifier that treats the images of a batch apart (Section 4.4).

    `[n, C, H, W]` -> `[n, classes, C * H * W]`. One backward pass per class.
    """
    model = as_classifier(model)
    x = as_seen_by(model, as_images(images)).requires_grad_()
    rows = [slope_of(logit, x, retain_graph=True) for logit in model(x).sum(0)]
    return torch.stack(rows, 1).flatten(2)


@plain_torch()
def largest_singular_value(model: nn.Module, images: Tensor) -> Tensor:
    """sigma_max(J) at each image: `[n, C, H, W]` -> `[n]` (Section 4.4).

    Exact: the square root of the largest eigenvalue of the small matrix J J', `[classes, classes]`.
    """
    model = as_classifier(model)
    images = as_seen_by(model, as_images(images))
    with torch.no_grad():
        classes = model(images[:1]).shape[1]
    fits = BUDGET // (4 * classes * images[0].nbytes)  # of J, a copy and what made them
    squared = []
    for part in images.split(max(1, min(512, fits, passes("auto", model, images[:1])))):
        j = jacobian(model, part)
        if not is_finite(j):
            raise ValueError("the slopes of the logits are not finite; check the model")
        wide = j.double()  # else squares of small slopes are 0, and of large ones infinite
        squared.append(torch.linalg.eigvalsh(wide @ wide.mT)[:, -1])
    return torch.cat(squared).clamp(min=0).sqrt().to(j.dtype)


# What `measure` tells of the logits besides the paper's measures: logits `[G, n, C]` -> `[n]`
COMPANIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relative_LI": relative_logit_invariance,
    "JS": jensen_shannon,
    "flip_rate": flip_rate,
}


def _checked(values: Tensor, name: str = "logits", axes: str = "G, n, C") -> Tensor:
    """Finite; logits in double precision, maps in single, so that no square over- or underflows."""
    require_tensor(name, values, axes)
    fits = name != "logits" or values.shape[-1] > 1
    require(fits, name, values, "two classes or more; one logit z stands for -z / 2 and z / 2")
    least = torch.float64 if name == "logits" else torch.float32
    values = values.to(torch.promote_types(values.dtype, least))
    if not is_finite(values):
        raise ValueError(f"the {name} are not finite; check the model")
    largest = values.abs().amax().item()
    fits = name != "logits" or largest == 0 or 1e-100 < largest < 1e100
    require(fits, "largest of the logits", largest, "1e-100 to 1e100, or 0: squares are finite")
    return values


def _require_size(batch_size: object) -> None:
    fits = batch_size is None or (type(batch_size) is int and batch_size > 0)
    require(fits, "batch_size", batch_size, "integers from 1, or None")


def _not_zero(sizes: Tensor) -> Tensor:
    """To divide by: 1 in place of 0."""
    return sizes.masked_fill(sizes == 0, 1)


def centre(logits: Tensor) -> Tensor:
    """Logits less their mean over classes, which softmax does not see.

    What is no more than the rounding of the mean is 0.
    """
    centred = logits - logits.mean(-1, keepdim=True)
    rounding = logits.abs().amax(-1, keepdim=True) * logits.shape[-1]
    return centred.masked_fill(centred.abs() <= rounding * torch.finfo(logits.dtype).eps, 0)


def mean_squared_norm(centred: Tensor) -> Tensor:
    """Mean squared norm over the orbit: `[G, n, C]` -> `[n]`."""
    return centred.square().sum(-1).mean(0)


def _per_pair(order: int, distinct: bool) -> float:
    if distinct and order < 2:
        raise ValueError(f"distinct pairs need a group of 2 or more elements, got {order}")
    return order / (order - 1) if distinct else 1.0
