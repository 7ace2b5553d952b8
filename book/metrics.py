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
# # How invariance is measured
#
# Turn a handwritten 5 by a quarter and it is still a 5. A network that was trained on digits in all orientations will
# nearly always say so. But does it recognise *one* five, whichever way it lies, or has it learned four separate fives?
# Its answers cannot reveal that. The paper ([Moskalev et al., 2023](https://arxiv.org/abs/2308.03904)) looks behind them with three measures: of the
# logits, of the probabilities, and of the pixels that decide. This page builds each from its equation and uses them on
# the paper's Figures 1, 2 and 3.

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
from itertools import product

import matplotlib.pyplot as plt
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.manifold import TSNE

import ginv
from ginv.pages import Settings, expect, refuse_unknown
from ginv.pages.drawings import show_maps, show_matrix, show_orbit, show_orbits
from ginv.pages.figures import (
    GROUP_NAMES,
    METHOD_NAMES,
    METHOD_STYLES,
    group_panels,
    saliency_picture,
    show_framed,
    show_table,
    use_style,
)
from ginv.recipe import GROUPS, METHODS
from ginv.saliency import gauss_legendre

refuse_unknown()  # a parameter by a wrong name
settings = Settings(profile, group, seeds, device, results)
use_style()

# %% {"tags": ["hide-input"]}
trained = settings.train()
table = settings.table(trained)  # the mean over the test images of each measure of each run
networks = {run: result.model.cpu() for run, result in trained.items()}
first = {run: model for run, model in networks.items() if run.seed == settings.seeds[0]}
models = {(run.group, run.method): model for run, model in first.items()}
groups = [ginv.group_named(name) for name in settings.groups]
test = ginv.load_dataset().test
images, labels = test.images[:300], test.labels[:300]
maps, logits_of, similarity = {}, {}, {}
for acting, method in product(groups, METHODS):
    key = acting.name, method
    logits_of[key] = ginv.orbit_logits(models[key], images, acting)  # [G, n, 9]
    maps[key] = ginv.orbit_maps(models[key], images, labels, acting)  # [G, n, 1, 36, 36]
    similarity[key] = ginv.saliency_invariance(maps[key])

# %% {"mystnb": {"figure": {"name": "fig-1"}, "image": {"alt": "Two blocks, data augmentation and weight-tying, a column per orientation of one digit, in three rows: saliency maps on the digit, bar charts of the predicted probabilities, and the maps turned back to a common orientation. The bars are the same everywhere; the maps that are turned back agree only under weight-tying"}}, "tags": ["hide-input"]}
acting = groups[0]
pair = [logits_of[acting.name, method].softmax(-1) for method in ("DA", "WT")]
sure = torch.stack([p[:, range(len(labels)), labels].amin(0) for p in pair]).amin(0)
unusual = (similarity[acting.name, "DA"] - similarity[acting.name, "DA"].mean()).abs()
digit = torch.where(sure > 0.99, unusual, torch.inf).argmin().item()
figure = plt.figure(figsize=(7, 3.2))
for method, half in zip(("DA", "WT"), figure.subfigures(1, 2)):
    half.suptitle(f"{METHOD_NAMES[method]}: SI {similarity[acting.name, method][digit]:.2f}")
    seen, said = maps[acting.name, method][:, digit], logits_of[acting.name, method][:, digit]
    axes = half.subplots(3, acting.order, sharey="row")
    show_orbit(axes, acting, images[digit], seen, said)

# %% [markdown]
# *Paper Fig. 1. The same answer for different reasons. One digit in its four orientations, and two networks that are all
# but certain of the right class each time. Red: the pixels that decide. Turned back to a common orientation they coincide
# under weight-tying, and hardly under data augmentation.*
#
# ## A group and its orbit
#
# A group is a set of transformations that can be undone, and carried out one after the other, without leaving the set.
# The quarter turns are one. There are four, numbered by how many quarters they turn; number 0 leaves the image alone. In
# row $g$ and column $h$ stands $gh$, "first $h$, then $g$":

