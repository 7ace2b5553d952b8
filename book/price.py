# ---
# jupyter:
#   jupytext:
#     cell_metadata_json: true
#     formats: ipynb,py:percent
#     notebook_metadata_filter: -jupytext.text_representation.format_version,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What does learned invariance really cost?
#
# The paper ends on an open problem. Its regularised networks look at the same pixels in every orientation, and pay for it
# with several points of accuracy and most of their sensitivity. The paper finds this for each form of its
# regulariser {cite}`moskalev2023genuine`. But a penalty is one thing, and how it is sampled, optimised and spread over a
# network, and where a training begins, is another. This chapter changes one of these at a time and asks what each is
# worth; then it puts together what helped.
#
# **What you will see**
#
# - The front of accuracy against saliency invariance (SI) over the weight $\nu$, for the paper's recipe and for single
#   changes of it.
# - What single changes of the recipe win back: of noise, optimisation, signal, capacity and the start.
# - Why a network that begins invariant stays so without being tied, and what it then still pays.
# - Whether the loss of sensitivity belongs to invariance or to the recipe.
# - The best combination, trained here, on the test images; and on a convolutional network, with a loop of its own.
#
# As in [Table 1: three ways to invariance](table1.ipynb), R4 are the rotations by quarter turns and T3 the cyclic
# translations; DA is training on augmented data, WT weight-tying, IR the paper's invariance regularisation of weight
# $\nu$. SI is 1 where saliency maps follow the image. LI is the variance of the logits over an orbit, relative LI the
# same over the squared size of the logits, and the logit scale that size; DI is the divergence of the predicted
# distributions ([What the network looks at](metrics.ipynb)).

# %% {"tags": ["remove-cell"]}
# A notebook that is opened alone, as on Colab, fetches the book that it belongs to
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

# written by `make publish-url`
address, tag = "", "v0.1.0"

if find_spec("ginv") is None:
    clone = Path("ginv-book").resolve()
    if not (address or clone.is_dir()):
        raise ImportError("ginv is in no public place yet: pip install -e '.[book]' in a clone")
    if not clone.is_dir():
        print(f"Fetching the book with its data, {address} {tag}")
        git = ["git", "clone", "-q", "--depth", "1", "--branch", tag, address, clone]
        subprocess.run(git, check=True)
    sys.path.insert(0, str(clone))
    subprocess.run([sys.executable, clone / "tools/lacking.py"], check=True)

# %% {"tags": ["parameters"]}
# "paper" is the full experiment, "quick" a look in minutes
profile = "paper"  # @param ["paper", "quick"]
group = "both"  # @param ["both", "R4", "T3"]
# a list such as [0, 1]; None takes those of the profile
seeds = None  # @param {type: "raw"}
device = "auto"  # @param ["auto", "cpu", "cuda"]
# folder for the numbers of this page
results = "results"  # @param {type: "string"}

# %%
import copy
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from IPython.display import Markdown
from torch import nn

import ginv
from ginv.networks import small_convnet
from ginv.pages import Settings, refuse_unknown
from ginv.pages.figures import (
    GROUP_NAMES,
    METHOD_STYLES,
    MethodStyle,
    group_panels,
    show_table,
    use_style,
)
from ginv.pages.paper import book_file
from ginv.runs import costs
from ginv.runs.grid import read_grid
from ginv.runs.measured import robustness
from ginv.runs.nu import TARGET, read_sweep

refuse_unknown()  # a parameter by a wrong name
settings = Settings(profile, group, seeds, device, results)
use_style()
Markdown(f"The networks of Table 1 on this page are those of {settings.label}.")

# %% [markdown]
# ## The recipes
#
# Each is a line of `price.yaml`, the table of runs that `make tune` hands to `python -m ginv.runs.grid`. What it
# measures is in `results/price.csv`, on the 2,000 validation images, in all orientations: whatever is chosen on this
# page is chosen by them. The test images come last, and each network that is reported sees them once.

# %%
grid = read_grid(book_file("price.yaml"))
sweep = pd.read_csv(book_file("results/price.csv"))
keys = ["group", "recipe", "nu", "seed"]
points = sweep.pivot(index=keys, columns="metric", values="value").reset_index()
points = points[points.group.isin(settings.groups)]

