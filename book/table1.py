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
# A digit that is turned by a quarter is still the same digit. A network can come to respect this in two ways. It can be
# *built* so that turning the image changes nothing, or it can *learn*, from turned examples, to give the right answer for
# every orientation. This chapter trains both kinds, and a third in between, and measures how invariant each one is. It is
# Section 4.2 of {cite}`moskalev2023genuine`.
#
# **What you will see**
#
# - The three models of the paper, trained as the paper says: weight-tying (WT), data augmentation (DA) and invariance
#   regularisation (IR), for 4-fold rotations R4 and for 3-fold cyclic translations T3.
# - How the strength $\nu$ of the regulariser is chosen, and what it costs in accuracy.
# - Table 1 of the paper beside ours: accuracy and three measures of invariance over the orbits of the test images; then
#   cell by cell what agrees and what does not.

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
import matplotlib.pyplot as plt
import pandas as pd
import torch
from IPython.display import HTML, Markdown

import ginv
from ginv.data import CLASSES
from ginv.pages import Settings, refuse_unknown
from ginv.pages.figures import (
    GROUP_NAMES,
    METHOD_STYLES,
    group_panels,
    plot_methods,
    saliency_picture,
    show_saliency,
    show_table,
    use_style,
)
from ginv.pages.paper import METRICS, book_file, printed_table, room
from ginv.pages.stepper import stepper
from ginv.runs.nu import TARGET, read_sweep

refuse_unknown()  # a parameter by a wrong name
settings = Settings(profile, group, seeds, device, results)
use_style()
Markdown(f"This page was run with {settings.label}.")

# %% [markdown]
# ## One digit, all its orientations
#
# A group $\mathcal{G}$ acts on an image $x$; the set of all $gx$ is its orbit. Both groups of the paper only move pixels,
# so nothing is interpolated and nothing is lost. The images are MNIST digits {cite}`lecun1998` without the 9 (a
# rotated 6), padded with zeros from 28 to 36 pixels, since 36 can be divided by 3 and 28 cannot.

# %% {"mystnb": {"figure": {"caption": "The orbit of one digit under the rotations R4 and the cyclic translations T3: what leaves on one side comes back on the other. The label stays the same.", "name": "fig-orbits"}, "image": {"alt": "One digit in four orientations and in three horizontal positions"}}}
test = ginv.load_dataset().test
digit, label = test.images[4:5], test.labels[4:5]
groups = [ginv.group_named(name) for name in settings.groups]
figure, axes = plt.subplots(len(groups), 4, figsize=(6, 3.4), squeeze=False)
for row, acting in zip(axes, groups):
    row[0].set_title(acting.name, loc="left")
    for axis, image in zip(row, acting.orbit(digit[0, 0])):
        axis.imshow(image, cmap="gray_r")
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set(visible=True, color="0.8")
for axis in axes.flat:
    axis.set_visible(bool(axis.images))

# %% [markdown]
# ## Three ways
#
# All three are the same perceptron, $f$: five hidden layers of 128 units with ReLU, from $36 \times 36$ pixels to 9
# logits. The paper says "5-layer" and "230k parameters"; five *hidden* layers fit that number.

# %%
network = ginv.MLP()
sum(parameter.numel() for parameter in network.parameters())

# %% [markdown]
# **Weight-tying (WT)** builds the invariance in. Each filter $w$ of the first layer comes with its whole orbit, and the
# unit passes on the largest response, $\max_{g} \langle gw, x \rangle + b$. Moving the image permutes the responses of an
# orbit of filters and leaves their maximum as it is. So the network is invariant whatever its weights are; here before
# any training.

# %%
rotations = ginv.Rotations(4)
tied = ginv.MLP(rotations, generator=torch.Generator().manual_seed(0))
images = test.images[:100]
change = (tied(rotations.act(1, images)) - tied(images)).abs().max().item()
Markdown(
    f"Largest change of a logit under a quarter turn: {change:.0e}; float32 is good for about 1e-7."
)

