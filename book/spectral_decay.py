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
# # Spectral decay
#
# Why does a network that is trained to be invariant lose accuracy? The paper's answer ([Moskalev et al., 2023](https://arxiv.org/abs/2308.03904)): it
# becomes invariant to one group by growing less sensitive to *everything*. The paper proves part of this for linear
# networks (Proposition 3.1) and measures the rest in trained ones (Figure 5). This page runs the proof line by line, and
# then asks trained networks what they have gone blind to. It finds that the decay is real, that most of it is a matter of
# how large the logits are, and that it is not what costs the accuracy; what does is the question of
# [The price of invariance](price.ipynb).

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
from collections import namedtuple
from functools import reduce
from itertools import pairwise, product

import numpy as np
import pandas as pd
import torch
from scipy.integrate import solve_ivp

import ginv
from ginv.pages import Settings, drawings, expect, figures, refuse_unknown
from ginv.pages.figures import FORM_STYLES, METHOD_STYLES
from ginv.recipe import REGULARISERS
from ginv.runs.nu import TARGET, read_sweep

refuse_unknown()  # a parameter by a wrong name
settings = Settings(profile, group, seeds, device, results)
figures.use_style()

# %% {"tags": ["hide-input"]}
images = ginv.load_dataset().train.images[:, 0].double()
groups = [ginv.group_named(name) for name in settings.groups]
drawn_on = (images != images[0, 0, 0]).any(0)  # the pixels that have ink in some image
inked = {acting.name: acting.orbit(drawn_on).any(0).flatten() for acting in groups}

# %% {"mystnb": {"figure": {"name": "fig-projection"}, "image": {"alt": "For each group a digit, its transformed copy, their difference, and a random weight image before and after: unchanged to the eye after one difference, symmetric under the group after all images"}}, "tags": ["hide-input"]}
x, start = images[10] - images.min(), torch.empty(9, 36 * 36, dtype=torch.float64)
torch.nn.init.xavier_uniform_(start, generator=torch.Generator().manual_seed(0))
rows = {}
for acting in groups:
    e = x - acting.act(1, x)
    one = start - torch.outer(start @ e.flatten(), e.flatten()) / e.square().sum()
    tied = acting.orbit(start.view(9, 36, 36)).mean(0).flatten(1)
    every = torch.where(inked[acting.name], tied, start)
    rows[acting.name] = {"$x$": x, "$gx$": x - e, "$\\epsilon = x - gx$": e}
    for title, W in (("before", start), ("after one $\\epsilon$", one), ("after all", every)):
        title += f"\n$\\sigma_{{max}}$ = {torch.linalg.matrix_norm(W, 2):.2f}"
        rows[acting.name][title] = W[0].view(36, 36).clamp(-0.025, 0.025)
drawings.show_images(rows)

# %% [markdown]
# *What the proposition is about. An image, its transformed copy and their difference; then one row of a random linear
# network $W$, drawn as an image, before and after the logit error is minimised. One $\epsilon$ takes one direction of
# 1,296: the eye sees nothing, and $\sigma_{\max}$ hardly moves. All images together make the row symmetric wherever
# there is ever ink.*
#
# ## The proposition
#
# The sensitivity of a linear map to its input is measured by its largest singular value, $\sigma_{\max}(W) = \lVert W
# \rVert_2$, the most by which it stretches a vector ([Yoshida and Miyato, 2017](https://arxiv.org/abs/1705.10941), [Khrulkov and Oseledets, 2018](https://arxiv.org/abs/1709.03582)). Take a linear network $h(x) = Wx$,
# one image $x$ and one element of the group, which acts on images by a matrix $G$. The paper minimises the logit
# error $\tfrac12 \lVert Wx - WGx \rVert_2^2$ over $t$ steps, and states:
#
# > **Proposition 3.1** (invariance-induced spectral decay). Logit invariance error minimization implies
# > $\sigma_{\max}(W(t)) \le \sigma_{\max}(W(0))$ when $t \to \infty$.
#
# *Proof.* Write $\epsilon = x - Gx$ and $\Sigma = \epsilon \epsilon^T$.
#
# *Step 1, the gradient.* The error is $\tfrac12 \lVert W \epsilon \rVert_2^2$ and its gradient $W \epsilon \epsilon^T =
# W \Sigma$. Gradient descent with learning rate $\alpha$ is $W^{t+1} = W^t - \alpha W^t \Sigma$.
#
# *Step 2, the flow.* For infinitely small $\alpha$, with time counted as $\alpha$ times the number of steps,
#
# $$ \frac{d}{dt} W = -W \Sigma \qquad (5) $$
#
# and since $\Sigma$ does not change, the solution is
#
# $$ W(t) = W(0) \exp(-\Sigma t) . \qquad (6) $$
#
# *Step 3, the spectrum.* $\Sigma = U \Lambda U^T$ has rank one, unless $\epsilon = 0$. Its one eigenvalue that is not
# zero is $\epsilon^T \epsilon$, with eigenvector $\epsilon$. The symmetric matrix $\exp(-\Sigma t) = U \exp(-\Lambda
# t) U^T$ then has the eigenvalue $\exp(-t \, \epsilon^T \epsilon) \le 1$ once and 1 everywhere else; its norm is 1.
#
# *Step 4, the norm.* The spectral norm is submultiplicative, hence for every $t \ge 0$
#
# $$ \lVert W(t) \rVert_2 \le \lVert W(0) \rVert_2 \, \lVert \exp(-\Sigma t) \rVert_2 = \lVert W(0) \rVert_2 . \qquad (7) $$
#
# That is the claim. ∎
#
# Now each step runs: on real digits, for every $g$ but the identity, from the two initialisations that the paper names,
# Glorot's ([2010](https://proceedings.mlr.press/v9/glorot10a.html)) and He's ([2015](https://arxiv.org/abs/1502.01852)), and in float64.


# %%
Case = namedtuple("Case", "group W0 x gx e")
INITS = {"Glorot": torch.nn.init.xavier_uniform_, "He": torch.nn.init.kaiming_normal_}


def draw(init, seed):
    weights = torch.empty(9, 36 * 36, dtype=torch.float64)
    return INITS[init](weights, generator=torch.Generator().manual_seed(seed))


