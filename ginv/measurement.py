"""`ginv.measure`: all measures of anybody's classifier, over the orbits of their images."""

import hashlib
import math
import statistics
import warnings
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ginv.classifier import as_classifier, as_seen_by, batches, model_of, require_classes
from ginv.groups import Group, action_error, action_hash, check_group_once
from ginv.layers import Layers, chosen_modules, watching
from ginv.machine import evaluating, plain_torch
from ginv.measures import (
    COMPANIONS,
    accuracy,
    centre,
    distribution_invariance,
    logit_invariance,
    mean_squared_norm,
    orbit_logits,
    orbit_maps,
    similarity_of_pairs,
    unit_maps,
)
from ginv.networks import MLP
from ginv.refuse import require
from ginv.saliency import SIGMA, STEPS, THRESHOLD, as_baseline, integrated_gradients, passes

MOST_IMAGES = 256  # measured at once; more are no faster
MOST_BY_ROUNDING = 1e-3  # of the size of logits, between two passes of one image
TYPICAL = 4  # how many images near the median are kept to be shown


@dataclass(frozen=True)
class Totals:
    """What takes all images together, so that those of two measurements can be added up."""

    images: int
    mean_logits: Tensor  # [classes], of images, each averaged over its orbit
    scatter: float  # their squared distances to it, summed
    mean_map: Tensor | None = None  # [pixels], of the unit maps
    similarity: float = 0.0  # mean SI over all pairs

    def __add__(self, other: "Totals") -> "Totals":
        share = other.images / (self.images + other.images)
        apart = other.mean_logits - self.mean_logits
        scatter = self.scatter + other.scatter + apart.square().sum().item() * self.images * share
        mean_map = self.mean_map
        if mean_map is not None and other.mean_map is not None:
            mean_map = torch.lerp(mean_map, other.mean_map, share)
        similarity = self.similarity + share * (other.similarity - self.similarity)
        images, mean_logits = self.images + other.images, self.mean_logits + share * apart
        return Totals(images, mean_logits, scatter, mean_map, similarity)


@dataclass(frozen=True)
class Example:
    """An image to be shown, in all its orientations; on the CPU."""

    row: int  # of the samples
    score: float  # SI, or -DI where there are no maps
    images: Tensor  # [G, C, H, W]
    logits: Tensor  # [G, classes]
    maps: Tensor | None  # [G, C, H, W], turned back


def _to_show(examples: list[Example]) -> list[Example]:
    """The worst, and then some near the median."""
    worst = min(examples, key=lambda example: example.score)
    median = statistics.median(example.score for example in examples)
    near = sorted(examples, key=lambda example: abs(example.score - median))
    return [worst, *[example for example in near if example is not worst][:TYPICAL]]


