"""What the paper looks at beside accuracy: the size of the weights, what the representation holds, how sure the model is (ACT, sections 4.6 to 4.8)."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from actkit.config.registry import Model, register
from actkit.datasets import Data
from actkit.errors import ActkitError, InputError, raise_first
from actkit.losses import cross_entropy
from actkit.noise import Noise, seed_for
from actkit.probes.pictures import OWN, Picture
from actkit.probes.protocols import Examples, settings_problems
from actkit.probes.result import Column, Progress, Result, share


@register("probe")
def norms(model: Model, data: Data) -> Result:
    """Frobenius norms of the weights of every learnable layer (ACT, section 4.6, Figure 3 left).

    Of convolutions and fully connected layers, in the order of the network, by their names in it; biases and BatchNorm are left out. `total` is
    the norm of all of them together, `mean` their mean. It looks at no data.
    """
    found = {
        f"layer {name}" if name in ("total", "mean") else name or type(module).__name__: float(
            weight.detach().double().norm()
        )
        for name, module in model.model.named_modules()
        # A parametrised layer (weight norm) computes its weight, so that it is no parameter itself; what is fitted inside it is no layer.
        if isinstance(weight := getattr(module, "weight", None), Tensor)
        and weight.dim() > 1
        and "parametrizations" not in name.split(".")
    }
    if not found:
        raise ActkitError("the model has no layer with a weight matrix")
    values = torch.tensor(list(found.values()), dtype=torch.float64)
    numbers = {"total": float(values.norm()), "mean": float(values.mean()), **found}
    return Result(
        numbers,
        columns=(Column("total", "weight norm", percent=False), Column("mean", "mean over layers", percent=False)),
        pictures=(
            Picture(
                "norms",
                "bars",
                "Frobenius norm of the weights of each layer",
                {"groups": list(found), "series": {OWN: {"y": list(found.values())}}, "y_label": "Frobenius norm"},
            ),
        ),
    )


@register("probe", check=settings_problems)
def entropy(
    model: Model,
    data: Data,
    *,
    split: str = "train",
    limit: int | None = None,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> Result:
    """Mean entropy of the posterior over a split, in nats (ACT, section 4.8, Figure 4): 0 is certainty, log(classes) knows nothing.

    The posterior is the softmax of the logits, in eval mode, of the images without augmentation.
    """
    examples = Examples(data, split, limit=limit, batch_size=batch_size, device=model.device)
    with model.frozen("eval") as g:

        def measure(x: Tensor, y: Tensor, ids: Tensor) -> Tensor:
            with torch.no_grad():
                return torch.special.entr(g(x).double().softmax(1)).sum(1)

        found = examples.each("entropy", progress or Progress(), measure)
    if found.isnan().any():
        raise ActkitError("the model gives NaN; no result is reported")
    return Result(
        {"mean": float(found.mean()), "std": float(found.std(correction=0))},
        {"entropy": found.float()},
        (Column("mean", "entropy (nats)", percent=False),),
        pictures=(
            Picture(
                "entropy",
                "bars",
                f"Mean posterior entropy over {len(examples):,} {split} images",
                {"groups": [data.name], "series": {OWN: {"y": [float(found.mean())]}}, "y_label": "nats"},
            ),
        ),
    )


def compression_problems(
    *,
    hidden: list[int] | None,
    epochs: int,
    lr: float,
    draws: int,
    classes: int | None,
    limit: int | None,
    batch_size: int,
) -> Iterator[tuple[str, InputError]]:
    """What is wrong with the settings of the fit."""
    if hidden and min(hidden) < 1:
        yield "hidden", InputError(f"hidden layers need at least one neuron each, got {hidden}")
    if epochs < 1:
        yield "epochs", InputError(f"a fit needs at least 1 epoch, got {epochs}")
    if draws < 1:
        yield "draws", InputError(f"labels are drawn at least 1 time, got {draws}")
    if not lr > 0:
        yield "lr", InputError(f"the learning rate must be positive, got {lr}")
    if classes is not None and classes < 1:
        yield "classes", InputError(f"at least one class must be kept, got {classes}")
    yield from settings_problems(limit=limit, batch_size=batch_size)


@register("probe", check=compression_problems)
def compression(
    model: Model,
    data: Data,
    *,
    hidden: list[int] | None = None,
    epochs: int = 100,
    lr: float = 1e-3,
    draws: int = 5,
    classes: int | None = 2,
    standardise: bool = False,
    split: str = "train",
    limit: int | None = None,
    batch_size: int = 128,
    seed: int = 0,
    progress: Progress | None = None,
) -> Result:
    """How well random binary labels can be fitted from the frozen representation (ACT, section 4.7, Figure 3 right): less is more compressed.

    An MLP of 400 and 200 neurons (`hidden`) is fitted to labels that a coin gave each image once, from what enters the model's last layer, by Adam at
    a constant rate. How well one draw of labels can be fitted says little: this is done for several `draws`, the same ones for every model. `accuracy`
    is the mean over them of the last epoch's, on the very images fitted, and `std` the deviation of the sample; `epoch N` are the means on the way.
    `chance` is where a constant answer stands, the mean share of the commoner label: on few images it lies above one half.

    The paper says neither which images nor how many draws nor how long nor by which optimizer; the released code keeps a subset of CIFAR-10's first two
    classes for it, so `classes` = 2 here; None keeps all. A representation of larger numbers is fitted faster; `standardise` divides each feature by its
    deviation, so that scale does not count (the paper does not say that it did). Labels, first weights and order depend on `seed` alone.
    """
    raise_first(
        compression_problems(
            hidden=hidden, epochs=epochs, lr=lr, draws=draws, classes=classes, limit=limit, batch_size=batch_size
        )
    )
    examples = _of_first_classes(data, split, classes, limit, model.device)
    progress = progress or Progress()
    progress.expect(examples.count() + draws)
    features = _representations(model, examples, progress)
    if standardise:
        features = (features - features.mean(0)) / features.std(0, correction=0).clamp_min(1e-12)
    ids = examples.split.names(torch.arange(len(examples)))
    layers = [400, 200] if hidden is None else hidden
    fits, chances = [], []
    for draw in range(draws):
        # The first is the one of `seed` alone.
        key = (seed, draw) if draw else (seed,)
        coins = Noise(ids, *key).integers(2).to(model.device)
        chances.append(max(share(coins == side) for side in (0, 1)))
        fit = functools.partial(_fit, features, coins, layers, epochs, lr, batch_size, seed_for(*key) if draw else seed)
        fits.append(progress.part(f"fit {draw}", fit))
    by_epoch, correct = torch.stack(fits)[:, :epochs], torch.stack(fits)[:, epochs:].bool()
    return _compressed(by_epoch, correct, sum(chances) / draws, features.shape[1])


def _compressed(by_epoch: Tensor, correct: Tensor, chance: float, features: int) -> Result:
    """Of shape (draws, epochs) and (draws, n): the accuracy after each epoch, and who is right after the last."""
    draws, images = correct.shape
    last, mean = correct.double().mean(1), by_epoch.mean(0)
    spread = by_epoch.std(0) if draws > 1 else torch.zeros_like(mean)
    numbers = {
        "accuracy": share(correct),
        "std": float(last.std()) if draws > 1 else float("nan"),
        "chance": chance,
        "draws": float(draws),
        "images": float(images),
        "features": float(features),
    }
    numbers |= {f"epoch {i + 1}": float(value) for i, value in enumerate(mean)}
    columns = [Column("accuracy", "fits random labels")]
    if draws > 1:
        columns.append(Column("std", f"its deviation over {draws} draws"))
    picture = Picture(
        "compression",
        "lines",
        f"Fitting random labels to {images:,} frozen representations",
        {
            "series": {
                OWN: {
                    "x": list(range(1, len(mean) + 1)),
                    "y": mean.tolist(),
                    "low": (mean - spread).tolist(),
                    "high": (mean + spread).tolist(),
                }
            },
            "x_label": "epoch",
            "y_label": "accuracy",
            "percent": True,
            "levels": [{"value": chance, "text": f"a constant answer ({100 * chance:.1f} %)"}],
        },
        f"The mean over {draws} draws of labels. The band is their deviation, or, where several seeds are shown, that of the seeds."
        if draws > 1
        else "",
    )
    return Result(numbers, {"correct": correct}, tuple(columns), pictures=(picture,))


def _of_first_classes(data: Data, split: str, classes: int | None, limit: int | None, device: torch.device) -> Examples:
    """The examples of the first `classes` classes, None for all, in batches of 256."""
    images = data.split(split).plain()
    if classes is not None and classes < data.num_classes:
        kept = (images.labels < classes).nonzero()[:, 0]
        if not len(kept):
            raise InputError(f"{data.name} has no {split} images of its first {classes} classes")
        images = images.take(kept)
    part = Data(data.name, data.shape, data.classes, {split: len(images)}, lambda name: images)
    return Examples(part, split, limit=limit, batch_size=256, device=device)


def _representations(model: Model, examples: Examples, progress: Progress) -> Tensor:
    """What enters the model's last layer, of shape (n, features), on the model's device."""
    with model.representation() as representation:

        def compute(x: Tensor, y: Tensor, ids: Tensor) -> Tensor:
            # The examples are the last dimension.
            with torch.no_grad():
                return representation(x).T

        features = examples.each("features", progress, compute, announced=True).T.to(model.device)
    if not features.isfinite().all():
        raise ActkitError("the representation is not finite; no result is reported")
    return features


def _fit(x: Tensor, y: Tensor, hidden: list[int], epochs: int, lr: float, batch_size: int, seed: int) -> Tensor:
    """The accuracy after every epoch, and then who is right after the last, in one row."""
    with torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []):
        torch.manual_seed(seed)
        sizes = [x.shape[1], *hidden, 2]
        layers = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())][:-1]
        mlp = nn.Sequential(*layers).to(x.device)
        optimizer = torch.optim.Adam(mlp.parameters(), lr)
        by_epoch = []
        for _ in range(epochs):
            for places in torch.randperm(len(x)).split(batch_size):
                loss = cross_entropy(mlp(x[places.to(x.device)]), y[places.to(x.device)]).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            with torch.no_grad():
                logits = mlp(x)
                correct = logits.argmax(1) == y
            if not logits.isfinite().all():
                raise ActkitError(
                    "the fit of random labels diverged; no result is reported",
                    help="lower the probe's lr, or set standardise = True",
                )
            by_epoch.append(correct.double().mean())
    return torch.cat([torch.stack(by_epoch), correct.double()])
