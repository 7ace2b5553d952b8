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
# # Spectral decay
#
# Why does a network that is trained to be invariant lose accuracy? The paper {cite}`moskalev2023genuine` has an
# explanation: it becomes invariant to the group by becoming less sensitive to *everything*. Its Proposition 3.1 proves
# a part of this for linear networks. This chapter runs that proof, line by line, and asks what it says and what it
# does not.
#
# **What you will see**
#
# - Proposition 3.1 as the paper states it, a proof, and every step of it as an assertion that runs.
# - Where the argument says less than is true, and where it needs more than it says.
# - How little one image and one group element can take from $\sigma_{\max}$, and how much all images and all
#   elements do.
# - Where the flow ends then: at the weight-tied network, if the images span enough; and what happens if they do not.
# - What depth adds, in a cell to play with.
# - Figure 5 of the paper: the sensitivity of trained networks under three forms of the penalty, and their accuracy.
# - What Figure 5 leaves out: the size of the logits, and to *what* the networks have become blind.
# - DA with weight decay on the same axes, since the paper likens the effect to a large one.

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
import math
from functools import reduce
from itertools import pairwise, product
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from IPython.display import Markdown
from matplotlib.ticker import LogLocator
from scipy.integrate import solve_ivp
from torch import Tensor

import ginv
from ginv.pages import Settings, refuse_unknown
from ginv.pages.figures import (
    GROUP_NAMES,
    METHOD_STYLES,
    MethodStyle,
    group_panels,
    show_table,
    use_style,
)
from ginv.pages.settings import WEIGHT_DECAYS
from ginv.runs.nu import TARGET, read_sweep

refuse_unknown()  # a parameter by a wrong name
settings = Settings(profile, group, seeds, device, results)
use_style()
Markdown(f"This page was run with {settings.label}.")

# %% [markdown]
# ## The proposition
#
# The sensitivity of a linear map to its input is measured by its largest singular value, $\sigma_{\max}(W) = \lVert W
# \rVert_2$, the most by which it stretches a vector {cite}`yoshida2017,khrulkov2018`. Take a linear network $h(x) = Wx$,
# one image $x$ and one element of the group, which acts on images by a matrix $G$. The paper minimises the logit
# error $\tfrac12 \lVert Wx - WGx \rVert_2^2$ over $t$ steps, and states:
#
# :::{prf:proposition} Invariance-induced spectral decay; Proposition 3.1 of the paper
# :label: prop-decay
# :nonumber:
#
# Logit invariance error minimization implies $\sigma_{\max}(W(t)) \le \sigma_{\max}(W(0))$ when $t \to \infty$.
# :::
#
# :::{prf:proof}
# Write $\epsilon = x - Gx$ and $\Sigma = \epsilon \epsilon^T$.
#
# *Step 1, the gradient.* The error is $\tfrac12 \lVert W \epsilon \rVert_2^2$ and its gradient $W \epsilon \epsilon^T =
# W \Sigma$. Gradient descent with learning rate $\alpha$ is $W^{t+1} = W^t - \alpha W^t \Sigma$.
#
# *Step 2, the flow.* For infinitely small $\alpha$, with time counted as $\alpha$ times the number of steps,
#
# $$ \frac{d}{dt} W = -W \Sigma , \tag{5} $$
#
# and since $\Sigma$ does not change, the solution is
#
# $$ W(t) = W(0) \exp(-\Sigma t) . \tag{6} $$
#
# *Step 3, the spectrum.* $\Sigma = U \Lambda U^T$ has rank one, unless $\epsilon = 0$. Its one eigenvalue that is not
# zero is $\epsilon^T \epsilon$, with eigenvector $\epsilon$. So the symmetric matrix $\exp(-\Sigma t) = U \exp(-\Lambda
# t) U^T$ has the eigenvalue $\exp(-t \, \epsilon^T \epsilon) \le 1$ once and else 1, and its norm is 1.
#
# *Step 4, the norm.* The spectral norm is submultiplicative, hence for every $t \ge 0$
#
# $$ \lVert W(t) \rVert_2 \le \lVert W(0) \rVert_2 \, \lVert \exp(-\Sigma t) \rVert_2 = \lVert W(0) \rVert_2 . \tag{7} $$
# :::
#
# The proof is the paper's but for three things, which we come to. It names Cauchy-Schwarz in step 4; it says
# "$t \to \infty$" where every $t$ will do; and it does not say how small $\alpha$ has to be.

# %% [markdown]
# ## The cases
#
# All steps are run on real digits as $x$, for every $g$ but the identity, from the initialisations that the paper names,
# Glorot's {cite}`glorot2010` and He's {cite}`he2015`. Everything is in float64, so that rounding stays far below what
# is claimed.


# %%
class Case(NamedTuple):
    group: str
    init: str
    W0: Tensor  # [9, 1296]
    x: Tensor  # [1296]
    gx: Tensor

    @property
    def e(self):
        return self.x - self.gx


# %%
INITS = {"Glorot": torch.nn.init.xavier_uniform_, "He": torch.nn.init.kaiming_normal_}


def draw(init, seed, classes=9, pixels=36 * 36):
    weights = torch.empty(classes, pixels, dtype=torch.float64)
    return INITS[init](weights, generator=torch.Generator().manual_seed(seed))


# %%
train = ginv.load_dataset().train
groups = [ginv.group_named(name) for name in settings.groups]
digits = train.images[: 4 if profile == "paper" else 2, 0].double()
cases = [
    Case(acting.name, init, draw(init, i), x.flatten(), gx.flatten())
    for acting in groups
    for i, x in enumerate(digits)
    for gx in acting.orbit(x)[1:]
    for init in INITS
]
first = {case.group: case for case in reversed(cases)}  # one of each group
Markdown(f"{len(cases)} cases of an image, a group element and a $W(0)$.")

# %% [markdown]
# ## Step 1: the gradient
#
# Automatic differentiation of the logit error, against $W \epsilon \epsilon^T$.

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
# Equation 5 is integrated numerically, all entries of $W$, with an explicit method of order 8. The unit of time is
# $1/\epsilon^T\epsilon$ from here on: what an image's size does to the flow is to change its speed. In that unit, with
# $\hat\epsilon = \epsilon / \lVert \epsilon \rVert$, Equation 6 reads $W(t) = W(0) \big( I - (1 - e^{-t}) \,
# \hat\epsilon \hat\epsilon^T \big)$.


# %%
def closed_form(W0, e, t):
    unit = e / e.norm()
    return W0 + math.expm1(-t) * torch.outer(W0 @ unit, unit)


def integrate(velocity, W0, times):
    """W at the given times, from dW/dt = velocity(W), W a NumPy array."""
    states, start = [W0.numpy().ravel()], 0.0
    for end in times:
        state = solve_ivp(
            lambda _, w: velocity(w.reshape(W0.shape)).ravel(),
            (start, end),
            states[-1],
            "DOP853",
            rtol=1e-13,
            atol=1e-15,
        )
        states.append(state.y[:, -1])
        start = end
    return [torch.from_numpy(w).view(W0.shape) for w in states[1:]]


# %%
def integrate_case(case, times):
    unit = (case.e / case.e.norm()).numpy()
    return integrate(lambda W: -np.outer(W @ unit, unit), case.W0, times)


times = [0.5, 2.0, 6.0]
integration_error = pd.Series(0.0, settings.groups)
for case in cases:
    for t, W in zip(times, integrate_case(case, times)):
        apart = (W - closed_form(case.W0, case.e, t)).abs().max().item()
        assert apart < 1e-10
        integration_error[case.group] = max(apart, integration_error[case.group])
