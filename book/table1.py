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
# # Table 1: three ways to invariance
#
# A network can be *built* so that turning an image changes nothing, or it can *learn* from turned examples to give the
# right answer each time, or it can be *made to agree* with itself while it learns. This page shows how each is done,
# trains them as the paper does, and lays our Table 1 beside the paper's. It is Section 4.2 of {cite}`moskalev2023genuine`.

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
# folder for the numbers of this page
results = "results"  # @param {type: "string"}

# %% {"tags": ["hide-input"]}
import matplotlib.pyplot as plt
import pandas as pd
import torch
import torch.nn.functional as F
from IPython.display import HTML, display

import ginv
from ginv.data import CLASSES
from ginv.pages import Settings, expect, refuse_unknown
from ginv.pages.figures import (
    GROUP_NAMES,
    METHOD_STYLES,
    draw_three_ways,
    group_panels,
    plot_methods,
    saliency_picture,
    show_saliency,
    show_table,
    use_style,
)
from ginv.pages.paper import METRICS, book_file, printed_table, room
from ginv.pages.stepper import stepper
from ginv.recipe import GROUPS, METHODS
from ginv.runs.nu import TARGET, read_sweep

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
# orientations, right is a network that looks at the same pixels in each of them (SI). Ours and the paper's part ways in
# one place: the SI of augmentation on rotations.*
#
# ## One digit, all its orientations
#
# The digits are MNIST's {cite}`lecun1998` without the 9, which turned upside down is a 6. They are padded with zeros from 28
# to 36 pixels, since 36 can be divided by 3 and 28 cannot, and shifted and scaled to mean 0 and deviation 1.

# %%
data = ginv.load_dataset()
assert (len(data.train), len(data.validation), len(data.test)) == (10_000, 2_000, 50_000)
test = data.test
digit, label = test.images[4:5], test.labels[4:5]

# %% [markdown]
# Each network is trained and tested on one group: the quarter turns R4, or T3, the cyclic shifts by a third of the width.
# The label of a digit is the same in every orientation.
#
# ## Three ways
#
# All three are the same perceptron $f$: five hidden layers of 128 units with ReLU, from $36 \times 36$ pixels to 9
# logits. The paper says "5-layer" and "230k parameters"; five *hidden* layers give that number.

# %%
network = ginv.MLP(generator=torch.Generator().manual_seed(0))
sum(parameter.numel() for parameter in network.parameters())

# %% {"mystnb": {"figure": {"name": "fig-three-ways"}, "image": {"alt": "Three rows. Weight-tying: one digit, a filter in four orientations, their maximum. Data augmentation: the digit in one random orientation, the network, its label. Invariance regularisation: two random orientations, the same network twice, the label and a penalty on the difference"}}, "tags": ["hide-input"]}
draw_three_ways(ginv.Rotations(4), digit[0, 0])

# %% [markdown]
# *Tied, augmented, regularised. WT turns its filters; DA turns the image, and changes nothing in the network; IR turns it
# twice and adds a penalty on the difference.*
#
# **Weight-tying (WT).** Each filter $w$ of the first layer is applied in all orientations, and the unit passes on the
# largest response, $\max_g \langle gw, x \rangle + b$. Turning the image permutes these responses and leaves their maximum
# alone, so the network is invariant whatever its weights are.

# %%
rotations = ginv.Rotations(4)
tied = ginv.MLP(rotations, generator=torch.Generator().manual_seed(0))
layer, x = tied.features[1], test.images[:100]
filters = rotations.orbit(layer.weight.view(128, 36, 36)).flatten(2)  # [G, 128, 36 * 36]
responses = x.flatten(1) @ filters.mT  # [G, n, 128]
torch.testing.assert_close(tied.features(x), responses.amax(0) + layer.bias)
torch.testing.assert_close(tied(rotations.act(1, x)), tied(x))

# %% [markdown]
# **Data augmentation (DA).** The network stays as it is. Each image is shown in an orientation drawn at random, anew in each
# epoch, and the labels do the rest.


# %%
def augment(x, acting, generator):
    """Each image in one random orientation."""
    g = torch.randint(acting.order, (len(x),), generator=generator)
    return acting.orbit(x)[g, torch.arange(len(x))]