# %% {"tags": ["hide-input"]}
CHANGES = {
    "whole orbit": (
        "noise of the pair",
        "the penalty takes all pairs of the orbit: the squared distance of each view's logits from their mean",
    ),
    "cosine decay": ("optimisation", "the learning rate falls to 0 along a cosine"),
    "600 epochs": ("optimisation", "twice as long"),
    "batches of 128": ("optimisation", "four times as many steps"),
    "weight decay": ("optimisation", "each step shrinks the weights, at a rate of 1"),
    "all views": ("signal", "the task loss takes both views, not the first"),
    "first layer of 512": ("capacity", "as many features as a weight-tied network of R4 computes"),
    "He's weights": (
        "start",
        "initial weights 2.4 times as large as PyTorch's, as He et al. advise for ReLUs",
    ),
    "symmetric start": (
        "start",
        "initial weights that make an invariant network, none of them tied; explained below",
    ),
}
counts = points.recipe.value_counts()
lines = [
    f"- *IR*: the paper's: one random pair of views of each image, 300 epochs at a constant rate ({counts['IR']} networks)"
]
lines += [f"- *{name}*: {what} ({counts[name]} networks)" for name, (_, what) in CHANGES.items()]
Markdown("\n".join(lines))

# %% [markdown]
# So many networks are affordable since the matrix products of all but Table 1's are in bfloat16 ([What it
# costs](performance.ipynb)). The single changes have one seed each. Where a recipe does not keep its last weights,
# those of the best epoch are kept, chosen on these same images, so accuracies are a little high; those of DA, too.
#
# ## The fronts
#
# A larger $\nu$ buys SI with accuracy, up to a point. A better recipe is one whose front lies further up and to the right.
# What counts is the height at which it crosses SI = 0.95, the paper's own target.


# %%
def front(name, recipe, seeds=None):
    """Means over the seeds of a recipe, or over some of them, in the order of nu."""
    rows = points[(points.group == name) & (points.recipe == recipe)]
    rows = rows if seeds is None else rows[rows.seed.isin(seeds)]
    return rows.drop(columns=["group", "recipe"]).groupby("nu").mean()


# %% {"tags": ["hide-input"]}
CHANGED = MethodStyle("#222222", "D", "-")
BEST = MethodStyle("#CC79A7", "*", "-")
COMBINED = "combined"


def draw_front(axis, name, recipe, style):
    curve, text = front(name, recipe), {"IR": "the paper's recipe"}
    axis.plot(
        curve.SI,
        curve.accuracy,
        style.line,
        marker=style.marker,
        color=style.colour,
        label=text.get(recipe, recipe),
    )


def draw_limits(axis, name, recipe="DA", line="--"):
    accuracy = front(name, recipe).accuracy.item()
    colour = METHOD_STYLES["DA"].colour
    axis.axhline(accuracy, color=colour, ls=line, lw=1, label=recipe)
    axis.axvline(TARGET, color="0.5", ls=":", lw=1)


def draw_fronts(name):
    figure, axes = plt.subplots(3, 3, figsize=(8, 6.6), sharex=True, sharey=True)
    for axis, recipe in zip(axes.flat, CHANGES):
        draw_front(axis, name, "IR", METHOD_STYLES["IR"])
        draw_front(axis, name, recipe, CHANGED)
        draw_limits(axis, name)
        axis.set_title(recipe, fontsize="medium")
    figure.supxlabel("saliency invariance SI")
    figure.supylabel("accuracy (%)")
    figure.suptitle(GROUP_NAMES[name])


# %% {"mystnb": {"figure": {"caption": "Rotations R4: accuracy against SI on the validation images, a marker per nu. Green triangles: the paper's recipe. Black diamonds: with one change. Dashed: the accuracy of data augmentation. Dotted: SI = 0.95.", "name": "fig-fronts-r4"}, "image": {"alt": "Nine panels, each with the front of the paper's recipe and that of one change of it"}}, "tags": ["hide-input"]}
if "R4" in settings.groups:
    draw_fronts("R4")

# %% {"mystnb": {"figure": {"caption": "The same for translations T3.", "name": "fig-fronts-t3"}, "image": {"alt": "Nine panels, each with the front of the paper's recipe and that of one change of it"}}, "tags": ["hide-input"]}
if "T3" in settings.groups:
    draw_fronts("T3")

# %% [markdown]
# ## What single changes win back
#
# The price of a recipe is what it loses to data augmentation where its front crosses SI = 0.95, read off between
# two neighbouring values of $\nu$.


# %%
def accuracy_at_target(curve):
    """Where the front first crosses the target, between two nu; none where it does not reach it."""
    if not (curve.SI >= TARGET).any():
        return np.nan
    i = (curve.SI >= TARGET).to_numpy().argmax()
    around = curve.iloc[max(i - 1, 0) : i + 1]
    return np.interp(TARGET, around.SI, around.accuracy)


# %%
def price_of(name, recipe, seeds=None):
    reached = accuracy_at_target(front(name, recipe, seeds))
    return front(name, "DA").accuracy.item() - reached


regularised = [r for r, runs in grid.recipes.items() if runs[0].method == "IR"]
price = pd.DataFrame(
    {name: {recipe: price_of(name, recipe) for recipe in regularised} for name in settings.groups}
)


