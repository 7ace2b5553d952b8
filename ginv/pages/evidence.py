"""The statistics that the ledger names: what a claim of the paper comes to as numbers.

Each is called with the tables that the chapters saved, a group and the words behind its name in
`ledger.yaml`. It returns a value for each seed; or (value, low, high), with an interval of its own;
or a number, where it is exact: a count, a cost, rounding.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ginv.data import CLASSES, IMAGE_SHAPE, load_dataset
from ginv.groups import group_named
from ginv.measures import distribution_invariance, largest_singular_value, logit_invariance
from ginv.networks import MLP
from ginv.pages.paper import book_file, printed_table, room
from ginv.recipe import Run
from ginv.runs import costs
from ginv.runs.nu import TARGET, read_sweep
from ginv.saliency import integrated_gradients, saliency_map

Found = Any  # Iterable[float] | tuple[float, float, float] | float
Function = TypeVar("Function", bound=Callable[..., Any])
USEFUL = 2  # times as often right as by guessing: as far as a method's accuracy is looked at
IMAGES = 4  # digits, for the steps of the proof
UNTRAINED_IMAGES = 100  # from digit to digit an untrained network hardly differs


@dataclass(frozen=True)
class Tables:
    """What the chapters saved: a row a network, a column a metric."""

    runs: pd.DataFrame  # group, method, seed
    maps: pd.DataFrame  # the same, of the chapters on the measures and on SI
    drifted: pd.DataFrame  # group, method, seed, beta
    spectral: pd.DataFrame  # group, method, seed
    linear: pd.DataFrame  # group

    @classmethod
    def read(cls, load: Callable[[str], pd.DataFrame], seeds: list[int]) -> "Tables":
        """From the saved tables in long form, of these seeds."""

        def wide(names: str, *index: str) -> pd.DataFrame:
            table = pd.concat([load(name) for name in names.split()])
            table = table[table.seed.isin(seeds)] if "seed" in table else table
            return table.pivot_table("value", [*index], "metric").sort_index()

        each = "group", "method", "seed"
        return cls(
            wide("table1", *each),
            wide("metrics trust", *each),
            wide("drift", *each, "beta"),
            wide("spectral", *each),
            wide("proposition", "group"),
        )

    def of(self, group: str, method: str) -> pd.DataFrame:
        """A row a seed, from Table 1."""
        return self.runs.loc[group, method]

    def at(self, group: str, method: str, metric: str, beta: float = 0.0) -> pd.Series:
        """Under drift, a value a seed."""
        return self.drifted.loc[group, method].xs(beta, level="beta")[metric]

    def floor(self, group: str, method: str) -> float:
        """SI of the maps of different images."""
        return self.maps.loc[group, method]["SI floor (as in this book)"].mean()


STATISTICS: dict[str, Callable[..., Found]] = {}
LIMITS: dict[str, Callable[..., str]] = {}  # thresholds that hang on the group or on the paper


def statistic(function: Function) -> Function:
    STATISTICS[function.__name__] = function
    return function


def limit(function: Function) -> Function:
    LIMITS[function.__name__] = function
    return function


def interval(values: Iterable[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean and Student's interval of a value a seed; NaN for the interval of one seed."""
    from scipy import stats  # which only the chapters need

    found = np.asarray([*values], float)
    mean, n = found.mean(), len(found)
    if n < 2:
        return mean, math.nan, math.nan
    half = stats.t.ppf((1 + level) / 2, n - 1) * found.std(ddof=1) / n**0.5
    return mean, mean - half, mean + half


# --- Table 1 and what it is made of


@limit
def printed(ours: Found, group: str, method: str, metric: str) -> str:
    """The means of ours that agree with a cell of the paper's Table 1."""
    row = printed_table().loc[(group, method, metric)]
    return _around(row["mean"], ours, row)