# %% [markdown]
# **Invariance regularisation (IR).** Every image is shown in two random orientations, and the network pays for each
# difference between the two (Equation 4 of the paper):
#
# $$
# \min_\theta \; \mathcal{L}_f(\mathcal{D}) + \nu \, I_f(\mathcal{D}, \mathcal{G}), \qquad
# I_f = \tfrac12 \lVert f(gx) - f(hx) \rVert_2^2 . \tag{4}
# $$


# %%
def ir_loss(model, x, y, acting, nu, generator):
    a, b = (model(augment(x, acting, generator)) for _ in range(2))
    task = (F.cross_entropy(a, y) + F.cross_entropy(b, y)) / 2
    return task + nu * (a - b).square().sum(1).mean() / 2


# %% [markdown]
# The two orientations are drawn independently, so that the mean of the penalty is LI, the error that is measured in the end.
# Over all pairs it is exactly that:

# %%
logits = ginv.orbit_logits(network, x, rotations).double()
pairs = [(a - b).square().sum(1) / 2 for a in logits for b in logits]
torch.testing.assert_close(torch.stack(pairs).mean(0), ginv.logit_invariance(logits))

# %% [markdown]
# The rest is the same for all three: Adam with learning rate 0.0008, batches of 512 out of 10,000 images, 300 epochs, and
# in the end the weights of the epoch with the best validation accuracy. A first epoch of IR by hand:

# %%
generator = torch.Generator().manual_seed(0)
optimiser = torch.optim.Adam(network.parameters(), lr=8e-4)
for batch in torch.randperm(10_000, generator=generator).split(512):
    x, y = data.train.images[batch], data.train.labels[batch]
    loss = ir_loss(network, x, y, rotations, nu=10.0, generator=generator)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()

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
# A network that turns its filters, as WT does, needs each of them once. One that has learned to be invariant by itself might be
# expected to have found each filter in all orientations. Has it?


# %%
def model_of(acting, method):
    """The network of the first seed."""
    return trained[settings.run(acting.name, method, settings.seeds[0])].model.cpu()


groups = [ginv.group_named(name) for name in settings.groups]
acting = groups[0]

# %% {"mystnb": {"figure": {"name": "fig-filters"}, "image": {"alt": "Three rows of eight first-layer filters in a diverging colour map. Those of weight-tying and augmentation are strokes and blobs; those of regularisation are rings and patches that look much the same in every orientation"}}, "tags": ["hide-input"]}
figure, axes = plt.subplots(3, 8, figsize=(8, 3.4))
for row, method in zip(axes, METHODS):
    weight = model_of(acting, method).features[1].weight.detach()
    strongest = weight.norm(dim=1).argsort(descending=True)[:8]
    row[0].set_ylabel(method, rotation=0, ha="right", va="center")
    for axis, image in zip(row, weight[strongest].unflatten(1, (36, 36))):
        axis.imshow(image, cmap="PuOr", vmin=-image.abs().max(), vmax=image.abs().max())
        axis.set(xticks=[], yticks=[])

# %% [markdown]
# *Regularisation learns filters that cannot see the turn. The eight strongest filters of the first layer on the first
# group; purple is negative, orange positive.*


# %%
def symmetric_share(method):
    """Of the first layer's squared weights: that of each filter's mean over its orbit."""
    weight = model_of(acting, method).features[1].weight.detach().unflatten(1, (36, 36))
    return (acting.orbit(weight).mean(0).square().sum() / weight.square().sum()).item()


shares = {method: symmetric_share(method) for method in METHODS}
pd.Series(shares).round(2)

# %%
expect("IR's filters are the most symmetric", shares["IR"] > 1.5 * max(shares["DA"], shares["WT"]))

# %% [markdown]
# The shares above say how much of the filters is left when each is averaged over its own orbit. A filter that is its own
# turned copy answers alike to all orientations, and has nothing to say about what distinguishes them. IR has moved
# towards such filters. That is invariance, bought by not looking.
#
# ## How strong a penalty?
#
# The paper tunes $\nu$ "such that the resulting saliency invariance similarity $SI \ge 0.95$". We look for the smallest
# $\nu$ that does it on the 2,000 validation images: one seed finds the neighbourhood, in steps of ten that are then halved,
# and from there all four are trained, until their mean SI lies between 0.95 and 0.9525. `make tune` repeats the search.