# %% {"tags": ["hide-input"]}
HE = "DA, He's weights"
nu_sweep = read_sweep().query("regulariser == 'logit' and seed == 0")
several = points.groupby(["group", "recipe", "nu"]).accuracy.agg(["std", "count"])
of_seeds = several["std"][several["count"] > 2].groupby("group").median()


def how_sure(name):
    float32 = nu_sweep[nu_sweep.group == name].set_index("nu").sort_index()
    price32 = front(name, "DA").accuracy.item() - accuracy_at_target(float32)
    return (
        f"- {GROUP_NAMES[name]}: the paper's recipe pays {price.loc['IR', name]:.1f} points in bfloat16 and {price32:.1f} in float32 (the sweep of Table 1, the same seed). "
        f"At one ν, the standard deviation over seeds is {of_seeds[name]:.1f} points, at the median of the recipes with more than two; that of a difference of two networks is {2**0.5 * of_seeds[name]:.1f}."
    )


Markdown(
    "\n".join(how_sure(name) for name in settings.groups)
    + "\n\nA smaller gain may be none; and a price has the scatter of SI in it, too."
)

# %% {"tags": ["hide-input"]}
table = price.loc[["IR", *CHANGES]]
table = table.join((price.loc["IR"] - table).add_suffix(", won"))
kinds = {name: kind for name, (kind, _) in CHANGES.items()}
table.insert(0, "what it is about", [kinds.get(r, "") for r in table.index])
show_table(
    table.rename_axis("recipe"),
    "Points of accuracy that SI = 0.95 costs, and how many of them a single change wins back; – where no ν that was tried reached it",
    1,
)


# %% {"tags": ["hide-input"]}
def in_words(points):
    if np.isnan(points):
        return "an unknown number of points, since no ν that was tried reached it"
    return f"{points:.1f} points"


def attributed(name):
    won = price.loc["IR", name] - price.loc[list(kinds), name]
    best = won.groupby(kinds).max().sort_values(ascending=False)
    parts = ", ".join(
        f"{kind} {'not read off' if np.isnan(points) else format(points, '+.1f')}"
        for kind, points in best.items()
    )
    da = front(name, "DA").accuracy.item()
    tied, small = (front(name, r).accuracy.item() - da for r in ("WT", "WT, as many features"))
    return (
        f"- {GROUP_NAMES[name]}: the paper's recipe pays {in_words(price.loc['IR', name])}, and with the best single change {price.loc[list(kinds), name].min():.1f}. The best of each "
        f"kind wins: {parts}. A weight-tied network, invariant by its weights, has {tied:+.1f} points to DA, and one that computes no more "
        f"features in its first layer than ours, in all orientations together, {small:+.1f}."
    )


Markdown("\n".join(attributed(name) for name in settings.groups))

# %% [markdown]
# Gains of single changes do not add up. Three recipes take several of those that a random start can use:

# %% {"tags": ["hide-input"]}
RANDOM = {
    "whole orbit, 600 epochs": "whole orbit, 600 epochs, four seeds",
    "four at once": "whole orbit, all views, cosine decay, a first layer of 512",
    "combined, random start, PyTorch's weights": "whole orbit, all views, cosine decay over 100 epochs",
}
show_table(
    price.loc[list(RANDOM)].rename(index=RANDOM).rename_axis("recipe"),
    "Points of accuracy that SI = 0.95 costs; – where no ν that was tried reached it",
    1,
)

# %% [markdown]
# ## Where a training begins
#
# All of these begin at random weights. A penalty on the logits does not say how they should become equal, and the
# nearest way is to weaken whatever tells orientations apart ([Spectral decay](spectral_decay.ipynb)): the network goes
# blind to the group. Yet there are invariant networks of this very shape that are not blind. Let the units of a layer
# come as orbits, each filter in all orientations. Let the weight between two units depend on their filters and on how
# far the one is turned against the other, and let the output weigh all members of an orbit alike. Moving the image then
# permutes the units, layer by layer, and the output stays.
#
# `ginv.symmetrise` turns random weights into such a network: each weight becomes its mean over the group, which
# acts on both ends of its layer, rescaled to the size that it had. (128 is no multiple of 3: under T3 two units are left
# over, and become invariant themselves.) It is the *start* that is symmetric. Nothing is tied: the network is the plain
# perceptron with as many parameters, and nothing but the loss can keep the weights of an orbit equal.

# %%
some = ginv.load_dataset().validation.head(200)


def orbit_error(model, name):
    """Relative LI of the logits, and of the first layer's units."""
    acting = ginv.group_named(name)
    both = (ginv.orbit_logits(part, some.images, acting) for part in (model, model.features))
    return [ginv.relative_logit_invariance(x).mean().item() for x in both]