Markdown(f"Integrated and closed form differ by {integration_error.max():.0e} at most.")

# %% [markdown]
# ## Step 3: the spectrum
#
# The whole $\Sigma$, $1296 \times 1296$, diagonalised: its rank, its eigenvalue, and its exponential put together from
# the decomposition.

# %%
rank, t = {}, 1.0
for name, case in first.items():
    size = case.e @ case.e
    values, U = torch.linalg.eigh(torch.outer(case.e, case.e))
    rank[name] = int((values.abs() > 1e-12 * size).sum())
    assert rank[name] == 1 and abs(values[-1] / size - 1) < 1e-12
    decay = U * torch.exp(-values / size * t) @ U.T
    assert abs(torch.exp(-values / size * t).max() - 1) < 1e-12
    apart = case.W0 @ decay - closed_form(case.W0, case.e, t)
    assert apart.abs().max() < 1e-12

# %% [markdown]
# ## Step 4: the norm
#
# Not only in the limit but at every $t$, and more: $\sigma_{\max}$ never rises on the way, since $W(t) = W(s)
# \exp(-\Sigma (t - s))$ for any $s \le t$ and the second factor stretches nothing.

# %%
moments = [0, *np.geomspace(0.01, 40, 12)]


def sigma(W):
    return torch.linalg.matrix_norm(W, 2).item()


for case in cases:
    path = [sigma(closed_form(case.W0, case.e, t)) for t in moments]
    assert max(path) <= path[0] * (1 + 1e-13)
    assert (np.diff(path) <= 1e-13 * path[0]).all()

# %% [markdown]
# The inequality that carries the step is $\lVert AB \rVert_2 \le \lVert A \rVert_2 \lVert B \rVert_2$. It holds since
# $\lVert ABv \rVert \le \lVert A \rVert_2 \lVert Bv \rVert \le \lVert A \rVert_2 \lVert B \rVert_2 \lVert v \rVert$, and is
# no case of Cauchy-Schwarz. What Cauchy-Schwarz gives is the same with Frobenius norms, and that would be of little
# use, since $\exp(-\Sigma t)$ has a large one:

# %%
case = cases[0]
pixels = len(case.e)
frobenius = case.W0.norm() * math.sqrt(pixels - 1)
Markdown(
    rf"$\lVert W(0) \rVert_2 = {sigma(case.W0):.2f}$; the bound by Frobenius norms, "
    rf"as $t \to \infty$: {frobenius:.0f}."
)

# %% [markdown]
# ## The limit
#
# As $t \to \infty$, $\exp(-t) \to 0$, and what is left is $W(0) (I - \epsilon\epsilon^T / \lVert \epsilon \rVert^2)$:
# $W(0)$ has forgotten one direction out of 1296, and kept all others. On the way the logit error is $e^{-2t}$ times
# what it was, whatever $W(0)$ is.

# %%
limits = []
for case in cases:
    projector = torch.eye(pixels, dtype=torch.float64)
    projector -= torch.outer(case.e, case.e) / (case.e @ case.e)
    limits.append(case.W0 @ projector)
    W = closed_form(case.W0, case.e, 40)
    assert (W - limits[-1]).abs().max() < 1e-13
    assert (limits[-1] @ case.e).norm() < 1e-12 * (case.W0 @ case.e).norm()

# %%
for case in cases:
    start = (case.W0 @ case.e).norm()
    for t in moments[:-4]:
        now = (closed_form(case.W0, case.e, t) @ case.e).norm()
        assert abs(now / start / math.exp(-t) - 1) < 1e-10

# %% [markdown]
# ## How far does $\sigma_{\max}$ fall?
#
# The proposition bounds it from above and says nothing of a fall. Three starts show what there can be. One is
# random. In one, a row of $W(0)$ points along $\epsilon$ and is twice as long as $\sigma_{\max}$ of the random start;
# that is what the flow takes. In one such a row points along $x + gx + \dots$, the sum over the orbit, which is at
# right angles to $\epsilon$.

# %%
acting, case = groups[0], cases[0]
summed = acting.orbit(case.x.view(36, 36)).sum(0).flatten()


def with_row_along(direction, W0):
    """The network W0, but that its first row alone sees a direction, strongly."""
    unit = direction / direction.norm()
    W = W0 - torch.outer(W0 @ unit, unit)
    W[0] = 2 * sigma(W0) * unit
    return W


starts = {
    "random": case.W0,
    "strongest along ε": with_row_along(case.e, case.W0),
    "strongest along an invariant image": with_row_along(summed, case.W0),
}

# %% {"mystnb": {"figure": {"caption": "The largest singular value along the flow, relative to its start, for three starts. The one along an invariant image stays on the bound of the proposition, at 1, and the random one nearly. The one along \u03b5 falls until the rest of its matrix is the larger. The logit error falls alike for all three.", "name": "fig-one-direction"}, "image": {"alt": "Largest singular value against time for three starts, one falling and two flat, with the falling logit error"}}, "tags": ["hide-input"]}
grid = np.linspace(0, 5, 51)
figure, axis = plt.subplots(figsize=(6, 3.2))
for (label, W0), line in zip(starts.items(), ("--", "-.", "-")):
    path = [sigma(closed_form(W0, case.e, t)) / sigma(W0) for t in grid]
    on_top = 3 if label == "random" else 2
    axis.plot(grid, path, line, zorder=on_top, label=f"$\\sigma_{{max}}$, {label}")
axis.plot(grid, np.exp(-2 * grid), ":", color="black", label="logit error")
axis.set(
    xlabel="time, in units of $1/\\epsilon^T\\epsilon$",
    ylabel="relative to the start",
    ylim=(0, 1.05),
)
legend = axis.legend(loc="center right", bbox_to_anchor=(1, 0.76))

# %% [markdown]
# The third keeps its $\sigma_{\max}$ to the last digit while its logit error goes to 0: a network without logit error
# can be as sensitive as one likes, and the flow has no reason to make it less so. And a random network hardly notices,
# as $\epsilon$ is one direction of many.

# %%
W0 = starts["strongest along an invariant image"]
kept = closed_form(W0, case.e, 40)
assert abs(sigma(kept) / sigma(W0) - 1) < 1e-12
assert (kept @ case.e).norm() < 1e-15 * (W0 @ case.e).norm() + 1e-12

# %%
falls = pd.DataFrame(
    [
        (c.group, c.init, sigma(c.W0), 100 * (1 - sigma(W) / sigma(c.W0)))
        for c, W in zip(cases, limits)
    ],
    columns=["group", "init", "sigma at the start", "fall (%)"],
)
one_direction = falls.groupby(["group", "init"], sort=False).agg(
    {"sigma at the start": "mean", "fall (%)": ["mean", "max"]}
)
assert falls["fall (%)"].between(-1e-10, 1).all()  # hardly any
show_table(one_direction, "One image and one group element, as t → ∞")

# %% [markdown]
# The paper adds that the initialisations make $\sigma_{\max}(W(0))$ small. For a matrix of $m \times n$ entries of
# variance $s^2$ it is about $s (\sqrt{m} + \sqrt{n})$, and the variance is $2/n$ for He's initialisation, $2/(m+n)$ for
# Glorot's.

# %%
m, n = case.W0.shape
estimates = [s**0.5 * (m**0.5 + n**0.5) for s in (2 / (m + n), 2 / n)]
Markdown(
    f"By this estimate {estimates[0]:.2f} and {estimates[1]:.2f}, for Glorot and He: more than 1, "
    "the norm of a map which stretches nothing. Pixels and logits have no unit in common, though; the end of this page "
    "compares with what training reaches."
)