# %%
rotations = ginv.Rotations(4)
elements, multiply = rotations.elements, rotations.product
pd.DataFrame([[multiply(g, h) for h in elements] for g in elements])

# %% [markdown]
# Every entry is one of the four (closure), brackets do not matter (associativity), 0 does nothing (identity), and each
# element has one that undoes it (inverse):

# %%
for a, b, c in product(elements, repeat=3):
    assert multiply(a, b) in elements and multiply(multiply(a, b), c) == multiply(a, multiply(b, c))
for g in elements:
    assert multiply(0, g) == multiply(g, 0) == g and multiply(rotations.inverse(g), g) == 0

# %% [markdown]
# The group *acts* on images: turning by $h$ and then by $g$ is turning by $gh$. Give each pixel a number of its own, see
# where it goes, and this holds to the last pixel. Nothing is interpolated, nothing lost.

# %%
pixels = torch.arange(36 * 36).view(36, 36)
for g, h in product(elements, repeat=2):
    one_by_one = rotations.act(g, rotations.act(h, pixels))
    assert torch.equal(one_by_one, rotations.act(multiply(g, h), pixels))

# %% [markdown]
# All the images that the group makes of $x$ are its *orbit*, $\mathcal{O}_x = \{gx \mid g \in \mathcal{G}\}$. A function
# $f$ is *invariant* if it is constant on every orbit: $f(gx) = f(x)$. We call the members of an orbit *orientations* of the
# image, also where the group shifts it.

# %% {"mystnb": {"figure": {"name": "fig-orbit"}, "image": {"alt": "Above a digit in four orientations, below the same digit in three horizontal positions"}}, "tags": ["hide-input"]}
figure, axes = plt.subplots(2, 4, figsize=(5, 2.6))
for row, each in zip(axes, (rotations, ginv.Translations(3))):
    titles = [f"{each.name}, $g = {g}$" for g in each.elements]
    show_framed(row, each.orbit(images[digit]), titles)

# %% [markdown]
# *The paper's two groups: the quarter turns R4, and T3, the shifts by a third of the width, where what leaves on one side
# comes back on the other. The digits are padded from 28 to 36 pixels, which 3 divides.*
#
# ## Three networks
#
# All three are a perceptron with five hidden layers of 128 units, and all see each training image in random orientations;
# [Table 1: three ways to invariance](table1.ipynb) trains them. **Weight-tying (WT)** applies each filter of the first
# layer in all orientations and passes on the largest response, so it is invariant whatever its weights are. **Data
# augmentation (DA)** leaves the network as it is and the rest to training. **Invariance regularisation (IR)** adds a
# penalty on any difference of the logits between two orientations.

# %%
means = table.pivot_table("value", ["group", "method"], "metric").unstack().reindex(GROUPS)
means.accuracy[list(METHODS)].round(1)

# %%
behind = means.accuracy.WT - means.accuracy.DA
expect("DA is 0.6 points behind WT on R4 and 0.3 on T3", (behind - [0.57, 0.32]).abs() < 0.06)

# %% [markdown]
# These are percentages: of all orientations of 50,000 test images, those classified correctly, averaged over four seeds.
# DA, whose layers know nothing of the group, is 0.6 points behind WT on R4 and 0.3 on T3. Has it learned to be invariant,
# then?
#
# Three measures look behind the answer. Two are errors, 0 for an invariant network; the third is a similarity, and 1.
# Where nothing else is said, we look from here on at the first seed and at 300 test images.
#
# ## Logit invariance (LI)
#
# The logits $f(x)$ are what the network computes before the softmax. An invariant network has the same for every
# orientation, and the first measure is how much they differ. For one pair of orientations of one image it is
#
# $$ LI_f(gx, hx) = \tfrac12 \lVert f(gx) - f(hx) \rVert_2^2 . $$
#
# The paper's Equation 2 compares $x$ with each $gx$. We average over all pairs $gx, hx$ of the orbit, which makes no
# orientation special, and over the images; so we do with the two other measures. The assertion says that `ginv`, which the
# rest of the book calls, computes the same. (`expect`, further down, is for the text: it shows nothing where the numbers
# that the text gives are those of the run, and a warning where they are not.)

