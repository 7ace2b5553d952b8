# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: all,-jupyter
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
# # The price of invariance
#
# The paper's regularised networks look at the same pixels in every orientation, and pay for it with several points of
# accuracy and most of their sensitivity. It leaves the question open whether that is the price of invariance or of this
# way to it. So what does invariance cost a plain network: from a random start, from a symmetric one, by averaging; and by
# tying?
#
# In short, on this perceptron less than a point. A decay towards symmetric weights reaches SI 0.99 and loses between -0.2 and
# 0.3 points, where the paper's penalty loses 8.1 on R4 and 3.0 on T3. Averaging and weight-tying gain accuracy, at two to
# four times the work in use.
#
# As in [Table 1: three ways to invariance](table1.ipynb), R4 are the rotations by quarter turns and T3 the cyclic
# translations; DA is data augmentation, WT weight-tying, IR the paper's invariance regularisation of weight $\nu$. SI is 1
# where saliency maps follow the image ([How invariance is measured](metrics.ipynb)); here it is mostly that over
# *distinct* pairs of orientations, which no map can raise by agreeing with itself.

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

# %% {"tags": ["hide-input", "parameters"]}
# "paper" is the full experiment, "sample" the same on fewer test images, "quick" a look in minutes
profile = "paper"  # @param ["paper", "sample", "quick"]
group = "both"  # @param ["both", "R4", "T3"]
# a list such as [0, 1]; None takes those of the profile
seeds = None  # @param {type: "raw"}
device = "auto"  # @param ["auto", "cpu", "cuda"]
# folder for the numbers of this page; name another before you change anything
results = "results"  # @param {type: "string"}

# %% {"tags": ["hide-input"]}
import copy
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from IPython.display import display
from scipy.optimize import linear_sum_assignment

import ginv
from ginv.networks import small_convnet
from ginv.pages import Settings, drawings, expect, refuse_unknown
from ginv.pages.figures import GROUP_NAMES, show_table, use_style
from ginv.pages.paper import book_file
from ginv.pages.prices import accuracy_at_target, lost_elsewhere, points_lost, price_table
from ginv.recipe import GROUPS, gradient_variance
from ginv.runs.grid import read_grid
from ginv.runs.nu import TARGET

refuse_unknown()  # a parameter by a wrong name
settings = Settings(profile, group, seeds, device, results)
use_style()

# %% {"tags": ["hide-input"]}
grid = read_grid(book_file("controls.yaml"))
table = pd.read_csv(book_file("results/controls.csv"))
table = table[table.group.isin(settings.groups)]
quick = settings.runs()[0].epochs if profile == "quick" else None
BASE, AVERAGED = "DA, same budget", "DA, same budget, averaged"
# Where a network begins, if not at random weights
STARTS = {"combined": "symmetric", "symmetric start alone": "symmetric"}
STARTS |= {"WT": "tied", "tied hidden layers": "tied"}

# %% {"tags": ["hide-input"]}
test = ginv.load_dataset().test.head(grid.images)  # those of the table
augmented = [run for run in grid.recipes[BASE] if run.group in settings.groups]
if quick:
    augmented = [replace(run, epochs=quick) for run in augmented if run.seed == 0]
trained = ginv.train(augmented, device=device)
averaged = []
for run in augmented if not quick else []:
    acting = ginv.group_named(run.group)
    whole, few = ginv.Averaged(trained[run].model.cpu(), acting), test.head(100)
    right = ginv.accuracy(ginv.orbit_logits(whole, test.images, acting), test.labels)
    maps = ginv.orbit_maps(whole, few.images, few.labels, acting)
    si = ginv.saliency_invariance(maps, distinct=True)
    for metric, value in {"accuracy": right, "SI_distinct": si}.items():
        averaged.append([run.group, AVERAGED, run.seed, metric, value.mean().item()])
averaged = pd.DataFrame(averaged, columns=["group", "recipe", "seed", "metric", "value"])
networks = pd.concat([table, averaged.astype({"seed": int, "value": float})])
networks = networks.pivot_table("value", ["group", "recipe", "seed"], "metric")


# %% {"tags": ["hide-input"]}
def of(name, recipe):
    """A row a seed."""
    return networks.loc[name, recipe]


# %% {"mystnb": {"figure": {"name": "fig-ways"}, "image": {"alt": "Two scatter plots, accuracy against saliency invariance. Data augmentation is high on the left; the paper's regularisation low on the right; symmetry decay, a symmetric start and tying are high on the right"}}, "tags": ["hide-input"]}
drawings.draw_ways(settings, networks, STARTS, BASE)