# %%
cases = [
    Case(acting.name, draw(init, i), x.flatten(), gx.flatten(), (x - gx).flatten())
    for acting in groups
    for i, x in enumerate(images[:4])
    for gx in acting.orbit(x)[1:]
    for init in INITS
]

# %% [markdown]
# ## Step 1: the gradient
#
# Automatic differentiation of the logit error gives $W \epsilon \epsilon^T$.

# %%
for case in cases:
    W = case.W0.clone().requires_grad_()
    error = (W @ case.x - W @ case.gx).square().sum() / 2
    (gradient,) = torch.autograd.grad(error, W)
    expected = torch.outer(case.W0 @ case.e, case.e)
    assert (gradient - expected).norm() <= 1e-12 * expected.norm()

# %% [markdown]
# ## Step 2: the flow
#
# From here on, time counts in units of $1/\epsilon^T\epsilon$: the size of an image only sets how fast the flow runs.
# With $\hat\epsilon = \epsilon / \lVert \epsilon \rVert$, Equation 6 then reads $W(t) = W(0) \big( I - (1 - e^{-t}) \,
# \hat\epsilon \hat\epsilon^T \big)$. A numerical integrator that knows only Equation 5 arrives at the same matrix.


# %%
def closed_form(W0, e, t):
    unit = e / e.norm()
    return W0 + torch.outer(W0 @ unit, unit) * np.expm1(-t)


# %%
def integrate(Sigma, W0, t):
    """W(t) from dW/dt = -W Sigma, by an explicit method of order 8."""

    def slope(_, w):
        return -(w.reshape(9, -1) @ Sigma.numpy()).ravel()

    path = solve_ivp(slope, (0, t), W0.numpy().ravel(), "DOP853", rtol=1e-13, atol=1e-15)
    return torch.from_numpy(path.y[:, -1]).view_as(W0)


# %%
first = {name: next(c for c in cases if c.group == name) for name in settings.groups}
numbers = {}  # what this page saves, by group and name
for name, case in first.items():
    Sigma = torch.outer(case.e, case.e) / (case.e @ case.e)
    apart = (integrate(Sigma, case.W0, 3.0) - closed_form(case.W0, case.e, 3.0)).abs().max()
    assert apart < 1e-10
    numbers[name, "integration error"] = apart.item()

# %% [markdown]
# ## Step 3: the spectrum
#
# The whole $\Sigma$, $1296 \times 1296$, is diagonalised, and its exponential put together again from the eigenvectors.

# %%
for name, case in first.items():
    values, U = torch.linalg.eigh(torch.outer(case.e, case.e) / (case.e @ case.e))
    numbers[name, "rank, one e"] = (values.abs() > 1e-12).sum().item()
    assert numbers[name, "rank, one e"] == 1 and abs(values[-1] - 1) < 1e-12
    shrink = torch.exp(-values)  # the eigenvalues of exp(-Sigma t) at t = 1
    apart = case.W0 @ (U * shrink @ U.T) - closed_form(case.W0, case.e, 1.0)
    assert abs(shrink.max() - 1) < 1e-12 and apart.abs().max() < 1e-12

# %% [markdown]
# ## Step 4: the norm
#
# The bound holds at every $t$, not only in the limit. More than that: $\sigma_{\max}$ never rises on the way, since $W(t)
# = W(s) \exp(-\Sigma (t - s))$ for any $s \le t$ and the second factor stretches nothing.


# %%
def sigma(W):
    return torch.linalg.matrix_norm(W, 2).item()


for case in cases:
    path = [sigma(closed_form(case.W0, case.e, t)) for t in [0, *np.geomspace(0.01, 40, 12)]]
    assert (np.diff(path) <= 1e-13 * path[0]).all()

# %% [markdown]
# A footnote on one word. The paper gets Inequality 7 by "applying Cauchy–Schwarz". The inequality is right; its name is
# submultiplicativity, $\lVert ABv \rVert \le \lVert A \rVert_2 \lVert Bv \rVert \le \lVert A \rVert_2 \lVert B \rVert_2
# \lVert v \rVert$. Cauchy–Schwarz gives the same for Frobenius norms, where $\exp(-\Sigma t)$ has 36 instead of 1, and
# the bound would say nothing.
#
# ## How far does $\sigma_{\max}$ fall?
#
# As $t \to \infty$, what is left is $W(0) (I - \hat\epsilon \hat\epsilon^T)$. $W$ has forgotten one direction out of 1,296
# and kept all others; the logit error has died as $e^{-2t}$, whatever $W(0)$ was.

# %%
for case in cases:
    W, unit = closed_form(case.W0, case.e, 40), case.e / case.e.norm()
    assert (W - case.W0 + torch.outer(case.W0 @ unit, unit)).abs().max() < 1e-13
    assert (W @ unit).norm() < 1e-12 * (case.W0 @ unit).norm()

# %%
# expect() is silent where the words hold in this run, and shows a banner where not
falls = [100 * (1 - sigma(closed_form(c.W0, c.e, 40)) / sigma(c.W0)) for c in cases]
largest = pd.Series(falls).groupby([case.group for case in cases]).max()
numbers |= {(name, "largest fall, one e (%)"): fall for name, fall in largest.items()}
expect("the largest fall is 0.14 %", largest < 0.145)
expect("the norms start at 1.5", [abs(sigma(case.W0) - 1.52) < 0.05 for case in cases])

# %% [markdown]
# From these random starts one image and one group element take at most 0.14 %. The proposition is a ceiling and promises no
# fall. What goes is whatever lies along $\epsilon$, and of a random matrix that is next to nothing. To see the extremes,
# give the first row of $W(0)$ a strong preference: for $\epsilon$, or for the sum of $x$ over its orbit, which is
# invariant and therefore at right angles to $\epsilon$.
#
# The paper adds that these initialisations make $\sigma_{\max}(W(0))$ small. It is 1.5 here, as random-matrix theory has
# it, $s(\sqrt{m} + \sqrt{n})$ for $m \times n$ entries of variance $s^2$. Whether that is small depends on what training
# reaches; the end of this page compares.