# %% [markdown]
# **Data augmentation (DA)** leaves the network alone. Each image is shown in an orientation drawn at random from the
# group, anew in each epoch, and the network has to sort it out.
#
# **Invariance regularisation (IR)** does the same and adds a penalty on what should not be there (Equation 4 of the paper):
#
# $$
# \min_\theta \; \mathcal{L}_f(\mathcal{D}) + \nu \, I_f(\mathcal{D}, \mathcal{G}) . \tag{4}
# $$
#
# Here $I_f$ is $\tfrac12 \lVert f(gx) - f(hx) \rVert_2^2$, the change of the logits between two random orientations of an
# image, averaged over the batch. The two are drawn independently, so the penalty's mean is the LI that is measured below.
#
# All are trained in the same way, as the paper says: Adam with learning rate 0.0008 on batches of 512 out of 10,000
# images, and of all epochs the weights with the best validation accuracy are kept. Runs of one architecture are stacked
# and trained as one model. Those that were trained before are loaded.

# %%
trained = settings.train()

# %% {"mystnb": {"figure": {"caption": "Accuracy during training, averaged over seeds, on 2,000 validation images, each in one random orientation.", "name": "fig-training"}, "image": {"alt": "Validation accuracy against epoch, a line per method, one panel per group"}}, "tags": ["hide-input"]}
curves = pd.DataFrame(
    {run: result.record["validation_accuracy"] for run, result in trained.items()}
)
for name, axis in group_panels(settings).items():
    for method, style in METHOD_STYLES.items():
        runs = [run for run in trained if (run.group, run.method) == (name, method)]
        axis.plot(100 * curves[runs].mean(axis=1), style.line, color=style.colour, label=method)
    axis.set(xlabel="epoch", ylabel="validation accuracy (%)", ylim=(60, 100))
    axis.label_outer()
    axis.legend(loc="lower right")
# %% [markdown]
# ## What the network looks at
#
# Besides its answers we compare what they rest on. A *saliency map* says how much each pixel counts towards the logit of
# the true digit. The paper's recipe: integrated gradients {cite}`sundararajan2017`, that is the mean gradient along
# the straight path from an empty image (the mean pixel everywhere) to $x$, times $x$; of their absolute values those
# below 0.9 of the largest are set to zero; a $3 \times 3$ Gaussian smooths the rest. Turned back to a common orientation, the maps of one image can be laid over each other.


# %% {"mystnb": {"figure": {"caption": "What each network looks at (red) in the orientations of one digit, all turned back to a common orientation. A network that treats the orientations alike has the same spots in each column.", "name": "fig-saliency"}, "image": {"alt": "Saliency maps of one digit, a row per method, a column per orientation"}}, "tags": ["hide-input"]}
def first_model(acting, method):
    """The network of the first seed."""
    run = settings.run(acting.name, method, settings.seeds[0])
    return trained[run].model.cpu()


acting = groups[0]
figure, axes = plt.subplots(3, acting.order, figsize=(1.6 * acting.order, 4.8), squeeze=False)
for row, method in zip(axes, METHOD_STYLES):
    maps = ginv.orbit_maps(first_model(acting, method), digit, label, acting)
    row[0].set_ylabel(method)
    for axis, saliency in zip(row, maps):
        show_saliency(axis, digit[0], saliency[0])

# %% [markdown]
# One digit may be an exception. So here is the first test image of each class, for a reader in a browser to step through
# its orbit.

# %% {"tags": ["hide-input"]}
firsts = torch.stack([(test.labels == c).int().argmax() for c in range(CLASSES)])
digits, classes = test.images[firsts], test.labels[firsts]


def looks(acting, model):
    """What it looks at in each orientation of each digit, turned back."""
    maps = ginv.orbit_maps(model, digits, classes, acting).flatten(0, 1)
    return [*map(saliency_picture, digits.repeat(acting.order, 1, 1, 1), maps)]


def says(acting, model):
    """The class it names for each, and the probability that it gives it."""
    logits = ginv.orbit_logits(model, digits, acting).flatten(0, 1)
    p, answer = logits.softmax(1).max(1)
    return {"answer": [*map(str, answer.tolist())], "probability": p.tolist()}