# %%
augmented = models[acting.name, "DA"]
logits = torch.stack([augmented(x) for x in acting.orbit(images)]).detach().double()  # [G, n, 9]
difference = logits[:, None] - logits[None, :]  # of all ordered pairs, [G, G, n, 9]
li = difference.square().sum(-1).mean((0, 1)) / 2
torch.testing.assert_close(li, ginv.logit_invariance(logits), atol=1e-4, rtol=1e-4)

# %% [markdown]
# ## Predictive distribution invariance (DI)
#
# A user sees no logits, but the probabilities $u_x = \mathrm{softmax} f(x)$. The second measure is how much *they*
# differ, as a Kullback-Leibler divergence (the paper's Equation 1):
#
# $$ DI_f(gx, hx) = D_{KL}(u_{gx} \,\|\, u_{hx}) = \sum_c u_{gx}(c) \, \log \frac{u_{gx}(c)}{u_{hx}(c)} . $$

# %%
log_u = logits.log_softmax(-1)
divergence = log_u.exp()[:, None] * (log_u[:, None] - log_u[None, :])
di = divergence.sum(-1).mean((0, 1))
torch.testing.assert_close(di, ginv.distribution_invariance(logits), atol=1e-5, rtol=1e-4)

# %% {"mystnb": {"figure": {"name": "fig-logits"}, "image": {"alt": "Left the nine logits of one digit, a line for each of its four orientations, apart by many units; right the probabilities, one for one class and none for the others in all four"}}, "tags": ["hide-input"]}
figure, (left, right) = plt.subplots(1, 2, figsize=(7, 2.5))
for g, look in zip(acting.elements, ("o-", "s--", "v:", "^-.")):
    shade = dict(ms=4, lw=1, color=str(0.2 * g), label=f"$g = {g}$")
    left.plot(logits[g, digit], look, **shade)
    right.plot(log_u[g, digit].exp(), look, **shade)
left.set(xlabel="class", ylabel="logit", xticks=range(9))
right.set(xlabel="class", ylabel="probability", xticks=range(9))
legend = left.legend(fontsize="small", ncols=2)

# %% [markdown]
# *The digit of the first figure under DA. Its logits differ from one orientation to the next; softmax maps all of them to
# the same certainty.*

# %%
both = pd.DataFrame({"LI": li, "DI": di})
facts = {"this digit": both.loc[digit], "mean": both.mean(), "median": both.median()}
pd.DataFrame(facts).map("{:.2g}".format)

# %%
torn = di[ginv.flip_rate(logits) > 0]  # of images that are given two classes or more
expect("LI is 45 and DI below 4e-6 for this digit", (abs(li[digit] - 45) < 1) & (di[digit] < 4e-6))
expect("DI is below 4e-6 for half of the images", di.median() < 4e-6)
expect("90 % of DI is that of 11 % of the images", abs(torn.sum() / di.sum() - 0.90) < 0.02)

# %% [markdown]
# For this digit LI is 45 and DI three millionths, and it is no exception: half of the 300 images have a DI below that. The
# mean of 0.35 nats is made by a few. Nine tenths of it come from the 11 % of the images whose class changes.
#
# Equal logits give equal probabilities. More than that, DI is never more than half of LI, since no slope of the softmax
# exceeds ½. The converse is false: add 5 to all logits of one orientation, and LI sees it while DI does not.

# %%
assert (di <= li / 2).all()
shifted = logits[:1] + torch.tensor([0.0, 5.0]).view(2, 1, 1)
assert ginv.logit_invariance(shifted).min() > 50
assert ginv.distribution_invariance(shifted).max() < 1e-9