# %%
def with_row_along(direction, W0):
    """W0, but that its first row alone sees a direction, strongly."""
    unit = direction / direction.norm()
    W = W0 - torch.outer(W0 @ unit, unit)
    W[0] = 2 * sigma(W0) * unit
    return W


# %%
example, orbit = cases[0], groups[0].orbit(images[0])
starts = {
    "random": example.W0,
    "strongest along ε": with_row_along(example.e, example.W0),
    "strongest along an invariant image": with_row_along(orbit.sum(0).flatten(), example.W0),
}

# %% {"mystnb": {"figure": {"name": "fig-one-direction"}, "image": {"alt": "Largest singular value against time for three starts, one falling by half and two flat, with the falling logit error"}}, "tags": ["hide-input"]}
ages = np.linspace(0, 3, 61)
norms = {label: [sigma(closed_form(W, example.e, t)) for t in ages] for label, W in starts.items()}
drawings.draw_one_direction(pd.DataFrame(norms, index=ages))

# %% [markdown]
# *The same error goes to zero, and $\sigma_{\max}$ need not follow. Along an invariant image it stays on the proposition's
# ceiling, from a random start just below it. Only the network that is strongest along $\epsilon$ loses half.*
#
# A network without logit error, in other words, can be as sensitive as you like.
#
# How small must $\alpha$ be? Gradient descent, $W^{k} = W(0)(I - \alpha\Sigma)^k$, reaches the same limit if and only if
# $0 < \alpha < 2 / \epsilon^T \epsilon$ (or $W(0)\epsilon = 0$). Up to there $\sigma_{\max}$ never rises, and halving $\alpha$
# halves the distance to the flow; beyond it the conclusion no longer holds.


# %%
def descend(W0, e, rate, steps):
    """Gradient descent; the rate in units of 1/e'e."""
    unit = e / e.norm()
    return reduce(lambda W, _: W - rate * torch.outer(W @ unit, unit), range(steps), W0)


for rate in (0.5, 1.9, 2.0, 2.1):
    path = [sigma(descend(example.W0, example.e, rate, count)) for count in range(50)]
    assert (max(path) > path[0] * (1 + 1e-12)) == (rate > 2)

# %%
ratios = {name: [] for name in settings.groups}
for case in cases:
    exact, rates = closed_form(case.W0, case.e, 2.0), (1 / 64, 1 / 128)
    coarse, fine = (descend(case.W0, case.e, rate, round(2 / rate)) - exact for rate in rates)
    ratios[case.group].append((coarse.norm() / fine.norm()).item())
    assert abs(ratios[case.group][-1] - 2) < 0.02
    numbers[case.group, "GD error ratio, least"] = min(ratios[case.group])
    numbers[case.group, "GD error ratio, largest"] = max(ratios[case.group])

# %% [markdown]
# ## All images, all group elements
#
# One $\epsilon$ is one direction. The logit error of a data set averages over images $x$ and, as LI is measured in this
# book, over all pairs $gx, hx$. With $\epsilon = gx - hx$ and $\Sigma = \mathbb{E}[\epsilon \epsilon^T]$
# the error is $\tfrac12 \operatorname{tr} W \Sigma W^T$, its gradient $W \Sigma$, and Equations 5 to 7 hold unchanged.
# What changes is the null space of $\Sigma$, where the flow ends:
#
# $$ W(t) \to W(0)\, \Pi , \qquad \Pi \text{ the projector on } \{ v : v^T (gx - hx) = 0 \text{ for all } x, g, h \} . $$
#
# Compare it with $P = \frac{1}{|\mathcal G|} \sum_g G$, the average over the group. $P$ is the projector on the invariant
# images, and $W(0) P$ is a weight-tied network: it maps $x$ to the *mean* of $W(0) gx$ over the orbit. (Those of
# [Table 1](table1.ipynb) take the maximum and are not linear.) Since $P (gx - hx) = 0$, the invariant images lie in the
# null space. Two facts follow.
#
# - **On the images themselves** the flow always ends at the weight-tied network: $x - Px$ is an average of differences
#   $x - gx$, hence $\Pi (x - Px) = 0$ and $W(0) \Pi x = W(0) P x$.
# - **Elsewhere** it does if the differences span all that $P$ removes. A pixel in which no image ever has ink cannot
#   contribute: there, $W$ stays as it was.


# %%
def tie(acting, W):
    """W P, the average over the group, of rows [n, 1296]."""
    return acting.orbit(W.view(-1, 36, 36)).mean(0).flatten(1)


def sigma_matrix(acting, x):
    """E[ee'] over e = gx - hx: twice the covariance within orbits."""
    centre = tie(acting, x)  # Px
    turned = (acting.act(g, x).flatten(1) - centre for g in acting.elements)
    return 2 * sum(e.T @ e for e in turned) / (len(x) * acting.order)


# %%
for acting in groups:  # against the definition, on a few images
    orbit = acting.orbit(images[:3]).flatten(2)
    e = (orbit[:, None] - orbit[None]).flatten(0, 2)
    direct = e.T @ e / len(e)
    assert (direct - sigma_matrix(acting, images[:3])).abs().max() < 1e-12 * direct.abs().max()

# %% [markdown]
# What can move is known beforehand: images over the pixels that have ink in some orientation, less what $P$ keeps of them.
# Their dimension is that number of pixels times $1 - 1/|\mathcal G|$, since no $g$ but the identity leaves a pixel in
# place. Over the 10,000 training images, $\Sigma$ has exactly this rank.


# %%
def spectrum(acting, x, basis):
    """Eigenvalues of Sigma, the largest 1, and its eigenvectors, images as columns."""
    rates, vectors = torch.linalg.eigh(basis.T @ sigma_matrix(acting, x) @ basis)
    return rates / rates[-1], basis @ vectors


# %%
bases, spectra = {}, {}
for acting in groups:
    ink = inked[acting.name]  # where some image has ink in some orientation
    removed = torch.diag(ink.double()) - tie(acting, torch.eye(36 * 36).double()) * ink
    values, vectors = torch.linalg.eigh(removed)  # 0 or 1
    bases[acting.name] = vectors[:, values > 0.5]
    spectra[acting.name] = spectrum(acting, images, bases[acting.name])