# %% {"tags": ["hide-input"]}
pictures, maps, parts = [], {method: [] for method in METHOD_STYLES}, []
for acting in groups:
    pictures += map(saliency_picture, acting.orbit(digits).flatten(0, 1))
    cells = {}
    for method in METHOD_STYLES:
        model = first_model(acting, method)
        maps[method] += looks(acting, model)
        for row, values in says(acting, model).items():
            cells[row, method] = values
    size, unit = (360, "°") if acting.name == "R4" else (36, " pixels")
    steps = [f"{size // acting.order * g}{unit}" for g in acting.elements]
    levels = {"group": [acting.name], "orientation": steps, "digit": classes.tolist()}
    index = pd.MultiIndex.from_product(levels.values(), names=levels)
    parts.append(pd.DataFrame(cells, index))

states = pd.concat(parts).reorder_levels(["group", "digit", "orientation"])
formats = {"answer": "{}", "probability": "{:.0%}"}
caption = (
    "The large image is what the networks are given. In red is what each of them looks at, turned back to the first orientation, and "
    "below it what it answers. A network that treats the orientations alike looks at the same spots in all of them."
)
HTML(stepper(states, pictures, caption, formats, maps))

# %%
model = first_model(groups[0], "IR")
attributions = ginv.integrated_gradients(model, images, test.labels[:100])
kept = ginv.saliency_map(attributions, sigma=0) > 0
pixels = kept.sum((1, 2, 3)).float().mean()
Markdown(
    f"At 0.9 of the maximum a map keeps {pixels:.1f} of 1,296 pixels (mean over 100 images, IR). It is a strict test."
)

# %% [markdown]
# ## How strong a penalty?
#
# The paper tunes $\nu$ "such that the resulting saliency invariance similarity $SI \ge 0.95$". SI is the cosine
# similarity of two such maps, averaged over all pairs of orientations, those of an orientation with itself included: 1 if
# the network looks at the same pixels in every orientation.
#
# So we look for the smallest $\nu$ whose SI, on validation images, reaches 0.95. One seed finds the neighbourhood, in steps
# of ten that are then halved; from there all four are trained, and $\nu$ is moved until their mean SI lies between 0.95 and
# 0.9525, which is as finely as four seeds can tell. Accuracy and SI below are over the orbits of the validation images. The
# sweep is the one thing that this page does not redo: `make tune` does, and its table comes with the package, as
# `ginv/runs/nu_sweep.csv`.

# %%
sweep = read_sweep().query("regulariser == 'logit'")
sweep = sweep[sweep["group"].isin(settings.groups)]
order = sweep["group"].map(lambda name: ginv.group_named(name).order)
sweep = sweep.assign(**{"SI, distinct pairs": (order * sweep.SI - 1) / (order - 1)})
by_nu = sweep.groupby(["group", "nu"])[["accuracy", "SI", "SI, distinct pairs"]]
by_nu = by_nu.agg(["mean", "std"])
by_nu["seeds", ""] = sweep.groupby(["group", "nu"]).size()
rows = list(by_nu.index)
by_nu["chosen", ""] = ["←" * (nu == ginv.chosen_nu(name)) for name, nu in rows]
by_nu.index = pd.MultiIndex.from_tuples([(name, f"{nu:g}") for name, nu in rows])
show_table(by_nu, "300 epochs, 2,000 validation images")

# %% {"mystnb": {"figure": {"caption": "What the penalty buys and what it costs: accuracy against SI on validation images, a point per \u03bd, averaged over its seeds; the numbers are the smallest \u03bd, the largest, and the chosen one, which is ringed. The dashed line is the target.", "name": "fig-sweep"}, "image": {"alt": "Accuracy against saliency similarity, one point per nu, with the chosen nu ringed, one panel per group"}}, "tags": ["hide-input"]}
for name, axis in group_panels(settings).items():
    points = sweep[sweep["group"] == name].groupby("nu")[["SI", "accuracy"]].mean()
    style = METHOD_STYLES["IR"]
    axis.plot(points.SI, points.accuracy, style.line, marker=style.marker, color=style.colour)
    chosen = points.loc[[ginv.chosen_nu(name)]]
    for nu, point in pd.concat([points.iloc[[0, -1]], chosen]).iterrows():
        axis.annotate(f"{nu:g}", point, textcoords="offset points", xytext=(8, 5))
    axis.plot(chosen.SI, chosen.accuracy, "o", ms=14, mfc="none", color="black")
    axis.axvline(TARGET, ls="--", color="grey")
    axis.set(xlabel="saliency invariance SI", ylabel="accuracy over the orbit (%)")
    axis.margins(x=0.15, y=0.15)
    axis.label_outer()