# %% [markdown]
# *Invariance can cost less than a point. Accuracy over the orbit against SI over distinct pairs, on test images, a marker per
# network, four seeds. Filled: from a random start; open: from a symmetric or a tied one. Dashed: data augmentation with
# the same budget. Dotted: SI 0.95.*
#
# Every network of this picture is the plain perceptron of the paper but for WT, and each was looked at once, in all
# orientations of the same test images.
#
# - *IR* is the paper's recipe, a penalty on the logits of a random pair of orientations.
# - *Gradients*: the penalty sees the logits of the whole orbit and, above all, the gradients by the pixels.
# - *Symmetry decay*: no penalty; what is not symmetric in the weights decays.
# - *Combined*: weights that begin symmetric, tied to nothing, and a small penalty on the logits of the whole orbit.
#
# The price of a way is what it loses to data augmentation *with the same budget*, which the last three share: He's initial
# weights, whole orbits in the loss, a cosine decay over 100 epochs. *One view* spends about as much in another way, on 300
# epochs in which each image comes in one orientation; the decay of one view is compared with data augmentation of one view,
# which lies above the dashed line.


# %% {"tags": ["hide-input"]}
def lost(name, recipe):
    """Points of accuracy, with Welch's interval over the seeds."""
    to = "DA, one view" if recipe.endswith("decay, one view") else BASE
    return points_lost(of(name, to).accuracy, of(name, recipe).accuracy)


# %% {"tags": ["hide-input"]}
def run_of(name, recipe):
    return next(run for run in grid.recipes[recipe] if run.group == name)


def rows_of(name, recipes):
    """What each way loses, its SI and what it costs."""
    runs = {each: run_of(name, each.removesuffix(", averaged")) for each in recipes}
    compared = [each for each in recipes if each not in ("DA", BASE, "DA, one view")]
    prices = {each: lost(name, each) for each in compared}
    return price_table(networks.loc[name], runs, prices, STARTS)


# %% {"tags": ["hide-input"]}
caption = "points lost, with 95 % intervals over the seeds; operations over the paper's DA's"
shown = [*drawings.WAYS] + [AVERAGED] * (not quick)
for name in settings.groups:
    display(show_table(rows_of(name, shown), f"{GROUP_NAMES[name]}: {caption}"))

# %%
# expect() is silent where the words hold in this run, and shows a banner where not
ways = ["IR", "gradients", "symmetry decay", "symmetry decay, one view"]
prices = {r: [lost(g, r)[0] for g in settings.groups] for r in ways}
prices = pd.DataFrame(prices, settings.groups).reindex(["R4", "T3"]).round(1).T.to_numpy()
expect(
    "the paper's recipe loses most, the decay next to nothing",
    (prices == [[8.1, 3.0], [2.5, 0.3], [0.1, -0.2], [0.3, 0.1]]).all(),
)

# %% [markdown]
# The paper's recipe loses 8.1 points on R4 and 3.0 on T3. A penalty on gradients loses 2.5 and 0.3. Letting what is not
# symmetric decay loses 0.1, and gains 0.2 on T3. With one view it loses 0.3 and 0.1 to data augmentation of one view, which is
# the better one. None of the four losses of the decay is significant at 5 %, though the 0.3 is close; the intervals allow up
# to 0.7 points on R4 and 0.3 on T3.
#
# ## Averaging
#
# The baseline that everybody asks for needs no training of its own: take an augmented network and average its logits over
# the orbit.

# %%
run, x = augmented[0], test.images[:100]
model, acting = trained[run].model.cpu(), ginv.group_named(run.group)
by_hand = ginv.orbit_logits(model, x, acting).mean(0)
torch.testing.assert_close(ginv.Averaged(model, acting)(x), by_hand)

# %%
gained = {name: -lost(name, AVERAGED)[0] for name in settings.groups if not quick}
gained = pd.Series(gained, dtype=float).reindex(GROUPS)
expect("averaging gains 1.8 and 0.8 points", (gained - [1.8, 0.8]).abs() < 0.1)

# %% [markdown]
# That is invariant by construction, and gains 1.8 points on R4, more than any other way, and 0.8 on T3, as WT does. It costs a
# forward pass for each orientation, and the network inside is no more invariant than before. What follows asks for
# invariance in a single pass.
#
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


# %%
def before_training(name, start):
    run = ginv.Run(name, "IR", nu=1.0, symmetric_start=start == "symmetric")
    return orbit_error(run.model(torch.Generator().manual_seed(0)), name)


starts = {
    (name, start): before_training(name, start)
    for name in settings.groups
    for start in ("random", "symmetric")
}
starts = pd.DataFrame(starts, ["logits", "first layer"]).T.rename_axis(["group", "start"])
starts.map("{:.1g}".format)  # variance over the orbit, as a share of the size

# %%
symmetric = starts.xs("symmetric", level="start")
expect(
    "logits do not move, features do",
    (symmetric.logits < 1e-10) & (symmetric["first layer"] > 0.01),
)

