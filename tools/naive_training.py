"""One DA run of the paper as a user would write it first: DataLoader, transforms, one network."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

try:
    from torchvision import transforms
except (
    RuntimeError
):  # its compiled operators are for another build of torch; transforms use none of them
    operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from torchvision import transforms


class RandomQuarterTurn:
    """One of the four rotations of R4, drawn anew at each look."""

    def __call__(self, image: Tensor) -> Tensor:
        return torch.rot90(image, int(torch.randint(4, ())), (-2, -1))


class Digits(Dataset):
    """Images `[n, 1, 28, 28]` from 0 to 1 and labels `[n]`; each look at an image transforms it."""

    def __init__(self, images: Tensor, labels: Tensor, transform: transforms.Compose) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(self.images[i]), int(self.labels[i])


def augmentation(mean: float, std: float) -> transforms.Compose:
    """Pad 28 to 36 pixels, normalise, turn."""
    return transforms.Compose(
        [transforms.Pad(4), transforms.Normalize(mean, std), RandomQuarterTurn()]
    )


def train_epoch(model: nn.Module, optimiser: torch.optim.Optimizer, batches: DataLoader) -> None:
    model.train()
    for images, labels in batches:
        optimiser.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimiser.step()


@torch.no_grad()
def validate(model: nn.Module, batches: DataLoader) -> float:
    """Share of images that are classified as their label."""
    model.eval()
    correct = total = 0
    for images, labels in batches:
        correct += (model(images).argmax(1) == labels).sum().item()
        total += len(labels)
    return correct / total


def train(model: nn.Module, training: Dataset, validation: Dataset, epochs: int) -> float:
    """The weights of the best epoch stay in the model; its validation accuracy comes back."""
    optimiser = torch.optim.Adam(model.parameters(), lr=8e-4)
    batches = DataLoader(training, batch_size=512, shuffle=True)
    validation_batches = DataLoader(validation, batch_size=512)
    best, best_weights = -1.0, {}
    for _ in range(epochs):
        train_epoch(model, optimiser, batches)
        accuracy = validate(model, validation_batches)
        if accuracy > best:
            best, best_weights = (
                accuracy,
                {name: value.clone() for name, value in model.state_dict().items()},
            )
    model.load_state_dict(best_weights)
    return best