# %% [markdown]
# ## How small a step?
#
# Discrete descent is $W^{k} = W(0)(I - \alpha\Sigma)^k$. It goes to the same limit if and only if $\lvert 1 - \alpha
# \, \epsilon^T \epsilon \rvert < 1$, that is for
#
# $$ 0 < \alpha < \frac{2}{\lambda_{\max}(\Sigma)} = \frac{2}{\epsilon^T \epsilon} . $$
#
# (or $W(0)\epsilon = 0$, when nothing moves). Then $I - \alpha\Sigma$ stretches nothing, and $\sigma_{\max}$ never
# rises here either. At the limit itself the sign of $W\epsilon$ flips for ever; beyond it the proposition fails.


# %%
def descend(W0, e, rate, steps):
    """Gradient descent; the rate in units of 1/e'e."""
    unit, path = e / e.norm(), [W0]
    for _ in range(steps):
        path.append(path[-1] - rate * torch.outer(path[-1] @ unit, unit))
    return path


# %%
strengths = {
    rate: [sigma(W) for W in descend(case.W0, case.e, rate, 50)] for rate in (0.5, 1.9, 2.0, 2.1)
}
for rate, path in strengths.items():
    rises = max(path) > path[0] * (1 + 1e-12)
    assert rises == (rate > 2)

# %% [markdown]
# Within that range, the smaller the step the closer to the flow. Descent errs at first order: at a fixed time $t =
# k\alpha$, both in the units above, it is to leading order $\tfrac12 \alpha t e^{-t} \lVert W(0) \hat\epsilon \rVert$
# away, so half the step leaves half the error. Measured against the closed form and against the integrated flow:

# %%
rates, t = 2.0 ** -np.arange(2, 8), 2.0
errors = {}
for case in cases:
    exact = closed_form(case.W0, case.e, t)
    unit = case.e / case.e.norm()
    by_rate = []
    for rate in rates:
        W = descend(case.W0, case.e, rate, round(t / rate))[-1]
        powers = (1 - rate) ** round(t / rate) - 1  # (I - rate Sigma)^k - I along e
        discrete = case.W0 + powers * torch.outer(case.W0 @ unit, unit)
        assert (W - discrete).abs().max() < 1e-13
        by_rate.append((W - exact).norm().item())
    errors.setdefault(case.group, []).append(by_rate)
    predicted = rates * t / 2 * math.exp(-t) * (case.W0 @ unit).norm().item()
    assert abs(by_rate[-1] / predicted[-1] - 1) < 0.02

# %%
errors = {name: np.array(rows) for name, rows in errors.items()}
ratio = {name: rows[:, -2] / rows[:, -1] for name, rows in errors.items()}
for name, case in first.items():
    assert (abs(ratio[name] - 2) < 0.02).all()
    (flow,) = integrate_case(case, [t])
    W = descend(case.W0, case.e, rates[-1], round(t / rates[-1]))[-1]
    assert abs((W - flow).norm() / errors[name][0, -1] - 1) < 1e-6

# %% {"mystnb": {"figure": {"caption": "Left: the distance of gradient descent from the flow at a fixed time halves with the step; a line of slope one is dotted. Right: the largest singular value under descent, which never rises up to a step of 2, and does beyond it.", "name": "fig-descent"}, "image": {"alt": "Error of gradient descent against step size, a straight line in logarithms, and largest singular value against step for four step sizes, growing for the largest"}}, "tags": ["hide-input"]}
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2))
for (name, rows), marker in zip(errors.items(), "os"):
    left.loglog(rates, rows.mean(0), marker, label=GROUP_NAMES[name])
left.loglog(rates, rows.mean(0)[-1] * rates / rates[-1], ":", color="grey", lw=1)
left.set(xlabel="$\\alpha$, in units of $1/\\lambda_{max}$", ylabel="distance from flow")
left.legend()
for (rate, path), line in zip(strengths.items(), ("-", "--", ":", "-.")):
    right.plot(np.array(path) / path[0], line, label=f"$\\alpha$ = {rate:g}")
right.set(xlabel="step", ylabel="$\\sigma_{max}$, relative to the start", ylim=(0, None))
legend = right.legend(loc="upper left")


# %% [markdown]
# ## All images, all group elements
#
# One $\epsilon$ is one direction. The logit error over a data set averages over many: over images $x$ and, as LI is
# measured in this book, over all pairs $gx, hx$. With $\epsilon = gx - hx$ and $\Sigma = \mathbb{E}[\epsilon \epsilon^T]$
# the error is $\tfrac12 \operatorname{tr} W \Sigma W^T$, its gradient $W \Sigma$, and Equations 5 to 7 hold as they stand.
# What changes is the null space of $\Sigma$, where the flow ends:
#
# $$ W(t) \to W(0)\, \Pi , \qquad \Pi \text{ the projector on } \{ v : v^T (gx - hx) = 0 \text{ for all } x, g, h \} . $$
#
# Set beside it $P = \frac{1}{|\mathcal G|} \sum_g G$, the average over the group. It is the projector on the images that
# the group leaves as they are, and $W(0) P$ is a weight-tied network: it maps $x$ to the *mean* of $W(0) gx$ over the
# orbit. (The weight-tied networks of [Table 1: three ways to invariance](table1.ipynb) take the maximum and are not
# linear.) Since $P (gx - hx) = 0$, $P$'s image lies in the null space. Two facts follow.
#
# - **On the images themselves** the limit is always the weight-tied network: $x - Px$ is an average of differences $x -
#   gx$, so $\Pi (x - Px) = 0$ and $W(0) \Pi x = W(0) P x$.
# - **Elsewhere** it is so if the null space holds nothing else, that is if the differences span all that $P$ removes.
#   Pixels in which no image ever has ink cannot contribute: there, $W$ stays as it was.
#
# Here are both for the training images.


# %%
def act_on_rows(acting, g, M):
    return acting.act(g, M.unflatten(1, (36, 36))).flatten(1)


def tie(acting, W):
    """W P, the average over the group."""
    return sum(act_on_rows(acting, g, W) for g in acting.elements) / (acting.order)


def sigma_matrix(acting, x):
    """E[ee'] over e = gx - hx: twice the covariance within orbits."""
    apart = x - tie(acting, x)
    covariance = apart.T @ apart / len(x)
    mean = torch.zeros_like(covariance)
    for g in acting.elements:  # G C G', by moving its rows and its columns
        mean += act_on_rows(acting, g, act_on_rows(acting, g, covariance).T)
    return 2 * mean / acting.order


# %% [markdown]
# $\Sigma$ is twice the covariance within orbits; checked on a few images against its definition as a mean over all pairs:

# %%
images = train.images.flatten(1)
for acting in groups:
    few = images[:3].double()
    orbit = torch.stack([act_on_rows(acting, g, few) for g in acting.elements])
    e = (orbit[:, None] - orbit[None]).flatten(0, 2)
    direct, ours = e.T @ e / len(e), sigma_matrix(acting, few)
    assert (direct - ours).abs().max() < 1e-12 * direct.abs().max()


# %% [markdown]
# What can vary is known before any spectrum: the images over pixels that have ink in some orientation, less what $P$
# keeps. Its dimension is that number of pixels times $1 - 1/|\mathcal G|$, since no $g$ but the identity leaves a pixel in
# place. In a basis of it, $\Sigma$ is to have full rank.


# %%
class Spectrum(NamedTuple):
    inked: Tensor  # pixels that vary
    basis: Tensor  # [1296, k], what varies and is not invariant
    Sigma: Tensor
    rates: Tensor  # eigenvalues of Sigma in that basis, the largest is 1
    vectors: Tensor  # and its eigenvectors as images, [1296, k]


