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
# # Your own model
#
# You have a classifier, and images that may come in any orientation. You trained it on turned and flipped copies, and it
# gets most of them right. Is it invariant, or just right? This page takes a small residual network with three colour
# channels, as yours might be, from a first measurement to a verdict, to the layer that is to blame, and to what can be
# done about it.

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

# %% {"tags": ["parameters", "hide-input"]}
# "paper" is the full experiment, "sample" the same on fewer test images, "quick" a look in minutes
profile = "paper"  # @param ["paper", "sample", "quick"]
device = "auto"  # @param ["auto", "cpu", "cuda"]
# folder for the numbers of this page; name another before you change anything
results = "results"  # @param {type: "string"}

# %% {"tags": ["hide-input"]}
import copy
import textwrap

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import ginv
from ginv.machine import choose_device
from ginv.pages import Settings, expect, refuse_unknown
from ginv.pages.figures import show_table, use_style

refuse_unknown()  # a parameter by a wrong name
settings = Settings(profile, device=device, results=results)
use_style()
where = choose_device(device)
steps = 600 if profile != "quick" else 8  # of each training

# %% [markdown]
# The next two code cells stand in for your project: garments of Fashion-MNIST ([Xiao et al., 2017](https://arxiv.org/abs/1708.07747)), each in a colour of its own, and a
# residual network with batch normalisation. The measurement is two lines: a loader, and one call with the group of
# rotations and mirror images (the dihedral group D4, eight orientations).


# %% {"tags": ["hide-input"]}
def coloured(split, seed):
    generator = torch.Generator().manual_seed(seed)
    tints = torch.rand(len(split), 3, 1, 1, generator=generator) * 0.6 + 0.4
    grey = (split.images * garments.std + garments.mean)[..., 1:-2, 1:-2]
    return TensorDataset((grey * tints).to(where), split.labels.to(where))


garments = ginv.load_dataset("FashionMNIST")
train = coloured(garments.train, 0)
test = coloured(garments.validation.head(1000 if profile != "quick" else 60), 1)


class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        options = dict(padding=1, bias=False)
        self.first = nn.Conv2d(inputs, outputs, 3, stride=2, **options)
        self.second = nn.Conv2d(outputs, outputs, 3, **options)
        self.norms = nn.ModuleList(nn.BatchNorm2d(outputs) for _ in range(2))
        self.skip = nn.Conv2d(inputs, outputs, 1, stride=2, bias=False)

    def forward(self, x):
        y = self.norms[0](self.first(x)).relu()
        return (self.norms[1](self.second(y)) + self.skip(x)).relu()


def network():
    torch.manual_seed(0)
    blocks = [Block(3, 16), Block(16, 32), Block(32, 64)]
    pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 9)
    return nn.Sequential(*blocks, *pooled).to(where)


# %% {"tags": ["hide-input"]}
d4 = ginv.group_named("D4")


def augmented(model, x, y):
    """The loss for each image in an orientation of its own."""
    chosen = torch.randint(d4.order, (len(x),))
    return F.cross_entropy(model(d4.orbit(x)[chosen, torch.arange(len(x))]), y)


def fit(model, loss, batch_size, after=lambda model, step: None):
    torch.manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    batches = torch.randint(len(train), (steps, batch_size))
    for step, batch in enumerate(batches):
        optimiser.zero_grad()
        loss(model, *train[batch]).backward()
        optimiser.step()
        after(model, step)
        schedule.step()
    return model


model = fit(network(), augmented, batch_size=128)

# %%
few = DataLoader(TensorDataset(*test[:100]), batch_size=50)
measured = ginv.measure(model, few, ginv.group_named("D4"), steps=16)

# %% {"mystnb": {"figure": {"name": "fig-your-model"}, "image": {"alt": "Two garments in eight orientations each, with saliency maps turned back and predicted distributions"}}}
figure = measured.show(width=10)
figure

