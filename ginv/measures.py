"""The measures of invariance (Section 3.2) and of sensitivity (Section 4.4), for any classifier.

Functions of logits or maps over the orbit give a value per image; `measure` computes all of them.

The paper averages over x -> gx. We average over all ordered pairs (gx, hx) of the orbit, so that no
orientation is special; pairs with g = h are in, as the sums of Equations 1 to 3 have the identity
in. `distinct=True` leaves them out. Over all pairs each measure has a closed form, which is what is
computed: LI is the variance of the logits over the orbit, DI a mean cross-entropy less a mean
entropy, SI the squared length of the mean unit map.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Lock
from weakref import WeakKeyDictionary

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ginv.groups import Group
from ginv.machine import plain_torch
from ginv.refuse import require, require_tensor
from ginv.saliency import SIGMA, STEPS, THRESHOLD, integrated_gradients, saliency_map


def orbit_logits(model: nn.Module, images: Tensor, group: Group) -> Tensor:
    """The logits of all gx: images `[n, C, H, W]` -> `[G, n, classes]`, without gradients."""
    orbit = group.orbit(images)
    with torch.no_grad():
        return model(orbit.flatten(0, 1)).unflatten(0, orbit.shape[:2])


def orbit_maps(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    group: Group,
    *,
    attribute: Callable[[nn.Module, Tensor, Tensor], Tensor] = integrated_gradients,
    threshold: float = THRESHOLD,
    sigma: float = SIGMA,
) -> Tensor:
    """The saliency maps of all gx, turned back: g^-1 m_f(gx).

    images `[n, C, H, W]`, labels `[n]` -> `[G, n, C, H, W]`. attribute: another attribution, called
    with the model, images `[G * n, C, H, W]` and labels `[G * n]`.
    """
    orbit = group.orbit(images)
    attributions = attribute(model, orbit.flatten(0, 1), labels.repeat(group.order))
    attributions = attributions.unflatten(0, orbit.shape[:2])
    return group.align(saliency_map(attributions, threshold=threshold, sigma=sigma))


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Per cent of the orbit classified as the label: logits `[G, n, C]`, labels `[n]` -> `[n]`."""
    logits = _checked(logits)
    require_tensor("labels", labels, "n")
    (_, n, classes), whole = logits.shape, not labels.is_floating_point()
    fits = len(labels) == n and whole and labels.min() >= 0 and labels.max() < classes
    require(bool(fits), "labels", labels, f"a tensor [{n}] of integers from 0 to {classes - 1}")
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
    order, maps = len(maps), _checked(maps, "maps", "G, n, ...")
    unit = nn.functional.normalize(maps.flatten(2), dim=-1)
    similarity = unit.mean(0).square().sum(-1)
    if not distinct:
        return similarity
    return (similarity * order**2 - unit.square().sum((0, -1))) * _per_pair(order, True) / order**2


def relative_logit_invariance(logits: Tensor) -> Tensor:
    """LI as a share of the logits' size, 0 to 1: blind to their common factor, and to a shift.

    The variance over the orbit over the mean squared norm, of logits `[G, n, C]` less their mean
    over classes -> `[n]`. 0 where all logits of a sample are equal.
    """
    centred = _centre(_checked(logits))
    return centred.var(0, correction=0).sum(-1) / _size(centred).clamp(
        min=torch.finfo(centred.dtype).tiny
    )


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


def jacobian(model: nn.Module, images: Tensor) -> Tensor:
    """J = df/dx of a classifier that treats the images of a batch apart (Section 4.4).

    `[n, C, H, W]` -> `[n, classes, C * H * W]`. One backward pass per class, in the images'
    precision.
    """
    require_tensor("images", images, "n, C, H, W")
    x = images.detach().requires_grad_()
    with torch.enable_grad():
        per_class = model(x).sum(0)
        rows = [torch.autograd.grad(logit, x, retain_graph=True)[0] for logit in per_class]
    return torch.stack(rows, 1).flatten(2)


def largest_singular_value(model: nn.Module, images: Tensor) -> Tensor:
    """sigma_max(J) at each image: `[n, C, H, W]` -> `[n]` (Section 4.4).

    Exact: the square root of the largest eigenvalue of the small matrix J J', `[classes, classes]`.
    """
    require_tensor("images", images, "n, C, H, W")
    squared = []
    for part in images.split(512):
        j = jacobian(model, part)
        squared.append(torch.linalg.eigvalsh(j @ j.mT)[:, -1])
    return torch.cat(squared).clamp(min=0).sqrt()


# What `measure` tells of the logits besides the paper's measures: logits `[G, n, C]` -> `[n]`
COMPANIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relative_LI": relative_logit_invariance,
    "JS": jensen_shannon,
    "flip_rate": flip_rate,
}


def _checked(values: Tensor, name: str = "logits", axes: str = "G, n, C") -> Tensor:
    """In single precision at least: the square of a large half is infinite, of a small one zero."""
    require_tensor(name, values, axes)
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _centre(logits: Tensor) -> Tensor:
    """Logits less their mean over classes, which softmax does not see."""
    return logits - logits.mean(-1, keepdim=True)


