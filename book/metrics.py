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
# # What the network looks at
#
# A network that gives every orientation of a digit its right name may still treat each orientation as a thing of its own.
# To find out one has to look past the answer: at the logits behind it, and at the pixels behind those. This chapter
# builds the three measures of
# Section 3 of {cite}`moskalev2023genuine`, which compares $x$ with $gx$, for all ordered pairs $gx, hx$ of the orbit, so
# that no orientation is special, shows what they see, and
# then asks how far they can be trusted.
#
# **What you will see**
#
# - A group, its axioms checked, and an orbit drawn.
# - LI, DI and SI, each from its equation in a few lines, and equal to the one call that the rest of the book uses.
# - Figures 1, 3 and 2 of the paper, for rotations and for translations: the same answers for different reasons, in the
#   pixels and in the last layer.
# - What moves SI and what does not, down to attributions without any numerical error.
# - Companions of LI and DI, and which of them a network can fool by shrinking its logits.

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
# "paper" is the full experiment, "sample" the same on fewer test images, "quick" a look in minutes
profile = "paper"  # @param ["paper", "sample", "quick"]
group = "both"  # @param ["both", "R4", "T3"]
# a list such as [0, 1]; None takes those of the profile
seeds = None  # @param {type: "raw"}
device = "auto"  # @param ["auto", "cpu", "cuda"]
# folder for the numbers of this page
results = "results"  # @param {type: "string"}

# %%
import copy
from functools import partial
from itertools import product

import matplotlib.pyplot as plt
import pandas as pd
import torch
import torch.nn.functional as F
from captum.attr import IntegratedGradients
from IPython.display import Markdown
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from sklearn.manifold import TSNE

# %%
import ginv
from ginv.pages import Settings, refuse_unknown
from ginv.pages.figures import (
    GROUP_NAMES,
    METHOD_NAMES,
    METHOD_STYLES,
    group_panels,
    saliency_picture,
    show_saliency,
    show_table,
    use_style,
)

refuse_unknown()  # a parameter by a wrong name
settings = Settings(profile, group, seeds, device, results)
use_style()
Markdown(f"This page was run with {settings.label}.")

# %% [markdown]
# ## A group and its orbit
#
# A group is a set of transformations that can be undone, and carried out one after the other, without leaving the set.
# Take the quarter turns. There are four, numbered by how many quarters they turn; number 0 leaves the image as it is.

# %%
rotations = ginv.Rotations(4)
pd.DataFrame([[rotations.product(g, h) for h in rotations.elements] for g in rotations.elements])

# %% [markdown]
# The table holds $gh$, "first $h$, then $g$". Every entry is one of the four (closure), 0 does nothing (identity), each
# row has a 0 (inverse), and the order of brackets does not matter (associativity):

# %%
elements, multiply = rotations.elements, rotations.product
for a, b, c in product(elements, repeat=3):
    assert multiply(a, b) in elements and multiply(multiply(a, b), c) == multiply(a, multiply(b, c))
for g in elements:
    assert multiply(0, g) == multiply(g, 0) == g and multiply(rotations.inverse(g), g) == 0

# %% [markdown]
# The group *acts* on images, which means that turning by $h$ and then by $g$ is turning by $gh$. We give each pixel a
# number and look where it goes: to the last pixel, nothing is interpolated.

# %%
pixels = torch.arange(36 * 36).view(36, 36)
for g, h in product(elements, repeat=2):
    assert torch.equal(
        rotations.act(g, rotations.act(h, pixels)), rotations.act(multiply(g, h), pixels)
    )

# %% [markdown]
# The orbit of an image is the set of all its orientations. A function $f$ is *invariant* if it is constant on every
# orbit: $f(gx) = f(x)$.

# %% {"mystnb": {"figure": {"caption": "The orbit of a digit under the quarter turns.", "name": "fig-orbit"}, "image": {"alt": "A digit in four orientations"}}}
test = ginv.load_dataset().test
figure, axes = plt.subplots(1, 4, figsize=(6, 1.7))
for g, (axis, image) in enumerate(zip(axes, rotations.orbit(test.images[4, 0]))):
    axis.imshow(image)
    axis.set(title=f"$g = {g}$", xticks=[], yticks=[])

# %% [markdown]
# ## Three trained networks
#
# We take the three models of [Table 1: three ways to invariance](table1.ipynb): weight-tied (WT), trained on augmented
# data (DA), and regularised (IR); for the quarter turns R4 and for T3, the cyclic shifts by a third of the width.

# %%
trained = settings.train()
table = settings.table(trained)  # the mean over the test images of each metric of each run
means = table.groupby(["group", "method", "metric"]).value.mean().unstack()
show_table(means.accuracy.unstack(), f"Accuracy (%): {settings.label}", precision=1)

# %% [markdown]
# That is the accuracy in per cent, over all orientations of the test images. DA comes close to WT, which is invariant by
# construction. Has it learned to be invariant, then? The rest of this page is about what this table does not show.
#
# From here on, unless a number says otherwise, we look at the networks of the first seed and at 300 test images.

# %%
networks = {run: result.model.cpu() for run, result in trained.items()}
models = {
    (run.group, run.method): model
    for run, model in networks.items()
    if run.seed == settings.seeds[0]
}
groups = [ginv.group_named(name) for name in settings.groups]
images, labels = test.images[:300], test.labels[:300]

# %% [markdown]
# ## Logit invariance (LI)
#
# The logits $f(x)$ are what the network computes before the softmax. For an invariant network they are the same for every
# orientation, so the first measure is by how much they differ (Equation 2),
#
# $$ LI_f = \tfrac12 \lVert f(gx) - f(hx) \rVert_2^2 , \tag{2} $$
#
# averaged over the images and over the pairs of orientations. The assertion in the cell says that the call of `ginv`
# computes the same.