# %% [markdown]
# ## Measuring
#
# Four numbers for each network. The accuracy, over all orientations of all test images. And three measures of invariance,
# which the paper defines for $x$ and $gx$ in its Equations 1 to 3; we average each over all ordered pairs $gx, hx$ of the
# orbit, so that no orientation is special, and over the images. With $u$ the softmax of the logits and $m$ the saliency
# map:
#
# $$
# \begin{aligned}
# DI_f &= D_{KL}(u_{gx} \,\|\, u_{hx}) && (1) \\
# LI_f &= \tfrac12 \lVert f(gx) - f(hx) \rVert_2^2 && (2) \\
# SI_f &= \cos \big( g^{-1} m_f(gx), \; h^{-1} m_f(hx) \big) && (3)
# \end{aligned}
# $$

# %%
table = settings.table(trained)
settings.save(table, results, "table1")
means = table.groupby(["group", "method", "metric"], sort=False).value.mean()
means = means.unstack()
show_table(means[[*METRICS, "SI_distinct"]], settings.label, precision=4)

# %% [markdown]
# ## Table 1
#
# The paper's numbers, to lay beside ours: mean and spread over its four seeds, which we take for the sample standard
# deviation.

# %%
printed = printed_table()
as_printed = (printed.mean_text + " ± " + printed.sd_text).unstack(sort=False)
show_table(as_printed, "Table 1 as the paper prints it")

# %% [markdown]
# One convention has to be settled first: whether the LI of the paper's *table* has the ½ of Equation 2.

# %% {"tags": ["hide-input"]}
li_of_da = printed["mean"].xs(("DA", "LI"), level=["method", "metric"])
share = means.LI.xs("DA", level="method") / li_of_da
shares = [f"{share[name]:.2f} ({name})" for name in settings.groups]
Markdown(
    f"With the ½, our LI for DA is {' and '.join(shares)} of the paper's, run with {settings.label}."
)

# %% [markdown]
# The paper trains for 300 epochs. If after as many this is nearer to ½ than to 1, its table may leave the ½ out. We read it
# so for both groups, and double our LI in this comparison, and only here. This reading was chosen because it fits R4: where
# LI of DA then agrees, that is no evidence of its own; where it does not, the reading is in doubt.

# %%
table = table[table.metric.isin(METRICS)]
factor = table.metric.map({"LI": 2}).fillna(1)
ours = table.assign(value=factor * table.value)
ours = ours.groupby(["group", "method", "metric"]).value.agg(mean="mean", sd="std")

# %% [markdown]
# Two means *agree* here if they differ by no more than twice the standard error of their difference, $2 \sqrt{s^2/n +
# s'^2/4}$, plus half a unit of the paper's last digit. The paper's spreads are rounded too, so $s'$ is its spread plus
# half a unit of *its* last digit; where it prints a spread of 0.0 this is a loose test. `room` is how
# far apart they may be.
#
# Not every *yes* is evidence. LI, DI and SI of WT hold by construction, SI of IR by the choice of $\nu$, LI of DA, where it
# does, by our reading; and for LI and DI of IR the paper's rounding is coarse. What is left is the accuracies, DI and SI of
# DA, and every *no*.

# %%
theirs = printed.loc[ours.index]
difference = ours["mean"] - theirs["mean"]
rows = zip(ours.sd, theirs.iloc)
agrees = difference.abs() <= [room(sd, len(settings.seeds), row) for sd, row in rows]
agrees = agrees[ours.sd.notna()]  # one seed has no spread