def _size(centred: Tensor) -> Tensor:
    """Mean squared norm over the orbit: `[G, n, C]` -> `[n]`."""
    return centred.square().sum(-1).mean(0)


def _per_pair(order: int, distinct: bool) -> float:
    if distinct and order < 2:
        raise ValueError(f"distinct pairs need a group of 2 or more elements, got {order}")
    return order / (order - 1) if distinct else 1.0


@dataclass(frozen=True)
class Measurement:
    """A row per image in `samples`, and what takes all images together.

    Columns: label, accuracy (per cent), LI, DI, SI; the `COMPANIONS` relative_LI, JS and flip_rate;
    logit_norm, the root mean square over the orbit of the norm of the logits less their mean over
    classes. `sample_variance` is the variance over the images of those logits, each averaged over
    its orbit.
    """

    samples: pd.DataFrame
    sample_variance: float

    @property
    def summary(self) -> pd.Series:
        """Mean over the images of each metric, and orbit_over_sample_variance.

        That is how far apart the logits of an orbit are, in units of how far apart those of
        different images are.
        """
        means = self.samples.drop(columns="label").mean()
        within = (self.samples.relative_LI * self.samples.logit_norm**2).mean()
        between = self.sample_variance
        means["orbit_over_sample_variance"] = within / between if between else 0.0
        return means

    def __repr__(self) -> str:
        return f"{len(self.samples):,} images\n{self.summary.round(4).to_string()}"


def measure(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    group: Group,
    *,
    steps: int = STEPS,
    progress: bool = True,
) -> Measurement:
    """All measures of any classifier of images, over the whole orbit of each image.

    model: `[n, C, H, W]` -> logits `[n, classes]`; images `[n, C, H, W]`; labels `[n]`. `steps` are
    those of the integrated gradients towards the label's logit. Memory does not grow with n, save
    for the table. Raises ValueError where the shapes do not fit, or the logits or the saliency maps
    are not finite.
    """
    require(isinstance(model, nn.Module), "model", model, "a torch.nn.Module")
    require(isinstance(group, Group), "group", group, "a ginv.Group, such as ginv.Rotations(4)")
    require_tensor("images", images, "n, C, H, W")
    require_tensor("labels", labels, "n")
    fits = len(labels) == len(images)
    require(fits, "labels", labels, f"one for each of the {len(images)} images")
    part = partial(_measure_part, model, group=group, steps=steps)
    columns: dict[str, Tensor] = {}
    with plain_torch(), _evaluating(model):
        starts = range(0, len(images), 256)
        for start in tqdm(starts, desc="measure", disable=not progress, leave=False):
            rows = slice(start, start + 256)
            for name, values in part(images[rows], labels[rows]).items():
                if name not in columns:
                    columns[name] = values.new_empty(len(images), *values.shape[1:])
                # Into its place: small tensors that stay between large ones that go would keep
                # their memory taken
                columns[name][rows] = values
    columns = {name: column.cpu() for name, column in columns.items()}
    sample_variance = columns.pop("mean_logits").var(0, correction=0).sum().item()
    return Measurement(pd.DataFrame({"label": labels.cpu(), **columns}), sample_variance)


_EVALUATING: WeakKeyDictionary[nn.Module, tuple[int, dict[nn.Module, bool]]] = WeakKeyDictionary()
_SWITCHING = Lock()


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Each module in evaluation mode and then, when the last thread is done, again in its own."""
    with _SWITCHING:
        count, modes = _EVALUATING.get(model, (0, {m: m.training for m in model.modules()}))
        _EVALUATING[model] = count + 1, modes
        model.eval()
    try:
        yield
    finally:
        with _SWITCHING:
            count, modes = _EVALUATING.pop(model)
            if count > 1:
                _EVALUATING[model] = count - 1, modes
            else:
                for module, training in modes.items():
                    module.training = training


def _measure_part(
    model: nn.Module, images: Tensor, labels: Tensor, group: Group, steps: int
) -> dict[str, Tensor]:
    """The columns of some images, `[n]` each, and their mean logits `[n, classes]`."""
    logits = orbit_logits(model, images, group)
    right = accuracy(logits, labels)
    attribute = partial(integrated_gradients, steps=steps)
    maps = orbit_maps(model, images, labels, group, attribute=attribute)
    for name, values in {"logits": logits, "saliency maps": maps}.items():
        if not values.isfinite().all():
            raise ValueError(f"the {name} are not finite; check the model")
    centred = _centre(logits)
    return {
        "accuracy": right,
        "LI": logit_invariance(logits),
        "DI": distribution_invariance(logits),
        "SI": saliency_invariance(maps),
        **{name: companion(logits) for name, companion in COMPANIONS.items()},
        "logit_norm": _size(centred).sqrt(),
        "mean_logits": centred.mean(0),
    }