# %%
for acting in groups:
    pixels, rates = int(inked[acting.name].sum()), spectra[acting.name][0]
    assert len(rates) == round(pixels * (1 - 1 / acting.order)) and rates[0] > 1e-12  # full rank
    numbers[acting.name, "inked pixels"] = pixels
    numbers[acting.name, "rank, all images"] = len(rates)
    numbers[acting.name, "smallest eigenvalue"] = rates[0].item()

# %% {"mystnb": {"figure": {"name": "fig-eigenvectors"}, "image": {"alt": "For each group a digit, its average over the orbit, and eigenvectors of Sigma: smooth blobs of changing sign for the largest eigenvalues, fine speckle for the smallest"}}, "tags": ["hide-input"]}
x, rows = images[10] - images.min(), {}
for acting in groups:
    rates, vectors = spectra[acting.name]
    rows[acting.name] = {"$x$": x, "$Px$": tie(acting, x).view(36, 36)}
    for i in (1, 2, 3, len(rates)):
        title = f"eigenvector {i}\n$\\lambda$ = {rates[-i]:.2g}"
        rows[acting.name][title] = (vectors[:, -i] * vectors[:, -i].sum().sign()).view(36, 36)
drawings.show_images(rows)

# %% [markdown]
# *The flow keeps the average over the orbit, $Px$. It takes first what orientations differ in most, the leading
# eigenvectors of $\Sigma$, broad strokes where digits are; last, pixels at the rim that hardly any digit inks. (Equal
# $\lambda$, of which symmetry makes pairs, leave open which mixture is drawn.)*
#
# Every eigenvector fades at its own rate, as $e^{-\lambda t}$. Time now counts in units of $1/\lambda_{\max}$; one unit is
# about one step of gradient descent at half of the largest rate that converges. The end is known without any spectrum:
# $W(0)P$ where there is ink, $W(0)$ where there is none.


# %%
def flow(W0, name, t):
    """W(0) exp(-Sigma t)."""
    rates, vectors = spectra[name]
    return W0 + (W0 @ vectors * torch.expm1(-rates * t)) @ vectors.T


# %%
W0 = draw("Glorot", 0)
for acting in groups:
    rates, vectors = spectra[acting.name]
    integrated = integrate(vectors * rates @ vectors.T, W0, 3.0)
    assert (integrated - flow(W0, acting.name, 3.0)).abs().max() < 1e-10
    known = torch.where(inked[acting.name], tie(acting, W0), W0)  # the end
    assert (flow(W0, acting.name, 1e11) - known).abs().max() < 1e-12


# %%
def state(acting, t):
    """Of W(t): σ max, the logit error, and the distance from weight-tied where there is ink."""
    W, (rates, vectors) = flow(W0, acting.name, t), spectra[acting.name]
    error = (W @ vectors).square().sum(0) @ rates / 2
    apart = (W - tie(acting, W0))[:, inked[acting.name]].norm()
    return {"σ max": sigma(W), "logit error": error.item(), "distance": apart.item()}


# %%
steps = 300 * 20  # the epochs of this book, with 20 batches in each
ages = sorted([0, steps, *np.geomspace(0.1, 1e11, 61)])
states = {(acting.name, t): state(acting, t) for acting, t in product(groups, ages)}
paths = pd.DataFrame(states).T
relative = paths.div(paths.xs(0, level=1), level=0)

# %% {"mystnb": {"figure": {"name": "fig-all-images"}, "image": {"alt": "Above, the largest singular value falling from 1 to about three quarters of its start; below, logit error and distance from the tied network falling to rounding, on logarithmic axes, one column per group"}}, "tags": ["hide-input"]}
sigma_tied = {acting.name: sigma(tie(acting, W0)) / sigma(W0) for acting in groups}
drawings.draw_flow(settings, relative, sigma_tied, steps)

# %% [markdown]
# *All images and all elements do what one pair cannot. $\sigma_{\max}$ falls, and wherever there is ink the network ends at
# the weight-tied one, to rounding: the distance below is over those pixels. The dotted line is a network that is tied on
# all pixels; the flow stays above it, since pixels without ink keep their weights. The vertical line is as many steps as
# the networks of this book are trained.*


# %%
def close(found, R4, T3, room=0.03):
    """Whether the values of the groups are what the text says."""
    return abs(found.reindex(["R4", "T3"]) / [R4, T3] - 1) < room


# %%
late, end = relative.xs(steps, level=1), relative.xs(ages[-1], level=1)
expect("σ max ends at 0.77 and 0.71 of its start", close(end["σ max"], 0.77, 0.71))
expect("less than 0.1 % of the logit error is left", late["logit error"] < 0.001)
expect("43 % and 35 % of the distance are left", close(late.distance, 0.43, 0.35))
for name in settings.groups:
    numbers[name, "distance at the end"] = end.distance[name]
    numbers[name, "distance after training steps"] = late.distance[name]

# %% [markdown]
# $\sigma_{\max}$ ends at 0.77 (R4) and 0.71 (T3) of its start, and not only that: all of $W$ is known there, with its whole
# spectrum. But the end is far. After 6,000 steps less than a thousandth of the logit error is left, and still 43 % and 35 %
# of the distance from the tied network. The error lies in the few directions that every image shows; what hardly any
# image shows is learned last.
#
# ## What decays, and what does not
#
# $\Sigma P = 0$, and therefore $W(t) P = W(0) P$ at every $t$: to a change of the image that is itself invariant, the
# network stays exactly as sensitive as it was. What decays is the response to differences within orbits, not to *every*
# perturbation. Of the 1,296 directions that a random one can take, digits span 555 such differences under R4 and 648 under
# T3, so 43 % and 50 % of its square are lost. And $\sigma_{\max}$ falls no lower than that of the weight-tied network.

# %%
for acting in groups:
    tied = tie(acting, W0)
    for t in (1, steps, 1e11):
        assert (tie(acting, flow(W0, acting.name, t)) - tied).abs().max() < 1e-12  # W(t) P
    assert sigma(tied) <= sigma(flow(W0, acting.name, 1e11)) <= sigma(W0)
    numbers[acting.name, "sigma tied / start"] = sigma(tied) / sigma(W0)
    numbers[acting.name, "sigma end / start"] = end["σ max"][acting.name]
    assert len(spectra[acting.name][0]) == {"R4": 555, "T3": 648}[acting.name]