def diagonalise(Sigma, basis):
    rates, vectors = torch.linalg.eigh(basis.T @ Sigma @ basis)
    return rates / rates[-1], basis @ vectors


# %%
spectra = {}
for acting in groups:
    inked = (images != images[0, 0]).any(0)[None]
    inked = sum(act_on_rows(acting, g, inked) for g in acting.elements)[0] > 0
    P = tie(acting, torch.eye(pixels, dtype=torch.float64))
    removed = torch.diag(inked.double()) - P * inked
    values, vectors = torch.linalg.eigh(removed)
    basis = vectors[:, values > 0.5]  # they are 0 or 1
    Sigma = sigma_matrix(acting, images.double())
    Sigma /= torch.linalg.eigvalsh(basis.T @ Sigma @ basis)[-1]
    spectra[acting.name] = Spectrum(inked, basis, Sigma, *diagonalise(Sigma, basis))

# %%
for acting in groups:
    inked, basis, Sigma, rates, _ = spectra[acting.name]
    share = 1 - 1 / acting.order
    assert basis.shape[1] == round(inked.sum().item() * share)
    assert (Sigma - basis @ (basis.T @ Sigma)).abs().max() < 1e-13
    assert rates[0] > 1e-12  # full rank: nothing else in the null space

# %% {"tags": ["hide-input"]}
lines = [
    f"- **{GROUP_NAMES[name]}.** {s.inked.sum()} pixels have ink; rank {len(s.rates)} of Σ, as many as $P$ removes of "
    f"them. The smallest eigenvalue is {s.rates[0]:.1g} times the largest."
    for name, s in spectra.items()
]
Markdown("\n".join(lines))

# %% [markdown]
# So the training images do span enough, and on the pixels with ink the flow must end at $W(0)P$. The beginning of this
# flow too is checked against numerical integration. Time counts in units of $1 / \lambda_{\max}$, so that it is
# about the number of descent steps at the rate $1/\lambda_{\max}$, half of the bound above.


# %%
def flow(W0, spectrum, t):
    """W(0) exp(-Sigma t); only the directions of the basis move."""
    loss = torch.expm1(-spectrum.rates * t)
    return W0 + (W0 @ spectrum.vectors * loss) @ spectrum.vectors.T


for name, spectrum in spectra.items():
    W0, Sigma = draw("Glorot", 0), spectrum.Sigma.numpy()
    integrated = integrate(lambda W, Sigma=Sigma: -W @ Sigma, W0, [0.5, 3])
    for t, W in zip((0.5, 3), integrated):
        apart = (W - flow(W0, spectrum, t)).abs().max().item()
        assert apart < 1e-10
        integration_error[name] = max(apart, integration_error[name])

# %%
run, ages = ginv.Run(), np.geomspace(0.1, 1e11, 61)
steps = run.epochs * math.ceil(run.train_images / run.batch_size)
rows = []
for acting in groups:
    spectrum = spectra[acting.name]
    for init in INITS:
        W0 = draw(init, 0)
        tied = tie(acting, W0)
        for t in [0, *ages, steps]:
            W = flow(W0, spectrum, t)
            apart = (W - tied)[:, spectrum.inked].norm().item()
            parts = (W @ spectrum.vectors).square().sum(0) * spectrum.rates
            error = parts.sum().item() / 2
            rows.append((acting.name, init, t, apart, error, sigma(W)))
            assert (tie(acting, W) - tied).abs().max() < 1e-12  # W(t) P stays
columns = ["group", "init", "t", "distance", "logit error", "sigma max"]
paths = pd.DataFrame(rows, columns=columns).set_index(["group", "init", "t"])
relative = paths / paths.xs(0.0, level="t")

# %% {"mystnb": {"figure": {"caption": "The flow over all training images and their orbits, relative to its start: the distance of W(t) from the weight-tied W(0)P over the pixels with ink, the logit error, and the largest singular value. The vertical line is the number of steps that the networks of this book are trained.", "name": "fig-all-images"}, "image": {"alt": "Distance from the tied network, logit error and largest singular value against time in logarithmic scales, one panel per group"}}, "tags": ["hide-input"]}
for name, axis in group_panels(settings).items():
    curves = relative.loc[name, "Glorot"].loc[ages]
    for column, line in zip(curves, ("-", "--", "-.")):
        axis.loglog(curves.index, curves[column], line, label=column)
    axis.axvline(steps, color="grey", lw=1)
    axis.set(
        xlabel="time, in units of $1/\\lambda_{max}$",
        ylabel="relative to the start",
        ylim=(1e-16, 3),
    )
    axis.label_outer()
legend = axis.legend(loc="lower left")

# %%
end = ages[-1]
ends = relative.xs(end, level="t")
assert (ends.distance < 1e-13).all()

# %% [markdown]
# The distance falls to rounding: the flow of a linear network *is* weight tying in the end, on the pixels with ink. But the
# eigenvalues of $\Sigma$ reach over many powers of ten, and so does the time this takes. What counts for the logit
# error is gone early; what hardly any image shows is learned last.

# %% {"tags": ["hide-input"]}
lines = [
    f"- **{GROUP_NAMES[name]}.** After {steps:,} steps the logit error is {row['logit error']:.0e} of what it was; the distance from the "
    f"weight-tied network is still {row.distance:.0%} of what it was."
    for name, row in relative.xs((steps, "Glorot"), level=("t", "init")).iterrows()
]
Markdown("\n".join(lines))

# %% [markdown]
# ## What decays, and what does not
#
# The assertion in the loop above is worth a second look: $W(t) P = W(0) P$ at every $t$, since $\Sigma P = 0$. To a change
# of the image that is itself invariant, the network stays exactly as sensitive as it was. So for linear networks it
# is not *every* input perturbation that the network becomes less sensitive to. What goes is the span of the differences
# within orbits. A change of no special direction has, on average, a part $1 - 1/|\mathcal G|$ of its square there and loses
# that, so *most* perturbations do less in the end. The spectral norm falls to no less than that of the weight-tied
# network.

# %%
rows = {}
for acting in groups:
    for init in INITS:
        W0, spectrum = draw(init, 0), spectra[acting.name]
        start, tied = sigma(W0), sigma(tie(acting, W0))
        states = [flow(W0, spectrum, t) for t in (steps, end)]
        rows[acting.name, init] = [start, *map(sigma, states), tied]
        assert tied * (1 - 1e-12) <= sigma(states[1]) <= start
columns = ["start", f"{steps:,} steps", "end", "weight-tied"]
decay = pd.DataFrame(rows, index=columns).T
show_table(decay, "sigma max over all images and orbits")

# %% [markdown]
# The end differs from the last column by the pixels without ink, which the flow cannot see.
#
# ## When it fails
#
# With fewer images the differences span less. On those images the limit is still weight-tied, which is the first
# of the two facts; on others it need not be. The distance here is that of the logits $W(\infty) x$ and $W(0) P x$, over
# the orbits of images, relative to the distance at the start.

# %%
sizes = [10, 100, 1000]
if profile == "paper":
    sizes = [10, 30, 100, 300, 1000, 3000, 10_000]
new = ginv.load_dataset().test.images[:300].flatten(1).double()
W0 = draw("Glorot", 0)


# %%
def logit_distance(W, acting, x):
    """Of W x from the weight-tied W0 P x over the orbits of images."""
    x = torch.cat([act_on_rows(acting, g, x) for g in acting.elements])
    tied = tie(acting, W0)
    return ((W - tied) @ x.T).norm() / ((W0 - tied) @ x.T).norm()


