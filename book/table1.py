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
# # Table 1: three ways to invariance
#
# A network can be *built* so that turning an image changes nothing, or it can *learn* from turned examples to give the
# right answer each time, or it can be *made to agree* with itself while it learns. This page shows how each is done,
# trains them as the paper does, and lays our Table 1 beside the paper's. It is Section 4.2 of [Moskalev et al. (2023)](https://arxiv.org/abs/2308.03904).

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
from itertools import product

import matplotlib.pyplot as plt
import pandas as pd
import torch
import torch.nn.functional as F
from IPython.display import HTML, display

import ginv
from ginv.data import CLASSES
from ginv.pages import Settings, expect, refuse_unknown
from ginv.pages.drawings import draw_three_ways
from ginv.pages.figures import (
    GROUP_NAMES,
    METHOD_STYLES,
    group_panels,
    plot_methods,
    show_framed,
    show_saliency,
    show_table,
    use_style,
)
from ginv.pages.paper import METRICS, book_file, printed_table, room
from ginv.pages.stepper import orbit_stepper
from ginv.recipe import GROUPS, METHODS, Run
from ginv.runs.nu import TARGET, read_sweep
from ginv.stack import train_stack

refuse_unknown()  # a parameter by a wrong name
settings = Settings(profile, group, seeds, device, results)
use_style()
trained = settings.train()
table = settings.table(trained)
settings.save(table, results, "table1")
runs = table.pivot_table("value", ["group", "method", "seed"], "metric")
printed = printed_table()

# %% {"mystnb": {"figure": {"name": "fig-table1"}, "image": {"alt": "Accuracy against saliency similarity, a panel per group: small markers of our networks and large open ones of the paper's means. They coincide but for data augmentation on rotations, where the paper's lies further left"}}, "tags": ["hide-input"]}
panels = group_panels(settings)
plot_methods(panels, runs)
for (name, method), row in printed["mean"].unstack().loc[list(settings.groups)].iterrows():
    style = METHOD_STYLES[method]
    panels[name].plot(row.SI, row.accuracy, style.marker, color=style.colour, mfc="none", ms=11)

# %% [markdown]
# *Table 1 as a picture. Filled: our networks, one marker per seed. Open: the paper's means. Up is accurate over all
# orientations, right is a network that looks at the same pixels in each of them (SI). Ours and the paper's part ways on
# the rotations: in the SI of augmentation, and, by 1.6 points, in the accuracy of regularisation.*
#
# ## One digit, all its orientations
#
# The digits are MNIST's ([LeCun et al., 1998](https://doi.org/10.1109/5.726791)) without the 9, which turned upside down is a 6. They are padded with zeros from 28
# to 36 pixels, since 36 can be divided by 3 and 28 cannot, and shifted and scaled to mean 0 and deviation 1.

# %%
data = ginv.load_dataset()
assert (len(data.train), len(data.validation), len(data.test)) == (10_000, 2_000, 50_000)
test = data.test
digit = test.images[4:5]
groups = [ginv.group_named(name) for name in settings.groups]

# %% {"mystnb": {"figure": {"name": "fig-orbits"}, "image": {"alt": "A row of one digit in four orientations, and a row of it in three horizontal positions, in the last two of which it is cut at the edge and goes on at the other"}}, "tags": ["hide-input"]}
figure, axes = plt.subplots(len(groups), 4, figsize=(5, 1.5 * len(groups)), squeeze=False)
for row, each in zip(axes, groups):
    show_framed(row, each.orbit(digit[0]), [f"{each.name}, g = {g}" for g in each.elements])

# %% [markdown]
# *One digit, its two orbits, one label. R4 turns the image by quarters. T3 shifts it by thirds of the width, and what
# leaves on one side comes back on the other.*
#
# Each network is trained and tested on one of the two groups. Both only move pixels, so nothing is interpolated and nothing
# is lost.
#
# ## Three ways
#
# All three are a perceptron $f$ with five hidden layers of 128 units and ReLU, from $36 \times 36$ pixels to 9 logits; WT's
# first layer differs. The paper says "5-layer" and "230k parameters"; five *hidden* layers give that number. And all three,
# WT too, are trained on images in random orientations.