@dataclass(frozen=True)
class Measurement:
    """A row per image in `samples`, and what takes all images together.

    Columns, as far as they were asked for: label, accuracy (per cent), LI, DI, SI, SI_distinct
    (over pairs of different elements); the `COMPANIONS` relative_LI, JS and flip_rate; logit_norm,
    the root mean square over the orbit of the norm of the logits less their mean over classes.
    `maps` `[n, G, C, H, W]` are the saliency maps, turned back, if they were to be kept. Two of
    different images, measured alike, can be added: `a + b` is what measuring all at once gives.
    """

    samples: pd.DataFrame
    totals: Totals
    order: int
    distinct: bool = False
    layer_totals: Layers = field(default_factory=Layers)
    examples: list[Example] = field(default_factory=list)
    maps: Tensor | None = None
    action_error: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)

    def __add__(self, other: "Measurement") -> "Measurement":
        if not isinstance(other, Measurement):
            return NotImplemented
        ours, theirs = self._alike(), other._alike()
        for name in {**ours, **theirs}:
            value, added = ours.get(name), theirs.get(name)
            require(added == value, f"{name} of what is added", added, str(value))
        moved = [replace(e, row=e.row + len(self.samples)) for e in other.examples]
        are_kept = self.maps is not None and other.maps is not None
        maps = torch.cat([self.maps, other.maps]) if are_kept else None  # type: ignore[list-item]
        return Measurement(
            pd.concat([self.samples, other.samples], ignore_index=True),
            self.totals + other.totals,
            self.order,
            self.distinct,
            self.layer_totals + other.layer_totals,
            _to_show([*self.examples, *moved]) if self.examples or moved else [],
            maps,
            max(self.action_error, other.action_error),
            self.options,
        )

    def _alike(self) -> dict[str, Any]:
        """What measurements that are added must have in common."""
        mean_map = self.totals.mean_map
        return {
            "columns": [*self.samples],
            "elements": self.order,
            "distinct": self.distinct,
            "classes": len(self.totals.mean_logits),
            "pixels": 0 if mean_map is None else len(mean_map),
            **self.options,
        }

    @property
    def sample_variance(self) -> float:
        """The variance over the images of their centred logits, each averaged over its orbit."""
        return self.totals.scatter / self.totals.images

    @property
    def SI_floor(self) -> float:
        """SI of an orbit whose maps are those of unrelated images; NaN of one image alone.

        From the mean similarity of the maps of two different images, in any orientations.
        """
        totals, n = self.totals, self.totals.images
        if totals.mean_map is None or n < 2:
            return math.nan
        strangers = (n * totals.mean_map.square().sum().item() - totals.similarity) / (n - 1)
        return strangers if self.distinct else (1 + (self.order - 1) * strangers) / self.order

    @property
    def summary(self) -> pd.Series:
        """Mean over the images of each metric, orbit_over_sample_variance and SI_floor.

        The first of these is how far apart the logits of an orbit are, in units of how far apart
        those of different images are; NaN where these are all alike.
        """
        means = self.samples.drop(columns="label", errors="ignore").mean()
        within = (self.samples.relative_LI * self.samples.logit_norm**2).mean()
        between = self.sample_variance
        means["orbit_over_sample_variance"] = within / between if between else math.nan
        if "SI" in self.samples:
            means["SI_floor"] = self.SI_floor
        if self.action_error:
            means["action_error"] = self.action_error
        return means

    @property
    def intervals(self) -> pd.DataFrame:
        """Mean over the images and its 95 % interval, of each metric: columns mean, low, high."""
        table = self.samples.drop(columns="label", errors="ignore")
        half = 1.96 * table.std() / math.sqrt(len(table))
        return pd.DataFrame(
            {"mean": table.mean(), "low": table.mean() - half, "high": table.mean() + half}
        )

    @property
    def layers(self) -> pd.DataFrame:
        """How much each module loses of the invariance: see `ginv.layers.Layers`."""
        return self.layer_totals.table

    def worst(self, count: int = 5) -> pd.DataFrame:
        """The rows of the images with the lowest SI, or the highest DI where there are no maps."""
        if "SI" in self.samples:
            return self.samples.nsmallest(count, "SI")
        return self.samples.nlargest(count, "DI")

    def show(self, width: float | None = None) -> Any:
        """Draw a typical image and the worst: orbits, maps, predictions. A matplotlib figure.

        width: in inches, 2 to 100; None takes 1.5 for each orientation.
        """
        from ginv.drawing import draw

        fits = isinstance(width, int | float) and not isinstance(width, bool) and 2 <= width <= 100
        require(width is None or fits, "width", width, "2 to 100 inches, or None")
        if not self.examples:
            raise ValueError("no image was kept to be shown; measure anew")
        worst, *others = self.examples
        scores = self.samples.SI if "SI" in self.samples else -self.samples.DI
        typical = min(others or [worst], key=lambda each: abs(each.score - scores.median()))
        chosen = {"a typical image": typical, "the worst image": worst}
        name = "SI" if "SI" in self.samples else "DI"
        titles = {f"{title}\n{name} {abs(e.score):.2f}": e for title, e in chosen.items()}
        return draw({title: (e.images, e.logits, e.maps) for title, e in titles.items()}, width)

    def __repr__(self) -> str:
        text = f"{len(self.samples):,} images\n{self.summary.round(4).to_string()}"
        if "SI" not in self.samples or math.isnan(self.SI_floor):
            return text
        alone = 0 if self.distinct else 1 / self.order
        text += f"\nSI to compare with: 1 of equal maps, {self.SI_floor:.2f} of those of unrelated"
        return f"{text}\nimages, {alone:.2f} of maps that do not overlap"