# %% [markdown]
# ## Saliency invariance (SI)
#
# Both look at the answer. The third measure looks at what the answer rests on: a *saliency map* $m_f(x)$, each pixel's
# share in the logit of the true class. The paper takes integrated gradients ([Sundararajan et al., 2017](https://arxiv.org/abs/1703.01365)): the gradient of
# that logit, averaged over the straight path from a blank image to $x$, times $x$. Blank is 0, the mean pixel of the
# normalised images; fifty points on the path, those of Gauss and Legendre with their weights, stand for the integral. (The paper does not name the blank image or the number
# of points, and of the rest its words allow more than one reading: [What the paper leaves open](open_choices.ipynb) tries
# the others.)

# %%
turned, target = acting.orbit(images[digit]), labels[digit].expand(acting.order)  # [G, 1, 36, 36]
places, weights = (part.float().view(-1, 1, 1, 1, 1) for part in gauss_legendre(50))
path = (places * turned).requires_grad_()  # [50, G, 1, 36, 36]
logit = augmented(path.flatten(0, 1))[:, labels[digit]]
(slopes,) = torch.autograd.grad(logit.sum(), path)
attribution = (weights * slopes).sum(0) * turned
ours = ginv.integrated_gradients(augmented, turned, target)
torch.testing.assert_close(attribution, ours, atol=1e-4, rtol=1e-3)

# %% [markdown]
# (For another attribution, `ginv.orbit_maps(model, images, labels, acting, attribute=ginv.gradients)`, in the folded cell at
# the top.) Of the absolute values only those of at least 0.9 of the largest are kept, and a $3 \times 3$ Gaussian smooths
# what is left.

# %%
size = attribution.abs()
kept = size * (size >= 0.9 * size.amax((-2, -1), keepdim=True))
kernel = torch.exp(-torch.tensor([1.0, 0.0, 1.0]) / 2)
kernel = torch.outer(kernel, kernel) / kernel.sum() ** 2
blurred = F.conv2d(F.pad(kept, [1] * 4, mode="circular"), kernel[None, None])
torch.testing.assert_close(blurred, ginv.saliency_map(attribution))

# %% [markdown]
# Turned back, $g^{-1} m_f(gx)$, all of them lie over the upright image, and two are compared by the cosine of the angle
# between them (Equation 3 of the paper, which again has $x$ and $gx$):
#
# $$ SI_f(gx, hx) = \frac{ g^{-1} m_f(gx) \cdot h^{-1} m_f(hx) }{ \lVert m_f(gx) \rVert_2 \, \lVert m_f(hx) \rVert_2 } . $$

# %%
back = acting.align(blurred)
directions = F.normalize(back.flatten(1), dim=1)
cosines = directions @ directions.T
torch.testing.assert_close(cosines.mean(), ginv.saliency_invariance(back[:, None])[0])

# %% {"mystnb": {"figure": {"name": "fig-steps-of-si"}, "image": {"alt": "A row for each orientation of a digit, with the image, the size of its attributions, the few that are kept, these blurred, and these turned back; on the right a square of cosines, one on its diagonal and smaller beside it"}}, "tags": ["hide-input"]}
figure = plt.figure(figsize=(7.5, 3.6))
left, right = figure.subfigures(1, 2, width_ratios=(5, 3.2))
steps = {"input": turned, "attribution": size, "cut at 0.9": kept, "blurred": blurred}
steps["turned back"] = back
for column, (title, rows) in zip(left.subplots(acting.order, 5).T, steps.items()):
    show_framed(column, rows, [title])
show_matrix(right.subplots(), cosines)
title = right.suptitle(f"cosines; their mean is SI, {cosines.mean():.2f}", fontsize="medium")

# %% [markdown]
# *SI step by step, under DA. A row per orientation. The attribution covers the whole digit; the cut leaves one to three
# pixels of it; and turned back they are not the same ones. SI is the mean of the matrix on the right.*