# %% {"tags": ["hide-input"]}
def before_training(name, start):
    run = ginv.Run(name, "IR", nu=1.0, symmetric_start=start == "symmetric")
    model = run.model(torch.Generator().manual_seed(0))
    logits, units = orbit_error(model, name)
    return f"- {GROUP_NAMES[name]}, {start} start: {logits:.1g} of the logits, {units:.2g} of the first layer's units."


Markdown(
    "Before training, the variance over the orbit as a share of the size:\n\n"
    + "\n".join(
        before_training(name, start)
        for name in settings.groups
        for start in ("random", "symmetric")
    )
)

# %% [markdown]
# From a symmetric start the logits do not move and the features do: invariance without blindness.
#
# **Why it stays.** Let $g$ act on the weights $\theta$ by turning filters and exchanging units, so that
# $f_{g\theta}(gx) = f_\theta(x)$. Symmetric weights are those with $g\theta = \theta$, and then $f_\theta(gx) =
# f_\theta(x)$. A loss that takes whole orbits, in the task and in the penalty, does not see the difference: $L(g\theta)
# = L(\theta)$. Its gradient then turns with the weights, $\nabla L(g\theta) = g \nabla L(\theta)$, for $g$ only
# permutes them; and Adam, which treats every weight by itself and whose moments begin at 0, does so too. So where
# $g\theta = \theta$ for all $g$, no step leads away. Nordenfors et al. {cite}`nordenfors2023` prove this for the
# gradient flow of augmented networks, begin their networks in this way, and show that equivariant stationary points may
# be unstable under augmentation. Rounding, then, may push a network off, and single views push harder. To push it back
# is all that is left to the penalty: on the path it is 0, and so is its gradient. Nordenfors and Flinth
# {cite}`nordenfors2025` penalise the asymmetry of the weights for that; here the logits have to do.
#
# ## All that helped
#
# The combined recipe: a symmetric start with He's weights, whole orbits in both losses, a cosine decay over 100 epochs,
# and the last weights. The other lines leave out one of its parts, or two; all with the first seed.

# %% {"tags": ["hide-input"]}
WITHOUT = {
    "combined": "combined",
    "combined, random start": "random start",
    "combined, PyTorch's weights": "PyTorch's smaller weights",
    "combined, random start, PyTorch's weights": "random start, PyTorch's weights",
    "combined, one view": "one view in the task loss",
    "combined, constant rate": "constant rate, best epoch",
}


def ablated(name, recipe):
    curve = front(name, recipe, seeds=[0])
    lost = price_of(name, recipe, seeds=[0])
    reached = curve.SI.max() >= TARGET
    return {
        "accuracy": accuracy_at_target(curve),
        "at SI": max(TARGET, curve.SI.iloc[0]) if reached else np.nan,
        "lost to DA": lost,
        "to DA, He": lost + he_s_gain(name, "DA"),
        "most SI": curve.SI.max(),
    }


def he_s_gain(name, method):
    """What larger initial weights are worth without any penalty."""
    he, own = front(name, f"{method}, He's weights"), front(name, method)
    return he.accuracy.item() - own.accuracy.item()


# %% {"tags": ["hide-input"]}
ablations = {
    (name, text): ablated(name, recipe)
    for name in settings.groups
    for recipe, text in WITHOUT.items()
}
show_table(
    pd.DataFrame(ablations).T.rename_axis(["group", "recipe"]),
    "Where SI reaches 0.95, or at the smallest ν where that lies above already; validation images, one seed; – where no ν that was tried reached it",
    2,
)

# %% {"mystnb": {"figure": {"caption": "Means over the seeds on the validation images, a marker per nu. Dashed: data augmentation; dash-dotted: with He's weights. Dotted: SI = 0.95.", "name": "fig-combined"}, "image": {"alt": "Fronts of accuracy against saliency invariance, one panel per group, with horizontal lines for data augmentation"}}, "tags": ["hide-input"]}
for name, axis in group_panels(settings, 3.6).items():
    draw_front(axis, name, "IR", METHOD_STYLES["IR"])
    draw_front(axis, name, "whole orbit, 600 epochs", CHANGED)
    draw_front(axis, name, COMBINED, BEST)
    draw_limits(axis, name)
    draw_limits(axis, name, HE, "-.")
    axis.set(xlabel="saliency invariance SI", ylabel="accuracy (%)")
    axis.set(ylim=(80, 98))
    axis.legend(fontsize="small", loc="lower left")


# %% {"tags": ["hide-input"]}
def initial_weights(name):
    longer = front(name, "DA, 600 epochs").accuracy.item()
    longer -= front(name, "DA").accuracy.item()
    return (
        f"- {GROUP_NAMES[name]}: He's weights are worth {he_s_gain(name, 'DA'):+.1f} points to data augmentation and {he_s_gain(name, 'WT'):+.1f} to weight-tying; "
        f"600 epochs {longer:+.1f} to data augmentation."
    )