# %% [markdown]
# ## When it fails
#
# Fewer images span less. On those images the limit is still weight-tied, by the first of the two facts; on others it need
# not be. The table has the distance of the logits $W(\infty) x$ from $W(0) P x$ over the orbits of new images, relative to
# the start.


# %%
def distance_from_tied(acting, W, x):
    """Of the logits W x, over the orbits of images, relative to the start."""
    x, tied = acting.orbit(x).flatten(0, 1).flatten(1).T, tie(acting, W0)
    return (((W - tied) @ x).norm() / ((W0 - tied) @ x).norm()).item()


# %%
new = ginv.load_dataset().test.images[:300, 0].double()


def ends_at(acting, seen):
    """Rank of Sigma of some images; the distance at the end on these, and on new ones."""
    rates, vectors = spectrum(acting, seen, bases[acting.name])
    spanned = vectors[:, rates > 1e-12]
    W = W0 - W0 @ spanned @ spanned.T
    return spanned.shape[1], *(distance_from_tied(acting, W, x) for x in (seen[:300], new))


# %%
pairs = product(groups, [10, 100, 1000, 10_000])
rows = [(acting.name, n, *ends_at(acting, images[:n])) for acting, n in pairs]
columns = ["group", "images", "rank of Σ", "on them", "distance"]
spans = pd.DataFrame(rows, columns=columns).set_index(columns[:2])

# %%
assert (spans["on them"] < 1e-8).all()
for name in settings.groups:
    on_new = spans.loc[name, "distance"]
    numbers[name, "few images, new"], numbers[name, "most images, new"] = on_new.iloc[[0, -1]]
    numbers[name, "training images"] = spans.loc[name, "on them"].max()

# %% {"tags": ["hide-input"]}
shown = spans.drop(columns="on them").unstack(0).swaplevel(axis=1)
shown = shown.sort_index(axis=1, level=0, sort_remaining=False)
figures.show_table(shown, "Distance from weight-tied on new images")

# %%
expect("10 images leave 64 % and 72 %", close(spans["distance"].xs(10, level=1), 0.64, 0.72))
expect("all 10,000 leave nothing", spans["distance"].xs(10_000, level=1) < 1e-13)

# %% [markdown]
# Ten images tie the network on themselves, and on new ones leave 64 % (R4) and 72 % (T3) of the distance. All 10,000
# together leave none.
#
# ## Depth: a cell to play with
#
# A deep linear network $W = W_L \cdots W_1$ is as linear as $W$, but its factors flow differently. The gradient of the
# first one ends in $\Sigma$, and $W_1 P$ stays as it was; the others know no such limit, and through them $W P$ can move.
# Digits are pooled to $12 \times 12$ pixels to be quick. Change the depths, the width, the rate (above 2, depth 1 diverges).

# %%
depths, width, rate, steps_deep = (1, 2, 3), 64, 0.1, 500
orbit = groups[0].orbit(torch.nn.functional.avg_pool2d(images[:1000, None], 3)[:, 0])
apart = (orbit - orbit.mean(0)).flatten(0, 1).flatten(1)
Sigma_small = apart.T @ apart / torch.linalg.eigvalsh(apart.T @ apart)[-1]
P = groups[0].orbit(torch.eye(144).double().view(144, 12, 12)).mean(0).flatten(1)


# %%
def draw_factors(depth):
    """Random W_1 to W_L."""
    generator, sizes = torch.Generator().manual_seed(0), [144, *[width] * (depth - 1), 9]
    return [torch.randn(b, a, generator=generator).double() / a**0.5 for a, b in pairwise(sizes)]


# %%
def train_deep(depth):
    """sigma max of W and of W P, step by step."""
    factors, path = draw_factors(depth), []
    for _ in range(steps_deep + 1):
        factors = [factor.detach().requires_grad_() for factor in factors]
        W = reduce(torch.matmul, factors[::-1])
        path.append((sigma(W.detach()), sigma(W.detach() @ P)))
        slopes = torch.autograd.grad((W @ Sigma_small * W).sum() / 2, factors)
        factors = [factor - rate * slope for factor, slope in zip(factors, slopes)]
    return pd.DataFrame(path, columns=["of W", "of its invariant part W P"])


# %%
deep = {depth: train_deep(depth) for depth in depths}

# %% {"mystnb": {"figure": {"name": "fig-deep-linear"}, "image": {"alt": "Largest singular value of the product and of its invariant part against training step, a line per depth"}}, "tags": ["hide-input"]}
drawings.draw_deep(deep)

# %% [markdown]
# *Depth reaches what a single matrix cannot. Left, $\sigma_{\max}$ of the whole network; right, of its invariant part,
# which only depth 1 keeps.*

# %%
moved = {d: abs(path.iloc[-1, 1] / path.iloc[0, 1] - 1) for d, path in deep.items()}
expect("only depth 1 keeps the invariant part", [(m < 1e-10) == (d == 1) for d, m in moved.items()])

# %% [markdown]
# This is one start and one width. What depth changes for certain is that sensitivity to *invariant* changes is no
# longer out of reach.

# %% {"tags": ["hide-input"]}
proposition = pd.Series(numbers, name="value").rename_axis(["group", "metric"]).reset_index()
settings.save(proposition, results, "proposition")

# %% [markdown]
# ## From lines to networks
#
# For linear networks it is proved that $\sigma_{\max}$ does not rise. The fall is small for one image, and confined to what the
# group can change. The paper's claim is about networks that learn to classify at the same time: that they buy invariance to
# one group by becoming less sensitive to *any* perturbation of the input (Sections 1, 3.3 and 4.4). A network is no single matrix, but at each image it has one,
# its Jacobian $J(x) = \partial f / \partial x$, with a row per logit and a column per pixel. $\sigma_{\max}(J)$ is the
# most by which the logits can move for a small step, per unit of its length.
#
# (At which images, and for which output, the paper leaves open: we take the logits, at test images in all orientations.)
#
# Data augmentation (DA) is compared with invariance regularisation (IR) in three forms: *logit*, $\tfrac12 \lVert f(gx) -
# f(hx) \rVert^2$, which is IR elsewhere in this book; *kl*, the divergence of the two predicted distributions; and
# *normalised*, $\lVert f(gx) - f(hx) \rVert^2 / \lVert f(gx) \rVert^2$.