# %%
network = ginv.MLP(generator=torch.Generator().manual_seed(0))
sum(parameter.numel() for parameter in network.parameters())

# %% {"mystnb": {"figure": {"name": "fig-three-ways"}, "image": {"alt": "Three rows. Weight-tying: a turned digit meets one filter in four orientations, the largest response goes on to further layers, and the loss compares with the label. Data augmentation: a turned digit, the network, the loss. Invariance regularisation: two orientations of a digit, the same network twice, the loss on the first, and a penalty on the difference of the two outputs"}}, "tags": ["hide-input"]}
draw_three_ways(ginv.Rotations(4), digit[0, 0])

# %% [markdown]
# *Tied, augmented, regularised. WT turns its filters; DA turns the image, and changes nothing in the network; IR turns it
# twice and adds a penalty on the difference.*
#
# **Weight-tying (WT).** Each filter $w$ of the first layer is applied in all orientations, and the unit passes on the
# largest response, $\max_g \langle gw, x \rangle + b$. Turning the image permutes these responses and leaves their maximum
# alone, so the network is invariant whatever its weights are. (The paper says "a pooling over a group". The maximum is our
# choice, and [What the paper leaves open](open_choices.ipynb) tries the mean.)

# %%
rotations = ginv.Rotations(4)
tied = ginv.MLP(rotations, generator=torch.Generator().manual_seed(0))
layer, x = tied.features[1], test.images[:100]
filters = rotations.orbit(layer.weight.view(128, 36, 36)).flatten(2)  # [G, 128, 36 * 36]
responses = x.flatten(1) @ filters.mT  # [G, n, 128]
torch.testing.assert_close(tied.features(x), responses.amax(0) + layer.bias)
torch.testing.assert_close(tied(rotations.act(1, x)), tied(x))

# %% [markdown]
# **Data augmentation (DA).** The network stays as it is. Each image is shown in an orientation $g$ drawn at random, anew in
# each epoch, and keeps its label.


# %%
def turned(x, g):
    """Each image in its own orientation."""
    return rotations.orbit(x)[g, torch.arange(len(x))]


def da_loss(model, x, y, g):
    return F.cross_entropy(model(turned(x, g)), y)


# %% [markdown]
# **Invariance regularisation (IR).** Every image is shown in two random orientations, and the network pays for the
# difference between its two outputs. Equation 4 of the paper is
#
# $$ \min_\theta \; \mathcal{L}_f(\mathcal{D}) + \nu \, I_f(\mathcal{D}, \mathcal{G}) , $$
#
# and for $I_f$ we take the logit error $\tfrac12 \lVert f(gx) - f(hx) \rVert_2^2$ of one random pair an image. The task
# loss is DA's, on the first of the two.


# %%
def ir_loss(model, x, y, g, h, nu):
    change = model(turned(x, g)) - model(turned(x, h))
    return da_loss(model, x, y, g) + nu * change.square().sum(1).mean() / 2


# %% [markdown]
# Drawn independently, $g$ and $h$ make every pair of orientations equally likely. So the penalty is on average the very LI
# that is measured in the end:

# %%
logits = ginv.orbit_logits(network, x, rotations).double()
pairs = [(a - b).square().sum(1) / 2 for a in logits for b in logits]
torch.testing.assert_close(torch.stack(pairs).mean(0), ginv.logit_invariance(logits))

# %% [markdown]
# The rest is the same for all three: Adam with learning rate 0.0008, batches of 512 out of 10,000 images, 300 epochs, and
# in the end the weights of the epoch with the best validation accuracy. Here are the first two steps of IR by hand, on
# 1,024 images:

# %%
n, generator = 1024, torch.Generator().manual_seed(0)
network = ginv.MLP(generator=generator)
optimiser = torch.optim.Adam(network.parameters(), lr=8e-4)
shuffled = torch.randperm(n, generator=generator)
drawn = torch.randint(rotations.order, (2, n), generator=generator)