Markdown(
    "Larger initial weights help without invariance too, so there are two DA to compare with:\n\n"
    + "\n".join(initial_weights(name) for name in settings.groups)
)


# %% {"tags": ["hide-input"]}
def with_and_without(name):
    random = price.loc[[r for r in regularised if r not in SYMMETRIC], name]
    paper, best = price.loc["IR", name], random.min()
    symmetric = price.loc[COMBINED, name]
    return (
        f"- {GROUP_NAMES[name]}: the paper's recipe pays {paper:.1f} points, the best from a random start ({random.idxmin()}) {best:.1f}, and the combined one "
        f"{symmetric:.1f}, or {symmetric + he_s_gain(name, 'DA'):.1f} to DA from He's weights. So {paper - best:.1f} of the points can be won without a symmetric start, and "
        f"{'another ' + format(best - symmetric, '.1f') + ' with it' if best - symmetric > 0.05 else 'no more with it'}."
    )


SYMMETRIC = [r for r in regularised if grid.recipes[r][0].symmetric_start]
Markdown("\n".join(with_and_without(name) for name in settings.groups))

# %% [markdown]
# Does rounding matter, on a path that it may push a network off? The same seed with its products in float32:

# %% {"tags": ["hide-input"]}
rounding = pd.concat(
    {
        (name, precision): front(name, recipe, seeds=[0])
        for name in settings.groups
        for precision, recipe in (("bfloat16", COMBINED), ("float32", "combined, float32"))
    },
    names=["group", "products", "nu"],
)
rounding = rounding[["accuracy", "SI", "relative_LI"]].unstack("products")
show_table(rounding.dropna(), "The combined recipe in two precisions, one seed", 5)


# %% {"tags": ["hide-input"]}
def off_the_path(name):
    curve = front(name, COMBINED)
    least, most = curve.iloc[0], curve.iloc[-1]
    return (
        f"- {GROUP_NAMES[name]}: {least.accuracy:.1f} % at SI {least.SI:.2f} and a relative LI of {least.relative_LI:.0e} for ν = {curve.index[0]:g}, "
        f"{most.accuracy:.1f} % at SI {most.SI:.2f} and {most.relative_LI:.0e} for ν = {curve.index[-1]:g}."
    )


Markdown(
    "On the path, ν would make no difference. So what it does make, over the four seeds, is the work of rounding:\n\n"
    + "\n".join(off_the_path(name) for name in settings.groups)
)

# %% [markdown]
# ## Is the loss of sensitivity a law?
#
# The paper sees that regularised networks react less to any change of the image, by the largest singular value
# $\sigma_{\max}$ of their Jacobian. [Spectral decay](spectral_decay.ipynb) found that much of it is the size of the
# logits. If it were a law of invariance, all networks of one SI would have lost about the same, whatever trained them.
# In the middle, $\sigma_{\max}$ over the logit scale. Right, what becomes of invariance off the data: DI of blends, 0.3
# of them garments ([Drift: when the data leave](drift.ipynb)).

# %% {"mystnb": {"figure": {"caption": "Sensitivity and DI under drift against SI, a marker per recipe and nu, relative to DA of Table 1. Green triangles: the paper's recipe; black diamonds: from a random start, with changes; pink stars: from a symmetric start.", "name": "fig-sensitivity"}, "image": {"alt": "Scatter plots against saliency invariance, three columns, one row per group"}}, "tags": ["hide-input"]}
PANELS = {
    "sigma_max": "σ_max",
    "sigma_max_over_scale": "σ_max over scale",
    "DI_under_drift": "DI under drift",
}
figure, axes = plt.subplots(
    len(settings.groups), 3, figsize=(9, 2.8 * len(settings.groups)), squeeze=False, sharex=True
)
for row, name in zip(axes, settings.groups):
    da = front(name, "DA").iloc[0]
    for axis, (metric, text) in zip(row, PANELS.items()):
        for recipe in regularised:
            curve = front(name, recipe)
            look = BEST if recipe in SYMMETRIC else CHANGED
            look = METHOD_STYLES["IR"] if recipe == "IR" else look
            axis.plot(
                curve.SI,
                curve[metric] / da[metric],
                look.marker,
                color=look.colour,
                ms=5,
                alpha=0.8,
            )
        axis.axhline(1, color=METHOD_STYLES["DA"].colour, ls="--", lw=1)
        title = f"{GROUP_NAMES[name]}, {text}"
        axis.set(yscale="log", title=title, xlabel="SI")
    row[0].set_ylabel("over that of DA")


# %% {"tags": ["hide-input"]}
MEASURES = [
    "accuracy",
    "SI",
    "LI",
    "relative_LI",
    "sigma_max",
    "sigma_max_over_scale",
    "DI_under_drift",
]


