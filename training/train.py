"""Train the student: `python -m training.train RUN_FOLDER --minutes 95 --start weights.pt`.

The loop is lean on purpose: patches of several sizes are made on the fly in worker processes, AdamW in bf16, a
learning rate that falls with the time spent, an average of the weights as the result. A run that was killed goes
on where its last checkpoint stood when it is started again with the same folder.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from copy import deepcopy
from math import prod
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from inference.windows import gaussian
from training.labels import OUTPUTS
from training.losses import disagreement, partial_label_loss
from training.network import build_student, fold_norms, has_norms, read_state, with_outputs
from training.patch import SPACING, for_outputs
from training.plans import STUDENT_PATCH, coarser
from training.rounding import Rounding
from training.sources import Source, open_sources
from training.warp import Shape

Batch = list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]  # one (image, label, merge) a patch

# (patch (z, y, x), patches a step, share of the steps). Those above the plan's patch, up to whole planes, are for a
# network without norms: inference shows it windows as wide as the body.
# Never 16 planes deep: with 2 planes at the lowest stage, PyTorch 2.13's bfloat16 convolution on a CPU takes the
# gradient of its weights from memory that is not its own.
SIZES: list[tuple[Shape, int, float]] = [
    ((24, 112, 160), 2, 0.1),
    ((32, 128, 192), 1, 0.2),
    ((32, 240, 320), 1, 0.25),
    ((48, 208, 272), 1, 0.2),
    ((72, 160, 224), 1, 0.25),
]
DEEP = (32, 40, 48)  # planes of what is cut out of a larger patch, to be drawn to it
FOLDED_ON = 6  # batches by which norms are folded
EMA_STEPS = 250  # the averaged weights look back about as many steps


class Patches(IterableDataset[Batch]):
    """Endless batches; each worker draws from its own seeded stream."""

    def __init__(
        self, sources: list[tuple[Source, float]], outputs: str, seed: int, wide: bool, coarse: float = 1.0
    ) -> None:
        self.sources = sources
        self.outputs = outputs
        self.seed = seed
        self.sizes = [
            (coarser(shape, coarse), count, share)
            for shape, count, share in SIZES
            if wide or prod(shape) <= prod(STUDENT_PATCH)
        ]
        self.spacing = SPACING * [1, coarse, coarse]

    def __iter__(self) -> Iterator[Batch]:
        worker = torch.utils.data.get_worker_info()
        if worker:
            torch.set_num_threads(1)
        rng = np.random.default_rng([self.seed, worker.id if worker else 0])
        shares = [share for _, share in self.sources]
        often = np.array([share for *_, share in self.sizes])
        while True:
            shape, count, _ = self.sizes[rng.choice(len(often), p=often / often.sum())]
            picked = [self.sources[rng.choice(len(shares), p=shares)][0] for _ in range(count)]
            drawn = [for_outputs(source.render(rng, shape, self.spacing), self.outputs) for source in picked]
            yield [
                (
                    torch.from_numpy(patch.image)[None, None],
                    torch.from_numpy(patch.label)[None],
                    torch.from_numpy(patch.merge)[None],
                )
                for patch in drawn
            ]


def _norm_of_one(self: torch.nn.InstanceNorm3d, x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)


def for_single_patches(network: torch.nn.Module) -> None:
    """Make the instance norms of `network` batch norms, which are the same for a batch of one.

    PyTorch's instance norm leaves channels_last and every convolution behind it copies back: 30 % of a step.
    """
    for module in network.modules():
        if isinstance(module, torch.nn.InstanceNorm3d):
            module.forward = MethodType(_norm_of_one, module)  # type: ignore[method-assign]


def _some_images(sources: list[tuple[Source, float]], seed: int, coarse: float) -> list[torch.Tensor]:
    """What shows the ranges of activations: patches (1, 1, z, y, x) of all sources, as often as training takes them."""
    batches = iter(Patches(sources, "unified", seed, wide=False, coarse=coarse))
    return [image for _ in range(FOLDED_ON) for image, *_ in next(batches)]


def _cut(image: torch.Tensor, rng: np.random.Generator) -> tuple[Any, ...] | None:
    """Where in `image` (1, 1, z, y, x) a part is cut out, as wide as a patch; None where it is no larger."""
    planes = int(rng.choice(DEEP))
    room = [size - part for size, part in zip(image.shape[2:], (planes, *STUDENT_PATCH[1:]), strict=True)]
    if min(room) < 0 or max(room) == 0:
        return None
    starts = (int(rng.integers(free + 1)) for free in room)
    parts = zip(starts, (planes, *STUDENT_PATCH[1:]), strict=True)
    return (..., *(slice(start, start + part) for start, part in parts))


def learning_rate(peak: float, progress: float, step: int) -> float:
    """nnU-Net's polynomial decay over `progress` (0..1), after 30 steps of warming up."""
    return float(peak * max(1 - progress, 0.0) ** 0.9 * min(1.0, (step + 1) / 30))