# %%
# Run again, it goes on where it was; to begin anew, run the cell above first
for rows, (g, h) in zip(shuffled.split(512), drawn.split(512, dim=1)):
    images, labels = data.train.images[rows], data.train.labels[rows]
    loss = ir_loss(network, images, labels, g, h, nu=10.0)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()

# %% [markdown]
# `ginv` trains many networks at once, and each of them like this. (Those of this page come from `settings.train()`, in the
# folded cell at the top, which loads what has been trained before. For another recipe change a field,
# `ginv.train([replace(settings.run("R4", "IR", 0), epochs=100)])` with `dataclasses.replace`.)

# %%
first = Run("R4", "IR", nu=10.0, epochs=1, train_images=n)
[same] = train_stack([first], device=torch.device("cpu"), progress=False)
torch.testing.assert_close(network(x), same.model(x), rtol=1e-3, atol=1e-4)

# %% {"mystnb": {"figure": {"name": "fig-training"}, "image": {"alt": "Validation accuracy against epoch, a line per method, one panel per group: weight-tying first, augmentation close behind, regularisation below"}}, "tags": ["hide-input"]}
curves = pd.DataFrame(
    {run: result.record["validation_accuracy"] for run, result in trained.items()}
)
for name, axis in group_panels(settings).items():
    for method, style in METHOD_STYLES.items():
        some = [run for run in trained if (run.group, run.method) == (name, method)]
        axis.plot(100 * curves[some].mean(axis=1), style.line, color=style.colour, label=method)
    axis.set(xlabel="epoch", ylabel="validation accuracy (%)", ylim=(60, 100))
    axis.label_outer()
    axis.legend(loc="lower right")

# %% [markdown]
# *Weight-tying learns fastest, since it sees all orientations at once; regularisation slowest. Mean over the seeds, on
# 2,000 validation images, each in one random orientation.*
#
# ### What the first layer has learned
#
# WT turns its filters itself and needs each of them once. A network that learns to be invariant could do the same by hand:
# learn each filter in all four orientations. The paper does not expect it: it says that augmentation makes a network learn
# "a separate set of features" for each. Do DA's filters come in orbits?


# %%
def model_of(acting, method):
    """The network of the first seed."""
    return trained[settings.run(acting.name, method, settings.seeds[0])].model.cpu()


def filters_of(method):
    """Its filters on the first group, strongest first."""
    weight = model_of(acting, method).features[1].weight.detach().unflatten(1, (36, 36))
    return weight[weight.norm(dim=(1, 2)).argsort(descending=True)]


acting = groups[0]

# %% {"mystnb": {"figure": {"name": "fig-filters"}, "image": {"alt": "Three rows of eight first-layer filters in a diverging colour map. Those of weight-tying and augmentation are strokes and blobs; those of regularisation are patterns that look much the same in every orientation"}}, "tags": ["hide-input"]}
figure, axes = plt.subplots(3, 8, figsize=(8, 3.2))
for row, method in zip(axes, METHODS):
    row[0].set_ylabel(method, rotation=0, ha="right", va="center")
    for axis, image in zip(row, filters_of(method)[:, 4:-4, 4:-4]):
        axis.imshow(image, cmap="PuOr", vmin=-image.abs().max(), vmax=image.abs().max())
        axis.set(xticks=[], yticks=[])

# %% [markdown]
# *Augmentation learns no orbits of filters; regularisation learns filters that hardly change when they are turned. The
# eight strongest filters of the first layer on R4, without the padding; purple is negative, orange positive.*


# %%
def likeness(filters, g):
    """The cosine of a filter, turned by g, with the most similar of the others; mean of 32."""
    units = filters / filters.norm(dim=(1, 2), keepdim=True)
    cosines = acting.act(g, units).flatten(1) @ units.flatten(1).T
    return cosines.fill_diagonal_(-1).max(1).values[:32].mean().item()


def symmetric_share(filters):
    """Of the squared weights: what is left when each filter is averaged over its orbit."""
    return (acting.orbit(filters).mean(0).square().sum() / filters.square().sum()).item()