# %% [markdown]
# From a symmetric start the logits do not move and the features do: invariance without blindness.
#
# **Why it stays.** Let $g$ act on the weights $\theta$ by turning filters and exchanging units, so that
# $f_{g\theta}(gx) = f_\theta(x)$. Symmetric weights are those with $g\theta = \theta$, and then $f_\theta(gx) =
# f_\theta(x)$. A loss that takes whole orbits, in the task and in the penalty, does not see the difference: $L(g\theta)
# = L(\theta)$. Its gradient then turns with the weights, $\nabla L(g\theta) = g \nabla L(\theta)$, for $g$ only
# permutes them; and Adam, which treats every weight by itself and whose moments begin at 0, does so too. So where
# $g\theta = \theta$ for all $g$, no step leads away. Nordenfors et al. ([2023](https://arxiv.org/abs/2303.13458)) prove this for the
# gradient flow of augmented networks, begin their networks in this way, and show that equivariant stationary points may
# be unstable under augmentation. Rounding, then, may push a network off, and single views push harder. To push it back
# is all that is left to the penalty: on the path it is 0, and so is its gradient. Nordenfors and Flinth
# ([2025](https://arxiv.org/abs/2502.06547)) penalise the asymmetry of the weights for that; here the logits have to do.

# %% [markdown]
# ## Decay what is not symmetric
#
# Must a network be told at the start? Weights that are not symmetric can be made so little by little, beside whatever
# else trains them. With $P$ the mean over the group, which `symmetrise` takes, each step of the optimiser is followed by
#
# $$W \leftarrow W - \eta \gamma \, (W - P W),$$
#
# a weight decay that spares what is symmetric. The recipe is told the group, and that hidden layers carry permutations of
# it: which units are to form an orbit, and in which order, is fixed from the start. As random units can be exchanged for one
# another, that costs nothing. What the network learns is the filter that each orbit carries. Here it is in a loop of its
# own, with $\gamma$ rising to 100, on a third of the images and a fifth of the epochs.

# %%
name = settings.groups[0]
acting = ginv.group_named(name)
images = 3_000 if profile != "quick" else 500
some_train = ginv.load_dataset().train.head(images)
orbit = acting.orbit(some_train.images)


# %%
def train_with_decay(model, most=100.0, epochs=20 if profile != "quick" else 2):
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), lr=8e-4)
    seen = {}
    for epoch in range(epochs):
        for batch in torch.randperm(images, generator=generator).split(128):
            logits = model(orbit[:, batch].flatten(0, 1))
            loss = F.cross_entropy(logits, some_train.labels[batch].repeat(acting.order))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            ginv.decay_asymmetry(model, acting, 8e-4 * most * epoch / epochs)
        seen[epoch] = asymmetries(model)
    return pd.DataFrame(seen).T


# %% [markdown]
# How far a layer has come is the share of its weights that is not symmetric, by their norm:


# %%
def asymmetries(model):
    projected = copy.deepcopy(model)
    ginv.decay_asymmetry(projected, acting, 1.0)
    pairs = zip(model.named_parameters(), projected.parameters(), strict=True)
    return {n: ((w - p).norm() / w.norm()).item() for (n, w), p in pairs if w.ndim == 2}


# %%
travelled = {}
for most in (0.0, 100.0):
    model = ginv.MLP(generator=torch.Generator().manual_seed(0), initialisation="he")
    travelled[most] = train_with_decay(model, most)

# %% {"mystnb": {"figure": {"name": "fig-not-symmetric"}, "image": {"alt": "Lines that stay near 0.85 without the decay and fall towards 0 with it, layer by layer"}}, "tags": ["hide-input"]}
drawings.draw_travel(travelled, GROUP_NAMES[name])

# %% [markdown]
# *With the decay every layer becomes symmetric, without it none does. The share of each layer's weights that is not
# symmetric, over training: dashed without the decay, solid with it. Dark: the first layer; light: the last.*

# %%
ends = travelled[100.0].iloc[-1], travelled[0.0].iloc[-1]
expect("all layers end symmetric, or none does", (ends[0] < 0.1) & (ends[1] > 0.5))

# %% [markdown]
# And what has become of the filters? Units that were to form an orbit carry one filter in all orientations now. Nothing was
# tied on the way; they were drawn together.

# %% {"mystnb": {"figure": {"name": "fig-found-orbits"}, "image": {"alt": "Two rows of filters; within a row each is the first one moved by an element of the group"}}, "tags": ["hide-input"]}
filters = model.features[1].weight.detach().unflatten(1, (36, 36))
figure, axes = plt.subplots(2, acting.order, figsize=(1.6 * acting.order, 3.2))
for axis, image in zip(axes.flat, filters[: 2 * acting.order]):
    largest = image.abs().max()
    axis.imshow(image, cmap="PuOr", vmin=-largest, vmax=largest)
    axis.set_axis_off()

# %% [markdown]
# *The first two orbits of the first layer after training with the decay: a row per orbit, a column per element of the
# group.*
#
# The full recipe, `symmetry_decay` of `ginv.Run`, trained here with 10,000 images and 100 epochs, beside data
# augmentation with the same budget:

# %%
runs = {
    recipe: [
        replace(run_of(name, recipe), seed=seed, epochs=quick or 100)
        for name in settings.groups
        for seed in settings.seeds
    ]
    for recipe in (BASE, "symmetry decay")
}
trained |= ginv.train([run for each in runs.values() for run in each], device=device)