# %%
counts = (kept > 0).flatten(1).sum(1)
expect("one to three pixels are left", (counts.min() == 1) & (counts.max() == 3))
expect("1 and 2 agree, 0 and 3 do not", (cosines[1, 2] > 0.99) & (cosines[0, -1] < 0.01))

# %% [markdown]
# The maps of $g = 1$ and $g = 2$ agree, and that of $g = 3$ has nothing in common with that of the upright digit. A map is
# very little: after the cut one to three pixels are left of this digit. How much of SI is due to that cut, and what it
# would be of maps that have nothing to do with each other, is the subject of [How far to trust SI](trust.ipynb).
#
# Maps are never negative, which puts every cosine between 0 and 1, and each pair of a map with itself counts 1. SI is
# therefore at least a quarter for R4 and a third for T3, however little the maps share. The paper prints 0.17 for DA on
# R4. That is less than a mean over all pairs of maps can be, unless some maps are empty: the paper has probably left out the
# pairs of a map with itself ([What the paper leaves open](open_choices.ipynb)).
#
# ## Figure 1: the same answer for different reasons
#
# Now the first figure can be read. Its digit could have been picked to impress, and was not. Of all images to whose class
# both networks give a probability above 0.99 in *every* orientation, it is the one whose SI under DA is closest to the
# mean.

# %%
expect("both networks give the class more than 0.99", sure[digit] > 0.99)
show_table(means.SI[list(METHODS)].dropna(), f"SI: {settings.label}", precision=2)

# %%
typed = pd.DataFrame({"WT": [1.0, 1.0], "DA": [0.466, 0.614], "IR": [0.953, 0.952]}, index=GROUPS)
expect("SI of DA is 0.47 and 0.61, of IR 0.95", (means.SI[typed.columns] - typed).abs() < 0.006)

# %% [markdown]
# Over all test images and seeds DA has an SI of 0.47 on R4 and 0.61 on T3, where the paper has 0.17 and 0.57. As in the
# paper, DA is right in nearly every orientation and looks at other pixels in each; on R4 by less than the paper's number
# says. IR was tuned to reach 0.95, in the paper and here.
#
# ## Figure 3: what is looked at, over the orbit
#
# One digit may still be an accident. Here are the first test images of six classes.

# %%
chosen = [(labels == label).int().argmax().item() for label in (0, 2, 3, 4, 5, 7)]

# %% {"mystnb": {"figure": {"name": "fig-3"}, "image": {"alt": "Grids of digits with red spots, for data augmentation and for invariance regularisation, a row per digit with a number beside it. Under augmentation the spots wander along the row, under regularisation they stay"}}, "tags": ["hide-input"]}
figure = plt.figure(figsize=(4 * len(groups), 4))
widths = [each.order + 0.5 for each in groups]
parts = figure.subfigures(1, len(groups), squeeze=False, width_ratios=widths).flat
for each, part in zip(groups, parts):
    part.suptitle(GROUP_NAMES[each.name], weight="bold")
    for method, half in zip(("DA", "IR"), part.subfigures(1, 2)):
        half.suptitle(method)
        key = each.name, method
        for i, row in zip(chosen, half.subplots(len(chosen), each.order)):
            text = f"{similarity[key][i]:.2f}"
            show_maps(row, images[i].expand(each.order, -1, -1, -1), maps[key][:, i], text)

# %% [markdown]
# *Paper Fig. 3, and the same for T3. Augmentation looks at different strokes in different orientations; regularisation keeps to the same ones.
# Rows are images, columns the orientations in which the network saw them, all turned back. The number on the left of a
# row is its SI.*

# %%
six = {key: value[chosen] for key, value in similarity.items()}
best = [six[each.name, "DA"].max() for each in groups]
worst = [six[each.name, "IR"].min() for each in groups]
expect("the best of DA is below the worst of IR", [a < b for a, b in zip(best, worst)])