# %% {"tags": ["hide-input"]}
found = {
    "most similar filter": [likeness(filters_of(method), 0) for method in METHODS],
    "most similar turned filter": [likeness(filters_of(method), 1) for method in METHODS],
    "symmetric share": [symmetric_share(filters_of(method)) for method in METHODS],
}
learned = pd.DataFrame(found, METHODS)
show_table(learned, f"First layer on {acting.name}, one seed", 2)

# %%
# expect() is silent where the words hold in this run, and shows a banner where not
share, nearest = learned["symmetric share"], learned["most similar turned filter"]
apart = abs(nearest["DA"] - 0.4) < 0.05 and abs(learned["most similar filter"]["DA"] - 0.3) < 0.05
symmetric = abs(share["IR"] - 0.8) < 0.05 and abs(share["DA"] - 0.4) < 0.05
expect(
    "DA's filters are no turned copies of each other, and IR's are symmetric", apart and symmetric
)

# %% [markdown]
# They do not, as far as their weights tell. Turn one of DA's 32 strongest filters, and the most similar of the others has a
# cosine of about 0.4 with it, where a copy would have 1. That is more than the 0.3 among the filters as they are, and far
# from an orbit. (By their responses to digits they do so about half-way: [The price of invariance](price.ipynb).)
#
# The last column shows what IR does instead. Average each filter over its own orbit, and 0.8 of IR's squared weights are
# left, 0.4 of DA's, and of random ones a quarter. A filter that equals its own turned copies gives the same response in all
# orientations, and cannot see what distinguishes them. That is invariance, bought by not looking.
#
# ## How strong a penalty?
#
# The paper tunes $\nu$ until the saliency similarity of the network is at least 0.95. We look for the smallest $\nu$ that
# does it on the 2,000 validation images: one seed finds the neighbourhood, in factors of 10, then of $\sqrt{10}$, and so
# on, and from there all four are trained, until their mean SI lies between 0.95 and 0.9525. `make tune` repeats the search.

# %% {"mystnb": {"figure": {"name": "fig-sweep"}, "image": {"alt": "Accuracy against saliency similarity, one point per nu, falling, with the chosen nu ringed, one panel per group"}}, "tags": ["hide-input"]}
sweep = read_sweep().query("regulariser == 'logit'")
for name, axis in group_panels(settings).items():
    points = sweep[sweep["group"] == name].groupby("nu")[["SI", "accuracy"]].mean()
    style = METHOD_STYLES["IR"]
    axis.plot(points.SI, points.accuracy, style.line, marker=style.marker, color=style.colour)
    chosen = points.loc[[ginv.chosen_nu(name)]]
    for nu, point in pd.concat([points.iloc[[0, -1]], chosen]).iterrows():
        place = (8, 5) if nu < 100 else (-30, -15)
        axis.annotate(f"ν = {nu:g}", point, textcoords="offset points", xytext=place)
    axis.plot(chosen.SI, chosen.accuracy, "o", ms=14, mfc="none", color="black")
    axis.axvline(TARGET, ls="--", color="grey")
    axis.set(xlabel="saliency invariance SI", ylabel="accuracy over the orbit (%)")
    axis.margins(x=0.15, y=0.15)
    axis.label_outer()

# %% [markdown]
# *The more invariant, the less accurate. A point per ν, on validation images; ringed, the chosen one; dashed, the target.*

# %%
expect("ν is 10 and 57", [ginv.chosen_nu(name) for name in GROUPS] == [10, 57])
near = sweep.query("group == 'R4' and 5 < nu <= 10").groupby("nu")[["SI", "accuracy"]].mean()
slope = near.accuracy.diff().iloc[-1] / near.SI.diff().iloc[-1]
expect("half a hundredth of SI is worth 0.75 points on R4", abs(-0.005 * slope - 0.75) < 0.05)

# %% [markdown]
# The search chose $\nu = 10$ for the rotations and 57 for the translations. Near the target the curve is steep on R4: an SI
# that is printed as 0.95 can be off by 0.005, and that is worth 0.75 points of accuracy.
#
# ## Measuring
#
# [How invariance is measured](metrics.ipynb) defines the three measures: LI for the logits, DI for the predicted
# distributions, SI for the saliency maps. Each is averaged over all ordered pairs of the orbit and over all 50,000 test
# images; the accuracy counts every orientation of every image.