def near_target(name):
    """Of each recipe the first nu that reaches the target."""
    rows = {"DA": front(name, "DA").iloc[0], HE: front(name, HE).iloc[0]}
    for recipe in regularised:
        curve = front(name, recipe)
        if (curve.SI >= TARGET).any():
            rows[recipe] = curve[curve.SI >= TARGET].iloc[0]
    return pd.DataFrame(rows).T[MEASURES]


at_target = pd.concat(
    {name: near_target(name) for name in settings.groups}, names=["group", "recipe"]
)
show_table(
    at_target,
    "The first ν of each recipe that reaches SI = 0.95, and data augmentation; 2,000 validation images",
)


# %% {"tags": ["hide-input"]}
def sensitivities(name):
    rows = at_target.loc[name].drop(index=["DA", HE])
    rows = rows / at_target.loc[name, "DA"]
    size, scaled = rows.sigma_max, rows.sigma_max_over_scale
    below = (scaled < 1).sum()
    return (
        f"- {GROUP_NAMES[name]}: where SI first reaches 0.95, σ_max is {size.min():.2f} ({size.idxmin()}) to {size.max():.2f} ({size.idxmax()}) times that of DA, with the paper's recipe {size['IR']:.2f} and with the combined one {size[COMBINED]:.2f}. "
        f"Over the logit scale it is {scaled.min():.2f} ({scaled.idxmin()}) to {scaled.max():.2f} ({scaled.idxmax()}), below that of DA for {below} of {len(scaled)} recipes. DI under drift "
        f"is at most {rows.DI_under_drift.max():.3f} of DA's ({rows.DI_under_drift.idxmax()})."
    )


kept = all(
    at_target.sigma_max[name, COMBINED] > 0.75 * at_target.sigma_max[name, "DA"]
    for name in settings.groups
)
Markdown(
    "\n".join(sensitivities(name) for name in settings.groups)
    + "\n\nThe combined recipe "
    + ("keeps" if kept else "does not keep")
    + " three quarters of DA's sensitivity or more in each group, at an SI above 0.95: the decay that the paper found is "
    + (
        "a by-product of a way to invariance, and not its law."
        if kept
        else "not refuted here as its law."
    )
)

# %% [markdown]
# ## On the test images
#
# The $\nu$ of the combined recipe is the smallest of the sweep whose mean SI over the four seeds reaches 0.95 on the
# validation images, the rule of the paper; where none does, that of the largest SI.

# %%
chosen = {}
for name in settings.groups:
    SI = front(name, COMBINED).SI
    chosen[name] = float(min(SI.index[SI >= TARGET], default=SI.idxmax()))
Markdown(
    "\n".join(
        f"- {GROUP_NAMES[name]}: ν = {nu:g}, at a validation SI of {front(name, COMBINED).SI[nu]:.3f}"
        for name, nu in chosen.items()
    )
)


# %%
def of_recipe(recipe):
    """Its runs at this profile, with the chosen nu: one for each group and seed."""
    first = {run.group: run for run in reversed(grid.recipes[recipe])}
    quick = settings.runs()[0].epochs if profile != "paper" else None
    return [
        replace(
            first[name],
            seed=seed,
            nu=chosen[name] if first[name].nu else 0.0,
            epochs=quick or first[name].epochs,
        )
        for name in settings.groups
        for seed in settings.seeds
    ]


# %% [markdown]
# What follows is trained here, or found in the store, and sees the test images once for each row.

# %%
reported = {
    method: [run for run in settings.runs() if run.method == method]
    for method in ("WT", "DA", "IR")
}
reported |= {name: of_recipe(name) for name in ("DA, He's weights", COMBINED)}
trained = ginv.train([run for runs in reported.values() for run in runs], device=device)