# %%
measured_on = settings.test_images // 10
rows = {
    (run.group, recipe, run.seed): settings.measure(trained[run], measured_on).summary
    for recipe, each in runs.items()
    for run in each
}
live = pd.DataFrame(rows).T.rename_axis(["group", "recipe", "seed"])
long = live.stack().rename_axis([*live.index.names, "metric"]).rename("value")
settings.save(long.reset_index(), results, "price_test")
shown = live.groupby(["group", "recipe"])[["accuracy", "SI", "SI_distinct", "relative_LI"]]
show_table(
    shown.mean(), f"Trained here: {settings.label.split(', ')[0]}, {measured_on:,} test images", 3
)

# %% [markdown]
# ## What does the work?
#
# Two more controls, with the budget of the others: a symmetric start that nothing holds, and hidden layers that are tied for
# good, by a projection after each step.

# %% {"tags": ["hide-input"]}
CONTROLS = ["symmetric start alone", "tied hidden layers"]
for name in settings.groups:
    display(show_table(rows_of(name, CONTROLS), f"{GROUP_NAMES[name]}: {caption}"))

# %%
si = networks.SI_distinct.groupby(["group", "recipe"]).mean().unstack().reindex(GROUPS)
expect(
    "a start that nothing holds ends at SI 0.37 and 0.70",
    (si["symmetric start alone"] - [0.37, 0.70]).abs() < 0.006,
)
equal = [abs(lost(g, r)[0]) < 0.2 for g in settings.groups for r in CONTROLS]
expect("neither loses 0.2 points", equal)

# %%
views = networks.accuracy.groupby(["group", "recipe"]).mean().unstack().reindex(GROUPS)
above = views["symmetry decay, one view"] - views[BASE]
expect("one view takes the decay 0.8 and 0.4 above it", (above - [0.76, 0.44]).abs() < 0.05)

# %% [markdown]
# The start alone does not make a network invariant. In exact arithmetic it would stay symmetric, as we have seen; but these
# networks train in bfloat16, whose rounding is the likely reason that it does not: it ends at an SI over distinct pairs of
# 0.37 on R4 and 0.70 on T3. So something has to hold the symmetry, a penalty or a decay.
#
# Tying loses nothing and gains nothing: a network that comes to its orbits by the decay is as accurate as one whose layers
# are tied from the first step. And single views are the better use of the same operations, for the decay as for
# augmentation: it ends 0.8 points above augmentation on whole orbits on R4, and 0.4 on T3.

# %% [markdown]
# ## Whose units come in orbits?
#
# A network whose layers carry permutations answers a turned image with the same activations in other units. So match them:
# for each layer find the pairing of units under which the activations at $gx$ correlate best with those at $x$ (one half
# of 2,000 validation images), and see how well they agree on the other half. If the best partner of a unit is the unit
# itself, the layer does not permute, it is invariant.


# %%
def activations(model, x):
    """Of each hidden layer, after its ReLU."""
    x = model.features(x)
    for layer in model.hidden:
        x = layer(x)
        if isinstance(layer, torch.nn.ReLU):
            yield x


# %%
def correlations(a, b):
    """Between the units of two layers, over images."""
    a, b = ((z - z.mean(0)) / z.std(0).clamp(min=1e-6) for z in (a, b))
    return a.T @ b / len(a)


# %%
@torch.no_grad()
def matched(model, acting, x):
    """A row a layer: units at x with their partners at gx, and with themselves."""
    found, half = [], len(x) // 2
    for a, b in zip(activations(model, x), activations(model, acting.act(1, x))):
        alive = a[:half].std(0) > 1e-4  # some units answer to no image
        fit, test = (
            correlations(a[part][:, alive], b[part][:, alive])
            for part in (slice(half), slice(half, None))
        )
        rows, columns = linear_sum_assignment(fit, maximize=True)
        found.append([test[rows, columns].mean().item(), test.diagonal().mean().item()])
    return pd.DataFrame(found, columns=["partner", "itself"])


# %% {"tags": ["hide-input"]}
seed = settings.seeds[0]
chosen = {(g, m): settings.run(g, m, seed) for g in settings.groups for m in ("DA", "IR")}
decayed = [run for run in runs["symmetry decay"] if run.seed == seed]
chosen |= {(run.group, "symmetry decay"): run for run in decayed}
trained |= ginv.train([*chosen.values()], device=device)
models = {key: trained[run].model.cpu() for key, run in chosen.items()}
for name in settings.groups:
    models[name, "random weights"] = ginv.MLP(generator=torch.Generator().manual_seed(0))

# %% {"tags": ["hide-input"]}
x = ginv.load_dataset().validation.images
partners = {key: matched(model, ginv.group_named(key[0]), x) for key, model in models.items()}
partners = pd.concat(partners, names=["group", "network", "layer"])