@limit
def printed_cost(ours: Found, group: str) -> str:
    """The same for the accuracy of DA less that of IR."""
    rows = [printed_table().loc[(group, method, "accuracy")] for method in ("DA", "IR")]
    return _around(rows[0]["mean"] - rows[1]["mean"], ours, *rows)


@limit
def halfway_accuracy(ours: Found, group: str) -> str:
    """Between what the paper calls high (DA) and a drop (IR)."""
    high, low = (_paper(group, method) for method in ("DA", "IR"))
    return f"{(high + low) / 2:.6g}"


def _paper(group: str, method: str) -> float:
    return printed_table()["mean"][group, method, "accuracy"]


def _around(centre: float, ours: Found, *rows: pd.Series) -> str:
    values = [*ours]
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    reach = room(spread, len(values), *rows)
    return f"{centre - reach:.6g} to {centre + reach:.6g}"


@statistic
def mean(tables: Tables, group: str, metric: str, method: str) -> Found:
    return tables.of(group, method)[metric]


@statistic
def doubled(tables: Tables, group: str, metric: str, method: str) -> Found:
    """Without the half of Equation 2."""
    return 2 * tables.of(group, method)[metric]


@statistic
def distinct(tables: Tables, group: str, method: str) -> Found:
    """SI without the pairs of a map with itself, each of which is 1."""
    n = group_named(group).order
    return (n * tables.of(group, method).SI - 1) / (n - 1)


@statistic
def begun(
    tables: Tables, group: str, metric: str, method: str, initialisation: str, factor: str = "1"
) -> Found:
    """Of networks that begin at other weights, or that were trained a second time."""
    table = pd.read_csv(book_file("results/initialisation.csv"))
    chosen = {"group": group, "metric": metric, "recipe": method, "initialisation": initialisation}
    rows = table[(table[[*chosen]] == pd.Series(chosen)).all(axis=1) & (table.selection == "best")]
    return float(factor) * rows.set_index("seed").value


@statistic
def begun_difference(
    tables: Tables, group: str, metric: str, one: str, other: str, initialisation: str
) -> Found:
    """The same of two methods, seed by seed."""
    first, second = (begun(tables, group, metric, each, initialisation) for each in (one, other))
    return first - second


@statistic
def difference(tables: Tables, group: str, metric: str, one: str, other: str) -> Any:
    return tables.of(group, one)[metric] - tables.of(group, other)[metric]


@statistic
def remaining(tables: Tables, group: str, metric: str) -> Any:
    """What IR leaves of DA's distance from WT."""
    wt, da, ir = (tables.of(group, method)[metric] for method in ("WT", "DA", "IR"))
    return (ir - wt) / (da - wt)


@statistic
def gone(tables: Tables, group: str, metric: str) -> Found:
    return 1 - remaining(tables, group, metric)


@statistic
def height(tables: Tables, group: str, method: str) -> Any:
    """SI from 0, that of the maps of different images, to 1, that of WT."""
    floor = tables.floor(group, method)
    return (tables.of(group, method).SI - floor) / (tables.of(group, "WT").SI - floor)


@statistic
def height_gained(tables: Tables, group: str) -> Found:
    return height(tables, group, "IR") - height(tables, group, "DA")


@statistic
def orders_above_ir(tables: Tables, group: str, metric: str) -> Found:
    da, ir = (tables.of(group, method)[metric] for method in ("DA", "IR"))
    return np.log10(da / ir)


@statistic
def smaller_margin(tables: Tables, group: str) -> Found:
    """Of accuracy above halfway, in units of the paper's cost of IR, and of SI below its middle."""
    gap = _paper(group, "DA") - _paper(group, "IR")
    halfway = float(halfway_accuracy(None, group))
    accurate = (tables.of(group, "DA").accuracy - halfway) / gap
    return np.minimum(accurate, 0.5 - height(tables, group, "DA"))