# %%
penalties = {  # those that ginv trains with: one of your own goes into REGULARISERS
    "logit": lambda a, b: (a - b).square().sum(-1) / 2,
    "kl": lambda a, b: (a.softmax(-1) * (a.log_softmax(-1) - b.log_softmax(-1))).sum(-1),
    "normalised": lambda a, b: (a - b).square().sum(-1) / a.square().sum(-1),
}
a, b = torch.randn(2, 5, 9, generator=torch.Generator().manual_seed(0))
for form, penalty in penalties.items():
    torch.testing.assert_close(penalty(a, b), REGULARISERS[form](a, b))

# %% [markdown]
# ### How strong a penalty, for each form
#
# Each form has its own scale and needs its own weight $\nu$, for an SI of at least 0.95. The search is that of
# [Table 1](table1.ipynb), on validation images.

# %% {"mystnb": {"figure": {"name": "fig-forms"}, "image": {"alt": "Saliency similarity against nu on a logarithmic axis, a line for each of three regularisers, one panel per group; on T3 the normalised form peaks below the target"}}, "tags": ["hide-input"]}
reached = read_sweep().groupby(["group", "regulariser", "nu"]).SI.mean()
drawings.draw_forms(settings, reached)

# %% [markdown]
# *Five of six reach the target. On T3 the normalised form peaks at 0.925 and then collapses. The large marker is the $\nu$
# that the figures below use.*

# %%
missed = [key for key, si in reached.groupby(level=[0, 1]).max().items() if si < TARGET]
jump = reached["R4", "normalised", ginv.chosen_nu("R4", "normalised")]
peak = reached["T3", "normalised"].max()
expect("only one misses, at 0.925", [missed == [("T3", "normalised")], abs(peak - 0.925) < 0.002])
expect("the normalised form on R4 is at 0.964", abs(jump - 0.964) < 0.001)

# %% [markdown]
# No $\nu$ that we tried brings the normalised form on T3 to the invariance that the paper asks for. It is shown below at its
# best $\nu$, and hollow. On R4 its SI jumps from one $\nu$ to the next, and the one that was chosen has 0.964: its price
# below is that of a little more invariance than was asked for.
#
# ### How sensitive is a network, and to what?
#
# $J(x)$ is 9 by 1,296. Nine backward passes give it, and $\sigma_{\max}^2$ is the largest eigenvalue of $J J^\top$: the
# worst step. Whether a network is blind to *the group* or to *everything* depends on the others. We take $\lVert J u \rVert$,
# in root mean square, for unit steps $u$
#
# - towards another orientation, $u \propto gx - x$;
# - towards another image, $u \propto x' - x$: what a classifier needs;
# - in a random direction, for which the mean is exact: $\lVert J \rVert_F / \sqrt{1296}$.
#
# Between two orientations lie images that are neither, and a small step does not show where the way ends. Hence also all
# the way: $\lVert f(gx) - f(x) \rVert / \lVert gx - x \rVert$, which is what invariance is about, and the same to another
# image.


# %%
test = ginv.load_dataset().test.images[:1000]
others = test.roll(1, 0)  # the splits are shuffled


# %%
@torch.no_grad()
def steps_to(ends, model, x, j):
    """Mean of |J u|^2 over unit steps u to some ends `[k, n, ...]`, and the same all the way."""
    step = (ends - x).flatten(2)
    length = step.square().sum(2)
    small = (j @ step.permute(1, 2, 0)).square().sum(1) / length.T
    whole = torch.stack([model(end) - model(x) for end in ends]).square().sum(2) / length
    return small.mean(1), whole.mean(0)


# %%
def sensitivity_at(model, orbit, g):
    """Of a network at the images of one orientation, a column per measure."""
    j = torch.cat([ginv.jacobian(model, part) for part in orbit[g].split(500)])
    found = {"sigma_max": torch.linalg.eigvalsh(j @ j.mT)[:, -1].clamp(min=0).sqrt()}
    found["step_to_random"] = j.square().sum((1, 2)) / j.shape[2]
    elsewhere = orbit[torch.arange(len(orbit)) != g]
    for to, ends in {"orbit": elsewhere, "image": others[None]}.items():
        found[f"step_to_{to}"], found[f"step_to_whole_{to}"] = steps_to(ends, model, orbit[g], j)
    return pd.DataFrame(found)


# %%
def sensitivity(model, acting):
    """Over images and orientations: the mean sigma_max(J), and root mean squares of the steps."""
    orbit = acting.orbit(test)
    means = pd.concat([sensitivity_at(model, orbit, g) for g in acting.elements]).mean()
    return means.where(means.index == "sigma_max", means**0.5)


# %% [markdown]
# The runs are those of weight-tying (WT), DA, the three forms of IR and, since the paper likens these to a large weight
# decay, DA with weight decay: at every step each weight loses the learning rate times 0.3 to 10 of itself. Besides, we
# take the **logit scale**, the norm of the logits less their mean over classes. A network that halves its logits halves
# all of the above and is no blinder than before.

# %% {"tags": ["hide-input"]}
trained = settings.train() | ginv.train(settings.spectral_runs(), device=device)
KEPT = ["accuracy", "LI", "DI", "SI", "SI_distinct", "logit_norm", "relative_LI", "flip_rate"]
count, stored, found = settings.fewer_images, settings.runs(), {}
for run, result in trained.items():
    method = f"IR, {run.regulariser}" if run.method == "IR" else run.method
    method += f", weight decay {run.weight_decay:g}" if run.weight_decay else ""
    # Table 1's runs are measured on all images anyway; all are compared on the first fifth
    measured = settings.measure(result, None if run in stored else count).samples.head(count)
    felt = sensitivity(result.model.cpu(), ginv.group_named(run.group))
    key = run.group, method, run.regulariser, run.seed, run.nu
    found[key] = pd.concat([measured[KEPT].mean(), felt])
    found[key]["sigma_max_over_scale"] = felt.sigma_max / found[key].logit_norm