# %%
acting, augmented = groups[0], models[groups[0].name, "DA"]
logits = ginv.orbit_logits(augmented, images, acting).double()  # [G, n, C]
difference = logits[:, None] - logits[None, :]  # all ordered pairs, [G, G, n, C]
li = difference.square().sum(-1).mean((0, 1)) / 2
torch.testing.assert_close(li, ginv.logit_invariance(logits), atol=1e-4, rtol=1e-4)
Markdown(f"LI of DA over these {len(images)} images: {li.mean():.1f}.")

# %% [markdown]
# ## Predictive distribution invariance (DI)
#
# What a user sees is not logits but probabilities $u_x = \mathrm{softmax} f(x)$. The second measure is how much *they*
# change, as a Kullback-Leibler divergence (Equation 1),
#
# $$ DI_f = D_{KL}(u_{gx} \,\|\, u_{hx}) = \sum_c u_{gx}(c) \, \log \frac{u_{gx}(c)}{u_{hx}(c)} . \tag{1} $$

# %%
log_u = logits.log_softmax(-1)
u = log_u.exp()
di = (u[:, None] * (log_u[:, None] - log_u[None, :])).sum(-1).mean((0, 1))
torch.testing.assert_close(di, ginv.distribution_invariance(logits), atol=1e-5, rtol=1e-4)
Markdown(
    f"DI of DA: {di.mean():.2f} nats on average, and below {di.median():.0e} for half of the images."
)

# %% [markdown]
# The two do not say the same. Equal logits give equal probabilities, but not the other way round: add 5 to all logits of
# one of two orientations, and LI sees it while DI does not.

# %%
shifted = logits[:1] + torch.tensor([0.0, 5.0]).view(2, 1, 1)
(ginv.logit_invariance(shifted).mean().item(), ginv.distribution_invariance(shifted).mean().item())

# %% [markdown]
# ## Saliency invariance (SI)
#
# Both look at the answer. The third measure looks at what the answer rests on: a *saliency map* $m_f(x)$, the size of each
# pixel's share in the logit of the digit. The paper takes integrated gradients {cite}`sundararajan2017`: the gradient of
# the logit, averaged over the straight path from a blank image to $x$, times $x$. Blank is 0, the mean pixel of the
# normalised images.

# %%
attribution = IntegratedGradients(augmented).attribute(images, target=labels, n_steps=50)
ours = ginv.integrated_gradients(augmented, images, labels)
apart = ((ours - attribution).norm() / attribution.norm()).item()
Markdown(
    f"Captum's integrated gradients and the faster ones of `ginv` differ by {apart:.0e}, relative to their size."
)

# %% [markdown]
# Of their absolute values only those of at least 0.9 of the largest are kept, and a $3 \times 3$ Gaussian smooths what is
# left. The map is a few bright spots: the pixels that count most.

# %%
size = attribution.abs()
kept = size * (size >= 0.9 * size.amax((-2, -1), keepdim=True))
kernel = torch.exp(-torch.tensor([1.0, 0.0, 1.0]) / 2)
kernel = torch.outer(kernel, kernel) / kernel.sum() ** 2
maps = F.conv2d(F.pad(kept, [1] * 4, mode="circular"), kernel[None, None])
torch.testing.assert_close(maps, ginv.saliency_map(attribution))

# %% [markdown]
# `ginv.orbit_maps` makes such a map of each orientation and turns it back, $g^{-1} m_f(gx)$, so that all of them lie over
# the upright image. Two of them are compared by the cosine of the angle between them (Equation 3),
#
# $$ SI_f = \frac{ g^{-1} m_f(gx) \cdot h^{-1} m_f(hx) }{ \lVert m_f(gx) \rVert_2 \, \lVert m_f(hx) \rVert_2 } . \tag{3} $$

# %%
maps = ginv.orbit_maps(augmented, images, labels, acting)  # [G, n, 1, H, W]
pairs = F.cosine_similarity(maps[:, None].flatten(3), maps[None, :].flatten(3), dim=-1)  # [G, G, n]
torch.testing.assert_close(pairs.mean((0, 1)), ginv.saliency_invariance(maps), atol=1e-5, rtol=1e-4)
Markdown(f"SI of DA: {pairs.mean():.2f}.")

# %% [markdown]
# Maps are never negative, so SI lies between 0 and 1. The pairs with $g = h$ are in and count 1 each, so it is at least
# one over the number of elements, a quarter for R4 and a third for T3, for whatever network without empty maps. The paper's
# 0.17 for DA under R4 is below that, so the paper cannot have averaged SI in this way. Keep that in mind for every
# SI below: those floors, not 0, are where nothing is shared.
#
# ## Figure 1: the same answer for different reasons
#
# One digit, its orbit, two networks. We take images that both networks of each group name with a probability above 0.99
# in *every* orientation, so that nothing in their answers tells the two apart.

# %%
sure = torch.ones(len(images))
for acting, method in product(groups, ("DA", "WT")):
    probability = ginv.orbit_logits(models[acting.name, method], images, acting).softmax(-1)
    of_label = probability[:, torch.arange(len(labels)), labels]  # [G, n]
    sure = sure.minimum(of_label.amin(0))

# %% [markdown]
# Among them we show the one that is most like the others: whose SI under DA is closest to the average, over both groups.

# %%
si = torch.stack(
    [
        ginv.saliency_invariance(ginv.orbit_maps(models[g.name, "DA"], images, labels, g))
        for g in groups
    ]
)
unlike = (si - si.mean(1, keepdim=True)).abs().sum(0)
digit = torch.where(sure > 0.99, unlike, torch.inf).argmin()
Markdown(
    f"It is a {labels[digit]}; no orientation leaves a probability of more than {1 - sure[digit]:.1g} to other classes."
)


