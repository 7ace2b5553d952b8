"""What `ginv.measure` computes over R4, written plainly: captum, and Equations 1 to 3 by pairs."""

import pandas as pd
import torch
import torch.nn.functional as F
from captum.attr import IntegratedGradients
from torch import Tensor, nn


def turn(x: Tensor, g: int) -> Tensor:
    return torch.rot90(x, g, (-2, -1))


def saliency(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Absolute attributions, those below 0.9 of the largest 0, smoothed: `[n, 1, H, W]`."""
    attributions = IntegratedGradients(model).attribute(images, target=labels, n_steps=50).abs()
    attributions[attributions < 0.9 * attributions.amax((1, 2, 3), keepdim=True)] = 0
    gaussian = torch.exp(-torch.tensor([1.0, 0.0, 1.0]) / 2)
    kernel = torch.outer(gaussian, gaussian)
    padded = F.pad(attributions, (1, 1, 1, 1), mode="circular")
    return F.conv2d(padded, (kernel / kernel.sum())[None, None])


def measure_batch(model: nn.Module, images: Tensor, labels: Tensor) -> pd.DataFrame:
    orbit = [turn(images, g) for g in range(4)]
    with torch.no_grad():
        logits = [model(x) for x in orbit]
    maps = [turn(saliency(model, x, labels), -g).flatten(1) for g, x in enumerate(orbit)]
    logs = [f.log_softmax(1) for f in logits]
    centred = [f - f.mean(1, keepdim=True) for f in logits]
    size = sum(f.square().sum(1) for f in centred) / 4
    mean = sum(log.exp() for log in logs) / 4
    sums = dict.fromkeys(
        ["accuracy", "LI", "DI", "SI", "relative_LI", "JS", "flip_rate"], torch.zeros(len(images))
    )
    for g in range(4):
        sums["accuracy"] = sums["accuracy"] + 4 * 100 * (logits[g].argmax(1) == labels)
        sums["JS"] = sums["JS"] + 4 * F.kl_div(
            mean.log(), logs[g], reduction="none", log_target=True
        ).sum(1)
        for h in range(4):
            sums["LI"] = sums["LI"] + (logits[g] - logits[h]).square().sum(1) / 2
            sums["DI"] = sums["DI"] + F.kl_div(
                logs[h], logs[g], reduction="none", log_target=True
            ).sum(1)
            sums["SI"] = sums["SI"] + F.cosine_similarity(maps[g], maps[h])
            sums["relative_LI"] = (
                sums["relative_LI"] + (centred[g] - centred[h]).square().sum(1) / 2 / size
            )
            sums["flip_rate"] = sums["flip_rate"] + (logits[g].argmax(1) != logits[h].argmax(1))
    means = {name: (total / 16).numpy() for name, total in sums.items()}
    return pd.DataFrame({"label": labels.numpy(), **means, "logit_norm": size.sqrt().numpy()})


def measure(
    model: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 256
) -> pd.DataFrame:
    """A row per image `[n, 1, H, W]`."""
    batches = zip(images.split(batch_size), labels.split(batch_size), strict=True)
    return pd.concat([measure_batch(model, *batch) for batch in batches], ignore_index=True)