# %%
means = table.groupby(["group", "method", "metric"]).value.mean().unstack()
tied_errors = means.xs("WT", level="method")
expect("WT is invariant up to rounding", (tied_errors[["LI", "DI"]] < 1e-6).all().all())

# %% [markdown]
# ## Table 1
#
# The paper's ± is not explained; we take it for the standard deviation over four seeds, as ours is. Two means *agree* if they
# differ by no more than twice the standard error of their difference, $2 \sqrt{s^2/n + s'^2/4}$ with our deviation $s$
# over $n = 4$ seeds and the paper's $s'$, plus half a unit of the last digit that the paper prints (its spread is rounded,
# too, and gets half a unit more). Our LI is doubled here, as if the paper's table left out the ½ of Equation 2: the only
# convention that fits its R4. The next section returns to that.


# %%
def agrees(ours, theirs):
    """ours: a value a seed; theirs: a row of the paper."""
    reach = room(ours.std(), len(ours), theirs)
    return abs(ours.mean() - theirs["mean"]) <= reach


# %% {"tags": ["hide-input"]}
doubled = runs[list(METRICS)] * {"accuracy": 1, "LI": 2, "DI": 1, "SI": 1}
verdicts = pd.Series(
    {
        key: agrees(doubled.loc[key[:2], key[2]], printed.loc[key])
        for key in printed.index
        if key[0] in settings.groups and len(settings.seeds) > 1
    },
    dtype=bool,
)


# %% {"tags": ["hide-input"]}
def beside(name, method, metric):
    """Our mean and deviation, the paper's, and a mark where they disagree."""
    ours, theirs = doubled.loc[(name, method), metric], printed.loc[(name, method, metric)]
    digits = 1 if theirs["mean"] > 1 and metric != "SI" else 2
    spread = "" if len(ours) < 2 else f" ± {ours.std():.{digits}f}"
    mark = "" if verdicts.get((name, method, metric), True) else "✕"
    return f"{ours.mean():.{digits}f}{spread}", f"{theirs.mean_text} ± {theirs.sd_text}", mark


for name in settings.groups:
    keys = [(metric, method) for metric in METRICS for method in METHODS]
    rows = {(m if m != "LI" else "LI, doubled", k): beside(name, k, m) for m, k in keys}
    both = pd.DataFrame(rows, ["ours", "the paper's", "disagree"]).T
    display(show_table(both, f"{GROUP_NAMES[name]}: {settings.label}"))

# %%
missed = {" ".join(key) for key, same in verdicts.items() if not same}
can_disagree = sum(method == "DA" or metric == "accuracy" for _, method, metric in verdicts.index)
expect(
    "of twelve cells that could disagree three do",
    can_disagree == 12 and missed == {"R4 DA SI", "R4 IR accuracy", "T3 DA LI"},
)

# %% [markdown]
# Not every agreement is evidence. LI, DI and SI of WT hold by construction, and SI of IR by the choice of $\nu$; for LI and
# DI of IR the paper's rounding is coarse. That leaves twelve cells that could disagree, the accuracies and all of DA's. Nine
# of them agree; with the ½ it would be eight. SI of DA on R4 is 0.47, and the paper prints 0.17. LI of DA on T3, doubled, is
# 35, and the paper has 51. And IR on R4 is right in 86.3 % where the paper has 87.9 %: 1.6 points less, and the spread of
# the seeds allows 1.2.
#
# ## Conventions
#
# What do the paper's own numbers allow? Maps are never negative, so with the pairs of an orientation with itself counted,
# SI is at least ¼ on R4. The paper's 0.17 is below that, so unless some maps were empty they are not in it. Its SI of IR,
# 0.95 ± 0.03 and ± 0.07, fits ours either way. This book gives SI over all pairs, by which $\nu$ was tuned, and beside it,
# where it is compared with the paper, SI over distinct pairs.