# %%
def draw_orbit(axes, acting, method, image, label):
    """Figure 1, a column per orientation. Returns SI."""
    model = models[acting.name, method]
    maps = ginv.orbit_maps(model, image, label, acting)
    for g, column in enumerate(axes.T):
        turned = acting.act(g, image)
        show_saliency(column[0], turned[0])
        show_saliency(column[1], turned[0], acting.act(g, maps[g, 0]))
        column[2].bar(range(9), model(turned)[0].softmax(0), color=METHOD_STYLES[method].colour)
        column[2].set(xticks=[label.item()], yticks=[0, 1], ylim=(0, 1.02), box_aspect=1)
        show_saliency(column[3], image[0], maps[g, 0])
    return ginv.saliency_invariance(maps).item()


# %% {"mystnb": {"figure": {"caption": "Figure 1 of the paper. From top to bottom: the digit in its orientations; what the network looks at, in red; the probabilities that it predicts, with the true class ticked; and the maps brought back to a common orientation. By the choice of the digit the probabilities agree. The maps of WT agree because they must. Whether those of DA do is in the last row, and in the SI above it.", "name": "fig-1"}, "image": {"alt": "For each group two blocks, data augmentation and weight-tying, of four rows: inputs, saliency maps, bar charts and realigned maps, one column per orientation"}}}
figure = plt.figure(figsize=(8, 4.3 * len(groups)))
for acting, part in zip(groups, figure.subfigures(len(groups), 1, squeeze=False).flat):
    part.suptitle(GROUP_NAMES[acting.name], weight="bold")
    for method, half in zip(("DA", "WT"), part.subfigures(1, 2)):
        axes = half.subplots(4, acting.order, sharey="row")
        si = draw_orbit(axes, acting, method, images[digit, None], labels[digit, None])
        half.suptitle(f"{METHOD_NAMES[method]}: SI {si:.2f}")
        for axis, text in zip(axes[:, 0], ("input", "saliency", "prediction", "realigned")):
            axis.set_ylabel(text)

# %% [markdown]
# ## Figure 3: what is looked at, over the orbit
#
# One digit may be an accident. Here are the first test images of six classes, each in every orientation, with the maps
# turned back: a row of equal pictures is a network that looks at the same strokes however the digit lies.

# %%
chosen = torch.stack([(labels == label).int().argmax() for label in (0, 2, 3, 4, 5, 7)])


def draw_rows(axes, acting, method):
    """The middle of the image: a row per image, a column per orientation."""
    model, x = models[acting.name, method], images[chosen]
    maps = ginv.orbit_maps(model, x, labels[chosen], acting)
    similarity = ginv.saliency_invariance(maps)
    for i, row in enumerate(axes):
        text = dict(rotation=0, ha="right", va="center")
        row[0].set_ylabel(f"{similarity[i]:.2f}", **text)
        for g, axis in enumerate(row):
            show_saliency(axis, x[i, :, 4:-4, 4:-4], maps[g, i, :, 4:-4, 4:-4])


# %% {"mystnb": {"figure": {"caption": "Figure 3 of the paper. Rows are images, columns the orientations in which the network saw them; all maps are turned back. The number on the left of a row is its SI.", "name": "fig-3"}, "image": {"alt": "Grids of digits with red saliency spots for data augmentation and invariance regularisation, one row per digit, with a number beside each row"}}}
figure = plt.figure(figsize=(4.5 * len(groups), 4.6))
widths = [acting.order + 0.5 for acting in groups]
for acting, part in zip(
    groups, figure.subfigures(1, len(groups), squeeze=False, width_ratios=widths).flat
):
    part.suptitle(GROUP_NAMES[acting.name], weight="bold")
    for method, half in zip(("DA", "IR"), part.subfigures(1, 2)):
        half.suptitle(method)
        draw_rows(half.subplots(len(chosen), acting.order), acting, method)

# %%
Markdown(
    "\n".join(
        f"- {GROUP_NAMES[acting.name]}, over all test images and seeds: SI of DA "
        f"{means.SI[acting.name, 'DA']:.2f}, of IR {means.SI[acting.name, 'IR']:.2f}, of WT "
        f"{means.SI[acting.name, 'WT']:.2f}; least possible {1 / acting.order:.2f}."
        for acting in groups
    )
)

# %% [markdown]
# ## Figure 2: where the orientations land
#
# Before the logits comes the last hidden layer, 128 numbers of which the logits are a linear function. Where do the
# orientations of one digit land in it? All the classifier asks is that they land on the side of the right class. WT,
# invariant from its first layer on, puts them in one place.


# %%
def representation(model, group, images):
    """The last hidden layer over the orbit: `[G, n, width]`."""
    return torch.stack([model.hidden(model.features(x)) for x in group.orbit(images)])


# %% [markdown]
# So we compare two distances: between two orientations of one image, and between two different images of one class, each
# in any orientation. If their ratio is 1, then turning a digit takes it as far as replacing it by another digit of its
# class. If it is 0, turning it does nothing.


# %%
def distance_ratio(points, labels):
    """Mean distance within an orbit over mean distance between images of a class: points `[G, n, width]`."""
    within, between = [], []
    for label in labels.unique():
        cloud = points[:, labels == label]  # [G, m, width]
        image = torch.arange(cloud.shape[1]).repeat(len(cloud))
        distance = torch.cdist(
            *[cloud.flatten(0, 1)] * 2, compute_mode="donot_use_mm_for_euclid_dist"
        )
        same = image[:, None] == image
        within.append(distance[same & ~torch.eye(len(image), dtype=torch.bool)])
        between.append(distance[~same])
    return (torch.cat(within).mean() / torch.cat(between).mean()).item()