# %% {"mystnb": {"figure": {"name": "fig-sweep"}, "image": {"alt": "Accuracy against saliency similarity, one point per nu, falling, with the chosen nu ringed, one panel per group"}}, "tags": ["hide-input"]}
sweep = read_sweep().query("regulariser == 'logit'")
for name, axis in group_panels(settings).items():
    points = sweep[sweep["group"] == name].groupby("nu")[["SI", "accuracy"]].mean()
    style = METHOD_STYLES["IR"]
    axis.plot(points.SI, points.accuracy, style.line, marker=style.marker, color=style.colour)
    chosen = points.loc[[ginv.chosen_nu(name)]]
    for nu, point in pd.concat([points.iloc[[0, -1]], chosen]).iterrows():
        axis.annotate(f"ν = {nu:g}", point, textcoords="offset points", xytext=(8, 5))
    axis.plot(chosen.SI, chosen.accuracy, "o", ms=14, mfc="none", color="black")
    axis.axvline(TARGET, ls="--", color="grey")
    axis.set(xlabel="saliency invariance SI", ylabel="accuracy over the orbit (%)")
    axis.margins(x=0.15, y=0.15)
    axis.label_outer()

# %% [markdown]
# *The more invariant, the less accurate. A point per ν, on validation images; ringed, the chosen one; dashed, the target.*

# %%
expect("ν is 10 and 57", [ginv.chosen_nu(name) for name in ("R4", "T3")] == [10, 57])

# %% [markdown]
# The search chose $\nu = 10$ for the rotations and 57 for the translations. Near the target the curve is steep on R4: half a
# hundredth of SI, which is all that the paper's two digits leave open, is worth half a point of accuracy.
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
# Two means *agree* if they differ by no more than twice the standard error of their difference, $2 \sqrt{s^2/n +
# s'^2/4}$, plus half a unit of the last digit that the paper prints (its spread is rounded, too, and gets half a unit more).
# Our LI is doubled here, as if the paper's table left out the ½ of Equation 2; the next section returns to that.


# %%
def agrees(ours, theirs):
    """ours: a value a seed; theirs: a row of the paper."""
    reach = room(ours.std(), len(ours), theirs)
    return abs(ours.mean() - theirs["mean"]) <= reach


# %% {"tags": ["hide-input"]}
DIGITS = {"accuracy": 1, "LI": 2, "DI": 2, "SI": 2}
doubled = runs[list(METRICS)] * {"accuracy": 1, "LI": 2, "DI": 1, "SI": 1}
verdicts = pd.Series(
    {
        key: agrees(doubled.loc[key[:2], key[2]], printed.loc[key])
        for key in printed.index
        if key[0] in settings.groups and len(settings.seeds) > 1
    },
    dtype=bool,
)


def cell(name, method, metric):
    ours, theirs = doubled.loc[(name, method), metric], printed.loc[(name, method, metric)]
    mark = "" if verdicts.get((name, method, metric), True) else " ✕"
    spread = "" if len(ours) < 2 else f" ± {ours.std():.{DIGITS[metric]}f}"
    paper = f"{theirs.mean_text} ± {theirs.sd_text}"
    return f"{ours.mean():.{DIGITS[metric]}f}{spread} ({paper}){mark}"


for name in settings.groups:
    rows = {m: {metric: cell(name, m, metric) for metric in METRICS} for m in METHODS}
    caption = f"{GROUP_NAMES[name]}: ours, and the paper's in brackets; ✕ where they disagree"
    display(show_table(pd.DataFrame(rows).loc[list(METRICS)], caption))

# %%
missed = {" ".join(key) for key, same in verdicts.items() if not same}
expect(
    "three cells of 24 disagree",
    missed == {"R4 DA SI", "R4 IR accuracy", "T3 DA LI"} and len(verdicts) == 24,
)

# %% [markdown]
# Of the 24 cells three disagree. SI of DA on R4 is 0.47, and the paper prints 0.17. LI of DA on T3 is 35, and the paper has
# 51. And IR on R4 comes out 0.4 points less accurate than the agreement allows, at 86.3 % for 87.9 %.
#
# Not every agreement is evidence. LI, DI and SI of WT hold by construction, and SI of IR by the choice of $\nu$; for LI and
# DI of IR the paper's rounding is coarse. What counts are the accuracies, DI and SI of DA, and each disagreement.
#
# ## Conventions
#
# What do the paper's own numbers allow? Maps are never negative, so with the pairs of an orientation with itself counted,
# SI is at least ¼ on R4. The paper's 0.17 is below that, so they cannot be in it. Its SI of IR, 0.95 ± 0.03 and ± 0.07, fits
# ours either way. So wherever SI stands in this book, it stands both ways, and where one number is wanted it is that over
# all pairs, by which $\nu$ was tuned.