for acting, seed in product(groups, settings.seeds):
    model = ginv.Run(acting.name, seed=seed).model(torch.Generator().manual_seed(seed))
    found[acting.name, "untrained", "", seed, 0.0] = sensitivity(model, acting)

# %% {"tags": ["hide-input"]}
index = ["group", "method", "regulariser", "seed", "nu"]
spectral = pd.DataFrame(found).rename_axis(index="metric", columns=index).T
settings.save(spectral.stack().dropna().rename("value").reset_index(), results, "spectral")
spectral = spectral.sort_index()  # by group and method
means = spectral.groupby(["group", "method"]).mean()


def of(method, metric):
    """Of each group, the mean over seeds."""
    return means[metric].xs(method, level="method")


# %% [markdown]
# ### Figure 5

# %% {"mystnb": {"figure": {"name": "fig-5"}, "image": {"alt": "Largest singular value of the Jacobian, on a logarithmic axis, and accuracy for data augmentation and the three forms of the regulariser, one column per group"}}, "tags": ["hide-input"]}
forms = {f"IR, {form}": style for form, style in FORM_STYLES.items()}
labels = "$\\sigma_{max}(J)$", "accuracy (%)"
for name, (above, below) in figures.group_columns(settings, 4.4, *labels).items():
    hollow = [f"IR, {form}" for acting, form in missed if acting == name]
    for axis, metric in ((above, "sigma_max"), (below, "accuracy")):
        values = {method: spectral[metric][name, method] for method in ("DA", *forms)}
        drawings.show_seeds(axis, values, {"DA": METHOD_STYLES["DA"], **forms}, hollow)
    above.set(yscale="log")

# %% [markdown]
# *After the paper's Fig. 5, on a logarithmic axis, and below it what it costs; a marker per network, a bar at the mean.
# Every form that reaches SI 0.95 takes $\sigma_{\max}$ well below DA's, and costs accuracy. Open markers do not reach it.*

# %%
SIGMA = {"DA": (9.8, 7.1), "logit": (3.3, 0.86), "kl": (4.7, 2.2), "normalised": (5.5, 36.5)}
COST = {"logit": (7.8, 3.0), "kl": (12.0, 4.1), "normalised": (23.4, 2.8)}
cost = {form: of("DA", "accuracy") - of(f"IR, {form}", "accuracy") for form in COST}
held = [close(of(m if m == "DA" else f"IR, {m}", "sigma_max"), *SIGMA[m]) for m in SIGMA]
held += [close(cost[form], *COST[form]) for form in COST]
expect("σ max and the points that each form costs are these", held)

# %% [markdown]
# The paper prints no numbers for its bars; what can be compared is their order, and in the five cases that reach SI 0.95 we
# find what it found. On R4, $\sigma_{\max}$ is 9.8 under DA, and 3.3 with the logit error, 4.7 with KL, 5.5 with the
# normalised error; on T3 it is 7.1, against 0.86 (logit) and 2.2 (KL). Accuracy falls by 7.8, 12.0 and 23.4 points on R4, by
# 3.0 and 4.1 on T3 (on the first 10,000 test images, so a tenth may differ from Table 1): the logit error costs least, as the
# paper says. The normalised error on T3 costs accuracy, too, and is five times as sensitive as DA, without the invariance
# that was asked for.
#
# ### Blind to the group, or to everything?
#
# A smaller $\sigma_{\max}$ alone cannot say. The logits may be smaller; the network may be blind to the group, as it was
# asked to be; or to everything. The figure sets all steps beside DA's, bare and per unit of logit scale. WT shows what a
# network looks like that was built blind to the group.

# %% {"mystnb": {"figure": {"name": "fig-blind"}, "image": {"alt": "Dot plots on logarithmic axes of sensitivities relative to data augmentation, bare and per unit of logit scale, a marker for each form of the regulariser and for weight-tying, one row per group"}}, "tags": ["hide-input"]}
drawings.draw_relative(settings, means, {**forms, "WT": METHOD_STYLES["WT"]})

# %% [markdown]
# *Above, every form with SI 0.95 is less sensitive than DA to every step. Below, per unit of logit scale, the logit error
# and KL answer a whole change of image as DA does, and cut the way to another orientation to 4 to 8 %. WT does not respond
# to orientation at all and is missing in the last row. (The normalised form of T3 is the one that misses the target.)*

# %%
BARE = {"logit_norm": (0.25, 0.17), "step_to_random": (0.32, 0.11)}
BARE |= {"step_to_image": (0.24, 0.11), "step_to_whole_image": (0.24, 0.17)}
ratio = means.xs("IR, logit", level="method") / means.xs("DA", level="method")
expect("bare, IR has 11 to 32 % of DA", [close(ratio[what], *BARE[what]) for what in BARE])

# %%
SCALED = {"step_to_whole_image": (0.99, 1.02), "step_to_whole_orbit": (1 / 23, 1 / 14)}
SCALED |= {"step_to_random": (1.28, 0.66), "sigma_max": (1.35, 0.71)}
SCALED |= {"step_to_image": (0.95, 0.66)}
per_scale = ratio.div(ratio.logit_norm, axis=0)
expect("per logit scale, DA's way to images", [close(per_scale[w], *SCALED[w]) for w in SCALED])

# %%
form = means.xs("IR, normalised", level="method") / means.xs("DA", level="method")
way = form.step_to_whole_image / form.logit_norm
expect("the normalised form moves 1.6 and 5.7 times as far", close(way, 1.58, 5.68))