# %%
rows = []
for run, model in networks.items():
    points = representation(model, ginv.group_named(run.group), images)
    key = run.group, run.method, run.seed, "distance_ratio"
    rows.append([*key, distance_ratio(points, labels)])
columns = ["group", "method", "seed", "metric", "value"]
ratios = pd.DataFrame(rows, columns=columns)

# %%
by_model = ratios.groupby(["group", "method"]).value
over_seeds = by_model.agg(["mean", "std"]).unstack(0)
over_seeds = over_seeds.swaplevel(axis=1).sort_index(axis=1)
show_table(over_seeds, f"Distance ratio, {len(settings.seeds)} seeds")

# %% [markdown]
# That is the mean over the seeds and its deviation. To see it, we flatten the 128 dimensions to two with t-SNE
# {cite}`vandermaaten2008`, which keeps neighbours together and distances not.


# %%
def embed(axis, acting, method, shown=100):
    """t-SNE of the orbits of some images, drawn as numerals: `[G, shown, 2]`."""
    points = representation(models[acting.name, method], acting, images[:shown])
    flat = points.flatten(0, 1).numpy()
    flat = TSNE(init="pca", random_state=0).fit_transform(flat)
    places = torch.tensor(flat).unflatten(0, points.shape[:2])
    style = dict(color="0.65", s=14, linewidths=0)
    for label in range(9):
        here = places[:, labels[:shown] == label].reshape(-1, 2)
        axis.scatter(*here.T, marker=f"${label}$", **style)
    axis.set(xticks=[], yticks=[])
    axis.margins(0.15)
    return places


# %% [markdown]
# Then the orbits of single images are traced over it. A digit is drawn beside the point where it lands, on the outside of
# its orbit, so that the lines stay visible; where an orbit is one point, its digits stand around it.


# %%
def draw_beside(axis, picture, place, offset):
    """A small picture, its white transparent, some points from its place."""
    opaque = (picture.amin(-1, keepdim=True) < 0.95).float()
    box = OffsetImage(torch.cat([picture, opaque], -1).numpy(), zoom=0.6)
    where = dict(boxcoords="offset points", frameon=False)
    axis.add_artist(AnnotationBbox(box, place, offset, **where))


# %%
def directions(orbit, least):
    """Unit vectors out of an orbit `[G, 2]`; around it where it is a point."""
    outwards = orbit - orbit.mean(0)
    angle = torch.arange(len(orbit)) * 2 * torch.pi / len(orbit)
    around = torch.stack([angle.cos(), angle.sin()], 1)
    is_point = outwards.norm(dim=1).amax() < least
    return around if is_point else F.normalize(outwards, dim=1)


# %%
def trace(axis, places, i, acting, method, line):
    """The orbit of image i as a closed line, the image at its corners."""
    orbit, colour = places[:, i], METHOD_STYLES[method].colour
    axis.fill(*orbit.T, fill=False, ls=line, lw=1.5, color=colour, zorder=4)
    axis.scatter(*orbit.T, color=colour, s=12, zorder=4)
    x, model = images[i, None], models[acting.name, method]
    maps = ginv.orbit_maps(model, x, labels[i, None], acting)
    offsets = 15 * directions(orbit, 0.1 * places.std())
    for g, offset in enumerate(offsets):
        picture = saliency_picture(acting.act(g, x[0]), acting.act(g, maps[g, 0]))
        draw_beside(axis, picture, orbit[g], offset)


# %% {"mystnb": {"figure": {"caption": "Figure 2 of the paper, and beside it the same for IR and WT: the last hidden layer, flattened by t-SNE. Each grey numeral is one orientation of a test image, drawn as its class. The orbits of the first images of four classes are traced, in four kinds of line, and drawn with their saliency in red beside the point where they land. Under WT an orbit is one point of the layer. The number above is the distance ratio, averaged over seeds and measured in the layer itself, not in the picture.", "name": "fig-2"}, "image": {"alt": "Scatter plots of class numerals, for each group a large one for data augmentation and two small ones; closed lines join the orientations of four digits, which are drawn at the corners"}}}
ratio = ratios.groupby(["group", "method"]).value.mean()
lines = {2: "-", 3: "--", 5: ":", 7: "-."}
figure = plt.figure(figsize=(8, 4.7 * len(groups)))
panels = figure.subfigures(len(groups), 1, squeeze=False).flat
for acting, part in zip(groups, panels):
    part.suptitle(GROUP_NAMES[acting.name], weight="bold")
    mosaic = part.subplot_mosaic([["DA", "DA", "IR"], ["DA", "DA", "WT"]])
    for method, axis in mosaic.items():
        places = embed(axis, acting, method)
        for label, line in lines.items():
            i = (labels == label).int().argmax()
            trace(axis, places, i, acting, method, line)
        value = ratio[acting.name, method]
        axis.set_title(f"{method}: distance ratio {value:.2f}")

# %% {"tags": ["hide-input"]}
Markdown(
    "\n".join(
        f"- {GROUP_NAMES[acting.name]}: DA puts two orientations of an image {ratio[acting.name, 'DA']:.2f} times as "
        f"far apart as two images of a class; IR {ratio[acting.name, 'IR']:.3f} times; WT {ratio[acting.name, 'WT']:.0e}."
        for acting in groups
    )
)

# %% [markdown]
# ## What makes SI trustworthy
#
# SI hangs on a chain of choices: a kind of attribution, a baseline, a number of steps, a threshold, a blur, a target.
# Before we believe what it says we should know what it would say of maps that have nothing in common, and how much of it
# is the choices'. Each row of what follows is SI of the three networks with *one* thing changed.
#
# ### Floor and ceiling
#
# WT is the ceiling, 1 by construction. For the floor we mix the maps up: each is compared with maps of
# *other images*, now and then of the same class, and (but for the row without pairs $g = h$) with itself, which alone
# gives one over the number of elements.