# %% {"mystnb": {"figure": {"name": "fig-partners"}, "image": {"alt": "Two panels of lines over five layers: symmetry decay has partners that agree in all layers and units that do not agree with themselves in the first ones; augmentation has neither in the first layer and both in the last"}}, "tags": ["hide-input"]}
drawings.draw_partners(settings, partners.sort_index())

# %% [markdown]
# *Three ways to become invariant. Solid, filled: units of a layer at $x$ with their partners at $gx$; dotted, open: with
# themselves. The decay permutes its units and becomes invariant layer by layer; the penalty is invariant from the first
# layer (R4) or the second (T3) on; augmentation gets there late. Random weights show what matching alone gives. One network
# each.*


# %%
def in_layer(n):
    """A row a network, of both groups."""
    rows = partners.xs(n - 1, level="layer").unstack("group")
    return rows.reindex(columns=pd.MultiIndex.from_product([rows.columns.unique(0), GROUPS]))


# %%
first, last = in_layer(1), in_layer(5)
expect("the decay permutes its first layer", (first.partner > 0.98).loc["symmetry decay"])
near = (first.itself.loc["IR"] - [0.86, 0.68]).abs() < 0.03
expect("under the penalty units agree with themselves by 0.86 and 0.68", near)
found = ((first.partner.loc["DA"] - [0.50, 0.66]).abs() < 0.03) & (last.itself.loc["DA"] > 0.9)
expect("under augmentation with partners by 0.50 and 0.66, and in the end with themselves", found)
expect("IR's second layer is invariant", in_layer(2).itself.loc["IR"] > 0.95)
by_chance = first.partner.loc["random weights"]
expect("matching alone gives random weights 0.28", abs(by_chance["R4"] - 0.28) < 0.03)

# %% [markdown]
# This suggests where the penalty's price comes from. On R4 IR's units answer a turned digit almost as before in the first layer
# already (0.86), on T3 less so (0.68), and on both from the second layer on: what is not seen at the input cannot be used
# above. The first layer of the network with the decay answers a turned digit in other units, and the layers above become
# invariant one by one. Augmentation lies between. On R4 its first layer has a part of an orbit structure, 0.50 where matching
# alone gives random weights 0.28; on T3 its units rather agree with themselves. Its last layer is invariant for most images,
# on which the labels insist.

# %% [markdown]
# ## By outputs alone
#
# The decay acts on weights. Can a loss do it that sees no weight, only what the network computes? The paper's penalty sees
# the logits, and the cheapest way to equal logits is to see less. What SI looks at are maps, so let the loss look at the
# gradients by the pixels: turned back, they must be the same in every orientation. Their variance over the orbit is taken
# as a share of their size, so that nothing is gained by making them small.


# %%
def gradient_loss(model, x, y):
    """The mean over images of the variance of turned-back gradients, over their size."""
    views = acting.orbit(x).requires_grad_()
    logits = model(views.flatten(0, 1)).unflatten(0, views.shape[:2])
    at_label = logits[:, torch.arange(len(y)), y].sum()
    (gradients,) = torch.autograd.grad(at_label, views, create_graph=True)
    return gradient_variance(gradients, acting).mean()


# %%
x, y = some_train.images[:50], some_train.labels[:50]
for most in (0.0, 100.0):
    model = ginv.MLP(generator=torch.Generator().manual_seed(0))
    if most:
        ginv.symmetrise(model, acting)
    print(f"{'symmetric' if most else 'random'} weights: {gradient_loss(model, x, y).item():.2g}")

# %% [markdown]
# It is `gradient_nu` of `ginv.Run`, which leaves out the border in which all images are alike. Each step differentiates a
# derivative, at about twice the work. What it leaves free is the size of the gradients, and we shall see that it grows.
#
# We looked for a loss on the hidden layers, too: that they be equal in all orientations up to the permutation that
# `symmetrise` would have. In short trials the units followed the images well and the maps did not follow them at all. Such a loss sees the
# weights only along directions in which images vary; a saliency map sees all of them.

# %% [markdown]
# ## What the paper's recipe loses, and where
#
# The recipe itself can be improved without leaving it. Each panel has the front of the paper's recipe over $\nu$ and that
# of one change of it, on the 2,000 validation images, one seed; `price.yaml` has them all.

# %% {"tags": ["hide-input"]}
sweep = pd.read_csv(book_file("results/price.csv"))
keys = ["group", "recipe", "nu", "seed"]
points = sweep.pivot(index=keys, columns="metric", values="value").reset_index()


def front(name, recipe):
    rows = points[(points.group == name) & (points.recipe == recipe)]
    return rows.drop(columns=["group", "recipe"]).groupby("nu").mean()


# %% {"tags": ["hide-input"]}
CHANGES = ["whole orbit", "cosine decay", "600 epochs", "batches of 128", "weight decay"]
CHANGES += ["all views", "first layer of 512", "He's weights", "symmetric start"]