def train(
    folder: Path,
    sources: list[tuple[Source, float]],
    *,
    outputs: str = "unified",
    minutes: float | None = None,
    steps: int | None = None,
    start: Path | None = None,
    peak: float = 8e-4,
    seed: int = 0,
    workers: int = 1,
    save_minutes: float = 5.0,
    plain: bool = False,
    rounded: bool = False,
    coarse: float = 1.0,
    balance: float = 0.0,
) -> Path:
    """Train for `minutes` of this run's own time, or for `steps`, and return the path of the averaged weights.

    outputs  those of the network, a key of labels.OUTPUTS
    plain    train the student without instance norms; those of `start` are folded first
    rounded  half of the passes are as int8 makes them; needs a `start` that has learned, since the ranges of
             activations are seen once, at the beginning
    coarse   how many times the plan's spacing in the plane; patches show as many mm in fewer voxels
    balance  that of the loss: a network from nothing finds no organ but the liver for long without it
    """
    if (minutes is None) == (steps is None):
        raise ValueError("a run has a budget of minutes or of steps")
    folder.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    state = with_outputs(read_state(start), len(OUTPUTS[outputs])) if start else None
    if state and plain and has_norms(state):
        state = fold_norms(state, _some_images(sources, seed, coarse))
    master = build_student(len(OUTPUTS[outputs]), norms=not plain).to(device)
    if state:
        master.load_state_dict(state)
    average = {key: value.detach().clone() for key, value in master.state_dict().items()}
    optimizer = torch.optim.AdamW(master.parameters(), lr=peak, weight_decay=1e-2)
    step, spent = 0, 0.0
    last = folder / "last.pt"
    if last.exists():
        saved: dict[str, Any] = torch.load(last, map_location=device, weights_only=True)
        master.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        average, step, spent = saved["average"], saved["step"], saved["minutes"]
    # All of the pass in bfloat16 with float32 weights beside it: on a CPU 3 times as fast as autocast, which goes
    # back and forth around every norm.
    network = deepcopy(master).bfloat16().to(memory_format=torch.channels_last_3d)
    for_single_patches(network)
    weights, working = list(master.parameters()), list(network.parameters())
    rounding = None
    if rounded:
        rounding = Rounding(network, [image.to(device).bfloat16() for image in _some_images(sources, seed, coarse)])
    drawn = Patches(sources, outputs, seed + step, plain, coarse)
    ahead = 8 if workers else None
    batches = iter(DataLoader(drawn, batch_size=None, num_workers=workers, prefetch_factor=ahead))
    result = folder / "average.pt"
    rng = np.random.default_rng([seed, step])

    def save() -> None:
        state = {
            "network": master.state_dict(),
            "optimizer": optimizer.state_dict(),
            "average": average,
            "step": step,
            "minutes": spent,
        }
        for path, content in ((last, state), (result, average)):
            torch.save(content, path.with_suffix(".tmp"))
            path.with_suffix(".tmp").replace(path)  # a kill while saving must not cost the run

    network.train()
    losses: list[float] = []
    aparts: list[float] = []
    saved_at = spent
    began = time.monotonic() - spent * 60
    while (progress := step / steps if steps else spent / (minutes or 1.0)) < 1:
        patches = next(batches)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(peak, progress, step)
        network.zero_grad()
        for patch in patches:
            image, label, merge = (part.to(device) for part in patch)
            if rounding:
                rounding.on = bool(rng.integers(2))
            logits = network(image.bfloat16().to(memory_format=torch.channels_last_3d))
            loss = partial_label_loss(logits, label, merge, balance) / len(patches)
            losses.append(float(loss.detach()) * len(patches))
            if plain and (cut := _cut(image, rng)):
                if rounding:  # wide windows in int8 are to give what patches give that are not rounded
                    rounding.on = not rounding.on
                # Windows of any size at inference are to give what nnU-Net's patches give, which it blends by a weight.
                part = image[cut].bfloat16().contiguous(memory_format=torch.channels_last_3d)
                z, y, x = part.shape[2:]
                importance = torch.from_numpy(gaussian((z, y, x))).to(device)
                apart = disagreement(network(part), logits[cut], importance)
                aparts.append(float(apart.detach()))
                loss = loss + apart / len(patches)
            loss.backward()  # type: ignore[no-untyped-call]
        for weight, worker in zip(weights, working, strict=True):
            weight.grad = None if worker.grad is None else worker.grad.float()
        torch.nn.utils.clip_grad_norm_(weights, 12.0)
        optimizer.step()
        with torch.no_grad():
            for weight, worker in zip(weights, working, strict=True):
                worker.copy_(weight)
        step += 1
        decay = min(1 - 1 / EMA_STEPS, step / (step + 10))
        for key, value in master.state_dict().items():
            average[key].lerp_(value, 1 - decay)
        spent = (time.monotonic() - began) / 60
        if step % 20 == 0:
            line = {"step": step, "minutes": round(spent, 2), "loss": round(float(np.mean(losses)), 4)}
            if aparts:
                line["disagreement"] = round(float(np.mean(aparts)), 4)
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            print(line, flush=True)
            losses.clear()
            aparts.clear()
        if spent - saved_at > save_minutes:
            save()
            saved_at = spent
    save()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--start", type=Path, help="state dict or folder of exported weights to start from")
    parser.add_argument("--outputs", choices=sorted(OUTPUTS), default="unified")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--synthetic", type=float, default=0.55, help="share of synthetic patches")
    parser.add_argument("--pseudo", type=float, default=0.15, help="share of patches with pseudo-labels")
    parser.add_argument("--labels", type=Path, help="folder with pseudo-labels X.nii.gz of the unlabelled scans")
    parser.add_argument("--without", nargs="*", default=[], help="names of scans and label maps to hold out")
    parser.add_argument("--peak", type=float, default=8e-4, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plain", action="store_true", help="without instance norms: those of --start are folded")
    parser.add_argument("--rounded", action="store_true", help="with half of the passes as int8 makes them")
    parser.add_argument("--coarse", type=float, default=1.0, help="voxels so many times as large in the plane")
    parser.add_argument("--balance", type=float, default=0.0, help="how much small classes count: 0 by voxels, 1 alike")
    arguments = parser.parse_args()
    train(
        arguments.folder,
        open_sources(arguments.data, arguments.synthetic, arguments.pseudo, arguments.labels, arguments.without),
        outputs=arguments.outputs,
        minutes=arguments.minutes,
        start=arguments.start,
        peak=arguments.peak,
        seed=arguments.seed,
        plain=arguments.plain,
        rounded=arguments.rounded,
        coarse=arguments.coarse,
        balance=arguments.balance,
    )


if __name__ == "__main__":
    main()