# %%
side_by_side = pd.concat({"ours": ours, "paper": theirs[["mean", "sd"]]}, axis=1)
side_by_side["", "difference"] = difference
side_by_side["", "agrees"] = agrees.map({True: "yes", False: "no"})
order = pd.MultiIndex.from_product([settings.groups, METHOD_STYLES, METRICS])
show_table(side_by_side.loc[order], settings.label)

# %% {"mystnb": {"figure": {"caption": "Table 1 as a picture: filled markers are ours, one per seed; large open ones the paper's. Upwards is accurate, to the right is a network that looks at the same pixels in every orientation.", "name": "fig-table1"}, "image": {"alt": "Accuracy against saliency similarity for the three methods, ours and the paper's, one panel per group"}}, "tags": ["hide-input"]}
runs = table.pivot_table(index=["group", "method", "seed"], columns="metric", values="value")
panels = group_panels(settings)
plot_methods(panels, runs)
for (name, method), row in theirs["mean"].unstack().loc[list(settings.groups)].iterrows():
    style = METHOD_STYLES[method]
    panels[name].plot(row.SI, row.accuracy, style.marker, color=style.colour, mfc="none", ms=11)

# %% [markdown]
# ## Conventions
#
# The paper leaves room. Whether its table has the ½ of Equation 2, and whether pairs of an orientation with itself count, changes the
# numbers by known factors: a group of $n$ elements has $n$ such pairs among $n^2$, and they add 0 to LI and DI and 1 to
# SI. So each reading follows from the table above.
#
# What do the paper's own numbers allow? Maps are never negative, so with such pairs in, SI is at least $1/n$ unless maps are
# empty; the paper's 0.17 for R4 is below ¼, so they are not in it. Its SI of IR, 0.95 ± 0.03 and ± 0.07, is what we have
# either way. So no verdict on SI can hang on one reading: wherever SI stands in this book, it stands both ways, and where
# one number is wanted it is that over all pairs, by which $\nu$ was tuned.

# %%
n = means.index.get_level_values("group").map(lambda name: ginv.group_named(name).order)
readings = pd.DataFrame(
    {
        ("LI", "Equation 2"): means.LI,
        ("LI", "without ½"): 2 * means.LI,
        ("LI", "without ½, distinct pairs"): 2 * means.LI * n / (n - 1),
        ("DI", "all pairs"): means.DI,
        ("DI", "distinct pairs"): means.DI * n / (n - 1),
        ("SI", "all pairs"): means.SI,
        ("SI", "distinct pairs"): (n * means.SI - 1) / (n - 1),
    }
)

# %%
for metric in ("LI", "DI", "SI"):
    readings[metric, "paper"] = theirs["mean"].xs(metric, level="metric")
learned = readings.drop(index="WT", level="method")[["LI", "DI", "SI"]]
show_table(learned.T, settings.label)

# %% [markdown]
# ## The initial weights, and all pairs
#
# The paper names Glorot and He among its references and does not say how its weights begin. We take PyTorch's, which are
# the smallest: He's are 2.4 times as large. And its Equation 4 can be read with all pairs of an orbit as well as with one
# random pair. The same networks under those readings, with $\nu$ tuned anew for each, on the first 10,000 test images
# (`initialisation.yaml`, most of it trained on a GPU):

# %% {"tags": ["hide-input"]}
others = pd.read_csv(book_file("results/initialisation.csv"))
others = others[others.group.isin(settings.groups)].replace({"pytorch": "PyTorch"})
index = ["group", "initialisation", "recipe", "selection"]
others = others.pivot_table("value", index, "metric")


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
rows = {
    (name, text): reading(name, *of) for name in settings.groups for text, of in READINGS.items()
}
for name in settings.groups:
    row = theirs["mean"][name]
    cells = [row[cell] for cell in (("DA", "accuracy"), ("DA", "LI"), ("DA", "SI"), ("DA", "SI"))]
    rows[name, "the paper"] = [*cells, row["IR", "accuracy"], row["IR", "SI"]]