# %% [markdown]
# The digit on which DA's maps agree best is still behind the one on which IR's agree least.
#
# ## Figure 2: where the orientations land
#
# The last hidden layer holds 128 numbers, and the logits are a linear function of them. Where in it do the orientations
# of one digit land? The classifier only asks that they land on the right side of a boundary. We compare two distances:
# between two orientations of one image, and between two images of one class, each in any orientation. If their ratio is
# 1, turning a digit takes it as far as replacing it by another of its class; if it is 0, turning it does nothing.


# %%
def representation(model, acting, images):
    """The last hidden layer over the orbit: `[G, n, 128]`."""
    return torch.stack([model.hidden(model.features(x)) for x in acting.orbit(images)]).detach()


def distance_ratio(points, labels):
    """Mean distance within an orbit over that between images of a class: points `[G, n, 128]`."""
    rows, order, count = points.flatten(0, 1), *points.shape[:2]
    distance = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    image, label = torch.arange(count).repeat(order), labels.repeat(order)
    same_image, same_class = (x[:, None] == x for x in (image, label))
    within = distance[same_image & ~torch.eye(len(rows), dtype=torch.bool)]
    return (within.mean() / distance[same_class & ~same_image].mean()).item()


# %%
rows = []
for run, model in networks.items():
    points = representation(model, ginv.group_named(run.group), images)
    row = run.group, run.method, run.seed, "distance_ratio", distance_ratio(points, labels)
    rows.append(row)
ratios = pd.DataFrame(rows, columns=["group", "method", "seed", "metric", "value"])
ratio = ratios.groupby(["group", "method"]).value.mean().unstack().reindex(GROUPS)

# %% [markdown]
# To see it, t-SNE ([van der Maaten and Hinton, 2008](https://jmlr.org/papers/v9/vandermaaten08a.html)) flattens the 128 dimensions to two. It preserves neighbourhoods, not
# distances, and so the ratio is measured in the layer itself.


# %%
def embed(points):
    """t-SNE of points `[G, n, 128]`: `[G, n, 2]`."""
    flat = TSNE(init="pca", random_state=0).fit_transform(points.flatten(0, 1).numpy())
    return torch.tensor(flat).unflatten(0, points.shape[:2])


def pictures(acting, method, i):
    """What the network sees of an image; in one orientation where all are alike."""
    for g in acting.elements if method == "DA" else [0]:
        seen = acting.act(g, maps[acting.name, method][g, i])
        yield saliency_picture(acting.act(g, images[i]), seen)


# %% {"mystnb": {"figure": {"name": "fig-2"}, "image": {"alt": "For each group a large scatter plot for data augmentation and two small ones. Closed lines join the orientations of four digits, which are drawn around the plot. Under augmentation they stretch over a part of the class, under regularisation and weight-tying they are points"}}, "tags": ["hide-input"]}
members = torch.where(labels == labels[digit])[0].tolist()
figure = plt.figure(figsize=(8, 5.2 * len(groups)))
for each, part in zip(groups, figure.subfigures(len(groups), 1, squeeze=False).flat):
    part.suptitle(GROUP_NAMES[each.name], weight="bold")
    mosaic = part.subplot_mosaic([["DA", "DA", "IR"], ["DA", "DA", "WT"]])
    for method, axis in mosaic.items():
        places = embed(representation(models[each.name, method], each, images[members]))
        drawn = [[*pictures(each, method, i)] for i in members[:4]]
        show_orbits(axis, places, METHOD_STYLES[method], drawn)
        axis.set_title(f"{method}: distance ratio {ratio[method][each.name]:.2f}")

# %% [markdown]
# *Paper Fig. 2. Under augmentation the orientations of one digit can lie far apart within their class. All fives among our
# images, in all orientations, as dots; the orbits of four of them as closed lines, with what the network saw in each
# orientation. Under IR and WT an orbit is hardly more than a point. The paper draws all classes at once, and DA on R4
# alone.*