def fronts(name):
    drawings.draw_fronts(name, {each: front(name, each) for each in ("DA", "IR", *CHANGES)})


# %% {"mystnb": {"figure": {"name": "fig-fronts-r4"}, "image": {"alt": "Nine panels, each with the front of the paper's recipe and that of one change of it"}}, "tags": ["hide-input"]}
if "R4" in settings.groups:
    fronts("R4")

# %% [markdown]
# *Rotations R4: accuracy against SI on the validation images, a marker per nu. Green triangles: the paper's recipe.
# Black diamonds: with one change. Dashed: the accuracy of data augmentation. Dotted: SI = 0.95.*

# %% {"mystnb": {"figure": {"name": "fig-fronts-t3"}, "image": {"alt": "Nine panels, each with the front of the paper's recipe and that of one change of it"}}, "tags": ["hide-input"]}
if "T3" in settings.groups:
    fronts("T3")

# %% [markdown]
# *The same for translations T3.*


# %%
reached = {
    g: {r: accuracy_at_target(front(g, r)) for r in ("IR", *CHANGES)} for g in settings.groups
}
reached = pd.DataFrame(reached).reindex(columns=GROUPS)
plain, whole = reached.loc["IR"], reached.loc["whole orbit"]
best = pd.Series({g: front(g, "DA").accuracy.item() for g in settings.groups}).reindex(GROUPS)
expect("the whole orbit closes two fifths", ((whole - plain) / (best - plain) - 0.4).abs() < 0.06)
ends = abs(plain["R4"] - 89) < 0.3, abs(whole["R4"] - 91) < 0.3
expect("from about 89 to 91 % on R4", ends)
expect("on T3 twice the epochs do as well", abs(reached.T3["600 epochs"] - whole["T3"]) < 0.3)
expect("a symmetric start does not help there on R4", reached.R4["symmetric start"] < plain["R4"])

# %% [markdown]
# At SI 0.95 the whole orbit helps most on R4, from about 89 to 91 %; on T3 it does as well as twice the epochs. A symmetric
# start helps at a small $\nu$, and on R4 no longer at SI 0.95. The expectation over the group in the paper's penalty can be
# read as all pairs of the orbit just as well as one random pair; on these images, and with one seed, about two fifths of
# what the recipe loses are the noise of the pair.
#
# ## Is the loss of sensitivity part of invariance?
#
# The paper sees that regularised networks react less to any change of the image, by the largest singular value
# $\sigma_{\max}$ of their Jacobian (Section 4.4). [Spectral decay](spectral_decay.ipynb) found that much of it is the
# size of the logits. Is it the price of invariance, or of a penalty on the logits?

# %% {"mystnb": {"figure": {"name": "fig-sensitivity"}, "image": {"alt": "For each recipe a bar around its mean ratio; the paper's recipe lies to the left, symmetry decay and a symmetric start near 1, the penalty on gradients to the right"}}, "tags": ["hide-input"]}
ratios = {
    (name, recipe): of(name, recipe)[["sigma_max", "sigma_max_over_scale"]]
    / of(name, BASE)[["sigma_max", "sigma_max_over_scale"]].mean()
    for name in settings.groups
    for recipe in drawings.WAYS
    if recipe != BASE
}
drawings.draw_sensitivity(settings, ratios)

# %% [markdown]
# *The paper's penalty and that on gradients move the sensitivity, the decay does not. Left, the largest singular value of the
# Jacobian; right, the same over the size of the logits, each over that of data augmentation with the same budget; a bar
# from the least to the most of the seeds.*


# %%
sigma = networks.sigma_max.groupby(["group", "recipe"]).mean().unstack()
sigma = sigma.div(sigma[BASE], axis=0)
kept = sigma[["symmetry decay", "symmetry decay, one view", "combined"]]
expect("the decay and the symmetric start keep 0.8 to 1.2", (kept > 0.8) & (kept < 1.2))
moved = sigma.reindex(GROUPS)[["IR", "gradients"]].to_numpy() / [[0.26, 5.9], [0.09, 14.8]]
expect("IR keeps 0.26 and 0.09, gradients multiply it by 6 and 15", abs(moved - 1) < 0.05)
expect("WT is at 0.6", (sigma.WT - 0.6).abs() < 0.03)
scaled = networks.sigma_max_over_scale.groupby(["group", "recipe"]).mean().unstack()
scaled = (scaled.IR / scaled[BASE]).reindex(GROUPS)
expect(
    "over its logits IR keeps nearly all on R4 and half on T3", (scaled - [0.96, 0.54]).abs() < 0.03
)