# %%
def off_data(run):
    return robustness(trained[run], "test", settings.test_images // 10, device=device)


rows = {
    (run.group, recipe, run.nu, run.seed): off_data(run)
    | settings.measure(trained[run]).summary.to_dict()
    for recipe, runs in reported.items()
    for run in runs
}

# %%
final = pd.DataFrame(rows).T.rename_axis(keys).sort_index()
final["sigma_max_over_scale"] = final.sigma_max / final.logit_norm
long = final.stack().rename_axis([*keys, "metric"]).rename("value")
settings.save(long.reset_index(), results, "price_test")
means = final[MEASURES].groupby(["group", "recipe"]).mean()
show_table(
    means,
    f"Means over {len(settings.seeds)} seeds, {settings.test_images:,} test images; DI under drift of the first tenth, σ_max of the first 500",
)


# %% {"tags": ["hide-input"]}
def verdict(name):
    best, accuracy = means.loc[name, COMBINED], means.loc[name].accuracy
    gain = best.accuracy - accuracy
    each = final.accuracy[name, COMBINED]
    met = {other: best.SI >= TARGET and gain[other] >= -1 for other in ("DA", HE)}
    reached = {other: "reached" if met[other] else "not reached" for other in met}
    return (
        f"- {GROUP_NAMES[name]}: the combined recipe has {best.accuracy:.1f} % ({each.min():.1f} to {each.max():.1f} over the seeds) at SI {best.SI:.3f}: {gain['DA']:+.1f} points to DA, "
        f"{gain[HE]:+.1f} to DA from He's weights, {gain['WT']:+.1f} to weight-tying and {gain['IR']:+.1f} to the paper's recipe. "
        f"The goal, at most 1 point less than DA at SI 0.95, is **{reached['DA']}**; against DA from He's weights it is **{reached[HE]}**."
    )


Markdown("\n".join(verdict(name) for name in settings.groups))

# %% [markdown]
# Without a penalty, there is the ensemble of the networks of DA, from [Drift: when the data leave](drift.ipynb):


# %% {"tags": ["hide-input"]}
def ensembles():
    drift = settings.load(results, "drift").query("beta == 0")
    drift = drift.groupby(["method", "group", "metric"]).value.mean().unstack()
    accuracy, SI = drift.accuracy, drift.SI
    return [
        f"- {GROUP_NAMES[name]}: {accuracy[method, name]:.1f} % at SI {SI[method, name]:.2f}, where its members have {accuracy['DA', name]:.1f} % at {SI['DA', name]:.2f}."
        for method, name in drift.index
        if method == "DA ensemble" and name in settings.groups
    ] or ["- With one seed there is none."]


Markdown("\n".join(ensembles()))

# %% [markdown]
# ## Is it weight-tying by another name?
#
# In exact arithmetic, yes: the path is that of a perceptron whose weights are tied in this way, which is not the
# paper's WT, since that pools after its first layer. (Such a network was not trained here; it is what the combined
# recipe comes to for large $\nu$.) What is not tied is free to leave, through rounding. And the start takes as much
# prior knowledge as tying: the group, how it moves pixels, and which units form an orbit. What it does not take is
# another architecture, or more work in a forward pass.
#
# How far the networks have gone shows in the share of their weights that is not symmetric, by their norm; for random
# weights that share is $\sqrt{1 - 1/|G|}$. And the first layer says whether a network went blind.


# %%
def asymmetry(model, acting):
    """Norm of what the mean over the group takes from the weights, over their norm."""
    symmetric = copy.deepcopy(model)
    ginv.symmetrise(symmetric, acting)
    lost = total = 0.0
    for w, s in zip(model.parameters(), symmetric.parameters()):
        if w.ndim == 2:
            lost += (w - s / acting.order**0.5).square().sum().item()
            total += w.square().sum().item()
    return (lost / total) ** 0.5


# %% {"tags": ["hide-input"]}
SHARE = "variance over the orbit, first layer"
ends = {}
for recipe in ("DA", "IR", COMBINED):
    for run in reported[recipe]:
        model = trained[run].model
        _, share = orbit_error(model, run.group)
        ends[run.group, recipe, run.seed] = end = {SHARE: share}
        if recipe == COMBINED:
            acting = ginv.group_named(run.group)
            end["weights that are not symmetric"] = asymmetry(model, acting)
ends = pd.DataFrame(ends).T.rename_axis(["group", "recipe", "seed"])
ends = ends.groupby(["group", "recipe"]).mean()
show_table(ends, f"After training, means over {len(settings.seeds)} seeds", 3)

# %% {"tags": ["hide-input"]}
Markdown(
    "\n".join(
        f"- {GROUP_NAMES[name]}: the first layer of IR keeps {ends[SHARE][name, 'IR'] / ends[SHARE][name, 'DA']:.0%} of the variance over the orbit that DA's has, that of the combined recipe {ends[SHARE][name, COMBINED] / ends[SHARE][name, 'DA']:.0%}."
        for name in settings.groups
    )
)

# %% [markdown]
# Whether a network can find its orbits by itself is not answered: here they were put there, once, at the start.
#
# ## On a convolutional network
#
# The recipe asks `ginv` for three things: the start, the orbit, and the penalty, which over the whole orbit is LI
# itself (Equation 2). [Your own model](your_model.ipynb) has it on a residual network in colour, beside the other ways
# to invariance.


# %%
rotations = ginv.Rotations(4)


def recipe_loss(model, acting, x, y, nu):
    orbit = acting.orbit(x)
    logits = model(orbit.flatten(0, 1)).unflatten(0, orbit.shape[:2])
    task = F.cross_entropy(logits.flatten(0, 1), y.repeat(len(orbit)))
    return task + nu * ginv.logit_invariance(logits).mean()


# %% [markdown]
# Here is a small network of three convolutions with He's weights, on the garments of Fashion-MNIST {cite}`xiao2017`, in
# the rotations R4. Two of its kernels are 4 wide and not 3: at a stride of 2 only kernels of even width cover an even
# number of pixels symmetrically, which the start needs to be invariant.


# %%
def convolutional(symmetric=False):
    model = small_convnet(torch.Generator().manual_seed(0))
    if symmetric:
        ginv.symmetrise(model, rotations)
    return model


# %% [markdown]
# Beside it, the same network with data augmentation, which is the same loss without the penalty, and weight-tied: its
# features, taken of all orientations, and their maximum. To that one all orientations are the same, and one is enough.


# %%
class Tied(nn.Module):
    def __init__(self, features, output):
        super().__init__()
        self.features, self.output = features, output

    def forward(self, x):
        features = [self.features(turned) for turned in rotations.orbit(x)]
        return self.output(torch.stack(features).amax(0))


# %%
garments = ginv.load_dataset("FashionMNIST")


def fit(model, acting=rotations, nu=0.0, steps=600 if profile == "paper" else 30):
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        batch = torch.randint(len(garments.train), (128,), generator=generator)
        x, y = garments.train.images[batch], garments.train.labels[batch]
        optimiser.zero_grad()
        recipe_loss(model, acting, x, y, nu).backward()
        optimiser.step()
        schedule.step()
    return model


# %%
fitted = {("DA", 0.0): fit(convolutional())}
fitted["WT", 0.0] = fit(Tied(*convolutional()), ginv.Rotations(1))
for start in ("random start", "symmetric start"):
    for nu in (0.1, 1.0):
        model = convolutional(symmetric=start == "symmetric start")
        fitted[start, nu] = fit(model, nu=nu)

# %%
seen = garments.validation.head(400 if profile == "paper" else 20)
larger = pd.DataFrame(
    {
        key: ginv.measure(model, seen.images, seen.labels, rotations, progress=False).summary
        for key, model in fitted.items()
    }
).T.rename_axis(["network", "nu"])
show_table(
    larger[["accuracy", "SI", "LI", "relative_LI", "flip_rate"]],
    f"A convolutional network on garments, one seed, {len(seen)} validation images",
)

# %% [markdown]
# The losses take all orientations of an image, so a step does about as many times the work of a step of data
# augmentation as the group has elements; but the combined recipe of the perceptron takes 100 epochs, where the paper's
# networks take 300.


# %% {"tags": ["hide-input"]}
def relative_cost(run):
    """Operations, over those of a DA run of the paper: of a step, and of the whole training."""
    da = ginv.Run(run.group)
    whole = costs.training_operations(run) / costs.training_operations(da)
    return whole * da.epochs / run.epochs, whole


cost = {
    name: relative_cost(next(run for run in grid.recipes[COMBINED] if run.group == name))
    for name in settings.groups
}
Markdown(
    "\n".join(
        f"- {GROUP_NAMES[name]}: {step:.1f} times the operations of DA a step, {whole:.1f} times over the whole training."
        for name, (step, whole) in cost.items()
    )
)

# %% [markdown]
# ## What you saw


# %% {"tags": ["hide-input"]}
def summed_up(name):
    random = price.loc[[r for r in regularised if r not in SYMMETRIC], name]
    best, paper, accuracy = (means.loc[name, COMBINED], means.loc[name, "IR"], means.accuracy[name])
    sensitivity = means.sigma_max[name] / means.sigma_max[name, "DA"]
    return (
        f"- {GROUP_NAMES[name]}: SI 0.95 costs {in_words(price.loc['IR', name])} with the paper's recipe, {random.min():.1f} with the best from a random start ({random.idxmin()}) "
        f"and {price.loc[COMBINED, name]:.1f} with the combined one, on the validation images. "
        f"On the test images the combined recipe has {best.accuracy - accuracy['DA']:+.1f} points to DA and {best.accuracy - accuracy[HE]:+.1f} to DA from He's weights, at SI {best.SI:.3f}; "
        f"the paper's {paper.accuracy - accuracy['DA']:+.1f}. It keeps {sensitivity[COMBINED]:.0%} of DA's sensitivity, the paper's {sensitivity['IR']:.0%}."
    )


def of_network(name):
    rows = larger.loc[name]
    row = rows.loc[rows.SI.idxmax()]
    return f"{row.accuracy:.1f} % at SI {row.SI:.2f}"


Markdown(
    "\n".join(summed_up(name) for name in settings.groups)
    + f"\n- The convolutional network has {of_network('DA')} with DA, {of_network('WT')} weight-tied and, at the ν of the larger SI, {of_network('random start')} "
    f"from a random start and {of_network('symmetric start')} from a symmetric one."
)