@limit
def printed_at_target(ours: Found, group: str) -> str:
    """The range of `printed` for IR's accuracy, wider by what half a digit of its SI comes to."""
    low, high = map(float, printed(ours, group, "IR", "accuracy").split(" to "))
    room_of_si = abs(_slope(group)) * printed_table()["mean_digit"][group, "IR", "SI"]
    return f"{low - room_of_si:.6g} to {high + room_of_si:.6g}"


@statistic
def accuracy_at_target(tables: Tables, group: str) -> Found:
    """Of IR, moved along the sweep over nu from its SI to the target."""
    ours = tables.of(group, "IR")
    return ours.accuracy - (ours.SI - TARGET) * _slope(group)


def _slope(group: str) -> float:
    """Of accuracy in SI, between the two nu of the sweep around the target."""
    rows = read_sweep().query("regulariser == 'logit' and seed == 0")
    line = rows[rows.group == group].sort_values("SI")[["SI", "accuracy"]].to_numpy()
    after = max(1, int(np.searchsorted(line[:, 0], TARGET)))
    rise = np.diff(line[after - 1 : after + 1], axis=0)[0]
    return rise[1] / rise[0]


@statistic
def trade_off(tables: Tables, group: str) -> Found:
    """Points of accuracy for a hundredth of SI, along the sweep over nu.

    The median slope between two of its nu, and Sen's interval.
    """
    from scipy import stats

    rows = read_sweep().query("regulariser == 'logit' and seed == 0")
    rows = rows[rows.group == group]
    line = stats.theilslopes(rows.accuracy, rows.SI / 0.01)
    return line.slope, line.low_slope, line.high_slope


# --- What the maps, the representations and the predictions are like


@statistic
def one_class(tables: Tables, group: str) -> Any:
    """The share of images that DA gives one class in all orientations."""
    return tables.at(group, "DA", "all_right") + tables.at(group, "DA", "same_wrong")


@statistic
def all_right(tables: Tables, group: str) -> Found:
    """Images that DA names right in every orientation, in per cent."""
    return 100 * tables.at(group, "DA", "all_right")


@statistic
def of_maps(tables: Tables, group: str, metric: str, method: str) -> Found:
    return tables.maps.loc[group, method][metric]


@statistic
def di_over_failed(tables: Tables, group: str) -> Found:
    """DI of DA over what it is where all images have drifted."""
    return tables.at(group, "DA", "DI") / tables.at(group, "DA", "DI", 1.0)


@statistic
def rank_advantage(tables: Tables, group: str) -> Iterator[float]:
    """Rank correlation with flips over networks and drift, of DI less that of LI."""
    rows = tables.drifted.loc[group].loc[["DA", "IR"]]
    for _, seed in rows.groupby("seed"):
        rank = seed[["DI", "LI", "flip_rate"]].rank().corr()
        yield rank.loc["DI", "flip_rate"] - rank.loc["LI", "flip_rate"]


# --- Drift


@statistic
def growth(tables: Tables, group: str, metric: str, beta: str) -> Found:
    """Of DA at beta, interpolated where that was not measured, over that without drift."""
    lines = tables.drifted.loc[group, "DA"][metric].unstack("beta")
    return [np.interp(float(beta), line.index, line) / line[0.0] for _, line in lines.iterrows()]


@statistic
def doubling(tables: Tables, group: str, metric: str) -> Found:
    """The beta at which an error of DA has doubled, interpolated; 1 where it never does."""
    grown = tables.drifted.loc[group, "DA"][metric].unstack("beta")
    grown = grown.div(grown[0.0], axis=0)
    return [_first_at(line, 2.0) for _, line in grown.iterrows()]


@statistic
def accuracy_when_doubled(tables: Tables, group: str) -> Found:
    """Accuracy of DA over that without drift, at the beta at which its DI has doubled."""
    rows = tables.drifted.loc[group, "DA"].accuracy.unstack("beta")
    return [
        np.interp(beta, line.index, line) / line[0.0]
        for beta, (_, line) in zip(doubling(tables, group, "DI"), rows.iterrows(), strict=True)
    ]