# %% [markdown]
# With the decay, as with the symmetric start, a network keeps 0.8 to 1.2 of the sensitivity. One that was penalised for its
# logits keeps 0.26 on R4 and 0.09 on T3, and over the size of its logits nearly all of it on R4 and half on T3. One that was
# penalised for its gradients has 6 and 15 times as much. (WT is at 0.6; it begins at other weights, as the paper's DA does.)
# So the loss of sensitivity that the paper found is not part of invariance; it belongs to its penalty.
#
# ## More than one perceptron
#
# All this is one perceptron and one data set. What if one thing changes? The same recipes, tuned as before, meet fewer images,
# other widths, the garments of Fashion-MNIST ([Xiao et al., 2017](https://arxiv.org/abs/1708.07747)) and two larger groups: D4 adds reflections to the quarter
# turns, T3xV3 shifts in both directions (`fronts.yaml`; two seeds, 2,000 test images). With fewer images they train for as
# many steps, but for the paper's recipe, which keeps its 300 epochs and so takes fewer.

# %% {"mystnb": {"figure": {"name": "fig-elsewhere"}, "image": {"alt": "A line for each setting, a marker for each way: symmetry decay and a symmetric start lie within a point of zero everywhere but under D4, where the decay loses two; the paper's recipe lies far to the right, or is missing"}}, "tags": ["hide-input"]}
fronts_table = pd.read_csv(book_file("results/fronts.csv"))
alike = {"R4": ["R4", "D4"], "T3": ["T3", "T3xV3"]}
elsewhere = {
    GROUP_NAMES[name]: lost_elsewhere(fronts_table, alike[name], BASE) for name in settings.groups
}
drawings.draw_lost(elsewhere)

# %% [markdown]
# *The decay is cheap almost everywhere, the paper's penalty nowhere. Points of accuracy lost to data augmentation with the same
# budget (dashed). The paper's recipe at SI 0.95, between three $\nu$ of one seed; it is missing where none of them reaches that, and was not
# trained at 256 and 512 units.*

# %%
away = pd.concat(elsewhere.values())["symmetry decay"]
si = fronts_table[
    (fronts_table.metric == "SI_distinct") & (fronts_table.recipe == "symmetry decay")
]
expect(
    "the decay loses 0.5 points at most, but under D4",
    away.drop("group D4", errors="ignore") < 0.51,
)
expect("there its SI is above 0.99", si[si.group != "D4"].value > 0.99)

# %%
under_d4 = away.get("group D4", np.nan), si[si.group == "D4"].value.mean()
expect(
    "under D4 it loses 2.4 points and ends at 0.91", np.abs(under_d4 - np.array([2.4, 0.91])) < 0.06
)

# %% [markdown]
# In all of these settings but one the decay loses at most half a point, and with 256 or 512 units or 3,000 images it gains
# some (two seeds cannot tell half a point from none), at an SI over distinct pairs above 0.99. Under D4 it is different: the
# decay loses 2.4 points and ends at 0.91. An orbit takes eight units there, so that a layer of 128 has room for only sixteen
# filters, which may be why; we have not tried wider layers under D4. The symmetric start stays within 0.8 points everywhere,
# but with the $\nu$ of the digits it does not hold its symmetry everywhere: it ends at 0.80 on the garments of R4 and at 0.62
# under D4. And the paper's penalty, where it was trained, costs 2.6 points or more, or does not reach SI 0.95.
#
# ## On a convolutional network
#
# What the recipes ask of `ginv` is the orbit, a start and a decay, and none of these knows of perceptrons. Here is a small
# network of three convolutions, each with BatchNorm, and He's weights, on the garments of Fashion-MNIST ([Xiao et al., 2017](https://arxiv.org/abs/1708.07747)), in the rotations
# R4. (Two of its kernels are 4 wide and not 3: at a stride of 2 only kernels of even width see an image of even width
# from all sides alike.) [Your own model](your_model.ipynb) has a residual network in colour.

# %%
rotations = ginv.Rotations(4)
garments = ginv.load_dataset("FashionMNIST")


def orbit_loss(model, x, y, nu):
    """The task on whole orbits, and nu times LI, which is the penalty of all pairs (Equation 2)."""
    orbit = rotations.orbit(x)
    logits = model(orbit.flatten(0, 1)).unflatten(0, orbit.shape[:2])
    task = F.cross_entropy(logits.flatten(0, 1), y.repeat(len(orbit)))
    return task + nu * ginv.logit_invariance(logits).mean()


# %%
def fit(model, nu=0.0, most=0.0, steps=300 if profile != "quick" else 30):
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        batch = torch.randint(len(garments.train), (128,), generator=generator)
        x, y = garments.train.images[batch], garments.train.labels[batch]
        optimiser.zero_grad()
        orbit_loss(model, x, y, nu).backward()
        optimiser.step()
        share = schedule.get_last_lr()[0] * most * step / steps
        ginv.decay_asymmetry(model, rotations, share)
        schedule.step()
    return model


# %%
def convolutional(symmetric=False):
    model = small_convnet(torch.Generator().manual_seed(0))
    return ginv.symmetrise(model, rotations) if symmetric else model


fitted = {
    "DA": fit(convolutional()),
    **{f"penalty, ν = {nu}": fit(convolutional(), nu=nu) for nu in (1, 10, 100)},
    "symmetry decay": fit(convolutional(), most=100.0),
    "symmetric start, ν = 1": fit(convolutional(symmetric=True), nu=1.0),
}
fitted["DA, averaged"] = ginv.Averaged(fitted["DA"], rotations)