# %%
n = means.index.get_level_values("group").map(lambda name: ginv.group_named(name).order)
readings = pd.DataFrame(
    {
        "LI, with ½": means.LI,
        "LI, without ½": 2 * means.LI,
        "LI, paper": printed["mean"].xs("LI", level="metric"),
        "SI, all pairs": means.SI,
        "SI, distinct pairs": (n * means.SI - 1) / (n - 1),
        "SI, paper": printed["mean"].xs("SI", level="metric"),
    }
).loc[list(settings.groups)]
show_table(readings.drop(index="WT", level="method"), "Both readings beside the paper's", 2)

# %%
da = readings.xs("DA", level="method").reindex(GROUPS).round(2)
r4, t3 = ([*da.loc[name, ["SI, all pairs", "SI, distinct pairs"]]] for name in GROUPS)
expect("R4: 0.47 and 0.29; T3: 0.61 and 0.42", (r4, t3) == ([0.47, 0.29], [0.61, 0.42]))

# %% [markdown]
# No reading gives both of the paper's numbers for DA. On R4 its 0.17 lies below both of ours, 0.47 and 0.29; on T3 its 0.57
# lies between them, 0.61 and 0.42. [What the paper leaves open](open_choices.ipynb) searches further.
#
# The ½ of Equation 2 is the other convention. With it our LI of DA is half of the paper's on R4 and a third on T3, so we
# took the table to leave it out, which fits R4 and not T3. The next section puts that in doubt.
#
# ## The initial weights, and all pairs
#
# The paper cites Glorot and He and does not say how its weights begin. We take PyTorch's default, which is the smallest:
# He's weights are 2.4 times as large. And its Equation 4 can be read with all pairs of an orbit as well as with one random
# pair. Here are the same networks under those readings, $\nu$ tuned anew for each, on the first 10,000 test images (`initialisation.yaml`, most
# of it trained on a GPU):

# %% {"tags": ["hide-input"]}
saved = pd.read_csv(book_file("results/initialisation.csv"))
saved = saved[saved.group.isin(settings.groups)].replace({"pytorch": "PyTorch"})
index = ["group", "initialisation", "recipe", "selection"]
others = saved.pivot_table("value", index, "metric")


def reading(name, initialisation, recipe="IR"):
    da = others.loc[name, initialisation, "DA", "best"]
    ir = means.loc[name, "IR"] if initialisation == "PyTorch" else pd.Series(float("nan"), da.index)
    if (key := (name, initialisation, recipe, "best")) in others.index:
        ir = others.loc[key]
    return [da.accuracy, da.LI, da.SI, da.SI_distinct, ir.accuracy, ir.SI_distinct]


READINGS = {
    "PyTorch's": ("PyTorch",),
    "PyTorch's, all pairs": ("PyTorch", "IR, all pairs"),
    "Glorot's": ("glorot",),
    "He's": ("he",),
}
rows = {}
for name in settings.groups:
    rows |= {(name, text): reading(name, *of) for text, of in READINGS.items()}
    row = printed["mean"][name]
    cells = [row[cell] for cell in (("DA", "accuracy"), ("DA", "LI"), ("DA", "SI"), ("DA", "SI"))]
    rows[name, "the paper"] = [*cells, row["IR", "accuracy"], row["IR", "SI"]]
columns = ["DA accuracy", "DA LI", "DA SI", "DA SI, distinct", "IR accuracy", "IR SI, distinct"]
begun = pd.DataFrame(rows, columns).T.rename_axis(["group", "weights"])
show_table(begun, "Means over four seeds; LI with ½; the paper's SI stands under both readings", 2)

# %%
li = begun["DA LI"].unstack().reindex(GROUPS)
between = (li["Glorot's"] < li["the paper"]) & (li["the paper"] < li["He's"])
expect("with the ½, the paper's LI lies between Glorot's and He's", between)

# %%
epochs = others.LI.xs(("PyTorch", "DA"), level=(1, 2)).unstack().reindex(GROUPS).round()
expect(
    "LI nearly doubles after the best epoch on T3",
    epochs.loc["T3", "last"] > 1.6 * epochs.loc["T3", "best"],
)