# %% [markdown]
# *In each of eight orientations the network looks at other pixels. Top: an image with a typical SI; bottom: the worst of a
# hundred. Red is where the saliency map of an orientation is large, turned back so that all eight can be compared; the
# bars are the predicted probabilities. An invariant network would have eight equal maps and eight equal distributions.*
#
# In an environment of your own, `pip install .` in a clone of this project is all there is to install. Nothing here knows
# what is inside the model: `torchvision.models.resnet18(num_classes=9)`, or one of timm's, goes in its place. It is looked at
# in evaluation mode, on its own device, and left as it was. Images are `[n, C, H, W]`; quarter turns need square ones, where
# they are not there are half turns and mirror images, `D2`. Attributions cost a forward and a backward pass for each step and
# each orientation: with a hundred images and 16 steps, where `ginv` would take 50, that is 12,800 of each. Without them,
# `saliency=False`, the same hundred cost 800 forward passes.
#
# ## What the numbers say

# %%
measured

# %% [markdown]
# - `accuracy` is taken over all orientations, in per cent. It says nothing of invariance: a network may be wrong in the
#   same way eight times.
# - `flip_rate` is the share of pairs of orientations that are given different classes, of all pairs, each orientation with
#   itself included: one stray answer of eight makes 0.22. How many images have any flip is another number, below.
# - `LI`, and `relative_LI` from 0 to 1, are how far the logits of an orbit are apart. The second cannot be made small by
#   shrinking the logits ([How invariance is measured](metrics.ipynb)), and nor can `orbit_over_sample_variance`, how far the
#   logits of an orbit spread beside those of different images.
# - `DI` and `JS` (in nats) are how far the predicted probabilities differ; `logit_norm` is the size of the logits.
# - `SI` asks whether the network looks at the same pixels. It counts the pairs of an orientation with itself, as the
#   paper's sums do, so an eighth is there for nothing. `SI_distinct` leaves them out.
# - `SI_floor` is the SI of maps that have nothing to do with each other: those of different images. Only what lies
#   above it means anything. (The floor of `SI_distinct` is `(8 * SI_floor - 1) / 7`, next to nothing.)
#
# An invariant network has 1 in SI and 0 in all the errors. Most of them are means over images, with an interval of 95 %:

# %%
measured.intervals.loc[["accuracy", "flip_rate", "SI", "SI_distinct"]].round(3)

# %%
summary = measured.summary
gained = (summary.SI - summary.SI_floor) / (1 - summary.SI_floor)
agreeing = measured.samples.query("flip_rate == 0").SI.mean()
print(f"SI is {gained:.0%} of the way from its floor to 1")
print(f"where all eight orientations get one class, SI is {agreeing:.2f}")
print(f"{(measured.samples.flip_rate > 0).mean():.0%} of the images get more than one class")

# %%
# expect() is silent where the words hold in this run, and shows a banner where not
near = abs(agreeing - summary.SI) < 0.1
expect("SI is nearer to its floor than to 1, also where the classes agree", gained < 0.5 and near)

# %% [markdown]
# SI is nearer to that of unrelated garments than to 1, and hardly higher where the network gives all eight orientations the
# same class: agreement on the answer is not agreement on the reason. So the verdict is that it is right, and not invariant.
# Which share of flips you can bear is for your use to say.
#
# The images that fare worst are rows of a table. Their numbers are those of the loader's order, so let it not shuffle.

# %%
measured.worst(3)[["label", "accuracy", "flip_rate", "relative_LI", "SI"]].round(3)

# %% [markdown]
# Images that come in parts, from two machines or two days, are measured in parts. The sum of two measurements is that of
# all their images, intervals and floor included:

# %%
halves = torch.arange(len(test[:100][1])).chunk(2)
first, second = (ginv.measure(model, *test[h], d4, steps=16, progress=False) for h in halves)
whole = first + second
np.testing.assert_allclose(whole.summary.SI, measured.summary.SI, rtol=1e-4)