# %% [markdown]
# Bare, the paper is right about any perturbation. With the logit error, 32 % of DA's response to random steps is left on
# R4 and 11 % on T3; towards other images 24 % and 11 %, or 24 % and 17 % all the way. But the logits themselves have
# shrunk, to 25 % and 17 %, and a network decides by which logit is largest, not by how large. Per unit of logit scale, the
# way to another image moves it as far as DA, to within 2 %. (That need not be so: the normalised form moves 1.6 and 5.7 times
# as far.) And the way to another orientation moves it 23 (R4) and 14 (T3) times less. It has gone blind to the group; when
# the image is exchanged it responds as before, only more quietly.
#
# On small steps the groups disagree. Per unit of logit scale, IR is 28 % *more* sensitive than DA to random ones on R4, and
# 34 % less on T3; to the worst step, 35 % more and 29 % less; towards another image, 5 % less and 34 % less. On T3, then,
# part of the decay is more than scale; on R4 hardly any of it is.
#
# ### Is it a large weight decay?
#
# The paper says that minimising the invariance error "has an effect similar to training a network with a large weight
# decay". Weight decay lowers $\sigma_{\max}$ without knowing of any group. What does it do to accuracy and SI on the way?
# (It has two seeds only.)

# %% {"mystnb": {"figure": {"name": "fig-decay"}, "image": {"alt": "Accuracy and saliency similarity against the largest singular value: a line for data augmentation with increasing weight decay and three markers for the regularisers, one column per group"}}, "tags": ["hide-input"]}
drawings.draw_decay(settings, means, forms)

# %% [markdown]
# *DA with growing weight decay (the number at each point) beside the three forms. At first $\sigma_{\max}$ falls at no cost
# in accuracy and with little gain in SI.*

# %%
DECAY = {(1, "sigma_max"): (4.0, 4.1), (3, "sigma_max"): (2.6, 3.1), (3, "SI"): (0.54, 0.64)}
DECAY |= {(10, "SI"): (0.80, 0.79), (1, "accuracy"): (93.8, 96.3, 0.002)}
DECAY |= {(3, "accuracy"): (91.7, 95.7, 0.002), (10, "accuracy"): (75.6, 92.5, 0.002)}
held = [close(of(f"DA, weight decay {d}", metric), *DECAY[d, metric]) for d, metric in DECAY]
expect("weight decay does to σ max, accuracy and SI what the text says", held)

# %% [markdown]
# The paper does not say at what strength the two are to be compared. At an equal $\sigma_{\max}$, which is our reading, IR on R4
# does not act like weight decay: decay 3 has a smaller $\sigma_{\max}$ than IR, 2.6 against 3.3, and keeps 91.7 % accuracy
# against 86.2 %; its SI is 0.54 against 0.95. Losing sensitivity as such is cheap: decay 1 lowers DA's by 59 % on R4 and by
# 42 % on T3, at no cost in accuracy. A decay of 10 does what the paper says, it costs accuracy, down to 75.6 % and 92.5 %,
# and raises SI to 0.80 (R4) and 0.79 (T3). On T3 that is near IR's accuracy, 93.0 %, but no decay here comes down to its
# $\sigma_{\max}$ of 0.86. There the question stays open, and two seeds could not settle it.
#
# ## What you saw

# %%
start, ir = of("untrained", "sigma_max"), of("IR, logit", "sigma_max")
expect("σ max starts at 0.010", close(start, 0.0103, 0.0104))
expect("and rises 315-fold and 82-fold under IR", close(ir / start, 315, 82))

# %%
named = {  # by the paper; before training
    kind: ginv.Run(initialisation=kind).model(torch.Generator().manual_seed(0))
    for kind in ("glorot", "he")
}
begins = [ginv.largest_singular_value(each, test[:100]).mean().item() for each in named.values()]
expect("Glorot's weights begin at 0.5, He's at 2.3", np.isclose(begins, [0.53, 2.3], rtol=0.15))

# %%
wt = of("WT", "sigma_max") / of("DA", "sigma_max")
expect("WT has 77 % and 80 % of DA's", close(wt, 0.77, 0.80))

# %% [markdown]
# The proposition is true at every $t$, and a ceiling: from random starts one image and one element take at most 0.14 % from
# $\sigma_{\max}$. All of them turn a linear network into the weight-tied one wherever there is ink, take $\sigma_{\max}$ to
# 0.77 (R4) and 0.71 (T3) of its start, and never touch the response to what is invariant.
#
# Trained networks show what Figure 5 shows, 0.12 to 0.56 of DA's $\sigma_{\max}$ in all five cases with SI 0.95. But most of
# that is the size of their logits; what they have gone blind to is the group. Invariance does not need a small
# $\sigma_{\max}$: WT keeps 77 % and 80 % of DA's. Nor does a small $\sigma_{\max}$ cost accuracy: weight decay lowers it by
# 59 % and 42 % at no cost. What does cost accuracy, and whether it must, is the question of
# [The price of invariance](price.ipynb).
#
# And the proposition, which knows no task, does not bind a network that learns one: from PyTorch's small start, 0.010,
# $\sigma_{\max}(J)$ *rises* even under IR, 315-fold on R4 and 82-fold on T3. It would not from every start. The paper names
# Glorot's and He's weights, which begin at 0.5 and 2.3; IR's 3.3 (R4) lies above both, and its 0.86 (T3) below He's.
#
# ## Change this, and predict what happens
#
# **1. Noise instead of digits.** With 1,000 digits, $\Sigma$ is still short of full rank. How many images of pure noise,
# ink in every pixel, does it take on R4? `noise = torch.randn(n, 36, 36).double()`, then
# `torch.linalg.matrix_rank(sigma_matrix(ginv.group_named("R4"), noise))`.
#
# <details><summary>What happens</summary>
#
# It takes 324. $P$ removes $1296 \cdot \tfrac34 = 972$ dimensions, an orbit of four has three independent differences, and
# noise wastes none: the rank is 969 at 323 images and 972 from 324 on. On T3 it takes 432, at two differences each.
#
# </details>
#
# **2. Quieter logits.** Divide the weights and biases of the last layer of a DA network by 100. Where would it appear in the
# figure under "Blind to the group, or to everything?", and what happens to its accuracy and SI?
#
# <details><summary>What happens</summary>
#
# It appears at 0.01 in all six rows above, far below every other network, and at 1 in all six below. Accuracy and SI do
# not change. $\sigma_{\max}(J)$ alone cannot distinguish a network that sees less from one that speaks more quietly.
#
# </details>