def end_of_flow(acting, seen):
    """Rank of Sigma of these images, and distances on them and on new ones."""
    Sigma = sigma_matrix(acting, seen)
    rates, vectors = diagonalise(Sigma, spectra[acting.name].basis)
    spanned = vectors[:, rates > 1e-12]
    W = W0 - W0 @ spanned @ spanned.T
    distances = [logit_distance(W, acting, x) for x in (seen[:300], new)]
    return spanned.shape[1], *map(float, distances)


# %%
rows = [
    (acting.name, n, *end_of_flow(acting, images[:n].double())) for acting in groups for n in sizes
]
columns = ["group", "images", "rank", "training images", "new images"]
spans = pd.DataFrame(rows, columns=columns).set_index(["group", "images"])
assert (spans["training images"] < 1e-8).all()

# %% {"mystnb": {"figure": {"caption": "Where the flow ends with n training images: distance of its logits from those of the weight-tied network, on those images (rounding) and on new ones. The number at a point is the rank of Sigma.", "name": "fig-few-images"}, "image": {"alt": "Distance from the weight-tied network against the number of training images, near zero on training images and falling on new images, one panel per group"}}, "tags": ["hide-input"]}
for name, axis in group_panels(settings).items():
    for column, style in (("new images", "o-"), ("training images", "s--")):
        curve = spans.loc[name, column].clip(lower=1e-17)
        axis.loglog(curve.index, curve, style, label=column)
    for n, row in spans.loc[name].iterrows():
        axis.annotate(
            f"{row['rank']:.0f}",
            (n, max(row["new images"], 1e-17)),
            textcoords="offset points",
            xytext=(0, 6),
            ha="center",
            fontsize="small",
        )
    axis.set(xlabel="training images", ylabel="relative distance")
    axis.label_outer()
    axis.margins(y=0.1)
legend = axis.legend(loc="center left")

# %% {"tags": ["hide-input"]}
lines = []
for acting in groups:
    full = len(spectra[acting.name].rates)
    table = spans.loc[acting.name]
    small, large = table.iloc[0], table.iloc[-1]
    lines.append(
        f"- **{GROUP_NAMES[acting.name]}.** {sizes[0]} images span {small['rank']:.0f} of {full} directions, and leave "
        f"{small['new images']:.0%} of the distance on new images; {sizes[-1]:,} span {large['rank']:.0f} and leave "
        f"{large['new images']:.1g}."
    )
Markdown("\n".join(lines))

# %% [markdown]
# What a full rank leaves can only be ink in pixels where no training image has any.
#
# ## Depth: a cell to play with
#
# A deep linear network $W = W_L \cdots W_1$ is as linear as $W$, but the flow of its factors is another. The gradient
# of the first factor ends in $\Sigma$, so $W_1 P$ stays as it was; those of the others do not. Through them $W P$ moves,
# which it cannot at depth one: here the sensitivity to *invariant* changes can change too. Digits are pooled to $12
# \times 12$ pixels to be quick. Change the depths, the width, the rate.

# %%
depths, width, rate, steps_deep = (1, 2, 3), 64, 0.1, 500
acting = groups[0]
small = F.avg_pool2d(train.images[:1000], 3).double()
orbit = acting.orbit(small)
apart = (orbit - orbit.mean(0)).flatten(0, 2).flatten(1)
Sigma = 2 * apart.T @ apart / len(apart)
Sigma /= torch.linalg.eigvalsh(Sigma)[-1]
P = acting.orbit(torch.eye(144, dtype=torch.float64).unflatten(1, (12, 12)))
P = P.mean(0).flatten(1)


# %%
def deep_start(depth):
    """W_1 ... W_L."""
    generator = torch.Generator().manual_seed(0)
    sizes = [144, *[width] * (depth - 1), 9]
    return [
        torch.randn(b, a, generator=generator, dtype=torch.float64) / a**0.5
        for a, b in pairwise(sizes)
    ]


def deep_step(factors):
    """W, its logit error, and the factors after a step of descent."""
    leaves = [factor.requires_grad_() for factor in factors]
    W = reduce(torch.matmul, leaves[::-1])
    error = (W @ Sigma * W).sum() / 2
    gradients = torch.autograd.grad(error, leaves)
    after = [leaf - rate * slope for leaf, slope in zip(leaves, gradients)]
    return W.detach(), error.item(), [factor.detach() for factor in after]


# %%
def train_deep(depth):
    """sigma max of W, of its invariant part, and the logit error, step by step."""
    factors, path = deep_start(depth), []
    invariant = factors[0] @ P
    for _ in range(steps_deep + 1):
        W, error, factors = deep_step(factors)
        path.append((sigma(W), sigma(W @ P), error))
    assert (factors[0] @ P - invariant).abs().max() < 1e-10  # W_1 P stays
    return pd.DataFrame(path, columns=["sigma of W", "sigma of W P", "logit error"])


deep = {depth: train_deep(depth) for depth in depths}

# %% {"mystnb": {"figure": {"caption": "Gradient descent on the logit error of linear networks of several depths, relative to the start: the largest singular value of the product (left) and of its invariant part (right).", "name": "fig-deep-linear"}, "image": {"alt": "Largest singular value of the product and of its invariant part against training step, a line per depth"}}, "tags": ["hide-input"]}
figure, axes = plt.subplots(1, 2, figsize=(8, 3.2))
for axis, column in zip(axes, ["sigma of W", "sigma of W P"]):
    for (depth, path), line in zip(deep.items(), ("-", "--", "-.", ":") * 3):
        axis.plot(path[column] / path[column][0], line, label=f"depth {depth}")
    axis.set(xlabel="step", title=column)
axes[0].set_ylabel("relative to the start")
legend = axes[0].legend()

# %%
change = pd.DataFrame({d: path.iloc[-1] / path.iloc[0] for d, path in deep.items()})
if 1 in deep:
    assert abs(change.loc["sigma of W P", 1] - 1) < 1e-10
show_table(
    change.T.rename_axis("depth"), f"{acting.name}, after {steps_deep} steps, relative to the start"
)

# %% {"tags": ["hide-input"]}
lines = []
for depth, column in change.items():
    moved = round(100 * (column["sigma of W P"] - 1), 1) + 0.0
    rose = deep[depth]["sigma of W"].diff().max() > 1e-12
    how = "never rises" if not rose else "rises at some step"
    lines.append(
        f"- **Depth {depth}.** $\\sigma_{{\\max}}(W)$ {how}; that of the invariant part changes by {moved:+.1f} %."
    )
Markdown("\n".join(lines))

# %% [markdown]
# Read the numbers with care: they are of one start, one width and the logit error alone. What depth changes for certain
# is that the invariant part is no longer out of reach.

# %% {"tags": ["hide-input"]}
numbers = {}
for acting in groups:
    name = acting.name
    mine = falls[falls.group == name]
    last = spans.loc[name].iloc[-1]
    numbers[name] = {
        "integration error": integration_error[name],
        "rank, one e": rank[name],
        "largest fall, one e (%)": mine["fall (%)"].max(),
        "GD error ratio, least": ratio[name].min(),
        "GD error ratio, largest": ratio[name].max(),
        "rank, all images": len(spectra[name].rates),
        "inked pixels": int(spectra[name].inked.sum()),
        "smallest eigenvalue": spectra[name].rates[0].item(),
        "distance at the end": ends.loc[name].distance.max(),
        "distance after training steps": relative.loc[(name, "Glorot", steps), "distance"],
        "sigma end / start": decay.loc[name, "Glorot"]["end"] / decay.loc[name, "Glorot"]["start"],
        "sigma tied / start": decay.loc[name, "Glorot"]["weight-tied"]
        / decay.loc[name, "Glorot"]["start"],
        "few images, new": spans.loc[name, "new images"].iloc[0],
        "most images, new": last["new images"],
        "training images": spans.loc[name, "training images"].max(),
    }