# %% [markdown]
# Maps explain what an image has that an *empty* image lacks, and for `ginv` that is an image of zeros. Here it is black.
# If yours are normalised, zero is the mean colour, and black is somewhere else: say where, `baseline=-mean / deviation`.
# `ginv` cannot see this for you. It warns only where 0 is neither the darkest pixel nor within a deviation of the mean, and
# images that were normalised well pass.

# %%
mean = torch.tensor([0.5, 0.4, 0.3], device=where).view(3, 1, 1)
deviation = 0.25


class OfNormalised(nn.Module):
    """The same network, for images that were normalised."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, z):
        return self.model(z * deviation + mean)


# %%
x, y = test[:20]
options = dict(steps=16, progress=False)
z, black = (x - mean) / deviation, -mean / deviation
same = ginv.measure(OfNormalised(model), z, y, d4, baseline=black, **options)
np.testing.assert_allclose(
    same.summary.SI, ginv.measure(model, x, y, d4, **options).summary.SI, rtol=0.01
)

# %% [markdown]
# ## Which layer to blame
#
# A layer may treat the orientations alike in three ways. Its output may not change at all; it may turn as the image turns;
# or it may turn while its channels change places, as the orbits of filters of a group convolution do. The table has the
# relative variance over the orbit for each: a module treats them alike if *one* of its numbers is 0.


# %%
def blame(model):
    measured = ginv.measure(model, few, d4, saliency=False, layers=True, progress=False)
    return measured.layers.round(3)


SHOWN = ["0.first", "0", "1", "2", "3", "5"]  # of all its modules; leave it out for yours
blame(model).loc[SHOWN]

# %% [markdown]
# In a network that nobody made equivariant the first convolution has no 0, since its filters are no turned copies of each
# other. What comes later mends most of that: block by block the orientations come closer, and pooling forgets where
# things were. Read such a table from below: the last row is what is left. (Of a network without training it means nothing:
# its logits hardly depend on the image.)
#
# The table is at its best with a network that is *meant* to be equivariant, where every row is 0 to rounding and the first
# above 0.01 is to blame. Here is the same one with symmetric weights
# and no training, once as it should be and once with a careless change: its second block is shifted by a pixel.

# %%
ideal = ginv.symmetrise(network(), d4, input_shape=(3, 33, 33))
careless = copy.deepcopy(ideal)
careless[1].register_forward_hook(lambda _, inputs, output: output.roll(1, -1))
both = {"ideal": blame(ideal), "careless": blame(careless)}
pd.DataFrame({key: table.units_moved_back for key, table in both.items()}).loc[SHOWN]

# %% [markdown]
# The number is that of units and pixels moved back. In the first column it is 0 for every block. In the second the
# blame begins at block `1`, where the change was made. The last row is of the logits, which no element has to move: for
# them, and for what is pooled away, the first number of the three counts.
#
# ## What to do about it
#
# There are five ways. Only averaging takes a trained network and leaves it as it is; the others train from the beginning. (Do
# not symmetrise a trained one: its weights are averaged, and what it learned is lost. Whether the decay works from trained
# weights we have not tried.)
#
# **Augment.** What we did. One orientation of an image a step.
#
# **Average.** Give the network all orientations and take the mean of its logits. It needs no training at all.

# %%
averaged = ginv.Averaged(model, d4)

# %% [markdown]
# **Tie.** Share the features over the group, and keep their maximum. This is the paper's WT with a convolutional
# network in place of its first layer. In training as in use, all orientations are computed.


# %%
class Tied(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.features, self.output = model[:-1], model[-1]

    def forward(self, x):
        orbit = d4.orbit(x)
        features = self.features(orbit.flatten(0, 1)).unflatten(0, orbit.shape[:2])
        return self.output(features.amax(0))


tied = fit(Tied(network()), lambda model, x, y: F.cross_entropy(model(x), y), batch_size=32)

# %% [markdown]
# **Symmetrise and penalise.** Start from weights that make the network invariant, tie nothing, and penalise what breaks the
# symmetry: over the whole orbit the penalty is LI itself. [The price of invariance](price.ipynb) has
# the reasons. `symmetrise` looks at what it did and names the first layer that stands in its way; 33 pixels are no
# accident, since a kernel of 3 at a stride of 2 sees only images of odd size from all sides alike. A ResNet of torchvision
# wants 225 pixels and not 224: resize, or pad by one.


# %%
def penalised(model, x, y, nu=1.0):
    orbit = d4.orbit(x)
    logits = model(orbit.flatten(0, 1)).unflatten(0, orbit.shape[:2])
    task = F.cross_entropy(logits.flatten(0, 1), y.repeat(d4.order))
    return task + nu * ginv.logit_invariance(logits).mean()


symmetric = ginv.symmetrise(network(), d4, input_shape=(3, 33, 33))
symmetric = fit(symmetric, penalised, batch_size=32)

# %% [markdown]
# **Decay what is not symmetric.** Begin anywhere, train as you do, one view of an image a step, and after each step take a
# share out of what the group does not map to itself in the weights. A small share lets the network find its orbits; a
# share of 1 in what remains of the training makes them exact ([The price of invariance](price.ipynb)).


# %%
def decay(model, step):
    share = 0.02 if step < steps / 3 else 1.0
    ginv.decay_asymmetry(model, d4, share, input_shape=(3, 33, 33))


decayed = fit(network(), augmented, batch_size=128, after=decay)

# %% [markdown]
# What each of them costs, in forward passes of the bare network: for an image in use, and for an image in a step of
# training. All took as many steps; where an image comes in eight orientations at once, a step has 32 of them, else 128.
# Accuracy is that of all the images in `test`; without maps they cost little.

# %% {"tags": ["hide-input"]}
candidates = {
    "augment": (model, 1, 1),
    "average": (averaged, 8, 1),
    "tie": (tied, 8, 8),
    "symmetrise and penalise": (symmetric, 1, 8),
    "decay": (decayed, 1, 1),
}
INTEGERS = ["passes in use", "passes in training", "images seen"]
rows = {}
for name, (candidate, in_use, in_training) in candidates.items():
    all_images = DataLoader(test, 250)
    logits = ginv.measure(candidate, all_images, d4, saliency=False, progress=False)
    # One that looks at eight orientations itself takes eight times as long: fewer images
    some = few if in_use == 1 else DataLoader(TensorDataset(*test[:10]), batch_size=10)
    maps = ginv.measure(candidate, some, d4, steps=16, progress=False)
    rows[name] = {
        "accuracy": logits.intervals["mean"].accuracy,
        "±": logits.intervals.high.accuracy - logits.intervals["mean"].accuracy,
        "flip rate": logits.summary.flip_rate,
        "SI": maps.summary.SI,
        "passes in use": in_use,
        "passes in training": in_training,
        "images seen": steps * (32 if in_training == 8 else 128),
    }
compared = pd.DataFrame(rows).T.astype(dict.fromkeys(INTEGERS, int))
show_table(
    compared, f"{len(test)} images in eight orientations; SI of 100 or, where in use 8, of 10"
)

# %%
best, worst = compared.loc[["decay"]], compared.loc[["augment"]]
expect("the decay is exact", (best.SI > 0.999) & (best["flip rate"] == 0))
points = worst.accuracy.item() - best.accuracy.item()
expect("it is less behind than the intervals are wide", abs(points) < 2 * best["±"].item())

# %% [markdown]
# Averaging and tying pay in use. The symmetric start with a penalty falls behind here, after a quarter of the images and
# with a $\nu$ that nobody tuned. The decay has one view in training and one pass in use, and is exact. What it is behind is
# less than the intervals are wide: one seed cannot tell them apart. Each of its steps makes eight copies of the weights, which
# costs time where a batch is small and a network large.
#
# And it needs to know your layers, where averaging takes any function. `symmetrise` and `decay_asymmetry` take linear and
# two-dimensional convolutional layers, batch, group and instance norms, and PReLU: no layer norm and no attention. (`Tied`
# above is written for an `nn.Sequential`. Of a ResNet, let `features` be the whole with `fc = nn.Identity()`.)
#
# Averaging, tying and a decay that ended at 1 are invariant whatever was learned, and a check says so in your own test
# suite:

# %%
images = test[:20][0]
ginv.assert_invariant(averaged, images, d4)
ginv.assert_invariant(tied, images, d4)
ginv.assert_invariant(decayed, images, d4)
try:
    ginv.assert_invariant(model, images, d4)
except AssertionError as error:
    print(textwrap.fill(str(error), 90))

# %% [markdown]
# ## A group of your own
#
# A group is a class of ten lines: how many elements, how they multiply, and what they do to an image. Here are a
# picture and its upside-down copy. `check_group` proves, pixel by pixel, that it is a group and an action; `measure`
# does the same when it first meets one.


# %%
class UpsideDown(ginv.Group):
    order, name = 2, "upside down"

    def product(self, g, h):
        return (g + h) % 2

    def inverse(self, g):
        return g

    def act(self, g, x):
        return x.flip(-2) if g else x


ginv.check_group(UpsideDown(), (3, 33, 33))

# %% [markdown]
# A mistake has a name. Here the flip goes on to smear the image, so that undoing it does not bring the image back:


# %%
class Smeared(UpsideDown):
    def act(self, g, x):
        return (x.flip(-2) + x.roll(1, -2).flip(-2)) / 2 if g else x


try:
    ginv.check_group(Smeared(), (3, 33, 33))
except ValueError as error:
    print(textwrap.fill(str(error), 90))

# %% [markdown]
# ## No gradients?
#
# An ONNX session, a scikit-learn estimator, a model behind a server: whatever takes an array and returns scores can be
# measured by its logits, at one call for each orientation.


# %%
def scores(array):
    """Somebody's function of NumPy arrays: a score for each class, by how bright an image is."""
    return -np.square(array.mean((1, 2, 3))[:, None] - np.linspace(0, 0.5, 9))