columns = [
    "DA accuracy",
    "DA LI, with ½",
    "DA SI",
    "DA SI, distinct",
    "IR accuracy",
    "IR SI, distinct",
]
begun = pd.DataFrame(rows, columns).T.rename_axis(["group", "weights"])
show_table(begun, "Means over four seeds; the paper's SI stands under both of its readings", 2)


# %% {"tags": ["hide-input"]}
def of_weights(name):
    li, paper = begun["DA LI, with ½"][name], theirs["mean"][name, "DA", "LI"]
    last = others.LI[name, "PyTorch", "DA"]
    seeds = pd.read_csv(book_file("results/initialisation.csv")).query(
        "group == @name and recipe == 'DA' and initialisation == 'pytorch' and metric == 'LI'"
    )
    seeds = seeds.groupby("selection").value.agg(["min", "max"])
    return (
        f"- {GROUP_NAMES[name]}: LI of DA is {li.iloc[0]:.0f} with PyTorch's weights, {li.iloc[2]:.0f} with Glorot's, {li.iloc[3]:.0f} with He's; the paper has {paper:.0f}. "
        f"With PyTorch's it is {last['best']:.0f} ({seeds['min']['best']:.0f} to {seeds['max']['best']:.0f} over the seeds) after the best epoch and {last['last']:.0f} "
        f"({seeds['min']['last']:.0f} to {seeds['max']['last']:.0f}) after the last."
    )


Markdown("\n".join(map(of_weights, settings.groups)))

# %% [markdown]
# So the reading above has lost its ground: that the table leaves the ½ out was concluded from PyTorch's weights, and on
# R4 alone. With the ½ in, as Equation 2 has it, weights between Glorot's and He's would give the paper's LI of DA on *both*
# groups, and no weights that we tried do so without it. What no row has is the paper's pair of SI. The penalty on all
# pairs costs less accuracy than that on a random pair, on both groups: part of the price of IR is the noise of the pair.
#
# We keep PyTorch's weights, a random pair and the doubling in the comparison above, as the readings that were fixed first.

# %% [markdown]
# ## What you saw


# %% {"tags": ["hide-input"]}
def found(name):
    wt, da, ir = (means.loc[name, method] for method in ("WT", "DA", "IR"))
    cells = agrees[agrees.index.get_level_values("group") == name].droplevel(0)
    missed = ", ".join(
        f"{metric} of {method}" for (method, metric), same in cells.items() if not same
    )
    reached = "reaches" if ir.SI >= TARGET else "does not reach"
    return (
        f"- **{GROUP_NAMES[name]}.** DA is right in {da.accuracy:.1f} % of all orientations, WT in "
        f"{wt.accuracy:.1f} %. Yet the SI of DA is {da.SI:.2f} where that of WT is {wt.SI:.2f}, and its LI (Equation 2) "
        f"is {da.LI:.1f} against {wt.LI:.0e}. IR, with an SI of {ir.SI:.3f} on the test images, {reached} "
        f"{TARGET}; its LI is {ir.LI:.3f}, and its accuracy {ir.accuracy:.1f} %: {da.accuracy - ir.accuracy:.1f} "
        f"points below DA."
        + (
            f" Of {len(cells)} cells of the paper's table {cells.sum()} agree with ours{f'; not {missed}' if missed else ''}."
            if len(cells)
            else " One seed has no spread, so nothing is compared with the paper."
        )
    )


Markdown("\n".join(found(name) for name in settings.groups))


# %% {"tags": ["hide-input"]}
def si_of_da(name):
    low, high = sorted(learned.loc[(name, "DA"), "SI"][["all pairs", "distinct pairs"]])
    value = theirs["mean"][name, "DA", "SI"]
    where = "above" if value > high else "below" if value < low else "between"
    return f"for {name} the paper's {value:.2f} lies {where} our two readings, {low:.2f} and {high:.2f}"


Markdown(
    "The accuracy of DA does not tell that it is not invariant; the measures do. The SI of DA is the one whose definition "
    f"leaves most open: {'; '.join(map(si_of_da, settings.groups))}."
)