proposition = pd.DataFrame(numbers).rename_axis("metric")
proposition = proposition.melt(
    var_name="group", value_name="value", ignore_index=False
).reset_index()[["group", "metric", "value"]]
settings.save(proposition, results, "proposition")

# %% [markdown]
# ## From lines to networks
#
# For linear networks the decay is proved, small for one image, and confined to what the group can change. The paper's
# claim is about networks that learn to classify at the same time: that they buy invariance to one group by going blind
# to *any* change of the input (Sections 1, 3.3 and 4.4). A network has no single matrix, but at each image it has one,
# its Jacobian $J(x) = \partial f / \partial x$, with a row per logit and a column per pixel. Its largest singular value
# $\sigma_{\max}(J)$ is the most that the logits can move for a small step, per unit of its length.
#
# The paper compares DA with three forms of the penalty between $f(gx)$ and $f(hx)$:
#
# - *logit*: the logit error $\tfrac12 \lVert f(gx) - f(hx) \rVert^2$ of Equation 2, which is what IR means elsewhere in
#   this book;
# - *KL*: the divergence $D_{KL}(u_{gx} \,\|\, u_{hx})$ of Equation 1;
# - *normalised*: $\lVert f(gx) - f(hx) \rVert^2 / \lVert f(gx) \rVert^2$, the logit error in units of the logits.
#
# ### How strong a penalty, for each form
#
# Each form has its own scale, so each has its own $\nu$, "such that $SI \ge 0.95$". The search is the one of
# [Table 1: three ways to invariance](table1.ipynb), on validation images.

# %% {"mystnb": {"figure": {"caption": "What each form of the penalty reaches: SI on validation images against its weight nu, averaged over the seeds that were trained there. The dashed line is the target. A large marker is the nu that the figures below use.", "name": "fig-forms"}, "image": {"alt": "Saliency similarity against nu on a logarithmic axis, a line for each of three regularisers, one panel per group"}}, "tags": ["hide-input"]}
FORMS = {
    "logit": METHOD_STYLES["IR"],
    "kl": MethodStyle("#CC79A7", "v", ":"),
    "normalised": MethodStyle("#E69F00", "D", "--"),
}
sweep = read_sweep().set_index(["group", "regulariser", "nu"])
reached = sweep.groupby(level=[0, 1, 2])[["SI", "accuracy"]].mean()
for name, axis in group_panels(settings).items():
    for form, style in FORMS.items():
        line, nu = reached.SI[name, form], ginv.chosen_nu(name, form)
        look = dict(marker=style.marker, color=style.colour)
        axis.semilogx(line, style.line, ms=4, label=form, **look)
        axis.plot(nu, line[nu], ms=10, **look)
    axis.axhline(TARGET, ls="--", color="grey")
    axis.set(xlabel="ν", ylabel="SI (validation)")
    axis.label_outer()
handles = axis.get_legend_handles_labels()
legend = plt.gcf().legend(*handles, loc="outside lower center", ncols=3)

# %% {"tags": ["hide-input"]}
rows = []
for name, form in product(settings.groups, FORMS):
    nu = ginv.chosen_nu(name, form)
    if (si := reached.SI[name, form][nu]) >= TARGET:
        rows.append(f"- {name}, {form}: ν = {nu:g} reaches SI {si:.3f}.")
    else:
        rows.append(
            f"- {name}, {form}: **no ν reaches {TARGET}** with all seeds, up to {reached.SI[name, form].index.max():g}; "
            f"the figures take ν = {nu:g}, which comes nearest, with SI {si:.3f}."
        )
Markdown("\n".join(rows))

# %% [markdown]
# ### The runs
#
# DA and the three forms at these $\nu$. And, since the paper likens the effect of the penalty to that of a large weight
# decay, DA with weight decay: at every step each weight loses a share of itself, here the learning rate times
# 0.3 to 10 (decoupled from Adam's gradient). The strongest would by itself shrink a weight to nothing many times over in
# the course of a training.

# %%
trained = {**settings.train(), **ginv.train(settings.spectral_runs(), device=device)}


def name_of(run):
    """What a run is called in the figures and tables below."""
    if run.weight_decay:
        return f"DA, weight decay {run.weight_decay:g}"
    return f"IR, {run.regulariser}" if run.method == "IR" else run.method


# %% [markdown]
# ### How sensitive is a network, and to what?
#
# $J(x)$ is small, 9 by 1,296, so nothing needs to be approximated: nine backward passes give it, and $\sigma_{\max}^2$ is
# the largest eigenvalue of the 9 by 9 matrix $J J^\top$. We average over test images in all their orientations.
#
# One number says how far the logits move for the worst step. Whether a network has become blind to *the group* or to
# *everything* depends on how far they move for others. So we also take the root mean square of $\lVert J u \rVert$ for
# unit steps $u$
#
# - towards another orientation of the image, $u \propto gx - x$: what the penalty makes zero in a linear network, while
#   in others the way to $gx$ is long and $J(x)$ need not see where it ends;
# - towards another image, $u \propto x' - x$: what a classifier needs;
# - in a random direction, every pixel for itself, for which the mean over all $u$ is exact:
#   $\lVert J \rVert_F / \sqrt{1296}$.
#
# The whole way to $gx$ is measured as well, $\lVert f(gx) - f(x) \rVert / \lVert gx - x \rVert$, and so is that to another
# image: the first is what invariance is about, and is 0 for WT.
#
# And the *logit scale*, the norm of the logits less their mean over classes: its root mean square over an orbit, averaged
# over images. A network that
# halves its logits halves all of the above and is no blinder than before.

# %%
test = ginv.load_dataset().test
few = test.head(1_000)
others = few.images.roll(1, 0)  # the splits are shuffled


def squared_change(jacobians, step):
    """|J u|^2 for the unit step u: `[n, 9, P]`, `[n, 1, H, W]` -> `[n]`."""
    u = F.normalize(step.flatten(1))
    return (jacobians @ u[..., None]).square().sum((1, 2))


# %%
@torch.no_grad()
def response(model, x, step):
    """|f(x + step) - f(x)|^2 / |step|^2: `[n, 1, H, W]` twice -> `[n]`."""
    change = (model(x + step) - model(x)).square().sum(1)
    return change / step.flatten(1).square().sum(1)


# %%
def sensitivity_at(model, orbit, g):
    """Sensitivity of a network at the images of one orientation, a column per measure."""
    x = orbit[g]
    j = torch.cat([ginv.jacobian(model, part) for part in x.split(500)])
    steps = [orbit[h] - x for h in range(len(orbit)) if h != g]
    columns = {
        "sigma_max": torch.linalg.eigvalsh(j @ j.mT)[:, -1].clamp(min=0).sqrt(),
        "orbit": torch.stack([squared_change(j, e) for e in steps]).mean(0),
        "image": squared_change(j, others - x),
        "random": j.square().sum((1, 2)) / j.shape[2],
        "whole_orbit": torch.stack([response(model, x, e) for e in steps]).mean(0),
        "whole_image": response(model, x, others - x),
    }
    return pd.DataFrame(columns)


# %%
def sensitivity(model, acting):
    """sigma_max(J), and the root mean square of |J u| for three kinds of step, over images and orientations."""
    orbit = acting.orbit(few.images)
    means = pd.concat([sensitivity_at(model, orbit, g) for g in acting.elements]).mean()
    roots = means.drop("sigma_max") ** 0.5
    return pd.concat([means[["sigma_max"]], roots.add_prefix("step_to_")])