# %%
orders = means.index.get_level_values("group").map(lambda name: ginv.group_named(name).order)
readings = pd.DataFrame(
    {
        "LI, with ½": means.LI,
        "LI, without ½": 2 * means.LI,
        "LI, paper": printed["mean"].xs("LI", level="metric"),
        "SI, all pairs": means.SI,
        "SI, distinct pairs": (orders * means.SI - 1) / (orders - 1),
        "SI, paper": printed["mean"].xs("SI", level="metric"),
    }
).loc[list(settings.groups)]
show_table(readings.drop(index="WT", level="method"), "Both readings beside the paper's", 2)

# %%
da = readings.xs("DA", level="method").reindex(GROUPS).round(2)
r4, t3 = ([*da.loc[name, ["SI, all pairs", "SI, distinct pairs"]]] for name in GROUPS)
expect("R4: 0.47 and 0.29; T3: 0.61 and 0.42", (r4, t3) == ([0.47, 0.29], [0.61, 0.42]))
ir = readings.xs("IR", level="method").reindex(GROUPS)["SI, distinct pairs"]
expect("IR: 0.94 and 0.93 over distinct pairs", (ir - [0.937, 0.929]).abs() < 0.006)

# %% [markdown]
# Neither reading gives both of the paper's numbers for DA. On R4 its 0.17 lies below both of ours, 0.47 and 0.29; on T3 its
# 0.57 lies between them, 0.61 and 0.42. [What the paper leaves open](open_choices.ipynb) searches further. And whoever
# reads 0.17 as distinct pairs must read the condition SI ≥ 0.95 so, too: then our IR misses it, at 0.94 and 0.93. Tuned to
# meet it, IR would lose four to five points more on R4, and on T3 no $\nu$ of the sweep gets there (same page).
#
# The ½ of Equation 2 is the other convention. With it our LI of DA is half of the paper's on R4 and a third on T3; without
# it R4 fits and T3 does not. The next section returns to T3.
#
# ## The initial weights, and all pairs
#
# The paper cites Glorot and He and does not say how its weights begin. We take PyTorch's default, which is the smallest:
# He's weights are 2.4 times as large. And its Equation 4 can be read with all pairs of an orbit as well as with one random
# pair. Here are networks trained under those readings, $\nu$ tuned anew for each, on the first 10,000 test images
# (`initialisation.yaml`). Most were trained on a GPU, and PyTorch's DA for a second time; PyTorch's IR is that of Table 1.

# %% {"tags": ["hide-input"]}
saved = pd.read_csv(book_file("results/initialisation.csv"))
saved = saved[saved.group.isin(settings.groups)].replace({"pytorch": "PyTorch"})
index = ["group", "initialisation", "recipe", "selection"]
others = saved.pivot_table("value", index, "metric")
for name in settings.groups:
    for method in ("WT", "IR"):
        alike = [trained[settings.run(name, method, seed)] for seed in settings.seeds]
        first_images = [settings.measure(each).samples.head(10_000).mean() for each in alike]
        others.loc[name, "PyTorch", method, "best"] = pd.concat(first_images, axis=1).mean(axis=1)

# %% {"tags": ["hide-input"]}
READINGS = {
    "PyTorch's": ("PyTorch", "IR"),
    "PyTorch's, all pairs": ("PyTorch", "IR, all pairs"),
    "Glorot's": ("glorot", "IR"),
    "He's": ("he", "IR"),
}


def reading(name, initialisation, recipe):
    wt, da, ir = (others.loc[name, initialisation, each, "best"] for each in ("WT", "DA", recipe))
    return [f"{x.accuracy:.1f}" for x in (wt, da, ir)] + [
        f"{x:.2f}" for x in (da.SI_distinct, ir.SI_distinct)
    ]


rows = {}
for name in settings.groups:
    rows |= {(name, text): reading(name, *of) for text, of in READINGS.items()}
    row = printed["mean_text"][name]
    keys = [*product(("accuracy",), METHODS), ("SI", "DA"), ("SI", "IR")]
    rows[name, "the paper"] = [row[method, metric] for metric, method in keys]