# %%
expect("0.53 and 0.39 under DA", (ratio.DA - [0.53, 0.39]).abs() < 0.01)
expect("0.02 and 0.04 under IR", (ratio.IR - [0.016, 0.037]).abs() < 0.005)
expect("0 under WT", ratio.WT < 1e-5)

# %% [markdown]
# Turning a digit takes DA half as far (0.53) as replacing it by another digit of its class, and shifting it 0.39 as far.
# IR brings that down to 0.02 and 0.04, and WT to rounding. This is what the paper describes: different orientations of a
# sample land far from each other, but on the same side of the boundary, and the task asks for no more.
#
# ## Shrinking the logits
#
# LI is a squared distance, and what unit logits come in is a matter of taste: divide all of them by 100 and no decision
# changes, but LI falls by a factor of 10,000. A network that is trained for a small LI could do just that. So
# `ginv.measure` reports companions:
#
# - *relative LI*: of each vector of logits subtract its mean over the classes, then divide LI by the mean squared length
#   of what is left;
# - *orbit over sample variance*: how far apart the logits of an orbit are, in units of how far apart those of different
#   images are;
# - *flip rate*: the share of pairs of orientations that are given different classes;
# - *JS*: the Jensen-Shannon divergence, how far the distributions of an orbit are from their mean. DI knows no bound; JS is
#   at most $\log |\mathcal{G}|$.
#
# Which of them can be fooled? We shrink the output layer of DA, and nothing else.

# %%
shrinking = {}
for each in groups:
    model = models[each.name, "DA"]
    shrunk = copy.deepcopy(model)
    for parameter in shrunk.output.parameters():
        parameter.detach().div_(100)
    for name, network in (("DA", model), ("DA / 100", shrunk)):
        measured = ginv.measure(network, images, labels, each)
        shrinking[each.name, name] = measured.summary

# %% {"tags": ["hide-input"]}
NAMES = {
    "LI": "LI",
    "DI": "DI",
    "JS": "JS",
    "relative_LI": "relative LI",
    "orbit_over_sample_variance": "orbit over sample variance",
    "flip_rate": "flip rate",
    "SI": "1 - SI",
}


def errors(values):
    """A metric a row, each 0 for an invariant network."""
    rows = values.reindex(list(NAMES)).rename(NAMES)
    rows["1 - SI"] = 1 - rows["1 - SI"]
    return rows


# %% {"mystnb": {"figure": {"name": "fig-scale"}, "image": {"alt": "Dot plot on a logarithmic axis, for seven measures, one panel per group: IR and DA with shrunk logits, relative to DA. The shrunk network stands far left in the three upper rows and on the line of DA in the four lower ones"}}, "tags": ["hide-input"]}
for name, axis in group_panels(settings).items():
    da, ir = (errors(means.xs(method, axis=1, level="method").loc[name]) for method in ("DA", "IR"))
    shrunk = errors(shrinking[name, "DA / 100"]) / errors(shrinking[name, "DA"])
    look, line = METHOD_STYLES["IR"], METHOD_STYLES["DA"]
    axis.semilogx(ir / da, da.index, look.marker, color=look.colour, label="IR")
    axis.semilogx(shrunk, da.index, "o", mfc="none", color="black", label="DA / 100")
    axis.axvline(1, color=line.colour, ls=line.line, label="DA")
    axis.axhline(2.5, ls=":", color="grey")
    axis.set(xlabel="error relative to DA")
axis.invert_yaxis()
handles = axis.get_legend_handles_labels()
legend = axis.figure.legend(*handles, loc="outside lower center", ncols=3)

# %% [markdown]
# *Which measures can be fooled. Further left looks more invariant. Open circles: DA with its logits divided by 100, which
# is no more invariant than DA and belongs on the dashed line. Above the dotted line stand the measures that believe it,
# below it those that do not. WT is 0 up to rounding.*