def _first_at(line: pd.Series, height: float) -> float:
    above = np.flatnonzero(line.to_numpy() >= height)
    if not len(above) or not above[0]:
        return 1.0 if not len(above) else line.index[0]
    ends = line.iloc[above[0] - 1 : above[0] + 1]
    return float(np.interp(height, ends.to_numpy(), ends.index.to_numpy()))


@statistic
def far(tables: Tables, group: str, metric: str, method: str) -> Any:
    """Mean over beta >= 0.5."""
    rows = tables.drifted.loc[group, method][metric].unstack("beta")
    return rows.loc[:, rows.columns >= 0.5].mean(axis=1)


@statistic
def far_over_da(tables: Tables, group: str, metric: str, drift: str) -> Found:
    """Of IR, over that of DA under the "same" drift or under "no" drift."""
    da = far(tables, group, metric, "DA") if drift == "same" else tables.at(group, "DA", metric)
    return far(tables, group, metric, "IR") / da


@statistic
def flipping(tables: Tables, group: str) -> Found:
    """The share of images that DA gives different classes, mean over beta >= 0.5."""
    return 1 - far(tables, group, "all_right", "DA") - far(tables, group, "same_wrong", "DA")


def _useful(tables: Tables) -> list[float]:
    """The degrees of drift at which all methods are still right much more than by guessing."""
    accuracy = tables.drifted.accuracy.unstack("method")[["WT", "DA", "IR"]]
    accuracy = accuracy.groupby(["group", "beta"]).mean()
    fits = (accuracy > USEFUL * 100 / CLASSES).all(axis=1).groupby("beta").all()
    return [beta for beta in fits.index if beta > 0 and fits[beta]]


def _sustained(tables: Tables, group: str, method: str, what: str, most: float = 1.0) -> pd.Series:
    """Mean accuracy over the useful drift, to a beta at most, or its "ratio" to that without."""
    rows = tables.drifted.loc[group, method].accuracy.unstack("beta")
    rows = rows.div(rows[0.0], axis=0) if what == "ratio" else rows
    return rows[[beta for beta in _useful(tables) if beta <= most]].mean(axis=1)


@statistic
def sustained_lead(tables: Tables, group: str, method: str, what: str, most: str = "1") -> Found:
    ours, theirs = (_sustained(tables, group, m, what, float(most)) for m in (method, "DA"))
    return ours - theirs


@statistic
def on_the_line(tables: Tables, group: str, networks: str) -> Found:
    """Pearson's r of accuracy with and without drift, probits; of "all" networks or those "alike".

    Of networks trained alike the means of each method are taken away. Fisher's interval.
    """
    from scipy import stats

    methods = ("WT", "DA", "IR")
    start = pd.concat({m: tables.at(group, m, "accuracy at home") for m in methods})
    there = pd.concat({m: _sustained(tables, group, m, "accuracy") for m in methods})
    points = pd.DataFrame({"x": stats.norm.ppf(start / 100), "y": stats.norm.ppf(there / 100)})
    points.index, lost = start.index, 3
    if networks == "alike":
        points -= points.groupby(level=0).transform("mean")
        lost += len(methods) - 1
    with np.errstate(invalid="ignore"):  # of one seed, whose points are their own mean
        r = np.corrcoef(points.x, points.y)[0, 1]
    if len(points) <= lost + 1 or abs(r) == 1:
        return r, math.nan, math.nan
    half = stats.norm.ppf(0.975) / (len(points) - lost) ** 0.5
    low, high = np.tanh(np.arctanh(r) + np.array([-half, half]))
    return r, low, high


# --- Forms of the regulariser, sensitivity


@statistic
def form_lead(tables: Tables, group: str, metric: str, other: str) -> Found:
    """How much better IR is with the logit error than with another form."""
    ours, theirs = (tables.spectral.loc[group, f"IR, {f}"][metric] for f in ("logit", other))
    return ours - theirs if metric == "accuracy" else theirs - ours