# %%
def mean_similarity(maps, **options):
    return ginv.saliency_invariance(maps, **options).mean().item()


def mixed(maps):
    """Each orbit put together from maps of different images."""
    return torch.stack([maps_of_g.roll(g, 0) for g, maps_of_g in enumerate(maps)])


# %%
def both(maps, **options):
    """SI, and SI of the mixed maps."""
    return mean_similarity(maps, **options), mean_similarity(mixed(maps), **options)


# %%
maps_of, similarity = {}, {}  # SI and its floor by group, method and variant
for (name, method), model in models.items():
    maps = ginv.orbit_maps(model, images, labels, ginv.group_named(name))
    maps_of[name, method] = maps
    similarity[name, method, "as in this book"] = both(maps)
    distinct = both(maps, distinct=True)
    similarity[name, method, "without pairs g = h"] = distinct

# %% [markdown]
# A second floor is a network that has learned nothing {cite}`adebayo2018`: the same one, with the weights from which its
# training began. A measure that calls it invariant would be measuring the images and not the network. WT is invariant
# before any training, so it keeps its 1.

# %%
for run in networks:
    if run.seed == settings.seeds[0]:
        untrained = run.model(torch.Generator().manual_seed(run.seed))
        maps = ginv.orbit_maps(untrained, images, labels, ginv.group_named(run.group))
        similarity[run.group, run.method, "before training"] = both(maps)

# %% [markdown]
# ### Empty maps
#
# The cosine with an empty map is not defined; `ginv` counts it as 0, and the pair of an empty map with itself too. So an
# image without any attribution has SI 0 even under WT. That would be unfair, if it happened:

# %%
nothing = torch.zeros(1, 1, 36, 36)
tied = models[groups[0].name, "WT"]
blank = mean_similarity(ginv.orbit_maps(tied, nothing, labels[:1], groups[0]))
empty = [maps.flatten(2).amax(-1) == 0 for maps in maps_of.values()]
empty = torch.cat([which.flatten() for which in empty])
Markdown(
    f"SI of a blank image under WT: {blank:.0f}. Of our {len(empty):,} maps, {empty.sum()} are empty."
)

# %% [markdown]
# ### The choices in a map
#
# A choice that makes SI larger may do so for maps of other images as well, so each variant is given with its own floor.
# The choices are the threshold, the blur, the baseline (black is what the background of a digit becomes when images are
# normalised), the number of steps, the class whose logit is attributed, and the gradient at the image itself in place
# of the integrated one.


# %%
def gradient(model, images, targets):
    x = images.clone().requires_grad_()
    return torch.autograd.grad(model(x).gather(1, targets[:, None]).sum(), x)[0]


def towards_prediction(model, images, targets):
    return ginv.integrated_gradients(model, images, model(images).argmax(1))


# %%
integrate, black = ginv.integrated_gradients, images.min()
variants = {
    "threshold 0.5": dict(threshold=0.5),
    "threshold 0": dict(threshold=0),
    "no blur": dict(sigma=0),
    "baseline black": dict(attribute=partial(integrate, baseline=black)),
    "10 steps": dict(attribute=partial(integrate, steps=10)),
    "20 steps": dict(attribute=partial(integrate, steps=20)),
    "200 steps": dict(attribute=partial(integrate, steps=200)),
    "predicted class": dict(attribute=towards_prediction),
    "plain gradient": dict(attribute=gradient),
}

# %%
for (name, method), variant in product(models, variants):
    model, acting = models[name, method], ginv.group_named(name)
    maps = ginv.orbit_maps(model, images, labels, acting, **variants[variant])
    similarity[name, method, variant] = both(maps)

# %%
similarity = pd.DataFrame(similarity, index=["SI", "floor"]).T
similarity.index.names = ["group", "method", "variant"]
order = ["as in this book", "without pairs g = h", "before training", *variants]
columns = list(product(settings.groups, METHOD_STYLES))
similarity = similarity.unstack(["group", "method"]).loc[order]
floors, similarity = similarity["floor"][columns], similarity["SI"][columns]
show_table(similarity, f"SI of {len(images)} images", precision=2)

# %% [markdown]
# And the floor of each variant, where maps of different images are compared:

# %%
show_table(floors, "SI of mixed maps", precision=2)

# %% {"mystnb": {"figure": {"caption": "The table as a picture: SI with one thing changed at a time. The vertical tick in each row is DA with its maps mixed up between images: the floor of that variant.", "name": "fig-variants"}, "image": {"alt": "Dot plot of SI for each variant, with a marker per method and a tick for the floor, one panel per group"}}}
tick = dict(marker="|", ls="", ms=14, mew=2, color="black")
for name, axis in group_panels(settings, height=4.4).items():
    axis.plot(floors[name, "DA"], order, label="floor (DA)", **tick)
    for method, style in METHOD_STYLES.items():
        look = dict(marker=style.marker, ls="", color=style.colour)
        axis.plot(similarity[name, method], order, label=method, **look)
    axis.set(xlabel="saliency invariance SI", xlim=(-0.03, 1.05))
axis.invert_yaxis()
handles = axis.get_legend_handles_labels()
legend = plt.gcf().legend(*handles, loc="outside lower center", ncols=4)