# %%
companions = means.stack("method", future_stack=True).loc[:, [*NAMES, "logit_norm"]]
companions = companions.rename(columns=NAMES | {"SI": "SI", "logit_norm": "size of the logits"})
of_both = companions.T.reindex(columns=product(settings.groups, ("DA", "IR")))
show_table(of_both.map("{:.2g}".format), settings.label)

# %%
fall, honest, size = (means[m].DA / means[m].IR for m in ("LI", "relative_LI", "logit_norm"))
expect("LI falls 8,000- and 7,000-fold", (fall.div([8000, 7000]) - 1).abs() < 0.05)
expect("relative LI falls 400- and 130-fold", (honest.div([400, 130]) - 1).abs() < 0.05)
expect("the logits are 4 and 6 times smaller", (size - [4.05, 5.88]).abs() < 0.1)

# %% [markdown]
# LI, DI and JS take the shrunken network for nearly invariant: probabilities that are all almost uniform are almost equal.
# Relative LI, the ratio of variances, the flip rate and SI are not impressed. How much of what IR achieves is of that
# kind? Its penalty divides LI by 8,000 on R4 and by 7,000 on T3. Its logits are 4 and 6 times smaller, which alone is
# worth a factor of 16 and 35. Relative to their size, image by image, it still divides LI by 400 and 130: IR shrinks the
# logits, *and* makes them invariant.

# %% {"tags": ["hide-input"]}
summaries = pd.DataFrame({key: shrinking[key] for key in shrinking if key[1] == "DA / 100"})
summaries = summaries.rename_axis(index="metric", columns=["group", "method"])
summaries = summaries.unstack().rename("value").reset_index().assign(seed=settings.seeds[0])
columns = ["group", "method", "seed", "metric", "value"]
settings.save(pd.concat([table, ratios, summaries])[columns], results, "metrics")

# %% [markdown]
# ## What you saw

# %%
right, same = (means.accuracy.DA - [94.1, 96.1]).abs(), (means.SI.DA - [0.466, 0.614]).abs()
expect("DA is right in 94.1 % and 96.1 %, at SI 0.47 and 0.61", (right < 0.06) & (same < 0.006))

# %% [markdown]
# A network that was trained with augmentation is right in 94.1 % of all orientations on R4 and in 96.1 % on T3, and it is
# not invariant: its logits change (LI), the digit moves in its last layer, and it looks at other pixels (SI 0.47 and
# 0.61). A high accuracy over the orbit asks only that each orientation lands on the right side of a boundary, and a
# network can meet that demand by learning each apart; WT has one place and one set of strokes for all, and IR comes close
# to that. No single measure can be trusted alone: DI is small wherever the answer is the same, LI and DI shrink with the
# logits, and SI has a floor that is not 0.
#
# ## Change this, and predict what happens
#
# 1. `models["R4", "WT"]` is invariant under quarter turns by construction. Measure it under translations,
#    `ginv.measure(models["R4", "WT"], images, labels, ginv.Translations(3)).summary`. How much of the invariance is left?
#
# <details><summary>What happens</summary>
#
# None. Accuracy over the orbit is 38 %, LI 1,089 and the flip rate 0.55, much the same as for `models["R4", "DA"]` (39 %,
# 593 and 0.56), which was never shown a shifted digit either. Invariance is always invariance under a group. SI is 0.39,
# just above its least value of a third.
#
# </details>
#
# 2. In "Shrinking the logits", multiply by 10 (`mul_(10)`) instead of dividing by 100. Which circles leave the dashed
#    line, and how far do they go?
#
# <details><summary>What happens</summary>
#
# LI grows by 100, as a square must. DI grows by about 10, since a KL divergence between confident predictions is a
# difference of logits. JS grows by 1.2 on R4 and 1.5 on T3 and no further: it is bounded, and counts flips once the
# network is sure of everything. The four measures below the dotted line do not move.
#
# </details>