# %% [markdown]
# A weight-tied network is a check: $f(gx) = f(x)$ gives $J(gx) G = J(x)$, so $\sigma_{\max}$ is the same all over an
# orbit, and a step towards the orbit, which the network cannot see when it is taken as a whole, need not be invisible
# to first order: between two orientations lie images that are neither.

# %%
acting = ginv.group_named(settings.groups[0])
tied = trained[settings.run(acting.name, "WT", settings.seeds[0])].model.cpu()
over_orbit = torch.stack(
    [ginv.largest_singular_value(tied, x) for x in acting.orbit(few.images[:50])]
)
torch.testing.assert_close(over_orbit, over_orbit[:1].expand_as(over_orbit), rtol=1e-3, atol=0)

# %% [markdown]
# Accuracy, SI and the logit scale are those of `ginv.measure`, on the same test images for every run.

# %%
images = settings.fewer_images
KEPT = ["accuracy", "SI", "SI_distinct", "logit_norm", "relative_LI", "flip_rate"]


def measured(run, result):
    """The means over the first fifth of the test images."""
    is_stored = run in settings.runs()  # Table 1 has measured all test images
    whole = settings.measure(result, None if is_stored else images)
    return whole.samples.head(images)[KEPT].mean()


# %%
columns = {}
for run, result in trained.items():
    network, acting = result.model.cpu(), ginv.group_named(run.group)
    found = pd.concat([measured(run, result), sensitivity(network, acting)])
    found["sigma_max_over_scale"] = found.sigma_max / found.logit_norm
    columns[run.group, name_of(run), run.regulariser, run.seed, run.nu] = found
for name, seed in product(settings.groups, settings.seeds):
    start = settings.run(name, "DA", seed).model(torch.Generator().manual_seed(seed))
    acting = ginv.group_named(name)
    columns[name, "untrained", "", seed, 0.0] = sensitivity(start, acting)
spectral = pd.DataFrame(columns).rename_axis(
    index="metric", columns=["group", "method", "regulariser", "seed", "nu"]
)

# %%
table = spectral.T.stack().dropna().rename("value").reset_index()
settings.save(table, results, "spectral")
over_seeds = table.groupby(["metric", "group", "method"]).value
means = over_seeds.mean().unstack()

# %% [markdown]
# ### Figure 5

# %% {"mystnb": {"figure": {"caption": "Figure 5 of the paper, on a logarithmic axis, and below it the accuracy. A marker per seed, a bar at the mean.", "name": "fig-5"}, "image": {"alt": "Largest singular value of the Jacobian and accuracy for data augmentation and the three forms of the regulariser, one column per group"}}, "tags": ["hide-input"]}
SHOWN = ["DA", *(f"IR, {form}" for form in FORMS)]
figure, axes = plt.subplots(2, len(settings.groups), figsize=(8, 4.8), squeeze=False, sharey="row")
for column, name in zip(axes.T, settings.groups):
    column[0].set_title(GROUP_NAMES[name])
    for axis, metric in zip(column, ("sigma_max", "accuracy")):
        for place, method in enumerate(SHOWN):
            value = over_seeds.get_group((metric, name, method))
            style = METHOD_STYLES.get(method) or FORMS[method[4:]]
            axis.plot([place] * len(value), value, style.marker, color=style.colour)
            axis.hlines(value.mean(), place - 0.3, place + 0.3, style.colour)
        axis.set_xticks(range(len(SHOWN)), [m.split(", ")[-1] for m in SHOWN])
        axis.margins(x=0.15)
axes[0, 0].set(yscale="log", ylabel=r"$\sigma_{\max}(J)$")
axes[1, 0].set_ylabel("accuracy (%)")
if profile != "paper":
    figure.suptitle(settings.label, fontsize="small", color="grey")

# %%
REPORTED = {
    "accuracy": "accuracy (%)",
    "SI": "SI",
    "SI_distinct": "SI, distinct pairs",
    "sigma_max": "σ_max",
    "logit_norm": "logit scale",
    "sigma_max_over_scale": "σ_max / scale",
    "step_to_orbit": "to orbit",
    "step_to_image": "to image",
    "step_to_random": "at random",
    "step_to_whole_orbit": "all the way to orbit",
    "step_to_whole_image": "all the way to image",
}
text = over_seeds.mean().map("{:.3g}".format) + over_seeds.std().map("{:.1g}".format).radd(
    " ± "
).replace(" ± nan", "")
text = text.unstack("metric")[list(REPORTED)].rename(columns=REPORTED)
show_table(
    text.loc[[(g, m) for g in settings.groups for m in ["WT", *SHOWN]]],
    f"{settings.label}; {images:,} test images for accuracy, SI and scale, "
    f"{len(few):,} for the rest",
)

# %% [markdown]
# ### Blind to the group, or to everything?
#
# A smaller $\sigma_{\max}$ alone does not say. The network may have smaller logits; or it may have gone blind to the
# group's own directions, which is what it was asked for; or to all. The figure lays everything on one axis, relative to
# DA, the bare sensitivities and then the same per unit of logit scale, with WT to show what a network looks like that was
# built blind to the group. The mean over seeds is a geometric one.

# %% {"mystnb": {"figure": {"caption": "Sensitivity of the regularised networks and of WT relative to DA: left of 1 is less sensitive. Below the dotted line everything is divided by the logit scale. All the way to the orbit WT does not respond at all, so it is missing there.", "name": "fig-blind"}, "image": {"alt": "Dot plot on a logarithmic axis of sensitivities relative to data augmentation, a marker for each form of the regulariser and for weight-tying, one panel per group"}}, "tags": ["hide-input"]}
STEPS = {
    "sigma_max": "σ_max",
    "step_to_orbit": "step to orbit",
    "step_to_image": "step to image",
    "step_to_random": "step at random",
    "step_to_whole_orbit": "all the way to orbit",
    "step_to_whole_image": "all the way to image",
}


def relative_to_da(name, method):
    """Sensitivities, bare and per logit scale, as multiples of DA's."""
    values = np.log(spectral[name].clip(lower=1e-12)).T.groupby("method").mean()
    values = np.exp(values.T)
    bare = values.loc[list(STEPS)].rename(index=STEPS)
    per_scale = (bare / values.loc["logit_norm"]).rename("{} / scale".format)
    both = pd.concat([bare, per_scale])
    return both[method] / both.DA


NAMES = {f"IR, {form}": form for form in FORMS} | {"WT": "WT"}
rows = [*STEPS.values(), *(f"{step} / scale" for step in STEPS.values())]
for name, axis in group_panels(settings, height=4.4).items():
    for method, text in NAMES.items():
        style = FORMS.get(text) or METHOD_STYLES[text]
        ratio = relative_to_da(name, method)[rows]
        ratio = ratio.where(ratio > 1e-4)  # WT, all the way to the orbit
        look = dict(color=style.colour, label=text)
        axis.semilogx(ratio, range(len(rows)), style.marker, **look)
    axis.axvline(1, color=METHOD_STYLES["DA"].colour, ls="--", label="DA")
    axis.axhline(len(STEPS) - 0.5, ls=":", color="grey")
    axis.set_yticks(range(len(rows)), rows)
    axis.set(xlabel="relative to DA")
axis.invert_yaxis()
handles = axis.get_legend_handles_labels()
legend = plt.gcf().legend(*handles, loc="outside lower center", ncols=5)