# %% {"tags": ["hide-input"]}
def compare(name):
    da, ir, floor = (similarity[name, "DA"], similarity[name, "IR"], floors[name, "DA"])
    above = (da - floor) / (1 - floor)  # 0 at the floor of the variant, 1 for WT
    here, chosen = "as in this book", list(variants)
    most = (da[chosen] - da[here]).abs().idxmax()
    low, high = above[chosen].idxmin(), above[chosen].idxmax()
    return (
        f"- **{GROUP_NAMES[name]}.** DA has {da[here]:.2f}, with its maps mixed up {floor[here]:.2f}, and before "
        f"training {da['before training']:.2f}. What moves it most is *{most}*, to {da[most]:.2f}; but that moves the "
        f"floor to {floor[most]:.2f}. On the way from the floor (0) to WT (1), DA stands at {above[here]:.2f} as in "
        f"this book, and between {above[low]:.2f} (*{low}*) and {above[high]:.2f} (*{high}*) in the variants. IR is above DA "
        f"in {(ir > da)[chosen].sum()} of the {len(chosen)}."
    )


Markdown("\n".join(compare(name) for name in settings.groups))

# %% [markdown]
# ### Are fifty steps enough?
#
# Integrated gradients are an integral, and the sum of fifty gradients is not it. Here we can know the truth. A network of
# ReLUs is linear wherever none of them switches, so on the straight path to $x$ its gradient is constant but for a
# finite number of jumps. Find the jumps, and the integral is a sum without error.
#
# The first layer is linear along the path $ax$ (the weight-tied one too, since a positive factor passes through a
# maximum), so each of its units switches at most once, at a point that two evaluations give. Between those points the
# second layer is linear; and so on, layer by layer.


# %%
def breakpoints(model, start, end):
    """All a in [0, 1] between which the network is linear along lerp(start, end, a), 0 and 1 included."""
    a = torch.tensor([0.0, 1.0], dtype=start.dtype)
    for relu in range(0, len(model.hidden), 2):  # ReLU, linear, ReLU, ..., ReLU
        # what enters it, [points, width]
        z = model.hidden[:relu](torch.lerp(start, end, a[:, None]))
        left, right = z[:-1], z[1:]
        switch = a[:-1, None] + a.diff()[:, None] * left / (left - right)
        a = torch.cat([a, switch[left * right < 0]]).sort().values
    return a


# %% [markdown]
# Then each piece of the path counts with its length and the gradient at its middle. Double precision, so that no switch
# is lost to rounding.


# %%
def exact_attribution(model, image, target):
    """Integrated gradients of one image `[1, 1, H, W]` without error, and the number of pieces."""
    x = image.double().requires_grad_()
    start, end = model.features(torch.cat([torch.zeros_like(x), x]))
    a = breakpoints(model, start.detach(), end.detach())
    path = torch.lerp(start, end, (a[1:, None] + a[:-1, None]) / 2).detach().requires_grad_()
    slope = torch.autograd.grad(model.output(model.hidden(path))[:, target].sum(), path)[0]
    return torch.autograd.grad(end, x, a.diff() @ slope)[0] * image, len(a) - 1


# %% [markdown]
# Ten images in every orientation, for each network. Beside the error of the attributions we look at *completeness*:
# integrated gradients must sum to $f(x) - f(0)$, which needs no exact integral to check.


# %%
def sums_and_integral(model, x, y):
    """Attributions of images by number of steps, the exact ones as 0 steps."""
    found = {n: integrate(model, x, y, steps=n) for n in (10, 20, 50, 200)}
    exact, pieces = zip(*map(partial(exact_attribution, model), x[:, None], y))
    return {0: torch.cat(exact), **found}, sum(pieces) / len(pieces)


# %%
def errors_of(found, rise):
    """Distance from the exact attributions, and from completeness."""
    exact = found[0].flatten(1)
    for steps, attribution in found.items():
        away = (attribution.flatten(1) - exact).norm(dim=1) / exact.norm(dim=1)
        gap = (attribution.flatten(1).sum(1) - rise).abs().mean()
        yield steps, away.mean().item(), (gap / rise.abs().mean()).item()


# %%
rows, few = [], 10
for (name, method), model in models.items():
    double, acting = copy.deepcopy(model).double(), ginv.group_named(name)
    x = acting.orbit(images[:few]).double().flatten(0, 1)
    y = labels[:few].repeat(acting.order)
    found, pieces = sums_and_integral(double, x, y)
    rise = double(x) - double(torch.zeros_like(x))
    rise = rise.gather(1, y[:, None]).squeeze(1)
    for steps, away, gap in errors_of(found, rise):
        maps = ginv.saliency_map(found[steps]).unflatten(0, (-1, few))
        si = mean_similarity(acting.align(maps))
        rows.append([name, method, steps, away, gap, si, pieces])

# %%
columns = ["group", "method", "steps", "error", "gap", "SI", "pieces"]
errors = pd.DataFrame(rows, columns=columns)
table_of_si = errors.pivot(index="steps", columns=["group", "method"], values="SI")
show_table(table_of_si.rename({0: "exact"}), f"SI of {few} images by steps")

# %% {"mystnb": {"figure": {"caption": "How far sums of gradients are from the integral. Lines with markers: distance from the exact attributions over their length. Thin lines: how much is missing in completeness. The dotted line is at the fifty steps that this book takes.", "name": "fig-steps"}, "image": {"alt": "Relative error against number of steps on logarithmic axes, falling lines for three methods, one panel per group"}}}
for name, axis in group_panels(settings).items():
    for method, style in METHOD_STYLES.items():
        rows = errors[(errors.group == name) & (errors.method == method)]
        rows, look = rows[rows.steps > 0], dict(color=style.colour)
        axis.loglog(rows.steps, rows.gap, style.line, lw=0.8, **look)
        look |= dict(marker=style.marker, label=method)
        axis.loglog(rows.steps, rows.error, style.line, **look)
    axis.axvline(ginv.saliency.STEPS, ls=":", color="black")
    axis.set(xlabel="steps", ylabel="relative error")
    axis.set(xticks=[10, 20, 50, 200], xticklabels=[10, 20, 50, 200])
    axis.label_outer()