@statistic
def of_form(tables: Tables, group: str, metric: str, form: str) -> Found:
    return tables.spectral.loc[group, f"IR, {form}"][metric]


@statistic
def form_cost(tables: Tables, group: str, form: str) -> Found:
    """Accuracy of DA less that of IR with a form, in points."""
    rows = tables.spectral.loc[group]
    return rows.loc["DA"].accuracy - rows.loc[f"IR, {form}"].accuracy


@statistic
def ratio_to_da(tables: Tables, group: str, method: str, metric: str) -> Any:
    rows = tables.spectral.loc[group]
    return rows.loc[method][metric] / rows.loc["DA"][metric]


@statistic
def step_per_scale(tables: Tables, group: str, to: str) -> Found:
    """Response of IR to a step over that of DA, each per unit of the logits' size."""
    ir = "IR, logit"
    of_scale = ratio_to_da(tables, group, ir, "logit_norm")
    return ratio_to_da(tables, group, ir, f"step_to_{to}") / of_scale


@statistic
def shared_fall(tables: Tables, group: str, to: str) -> Found:
    """The log of the fall along other steps over that along the orbit."""
    along = [ratio_to_da(tables, group, "IR, logit", f"step_to_{t}") for t in (to, "whole_orbit")]
    return np.log(along[0]) / np.log(along[1])


@statistic
def like_weight_decay(tables: Tables, group: str, metric: str) -> Iterator[float]:
    """The share of IR's change that DA has with the weight decay of its sigma_max.

    Interpolated in log sigma_max; where no decay brings it as low, that of the strongest.
    """
    rows = tables.spectral.loc[group]
    decayed = rows[rows.index.get_level_values("method").str.startswith("DA,")]
    for seed in decayed.index.unique("seed"):
        of_seed = rows.xs(seed, level="seed")
        line = of_seed[of_seed.index.str.startswith("DA")].sort_values("sigma_max")
        wanted = np.log(of_seed.loc["IR, logit"].sigma_max)
        reached = np.interp(wanted, np.log(line.sigma_max), line[metric])
        da, ir = of_seed.loc["DA"][metric], of_seed.loc["IR, logit"][metric]
        yield (reached - da) / (ir - da)


@statistic
def untrained_over_da(tables: Tables, group: str, initialisation: str) -> Found:
    """sigma_max before training, from other initial weights, over that of DA after it."""
    images = load_dataset().test.images[:UNTRAINED_IMAGES]
    trained = tables.spectral.loc[group, "DA"].sigma_max
    found = []
    for seed in trained.index:
        run = Run(group, "DA", seed, initialisation=initialisation)
        model = run.model(torch.Generator().manual_seed(seed))
        found.append(largest_singular_value(model, images).mean().item())
    return found / trained


@statistic
def start_over(tables: Tables, group: str, method: str) -> Found:
    """sigma_max before training over that after it."""
    rows = tables.spectral.loc[group].sigma_max
    return rows["untrained"] / rows[method]


# --- What a network costs