columns = ["WT accuracy", "DA accuracy", "IR accuracy", "DA SI, distinct", "IR SI, distinct"]
begun = pd.DataFrame(rows, columns).T.rename_axis(["group", "weights"])
show_table(begun, "Means over four seeds; the paper's SI as it stands")

# %%
best = others.accuracy.xs("best", level="selection")
da = best.xs("DA", level="recipe").unstack().reindex(GROUPS)
wt = best.xs("WT", level="recipe").unstack().reindex(GROUPS)
ahead = (wt - da)[["PyTorch", "glorot", "he"]]
expect(
    "WT leads from PyTorch's weights, and on R4 DA leads from the others",
    [ahead.PyTorch > 0.1, ahead.loc["R4", ["glorot", "he"]] < -0.4],
)
level = ahead.loc["T3", ["glorot", "he"]].abs()
expect("on T3 they are within 0.3 points of each other", level < 0.3)
ir = best.xs("PyTorch", level="initialisation").unstack().reindex(GROUPS)
cheaper = ir["IR, all pairs"] - ir["IR"]
expect("all pairs are 2.9 and 1.0 points better", (cheaper - [2.9, 1.0]).abs() < 0.15)

# %% [markdown]
# Is weight-tying the most accurate? From PyTorch's weights it is. From Glorot's and He's, which the paper cites, the order
# turns on R4: DA has 95.4 and 94.9 %, and WT only 94.9 and 94.1 (from He's weights by more than chance). On T3 the two are within 0.3 points of each other. So this
# sentence of the paper hangs on how the weights begin.
#
# The penalty on all pairs costs less accuracy than that on a random pair, by 2.9 points on R4 and 1.0 on T3: part of IR's
# price is the noise of the pair. What no row has is the paper's pair of SI.
#
# And LI of DA? Under each of these weights, with the ½ of Equation 2 and without it:

# %% {"tags": ["hide-input"]}
da = saved.query("recipe == 'DA' and selection == 'best' and metric == 'LI'")
lis = {("PyTorch's, Table 1", name): runs.LI[name, "DA"] for name in settings.groups}
for (name, weights), rows in da.groupby(["group", "initialisation"]):
    title = "PyTorch's, again" if weights == "PyTorch" else f"{weights.title()}'s"
    lis[title, name] = rows.value
fits = {
    (title, name, half): agrees(factor * li, printed.loc[name, "DA", "LI"])
    for (title, name), li in lis.items()
    for half, factor in (("with ½", 1), ("without", 2))
}
cells = {
    key: f"{lis[key[:2]].mean() * (1 + (key[2] == 'without')):.0f}{' ✓' * bool(fit)}"
    for key, fit in fits.items()
}
shown = pd.Series(cells).unstack([1, 2]).loc[list(dict.fromkeys(title for title, _ in lis))]
show_table(shown, "LI of DA; the paper prints 98.6 (R4) and 50.8 (T3); ✓ where it agrees")

# %%
on_both = pd.Series(fits).unstack(1).reindex(columns=GROUPS).fillna(False).all(axis=1)
again = [("PyTorch's, again", "without")]
expect(
    "one row fits both groups, PyTorch's second training without the ½",
    [*on_both[on_both].index] == again,
)

# %%
epochs = others.LI.xs(("PyTorch", "DA"), level=(1, 2)).unstack().reindex(GROUPS)
nearly = epochs.loc["T3", "last"] > 1.6 * epochs.loc["T3", "best"]
expect("LI nearly doubles after the best epoch on T3", nearly)

# %% [markdown]
# One row fits the paper on both groups: PyTorch's weights without the ½, trained a second time. The two trainings have one
# specification and ran on different machines, so that nothing but rounding differs; and on T3 they come to 35 and 41. The ✕
# of that cell in Table 1 is within what a second training changes. LI is a fickle number besides: with PyTorch's weights on
# T3 it nearly doubles from the best epoch to the last.
#
# ## See for yourself
#
# What does each network look at? Red is where the saliency map is large, turned back to a common orientation.