legend = axis.legend()


# %% {"tags": ["hide-input"]}
def enough(rows):
    at = rows.set_index(["steps", "method"])
    fifty, exact = at.loc[ginv.saliency.STEPS], at.loc[0]
    return (
        f"- **{GROUP_NAMES[rows.group.iloc[0]]}.** The path to an image has {exact.pieces.mean():.0f} pieces "
        f"on average. Fifty steps miss {100 * fifty.error.max():.2f} % of the attributions and {100 * fifty.gap.max():.2f} % "
        f"of completeness for the worst of the three networks, and move SI by no more than "
        f"{(fifty.SI - exact.SI).abs().max():.0e}; the exact sum misses {exact.gap.max():.0e} of completeness."
    )


Markdown("\n".join(enough(rows) for _, rows in errors.groupby("group")))

# %% [markdown]
# ### From image to image, and from class to class
#
# SI is a mean over images that behave very differently. Here it is image by image, on all test images.

# %%
samples = {
    (run.group, run.method): settings.measure(result).samples
    for run, result in trained.items()
    if run.seed == settings.seeds[0]
}
by_class = pd.DataFrame({key: rows.groupby("label").SI.mean() for key, rows in samples.items()})
show_table(
    by_class.rename_axis(columns=["group", "method"]), "SI by class, first seed", precision=2
)

# %% {"mystnb": {"figure": {"caption": "Left: the share of test images whose SI is at most the value on the axis; WT is the step at 1, up to rounding. Right: the mean of each class.", "name": "fig-spread"}, "image": {"alt": "Cumulative distribution of SI over images, and SI for each class, for three methods, one row per group"}}}
size = (8.5, 3 * len(groups))
figure, axes = plt.subplots(len(groups), 2, figsize=size, squeeze=False)
for name, (left, right) in zip(settings.groups, axes):
    for method, style in METHOD_STYLES.items():
        look, values = dict(color=style.colour), samples[name, method].SI
        left.ecdf(values.clip(upper=1), ls=style.line, label=method, **look)
        right.plot(by_class[name, method], style.marker, **look)
    left.set(title=GROUP_NAMES[name], xlabel="SI of an image", xlim=(0, 1.02))
    left.set_ylabel("share of images")
    right.set(xlabel="class", ylabel="mean SI", ylim=(0, 1.05), xticks=range(9))
legend = axes[0, 0].legend(loc="upper left")


# %% {"tags": ["hide-input"]}
def spread(name):
    da = samples[name, "DA"]
    seeds_apart = table[table.metric == "SI"].groupby(["group", "method"]).value.std()
    off = (samples[name, "WT"].SI < 0.999).sum()
    why = ": presumably a pixel just at the threshold, which rounding puts on either side"
    right, classes = da[da.accuracy == 100], by_class[name, "DA"]
    sure = (
        f" Between seeds its mean deviates by {seeds_apart[name, 'DA']:.3f}."
        if len(settings.seeds) > 1
        else ""
    )
    return (
        f"- **{GROUP_NAMES[name]}.** SI of DA has a standard deviation of {da.SI.std():.2f} over images; class "
        f"means run from {classes.min():.2f} (class {classes.idxmin()}) to {classes.max():.2f} (class {classes.idxmax()})."
        f"{sure} Of the {len(right):,} images that DA names right in *every* orientation the mean SI is "
        f"{right.SI.mean():.2f} (of all images: {da.SI.mean():.2f}), and {100 * (right.SI >= 0.95).mean():.1f} % have an SI of 0.95 or more. Under WT {off:,} "
        f"of {len(da):,} images fall below 0.999{why if off else ''}."
    )


Markdown("\n".join(spread(name) for name in settings.groups))

# %% [markdown]
# So a low SI is not the price of a few failures: where every answer is right, the maps still part.
#
# ## Shrinking the logits
#
# LI is a squared distance between logits, and the size of logits is a matter of taste: dividing all of them by 100
# changes no decision. It divides LI by 10,000. A network that is trained to have a small LI could do just that, and a
# reader of LI would think that it had become invariant. The companions in `ginv.measure` are there to tell:
#
# - `relative_LI`: LI of the logits less their mean over classes, over the mean squared size of the same;
# - `orbit_over_sample_variance`: how far the logits of an orbit are apart, in units of how far apart those of different
#   images are;
# - `flip_rate`: the share of pairs of orientations that are given different classes;
# - `JS`: the Jensen-Shannon divergence, which is DI without its unbounded logarithm.
#
# We shrink the output layer of DA, and nothing else.


# %%
def measure_shrunk(acting, factor=100):
    """`ginv.measure` of DA, and of DA with smaller logits."""
    model = models[acting.name, "DA"]
    shrunk = copy.deepcopy(model)
    for parameter in shrunk.output.parameters():
        parameter.div_(factor)
    pair = {"DA": model, "DA / 100": shrunk}
    rows = [ginv.measure(f, images, labels, acting) for f in pair.values()]
    return pd.DataFrame(dict(zip(pair, (row.summary for row in rows))))


# %%
shrinking = {acting.name: measure_shrunk(acting) for acting in groups}
shrinking = pd.concat(shrinking, axis=1)
show_table(shrinking.map("{:.2g}".format), f"{len(images)} images, first seed")

# %% [markdown]
# LI and DI are fooled, and JS with DI: probabilities that are all nearly uniform are nearly equal. The relative LI, the
# ratio of variances and the flip rate are what they were, and so is SI, which compares directions. Here is the panel for
# the three networks, on all test images, with the deviation over seeds.