def kept_bytes(group: str, method: str) -> int:
    """What autograd keeps of one training batch, without parameters."""
    run = Run(group, method, nu=float(method == "IR"))
    model, sizes = run.model(), {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    x = torch.zeros(run.batch_size * run.views, 1, *IMAGE_SHAPE[-2:])

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(x).square().sum()
    return sum(size for key, size in sizes.items() if key not in own)


def _cost(what: str, group: str, method: str) -> float:
    run = Run(group, method, nu=float(method == "IR"))
    if what == "memory of training":
        return kept_bytes(group, method)
    if what == "operations of training":
        return costs.training_operations(run)
    return costs.inference_operations(run)


@statistic
def cost_ratio(tables: Tables, group: str, what: str, one: str, other: str) -> float:
    return _cost(what, group, one) / _cost(what, group, other)


# --- Groups, measures and the set-up: what could only be wrong in our own code


@statistic
def broken_axioms(tables: Tables, group: str) -> float:
    """How often closure, associativity, identity or inverse fails."""
    acting = group_named(group)
    gs, times, e = acting.elements, acting.product, acting.identity
    count = sum(times(a, b) not in gs for a, b in product(gs, repeat=2))
    for a, b, c in product(gs, repeat=3):
        count += times(times(a, b), c) != times(a, times(b, c))
    for a in gs:
        count += not times(e, a) == times(a, e) == a
        count += times(acting.inverse(a), a) != e
        count += times(a, acting.inverse(a)) != e
    return count


@statistic
def broken_action(tables: Tables, group: str) -> float:
    """How often (gh)x is not g(hx), or ex not x, to the last bit."""
    acting, x = group_named(group), torch.arange(36 * 36).view(36, 36)
    wrong = int(not torch.equal(acting.act(acting.identity, x), x))
    for g, h in product(acting.elements, repeat=2):
        once, twice = acting.act(acting.product(g, h), x), acting.act(h, x)
        wrong += not torch.equal(once, acting.act(g, twice))
    return wrong


def _random_orbits() -> tuple[Tensor, torch.Generator]:
    """Logits [4, 20000, 9] of many sizes."""
    generator = torch.Generator().manual_seed(0)
    sizes = 10 ** torch.linspace(-2, 2, 20_000).view(-1, 1).double()
    return sizes * torch.randn(4, 20_000, 9, generator=generator).double(), generator


@statistic
def most_di_over_li(tables: Tables, group: str | None) -> float:
    """Over random orbits of logits."""
    logits, _ = _random_orbits()
    return (distribution_invariance(logits) / logit_invariance(logits)).max().item()


@statistic
def most_di_over_li_of_constants(tables: Tables, group: str | None) -> float:
    """Over orbits of logits that differ by constants."""
    logits, generator = _random_orbits()
    moved = logits[:1] + 5 * torch.randn(4, 20_000, 1, generator=generator).double()
    return (distribution_invariance(moved) / logit_invariance(moved)).max().item()


@statistic
def parameters(tables: Tables, group: str | None) -> float:
    return sum(p.numel() for p in MLP().parameters())


@statistic
def parameters_added(tables: Tables, group: str) -> float:
    """By weight-tying."""
    tied = MLP(group_named(group))
    return sum(p.numel() for p in tied.parameters()) - parameters(tables, None)  # type: ignore


PARTS = {"train": 10_000, "validation": 2_000, "test": 50_000}


@statistic
def off_size(tables: Tables, group: str | None, dataset: str) -> float:
    """Splits that are not 10k / 2k / 50k of 36 x 36 images, nine classes."""
    data = load_dataset(dataset)
    parts = [(getattr(data, name), n) for name, n in PARTS.items()]
    return sum(
        part.images.shape != (n, 1, 36, 36) or part.labels.unique().numel() != 9
        for part, n in parts
    )


@statistic
def shared(tables: Tables, group: str | None, dataset: str) -> float:
    """Images that occur in more than one place, to the last bit."""
    data = load_dataset(dataset)
    images = [getattr(data, name).images.numpy() for name in PARTS]
    seen = [image.tobytes() for part in images for image in part]
    return len(seen) - len(set(map(hash, seen)))


@statistic
def off_scale(tables: Tables, group: str | None, dataset: str) -> float:
    """Distance of pixel mean and deviation from 0 and 1, the larger."""
    pixels = load_dataset(dataset).test.images
    return max(abs(pixels.mean().item()), abs(pixels.std().item() - 1))


@statistic
def off_recipe(tables: Tables, group: str | None) -> float:
    """Saliency maps against the paper's recipe in captum's and SciPy's words, relative."""
    from captum.attr import IntegratedGradients
    from scipy.ndimage import gaussian_filter

    images = load_dataset().test.images[:8].double()
    model = MLP(generator=torch.Generator().manual_seed(0)).double()
    targets = torch.arange(8)
    ours = saliency_map(integrated_gradients(model, images, targets))
    size = IntegratedGradients(model).attribute(images, target=targets).abs().numpy()
    size[size < 0.9 * size.max((1, 2, 3), keepdims=True)] = 0
    theirs = gaussian_filter(size, 1, mode="wrap", radius=1, axes=(2, 3))
    return np.abs(ours.numpy() - theirs).max() / theirs.max()


# --- The proposition


@cache
def _starts(group: str) -> list[tuple[Tensor, Tensor, Tensor]]:
    """W(0), x and Gx: the initialisations that the paper names, all elements, some digits."""
    initialised = (torch.nn.init.xavier_uniform_, torch.nn.init.kaiming_normal_)
    digits, found = load_dataset().train.images[:IMAGES, 0].double(), []
    for (seed, x), init in product(enumerate(digits), initialised):
        generator = torch.Generator().manual_seed(seed)
        W = init(torch.empty(9, 36 * 36).double(), generator=generator)
        orbit = group_named(group).orbit(x)[1:]
        found += [(W, x.flatten(), gx.flatten()) for gx in orbit]
    return found


def _decayed(W: Tensor, e: Tensor, t: float) -> Tensor:
    """W exp(-St), Equation 6; time in units of 1/e'e."""
    u = e / e.norm()
    return W + math.expm1(-t) * torch.outer(W @ u, u)


def _norm(W: Tensor) -> float:
    return torch.linalg.matrix_norm(W, 2).item()


TIMES = (0.01, 0.1, 1, 10, 100)


@statistic
def gradient_error(tables: Tables, group: str) -> float:
    """Autograd against W (x - Gx)(x - Gx)', the largest relative difference."""
    worst = 0.0
    for W, x, gx in _starts(group):
        free, e = W.clone().requires_grad_(), x - gx
        (gradient,) = torch.autograd.grad((free @ x - free @ gx).square().sum() / 2, free)
        expected = torch.outer(W @ e, e)
        worst = max(worst, ((gradient - expected).norm() / expected.norm()).item())
    return worst


@statistic
def proposition(tables: Tables, group: str, what: str) -> float:
    """A number of the chapter on spectral decay."""
    return tables.linear.loc[group, what]


@statistic
def off_spectrum(tables: Tables, group: str) -> float:
    """How far the eigenvalues of exp(-St) are from ones and one exp(-t), at the most."""
    _, x, gx = _starts(group)[0]
    u = (x - gx) / (x - gx).norm()
    rates = torch.linalg.eigvalsh(torch.outer(u, u))  # rising
    expected = torch.zeros_like(rates)
    expected[-1] = 1
    apart = [((-t * rates).exp() - (-t * expected).exp()).abs().max().item() for t in TIMES]
    return max(apart)


@statistic
def largest_growth(tables: Tables, group: str) -> float:
    """The largest sigma_max(W(t)) / sigma_max(W(0))."""
    return max(
        _norm(_decayed(W, x - gx, t)) / _norm(W) for W, x, gx in _starts(group) for t in TIMES
    )


@statistic
def largest_norm_of_product(tables: Tables, group: str) -> float:
    """The largest |AB| / |A||B| of W(0) and exp(-St), operator norms, at t = 1: Equation 7."""
    worst = 0.0
    for W, x, gx in _starts(group)[:2]:
        u = (x - gx) / (x - gx).norm()
        flow = torch.eye(len(u)).double() + math.expm1(-1) * torch.outer(u, u)
        norm = torch.linalg.eigvalsh(flow).max().item()
        worst = max(worst, _norm(W @ flow) / (_norm(W) * norm))
    return worst


@statistic
def kept_on_orbit_sums(tables: Tables, group: str) -> float:
    """The largest length of W (x + Gx) in the end over that at the start."""
    worst = 0.0
    for W, x, gx in _starts(group):
        v = x + gx  # which the flow of x - Gx does not drive
        worst = max(worst, ((_decayed(W, x - gx, 100) @ v).norm() / (W @ v).norm()).item())
    return worst