# %% {"mystnb": {"figure": {"name": "fig-saliency"}, "image": {"alt": "Saliency maps of one digit, a row per method, a column per orientation: the same spots in each column for weight-tying, and nearly so for regularisation; other spots for augmentation"}}, "tags": ["hide-input"]}
firsts = torch.stack([(test.labels == c).int().argmax() for c in range(CLASSES)])
digits, classes = test.images[firsts], test.labels[firsts]
all_maps = {
    (each.name, method): ginv.orbit_maps(model_of(each, method), digits, classes, each)
    for each in groups
    for method in METHODS
}
per_digit = {key: ginv.saliency_invariance(maps) for key, maps in all_maps.items()}
contrast = per_digit[acting.name, "IR"] - per_digit[acting.name, "DA"]
shown = contrast.argmax().item()
figure, axes = plt.subplots(3, acting.order, figsize=(1.5 * acting.order, 4.6), squeeze=False)
for row, method in zip(axes, METHODS):
    value = per_digit[acting.name, method][shown]
    row[0].set_ylabel(f"{method}\nSI {value:.2f}", rotation=0, ha="right", va="center")
    for axis, saliency in zip(row, all_maps[acting.name, method][:, shown]):
        show_saliency(axis, digits[shown], saliency)

# %% [markdown]
# *WT looks at the same pixels each time, and so does IR, nearly; DA does not. The first test digit of the class where the
# two differ most.*
#
# One digit may be an exception. So here is the first of each class, to step through its orbit.

# %% {"tags": ["hide-input"]}
models = {(each.name, m): model_of(each, m) for each in groups for m in METHODS}
HTML(orbit_stepper(models, groups, digits, classes))


# %%
def answers(name, method):
    """Of all these digits: `[G, digits]`."""
    each = ginv.group_named(name)
    return ginv.orbit_logits(models[name, method], digits, each).argmax(-1)


expect("no answer changes", [bool((answers(*k) == answers(*k)[0]).all()) for k in models])

# %% [markdown]
# One thing never changes here: the answers. All three networks call each of these digits the same in all of its orientations.
# Only the red spots give away that DA gets there differently each time.

# %% [markdown]
# ## What you saw

# %%
accuracy = means.accuracy.unstack().reindex(GROUPS)
gap, cost = accuracy.WT - accuracy.DA, accuracy.DA - accuracy.IR
close = ((gap - [0.6, 0.3]).abs() < 0.06) & ((cost - [7.7, 2.9]).abs() < 0.06)
expect("DA is 0.6 and 0.3 points below WT, IR 7.7 and 2.9 below DA", close)

# %% [markdown]
# - Augmentation is within 0.6 points of weight-tying in accuracy, and far from it in everything that looks behind the
#   answer: its accuracy cannot reveal that it is not invariant.
# - The penalty brings SI to 0.95, at 7.7 points of accuracy on the rotations and 2.9 on the translations.
# - Of the twelve cells of the paper's table that could disagree with ours nine agree. The widest gap is the SI of augmentation
#   on rotations, 0.17 against 0.47, and no reading that we tried explains it.
#
# ## Change this, and predict what happens
#
# 1. Let the loop above run over all 10,000 images (`n = 10_000`), ten times, with `da_loss(network, images, labels, g)` and
#    all of `drawn` set to 0: no augmentation. How often is it right in each orientation?
#    (`(ginv.orbit_logits(network, test.images, rotations).argmax(-1) == test.labels).float().mean(1)`)
# 2. Build the tied network with a mean instead of the maximum, `ginv.MLP(rotations, pooling="mean",
#    generator=torch.Generator().manual_seed(0))`. Is it still invariant?
#
# <details><summary>What happens</summary>
#
# 1. Upright digits are classified as well as ever, in 94 % of cases, those upside down in 27 % and the others in 14 %: 37 %
#    over the orbit. The same ten epochs with augmentation give 78 %, in each orientation.
# 2. It is: a mean does not care about the order of the responses either. But the mean of $\langle gw, x \rangle$ over $g$ is
#    $\langle \bar w, x \rangle$ with the filter averaged over its orbit, so the layer sees nothing but that average.
#
# </details>