# %%
seen = garments.validation.head(400 if profile != "quick" else 20)


def summary(model):
    options = dict(steps=16, progress=False)
    return ginv.measure(model, seen.images, seen.labels, rotations, **options).summary


larger = pd.DataFrame({key: summary(model) for key, model in fitted.items()})
larger = larger.T.rename_axis("network")
show_table(
    larger[["accuracy", "SI", "SI_distinct", "relative_LI", "flip_rate"]],
    f"A convolutional network on garments, one seed, {len(seen)} validation images",
)

# %%
behind = larger.accuracy["DA"] - larger.accuracy
near = behind["symmetry decay"] < 2, behind["symmetric start, ν = 1"] < 1
expect("the decay loses less than 2 points, the symmetric start less than one", near)
penalties = [f"penalty, ν = {nu}" for nu in (1, 10, 100)]
fails = larger.SI_distinct[penalties] < 0.3, behind[penalties] > 4
expect("no penalty alone makes it invariant, and each costs 4 points or more", fails)

# %% [markdown]
# Here the decay makes the network invariant, one point above augmentation where this page was made, and so does the symmetric
# start with a small penalty, 0.6 points below. The penalty alone does not, from a random start and at any $\nu$ that we
# tried: SI over distinct pairs stays below 0.2, while the accuracy falls by 9, 26 and 48 points. One seed and 400 images:
# enough to show that the recipes run, not what they cost.
#
# ## Three goals
#
# Invariance of the kind that SI measures, at 0.95 over distinct pairs, from a random start and in one forward pass: at most one
# point lost; none lost; and at most one point by a loss that sees only outputs. A goal is *reached* if the whole interval is
# at or below its border, *not reached* if all of it is above, or if SI is too small, and *undecided* otherwise. ($\gamma$ and
# the weights of the penalties were chosen on validation images, those of the penalties for each group.)


# %% {"tags": ["hide-input"]}
def goal(name, recipe, border):
    points, low, high = lost(name, recipe)
    si = of(name, recipe).SI_distinct.mean()
    verdict = "reached" if high <= border else "not reached" if low > border else "undecided"
    verdict = verdict if si >= TARGET else "not reached"
    return verdict, f"{points:.1f} [{low:.1f}, {high:.1f}]", f"{si:.3f}"


GOALS = {
    "symmetry decay, at most 1 point": ("symmetry decay", 1.0),
    "symmetry decay, one view, at most 1 point": ("symmetry decay, one view", 1.0),
    "symmetry decay, no loss": ("symmetry decay", 0.0),
    "symmetry decay, one view, no loss": ("symmetry decay, one view", 0.0),
    "gradients, at most 1 point": ("gradients", 1.0),
}
goals = {(name, text): goal(name, *of) for text, of in GOALS.items() for name in settings.groups}
goals = pd.DataFrame(goals, ["verdict", "points lost", "SI, distinct"]).T
shown = goals.sort_index(level=0, sort_remaining=False)
show_table(shown, "Points lost to DA with the same budget and as many views")

# %% [markdown]
# ## What you saw

# %%
reached, undecided = ["reached"] * 4, ["undecided"] * 4
expect(
    "the first goal is reached, the others are open",
    [*goals.verdict] == [*reached, *undecided, "not reached", "undecided"],
)

# %% [markdown]
# - Invariance costs this perceptron less than a point in accuracy, on either group, if the weights are told how: from a random
#   start by a decay of what is not symmetric, or by a symmetric start that a penalty holds. The decay takes one view an image
#   in training, as augmentation does, and one pass in use. Whether it costs half a point or none, four seeds cannot say. It
#   holds with fewer images, other widths, other images and shifts in two directions, and costs more under D4.
# - Told by outputs alone, a network pays. The recipe with a penalty on gradients loses 2.5 points on R4, and on T3 0.3 with an
#   interval up to 1.3. (It differs from the paper's in its initial weights, views and schedule, too.)
# - The loss of sensitivity is the price of the paper's penalty, and not of invariance: the decay and the symmetric start keep
#   it, and the penalty on gradients multiplies it.
# - Averaging an augmented network is as invariant and more accurate, at one pass in use for each orientation.
#
# ## Change this, and predict what happens
#
# 1. In the loop with the decay, let `most` be 10 instead of 100. How far do the layers come?
# 2. Take `ginv.decay_asymmetry(model, acting, 1.0)` after each step from the first on. What becomes of the filters?
#
# <details><summary>What happens</summary>
#
# 1. Not far: a tenth of the share a step is too slow for twenty epochs, and the task pulls back. The lines end well above
#    0, and so would the SI of the network below 1.
# 2. They are orbits from the first step on, as after `symmetrise`, but smaller: a mean of four random weights is half as
#    large as each. That is tying.
#
# </details>