def measure(
    model: nn.Module | Callable,
    images: Any,
    labels: Any = None,
    group: Group | None = None,
    *,
    saliency: bool = True,
    target: str = "label",
    distinct: bool = False,
    steps: int = STEPS,
    baseline: Tensor | float | None = None,
    threshold: float = THRESHOLD,
    sigma: float = SIGMA,
    attribute: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = None,
    batch_size: int | str = "auto",
    layers: bool | Iterable[str] = False,
    exact: bool = True,
    keep_maps: bool = False,
    progress: bool = True,
) -> Measurement:
    """All measures of any classifier of images, over the whole orbit of each image.

    `measure(model, images, labels, group)` with images `[n, C, H, W]`, floating point, and labels
    `[n]`, integers of any kind; or `measure(model, data, group)` with a `Dataset`, a `DataLoader`
    or any iterable of such batches, which are measured as they come. The defaults are the paper's.

    model: anything that `ginv.classifier.Classifier` takes. It is looked at in evaluation mode, on
    its own device and in its own precision, halves in single precision, and left as it was.

    - saliency: False leaves the maps out, and with them SI. Then a model may be any function of
      NumPy arrays, and each orientation costs one forward pass.
    - target: the logit that the maps explain, of the "label" or of the "prediction": the largest
      of the logits averaged over the orbit. Without labels, "prediction", and no accuracy.
    - distinct: LI, DI and SI over pairs of different elements of the group alone.
    - steps, baseline: of the integrated gradients. The baseline is an empty image: a number or
      `[C, 1, 1]` in the units of the images, 0 by default, with a warning where that looks wrong.
    - threshold, sigma: of `saliency_map`.
    - attribute: another attribution, called with a classifier, images and targets, such as
      `ginv.gradients`, or `lambda f, x, t: captum.attr.Saliency(f).attribute(x, target=t)`.
    - batch_size: how many images, oriented or on the path of the integrated gradients, go through
      the model at once; "auto": as many as fit into 128 MiB, or half of a GPU's free memory.
    - layers: True, or names of modules, for a table of what each does to the invariance.
    - exact: False allows a group that interpolates, and tells its own error, action_error.
    - keep_maps: hand out all maps.

    Raises ValueError, in one line, for whatever does not fit, and where logits or maps are not
    finite.
    """
    if isinstance(labels, Group) and group is None:
        labels, group = None, labels
    require(isinstance(group, Group), "group", group, "a ginv.Group, such as ginv.Rotations(4)")
    require(isinstance(saliency, bool), "saliency", saliency, "True, False")
    allowed = "a torch.nn.Module, or, with saliency=False, a function of an array"
    require(isinstance(model, nn.Module) or not saliency, "model", model, allowed)
    assert group is not None
    asked = _Asked(group, target, distinct, batch_size, exact, keep_maps)
    maps = _Maps(attribute, steps, baseline, threshold, sigma) if saliency else None
    with plain_torch(), evaluating(model):
        classifier = as_classifier(model)
        watched = chosen_modules(model_of(classifier), layers)
        measuring = _Measuring(classifier, asked, maps, watched)
        data, count = batches(images, labels)
        bar = tqdm(total=count, desc="measure", unit="image", disable=not progress, leave=False)
        with bar:
            for batch in data:
                for some in measuring.parts(*batch):
                    bar.update(measuring.add(*some))
    return measuring.result()