# %% {"tags": ["hide-input"]}
def blindness(name, form):
    ratio = relative_to_da(name, f"IR, {form}")
    orbit, image = (ratio[f"all the way to {end}"] for end in ("orbit", "image"))
    return (
        f"- {name}, {form}: σ_max is {ratio['σ_max']:.2f} of DA's, and {ratio['σ_max / scale']:.2f} of it once both are "
        f"divided by their logit scale. All the way to another orientation {orbit:.2g} of DA's response is left, to another "
        f"image {image:.2g}, of a random step {ratio['step at random']:.2g}. "
        + (
            f"What is left of the response to the group is {image / orbit:.2g} times less than what is left of that to other images."
            if image > orbit
            else "The response to the group has lost no more than that to other images."
        )
    )


Markdown("\n".join(blindness(name, form) for name in settings.groups for form in FORMS))

# %% [markdown]
# ### Is it a large weight decay?
#
# The paper says that all this "has an effect similar to training a network with a large weight decay". Weight decay
# lowers $\sigma_{\max}$ without knowing of any group. So the question is what it does to accuracy and to SI on the way.

# %% {"mystnb": {"figure": {"caption": "DA with growing weight decay (line, the numbers are the decay) and the three forms of the regulariser on the same axes: accuracy and SI against sensitivity, averaged over the seeds, of which weight decay has the first two.", "name": "fig-decay"}, "image": {"alt": "Accuracy and saliency similarity against the largest singular value: a line for data augmentation with increasing weight decay and three markers for the regularisers, one column per group"}}, "tags": ["hide-input"]}
DECAYED = [f"DA, weight decay {d:g}" for d in WEIGHT_DECAYS]
figure, axes = plt.subplots(2, len(settings.groups), figsize=(8, 5.2), squeeze=False, sharey="row")
for column, name in zip(axes.T, settings.groups):
    column[0].set_title(GROUP_NAMES[name])
    values, decayed = means.xs(name, level="group"), METHOD_STYLES["DA"]
    for axis, metric in zip(column, ("accuracy", "SI")):
        line = values[["DA", *DECAYED]]
        axis.semilogx(
            line.loc["sigma_max"],
            line.loc[metric],
            decayed.line,
            marker=decayed.marker,
            color=decayed.colour,
            label="DA with weight decay",
        )
        for decay, point in zip((0, *WEIGHT_DECAYS), line):
            axis.annotate(
                f"{decay:g}",
                line.loc[["sigma_max", metric], point],
                textcoords="offset points",
                xytext=(4, 5),
                fontsize="small",
            )
        for form, style in FORMS.items():
            point = values[f"IR, {form}"]
            look = dict(color=style.colour, ms=8, label=form)
            axis.plot(point.sigma_max, point[metric], style.marker, **look)
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter("")
    column[1].set_xlabel(r"$\sigma_{\max}(J)$")
axes[0, 0].set_ylabel("accuracy (%)")
axes[1, 0].set_ylabel("SI")
handles = axes[0, 0].get_legend_handles_labels()
legend = figure.legend(*handles, loc="outside lower center", ncols=4)


# %% {"tags": ["hide-input"]}
def likeness(name):
    values = means.xs(name, level="group")
    ir, sigma = values["IR, logit"], values.loc["sigma_max"]
    nearest = values[(sigma[["DA", *DECAYED]] - ir.sigma_max).abs().idxmin()]
    kept = [m for m in DECAYED if values[m].accuracy >= values.DA.accuracy - 0.5]
    text = (
        f"- **{GROUP_NAMES[name]}.** The point of the line whose σ_max is nearest to that of the logit error "
        f"({nearest.sigma_max:.1f} and {ir.sigma_max:.1f}) is “{nearest.name}”: {nearest.accuracy:.1f} % accuracy at SI "
        f"{nearest.SI:.2f}, against {ir.accuracy:.1f} % at {ir.SI:.2f} for the penalty."
        + (
            " That is not near enough to compare the two."
            if max(nearest.sigma_max / ir.sigma_max, ir.sigma_max / nearest.sigma_max) > 1.3
            else ""
        )
    )
    if kept:
        free = values[sigma[kept].idxmin()]
        text += (
            f" And “{free.name}” takes σ_max from {values.DA.sigma_max:.1f} to {free.sigma_max:.1f} at "
            f"{free.accuracy:.1f} % accuracy, where DA has {values.DA.accuracy:.1f} %: so much sensitivity can go "
            f"at a cost of half a point at most, or none, and SI is then {free.SI:.2f} (DA: {values.DA.SI:.2f})."
        )
    return text


Markdown("\n".join(likeness(name) for name in settings.groups))

# %% [markdown]
# ## What you saw


# %% {"tags": ["hide-input"]}
def compared(name, metric):
    """The forms whose mean is below DA's, and those whose is not, at the nu that the sweep chose."""
    values = means.xs(name, level="group").loc[metric]
    below = [form for form in FORMS if values[f"IR, {form}"] < values.DA]
    return below, [form for form in FORMS if form not in below]


def found(name):
    missed = [form for form in FORMS if reached.SI[name, form].max() < TARGET]
    lines = [f"- **{GROUP_NAMES[name]}.** "]
    for metric, text in {
        "sigma_max": "The mean of σ_max is below that of DA",
        "sigma_max_over_scale": "The mean of σ_max over the logit scale is below that of DA",
        "accuracy": "The mean accuracy is below that of DA",
    }.items():
        below, above = compared(name, metric)
        lines.append(
            f"{text} for {', '.join(below) or 'no form'}"
            + (f", and not for {', '.join(above)}. " if above and below else ". ")
        )
    if missed:
        lines.append(
            f"In the sweep, on validation images, no ν brought {', '.join(missed)} to SI {TARGET}."
        )
    return "".join(lines)


Markdown("\n".join(found(name) for name in settings.groups))

# %% [markdown]
# About the proposition: it is true, and true at every $t$, but it bounds a number that one image and one $g$ hardly move.
# What lowers the spectrum is that *many* differences are driven to zero at once, and in a linear network that is all
# there is to invariance: the end of the flow *is* the weight-tied map, on the span of the data. A linear network cannot
# be invariant and keep the directions that the group moves; it has nothing else to give up.
#
# About the networks: those that are not linear have other ways, as the weight-tied network shows. It is invariant too,
# so its sensitivity tells what invariance as such demands:


# %% {"tags": ["hide-input"]}
def oracle(name):
    values = means.xs(name, level="group")
    share = (values.loc["sigma_max"] / values.DA.sigma_max).to_dict()
    per_scale = values.loc["sigma_max_over_scale"]
    text = f"- {name}: σ_max of WT is {share['WT']:.2f} of DA's; that of IR (logit) is {share['IR, logit']:.2f} of DA's. "
    if share["WT"] <= share["IR, logit"]:
        return text + "So invariance itself goes with a sensitivity as low as that of IR."
    text += (
        "So the low sensitivity of IR is not the price of invariance, but of this way to learn it."
    )
    if per_scale["IR, logit"] >= per_scale.DA:
        text += " And per unit of logit scale IR is no less sensitive than DA: what is low is the size of its logits."
    return text


Markdown("\n".join(oracle(name) for name in settings.groups))

# %% [markdown]
# And the start that the paper calls small? Here it is for networks, beside what training makes of it:


# %% {"tags": ["hide-input"]}
def from_start(name):
    sigmas = means.loc["sigma_max"].loc[name]
    return (
        f"- {name}: σ_max(J) is {sigmas.untrained:.2g} before training, with PyTorch's initialisation; DA ends at "
        f"{sigmas.DA:.2g}, IR (logit) at {sigmas['IR, logit']:.2g}."
    )


Markdown("\n".join(from_start(name) for name in settings.groups))