# %%
METRICS = ["LI", "DI", "JS", "relative_LI", "orbit_over_sample_variance"]
METRICS += ["flip_rate", "SI", "logit_norm"]
over_seeds = table.groupby(["metric", "group", "method"]).value
spread = over_seeds.std().map("{:.1g}".format).radd(" ± ").replace(" ± nan", "")
text = over_seeds.mean().map("{:.2g}".format) + spread
show_table(text.unstack(["group", "method"]).loc[METRICS], settings.label)


# %%
def as_errors(frame):
    """Rows are metrics, each 0 for an invariant network."""
    rows = frame.loc[METRICS[:-2]].copy()
    rows.loc["1 - SI"] = 1 - frame.loc["SI"]
    return rows


# %% {"mystnb": {"figure": {"caption": "Each metric as a multiple of its value for DA; further left looks more invariant. Open circles: DA with its logits divided by 100, which is no more invariant than DA and should stand on the line. Above the dotted line are the metrics that can be fooled, below it those that cannot. WT is left out, being zero up to rounding.", "name": "fig-scale"}, "image": {"alt": "Dot plot on a logarithmic axis: IR and DA with shrunk logits, relative to DA, for seven metrics, one panel per group"}}}
hollow = dict(marker="o", ls="", mfc="none", color="black")
filled = dict(marker="^", ls="", color=METHOD_STYLES["IR"].colour)
for name, axis in group_panels(settings).items():
    of_all, shrunk = as_errors(means.loc[name].T), as_errors(shrinking[name])
    of_ir, of_shrunk = of_all.IR / of_all.DA, shrunk["DA / 100"] / shrunk.DA
    axis.semilogx(of_ir, of_all.index, label="IR", **filled)
    axis.semilogx(of_shrunk, of_all.index, label="DA / 100", **hollow)
    axis.axvline(1, color=METHOD_STYLES["DA"].colour, ls="--", label="DA")
    axis.axhline(2.5, ls=":", color="grey")
    axis.set(xlabel="relative to DA")
axis.invert_yaxis()
handles = axis.get_legend_handles_labels()
legend = plt.gcf().legend(*handles, loc="outside lower center", ncols=3)


# %% {"tags": ["hide-input"]}
def share_of_scale(name):
    da, ir = means.loc[name, "DA"], means.loc[name, "IR"]
    by, honest = da.LI / ir.LI, da.relative_LI / ir.relative_LI
    return (
        f"- **{GROUP_NAMES[name]}.** The penalty of IR divides LI by {by:,.0f}. Relative to the size of the "
        f"logits, which falls from {da.logit_norm:.1f} to {ir.logit_norm:.1f}, it divides it by {honest:,.0f}: the square "
        f"of that fall alone would divide LI by {(da.logit_norm / ir.logit_norm) ** 2:,.0f}. The rate of flips goes from {100 * da.flip_rate:.1f} % to "
        f"{100 * ir.flip_rate:.1f} %."
    )


Markdown("\n".join(share_of_scale(name) for name in settings.groups))

# %% [markdown]
# Nothing above is about perceptrons: [Your own model](your_model.ipynb) measures a residual network on images in
# colour, with a loader and a group of its own.
#
# ## The numbers of this page


# %%
def long(frame):
    """Columns (group, method), an index of metrics, first seed, as rows."""
    frame = frame.rename_axis(index="metric", columns=["group", "method"])
    rows = frame.unstack().rename("value").reset_index()
    return rows.assign(seed=settings.seeds[0])


# %%
fifty = errors[errors.steps == ginv.saliency.STEPS]
fifty = fifty.set_index(["group", "method"])[["error", "gap"]].T
numbers = [
    table,
    ratios,
    long(similarity.rename("SI ({})".format)),
    long(floors.rename("SI floor ({})".format)),
    long(fifty.rename("attribution {}, 50 steps".format)),
    long(shrinking.drop(columns="DA", level=1)),
]
columns = ["group", "method", "seed", "metric", "value"]
settings.save(pd.concat(numbers)[columns], results, "metrics")

# %% [markdown]
# ## What you saw


# %% {"tags": ["hide-input"]}
def found(acting):
    name = acting.name
    wt, da, ir = (means.loc[name, method] for method in ("WT", "DA", "IR"))
    floor = floors[name, "DA"]["as in this book"]
    return (
        f"- **{GROUP_NAMES[name]}.** DA names {da.accuracy:.1f} % of all orientations right (WT: "
        f"{wt.accuracy:.1f} %). But turning the image moves its logits: LI is {da.LI:.1f}, and relative LI {da.relative_LI:.0%} of "
        f"their squared size, image by image. It moves the image in the last layer, by {ratio[name, 'DA']:.2f} of the distance to another "
        f"image of the class (IR: {ratio[name, 'IR']:.2f}, WT: {ratio[name, 'WT']:.0e}). And it changes what is looked "
        f"at: SI is {da.SI:.2f}, between {floor:.2f} for maps mixed up between images and {wt.SI:.2f} for WT. IR brings SI to "
        f"{ir.SI:.2f}, at {ir.accuracy:.1f} % accuracy."
    ).replace("turning", "turning" if name == "R4" else "shifting")


Markdown("\n".join(found(acting) for acting in groups))

# %% [markdown]
# This is why a high accuracy over the orbit is not invariance. Accuracy asks one thing of each orientation: that it lands
# on the right side of a boundary. A network can meet that demand as well by learning every orientation apart, each with its
# own strokes to look at and its own place in the last layer, as long as all those places bear the same name. WT has one
# place and one set of strokes, and no way of giving two answers. As long as you look at answers alone,
# on images like those of the training, the two are the same to you. LI, DI and SI are three ways of not looking at answers
# alone.
#
# And how far to trust them: LI and DI depend on the size of the logits, so read them beside `relative_LI` or the ratio of
# variances. SI has a floor, which is not 0, and its value depends on the threshold and the attribution behind it; compare
# networks under one convention, and not numbers across papers.