@dataclass(frozen=True)
class _Asked:
    """The options of `measure` that are not about maps."""

    group: Group
    target: str
    distinct: bool
    batch_size: int | str
    exact: bool
    keep_maps: bool

    def __post_init__(self) -> None:
        group, target = self.group, self.target
        require(target in ("label", "prediction"), "target", target, "label, prediction")
        for name in ("distinct", "exact", "keep_maps"):
            value = getattr(self, name)
            require(isinstance(value, bool), name, value, "True, False")
        if self.distinct and group.order < 2:
            raise ValueError(
                f"distinct pairs need a group of 2 or more elements, got {group.order}"
            )

    @property
    def options(self) -> dict[str, Any]:
        return {"group": self.group.name, "target": self.target}


@dataclass(frozen=True)
class _Maps:
    """The options of `measure` that are about maps."""

    attribute: Callable[[nn.Module, Tensor, Tensor], Tensor] | None
    steps: int
    baseline: Tensor | float | None
    threshold: float
    sigma: float

    def __post_init__(self) -> None:
        fits = self.attribute is None or callable(self.attribute)
        allowed = "a function of a model, images and targets, or None"
        require(fits, "attribute", self.attribute, allowed)

    @property
    def options(self) -> dict[str, Any]:
        """What maps that are compared must have in common.

        A baseline as it is printed, a large one by its sum as well; an attribution by its name.
        """
        chosen = {name: getattr(self, name) for name in ("steps", "threshold", "sigma")}
        if not isinstance(self.baseline, Tensor):
            baseline = str(float(self.baseline or 0))
        else:  # printed, it is rounded and cut short
            baseline = " ".join(str(self.baseline).split())
            values = self.baseline.detach().double().cpu().contiguous().numpy().tobytes()
            baseline += f" {[*self.baseline.shape]} {hashlib.sha256(values).hexdigest()[:16]}"
        return chosen | {"baseline": baseline, "attribute": _name_of(self.attribute)}

    def of(
        self, model: nn.Module, images: Tensor, targets: Tensor, group: Group, size: int
    ) -> Tensor:
        """The maps of an orbit, turned back `[G, n, C, H, W]`, `size` examples at once."""
        attribute = self.attribute or self._integrated(images, group, size)
        options: dict[str, Any] = dict(threshold=self.threshold, sigma=self.sigma)
        options["batch_size"] = size if self.attribute else None  # which goes along the paths
        return orbit_maps(model, images, targets, group, attribute=attribute, **options)

    def _integrated(self, images: Tensor, group: Group, size: int) -> Callable:
        """Integrated gradients from a baseline that moves as the images do."""
        baseline = as_baseline(0.0 if self.baseline is None else self.baseline, images)
        if isinstance(baseline, Tensor) and baseline.numel() > 1:
            orbit = group.orbit(baseline.to(images).expand_as(images))
            baseline = orbit.flatten(0, 1)
        return partial(integrated_gradients, steps=self.steps, baseline=baseline, batch_size=size)

    def check_baseline(self, images: Tensor) -> None:
        """Warn where nobody chose 0, and it is neither the darkest pixel nor near the mean."""
        as_baseline(0.0 if self.baseline is None else self.baseline, images[:1])
        mean, deviation = images.mean().item(), images.std(correction=0).item()
        is_empty = images.amin().item() == 0 or abs(mean) <= deviation
        if self.baseline is None and self.attribute is None and not is_empty:
            warnings.warn(
                f"the baseline is 0, and pixels are {mean:.3g} on average, give or take "
                f"{deviation:.3g}: say what an empty image is, baseline=0 or another",
                stacklevel=5,
            )