ginv.measure(scores, few, d4, saliency=False, progress=False).summary[["LI", "flip_rate"]]

# %% [markdown]
# It is invariant, of course, up to rounding: to turn an image makes it no brighter. It is no good classifier either,
# which LI does not ask.
#
# ## What you saw

# %% {"tags": ["hide-input"]}
settings.save(compared.rename_axis("way").reset_index(), results, "your_model")
if profile == "paper":  # the picture of the README
    figure.savefig(f"{results}/your_model.png", dpi=80)

# %% [markdown]
# - Augmentation teaches the answers and not the invariance: SI stays far from 1 even where the eight answers agree.
# - Averaging and tying are exact, and you pay for them with eight forward passes in use. A symmetric start with a
#   penalty has one, pays in training, and is not exact. A decay of what is not symmetric has one, and is exact.
# - One number is never enough. Read SI with its floor, LI relative to the logits, and look at the pictures.
#
# ## Change this, and predict what happens
#
# 1. Give `symmetrise` images of 32 pixels instead: `input_shape=(3, 32, 32)`.
# 2. Measure `averaged` under horizontal shifts, `ginv.Translations(3)`, and not under D4.
#
# <details><summary>What happens</summary>
#
# 1. It refuses, and names the first convolution: at a stride of 2 its kernel of 3 sees an even image from one side more
# than from the other. The network is left as it was.
# 2. Nothing was averaged over shifts, so its maps and logits move with them: the `flip_rate` is no longer 0, and SI no
# longer 1.
#
# </details>