# %% [markdown]
# With the ½, as Equation 2 has it, the paper's LI of DA lies between that of Glorot's and that of He's weights on *both*
# groups, and no weights that we tried fit both without it. So the doubling above has lost its ground. We keep it, and
# PyTorch's weights and the random pair, as the readings that were fixed first. What no row has is the paper's pair of SI.
#
# LI is a fickle number besides. With PyTorch's weights on T3 it nearly doubles from the best epoch to the last.
#
# The penalty on all pairs costs less accuracy than that on a random pair, on both groups: part of IR's price is the noise of
# the pair.
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
def says(acting, model):
    """The class it names for each, and the probability that it gives it."""
    logits = ginv.orbit_logits(model, digits, acting).flatten(0, 1)
    p, answer = logits.softmax(1).max(1)
    return {"answer": [*map(str, answer.tolist())], "probability": p.tolist()}


# %% {"tags": ["hide-input"]}
pictures, looks, parts = [], {method: [] for method in METHODS}, []
by_contrast = [*(c.item() for c in contrast.argsort(descending=True))]
for each in groups:
    pictures += map(saliency_picture, each.orbit(digits).flatten(0, 1))
    cells = {}
    for method in METHODS:
        backdrop = digits.repeat(each.order, 1, 1, 1)
        looks[method] += map(saliency_picture, backdrop, all_maps[each.name, method].flatten(0, 1))
        cells["SI", method] = per_digit[each.name, method].repeat(each.order).tolist()
        for row, values in says(each, model_of(each, method)).items():
            cells[row, method] = values
    size, unit = (360, "°") if each.name == "R4" else (36, " pixels")
    steps = [f"{size // each.order * g}{unit}" for g in each.elements]
    levels = {"group": [each.name], "orientation": steps, "digit": classes.tolist()}
    index = pd.MultiIndex.from_product(levels.values(), names=levels)
    parts.append(pd.DataFrame(cells, index))

states = pd.concat(parts).reorder_levels(["group", "digit", "orientation"])
order = {classes[c].item(): place for place, c in enumerate(by_contrast)}
formats = {"answer": "{}", "probability": "{:.0%}", "SI": "{:.2f}"}
caption = (
    "The large image is what the networks are given. In red is what each of them looks at, turned back to the first "
    "orientation; below it its answer, and the SI of the digit over all orientations, which does not change as you turn it. "
    "Digits are ordered by how far IR and DA differ."
)
places = sorted(range(len(states)), key=lambda i: order[states.index[i][1]])
states = states.iloc[places]
pictures = [pictures[i] for i in places]
looks = {method: [tiles[i] for i in places] for method, tiles in looks.items()}
HTML(stepper(states[["answer", "probability", "SI"]], pictures, caption, formats, looks))

# %% [markdown]
# ## What you saw

# %%
accuracy = means.accuracy.unstack().reindex(GROUPS)
gap, cost = accuracy.WT - accuracy.DA, accuracy.DA - accuracy.IR
expect("half a point; 7.7 and 2.9 points", (gap < 0.7) & (cost.round(1) == [7.7, 2.9]))

# %% [markdown]
# - Augmentation is within half a point of weight-tying in accuracy, and far from it in everything that looks behind the
#   answer: its accuracy cannot reveal that it is not invariant.
# - The penalty brings SI to 0.95, at 7.7 points of accuracy on the rotations and 2.9 on the translations.
# - Of the paper's 24 cells 21 agree with ours. The widest gap is the SI of augmentation on rotations, whose definition the
#   paper leaves most open.
#
# ## Change this, and predict what happens
#
# 1. In `augment`, let `g` be 0 for all images: no augmentation. What becomes of the accuracy over the orbit, if you train
#    the loop above for ten epochs with `nu=0`?
# 2. In the tied layer, take `responses.mean(0)` instead of the maximum. Is the network still invariant?
#
# <details><summary>What happens</summary>
#
# 1. Upright digits are classified as well as ever, in 94 % of cases, and turned ones in 14 to 26 %: 37 % over the orbit. The
#    same ten epochs with augmentation give 78 %.
# 2. It is: a mean does not care about the order of the responses either. But the mean of $\langle gw, x \rangle$ over $g$ is
#    $\langle \bar w, x \rangle$ with the filter averaged over its orbit, so the layer sees nothing but that average.
#
# </details>