def _name_of(function: Callable | None) -> str | None:
    """Where it comes from, of an attribution: two lambdas of one line are taken for one."""
    if function is None:
        return None
    if isinstance(function, partial):
        return f"{_name_of(function.func)} of {function.args} {function.keywords}"
    owner = getattr(function, "__self__", None if hasattr(function, "__name__") else function)
    if not (owner is None or isinstance(owner, type | ModuleType)):  # another may do otherwise
        function = getattr(function, "__func__", function)
        name = getattr(function, "__qualname__", type(function).__qualname__)
        return f"{getattr(function, '__module__', '')}.{name} of {id(owner):x}"
    code = getattr(function, "__code__", None)
    name = getattr(function, "__qualname__", type(function).__qualname__)
    where = f":{code.co_firstlineno}" if code and "<" in name else ""
    return f"{getattr(function, '__module__', '')}.{name}{where}"


@dataclass
class _Measuring:
    """What was asked for, and what has been measured so far."""

    model: nn.Module  # a classifier
    asked: _Asked
    maps: _Maps | None
    modules: dict[str, nn.Module]
    size: int = 0  # how many examples go through the model at once
    shape: list[int] = field(default_factory=list)  # of an image
    is_told: bool = False  # whether there are labels
    labels: Tensor | None = None  # of the batch
    columns: dict[str, array] = field(default_factory=dict)
    totals: Totals | None = None
    layers: Layers = field(default_factory=Layers)
    examples: list[Example] = field(default_factory=list)
    kept: list[Tensor] = field(default_factory=list)
    action_error: float = 0.0

    def parts(
        self, images: Tensor, labels: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Images of a batch in parts that fit into memory, on the device of the model."""
        if not self.size:
            self._start(images, labels)
        shape = list(images.shape[1:])
        allowed = f"[n, {str(self.shape)[1:-1]}], as those before"
        require(shape == self.shape, "images of a batch", images, allowed)
        allowed = "labels for all batches, or for none"
        require((labels is not None) == self.is_told, "labels of a batch", labels, allowed)
        self.labels = labels
        count = max(1, min(MOST_IMAGES, self.size // self.asked.group.order))
        for start in range(0, len(images), count):
            rows = slice(start, start + count)
            yield as_seen_by(self.model, images[rows]), None if labels is None else labels[rows]

    def _start(self, images: Tensor, labels: Tensor | None) -> None:
        asked = self.asked
        self.shape, self.is_told = list(images.shape[1:]), labels is not None
        check_group_once(asked.group, tuple(self.shape), asked.exact)
        if not asked.exact:
            self.action_error = action_error(asked.group, images[:MOST_IMAGES])
        fits = self.is_told or self.maps is None or asked.target == "prediction"
        require(fits, "labels", labels, "one for each image, or target='prediction'")
        if self.maps is not None:
            self.maps.check_baseline(images)
        self.size = passes(asked.batch_size, self.model, as_seen_by(self.model, images[:1]))
        if isinstance(model_of(self.model), nn.Module) and not isinstance(self.model, MLP):
            self._warn_of_chance(as_seen_by(self.model, images[:2]))

    @torch.no_grad()
    def _warn_of_chance(self, two: Tensor) -> None:
        """Where logits are not the image's alone, which looks like a lack of invariance."""
        first, again = (self.model(two[:1]).clone() for _ in range(2))
        others = {"from pass to pass": again, "with the batch": self.model(two)[:1]}
        for what, other in others.items():
            if (apart := (first - other).norm() / first.norm()) > MOST_BY_ROUNDING:
                warnings.warn(
                    f"the logits of one image change {what}, by {apart:.2g} of their size: the "
                    "measures take that for a lack of invariance",
                    stacklevel=6,
                )
                break

    def add(self, images: Tensor, labels: Tensor | None) -> int:
        """Measure some images `[n, C, H, W]`; returns n."""
        group = self.asked.group
        with watching(self.modules, group, images) as seen:
            whole = None if self.modules else self.size
            logits = orbit_logits(self.model, images, group, batch_size=whole).double()
        if self.labels is not None:  # those whose turn comes later, too
            require_classes(self.labels, logits.shape[-1])
        columns, totals = _of_logits(logits, labels, self.asked.distinct)
        maps = None
        if self.maps is not None:
            targets = labels
            if targets is None or self.asked.target == "prediction":
                targets = logits.mean(0).argmax(-1)
            maps = self.maps.of(self.model, images, targets, group, self.size)
            similarities, totals = _of_maps(maps, self.asked.distinct, totals)
            columns |= similarities
        self._look(columns, images, logits, maps)
        for name, values in columns.items():
            column = self.columns.setdefault(name, array("q" if name == "label" else "d"))
            column.frombytes(values.to("cpu", NUMBERS[column.typecode]).numpy().tobytes())
        self.totals = self.totals + totals if self.totals else totals
        self.layers += sum(seen.values(), Layers())
        if self.asked.keep_maps and maps is not None:
            self.kept.append(maps.transpose(0, 1).cpu())
        return len(images)

    def _look(
        self, columns: dict[str, Tensor], images: Tensor, logits: Tensor, maps: Tensor | None
    ) -> None:
        """Keep the worst image, and one that is typical, to be shown."""
        scores = columns["SI"] if maps is not None else -columns["DI"]
        worst, typical = scores.argmin(), (scores - scores.median()).abs().argmin()
        before = self.totals.images if self.totals else 0
        for place in sorted({int(worst), int(typical)}):
            orbit = self.asked.group.orbit(images[place]).detach()
            seen = maps[:, place].cpu().clone() if maps is not None else None
            score, drawn = scores[place].item(), logits[:, place].cpu().clone()
            self.examples.append(Example(before + place, score, orbit.cpu(), drawn, seen))
        self.examples = _to_show(self.examples)

    def _options(self) -> dict[str, Any]:
        action = {"action": action_hash(self.asked.group, tuple(self.shape))}
        return self.asked.options | action | (self.maps.options if self.maps else {})

    def result(self) -> Measurement:
        assert self.totals is not None  # a batch at least, or `batches` has refused
        names = [name for name in FIRST if name in self.columns]
        names += [name for name in self.columns if name not in FIRST]
        samples = pd.DataFrame({name: np.array(self.columns[name]) for name in names})
        return Measurement(
            samples,
            self.totals,
            self.asked.group.order,
            self.asked.distinct,
            self.layers,
            self.examples,
            torch.cat(self.kept) if self.kept else None,
            self.action_error,
            self._options(),
        )


FIRST = ("label", "accuracy", "LI", "DI", "SI", "SI_distinct")  # of the columns
NUMBERS = {"q": torch.int64, "d": torch.float64}


def _of_logits(
    logits: Tensor, labels: Tensor | None, distinct: bool
) -> tuple[dict[str, Tensor], Totals]:
    """The columns of some images, `[n]` each, of logits `[G, n, classes]`; and their totals."""
    centred = centre(logits)
    means = centred.mean(0)
    middle = means.mean(0)
    columns = {
        "LI": logit_invariance(logits, distinct=distinct),
        "DI": distribution_invariance(logits, distinct=distinct),
        **{name: companion(logits) for name, companion in COMPANIONS.items()},
        "logit_norm": mean_squared_norm(centred).sqrt(),
    }
    if labels is not None:
        columns |= {"label": labels, "accuracy": accuracy(logits, labels)}
    return columns, Totals(len(means), middle.cpu(), (means - middle).square().sum().item())


def _of_maps(maps: Tensor, distinct: bool, totals: Totals) -> tuple[dict[str, Tensor], Totals]:
    """The same of maps `[G, n, C, H, W]`."""
    unit = unit_maps(maps)
    similarity, mean_map = similarity_of_pairs(unit, False), unit.mean(0).mean(0).double().cpu()
    columns = {"SI": similarity}
    if len(maps) > 1:
        columns["SI" if distinct else "SI_distinct"] = similarity_of_pairs(unit, True)
    return columns, replace(totals, mean_map=mean_map, similarity=similarity.mean().item())
