"""Train a student: `python -m training.train PACKED OUT --minutes 9 --from bn.pt`

PACKED is a folder that training.pack made. Volumes, augmentation and network all live on the device: a GPU if there
is one, else the processor. Needs PyTorch and NumPy alone.

OUT gets, every 100 s, `plain.pt` (the network without norms, for training.export), `bn.pt` (with batch norms, for
--from) and `last.pt` (all that a run needs to go on, so that the same command after a kill does), and at the end
`val.json`, Dice of the validation scans at the network's own voxels.

The norms are batch norms. After 0.55 of the run their statistics are taken anew and frozen, so that they fold exactly
into the convolutions: the network's answer then does not depend on what else is in the window. On one H100 a step of
3.5 million voxels takes 43 ms, on two Zen 4 cores 6 s.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inference.machine import computes
from inference.windows.patches import gaussian
from training.ahead import BATCHES, Ahead, Batch
from training.augment import Patches, Volume
from training.chance import Chance
from training.labels import OUTPUTS, RARE
from training.losses import deep_loss, disagreement
from training.optimizers import optimizers, set_rate
from training.packed import SPEC, Spec, packed_file, read_packed, read_spec
from training.plans import STUDENTS
from training.settings import Settings, Shape, Size
from training.unet import DEEP, State, UNet, folded, read_tensors, unfold
from training.validation import validate

CHANNELS = len(OUTPUTS["unified"])
DECAY = 0.998  # of the averaged weights: they look back about 500 steps
HEAD_STEPS, HEAD_RATE = 60, 1e-2  # in which heads that are zero learn, before anything else does
LESIONS = (0.3, 0.25)  # share of patches with lesions put in, before and after the freeze
LOG_SECONDS = 20.0
LAID = torch.channels_last_3d  # the order in memory in which convolutions are fastest: a step takes 43 ms, not 81


class Trainer:
    """A run in the folder `out`, which goes on from what an earlier one left there."""

    def __init__(self, settings: Settings, early: Patches, late: Patches, out: Path, device: torch.device) -> None:
        self.settings, self.out, self.device = settings, out, device
        self._early, self._late = early, late
        torch.manual_seed(settings.seed)
        self.network = UNet(settings.student, CHANNELS).to(device)
        self.network.to(memory_format=LAID)  # type: ignore[call-overload]
        self.optimizers = optimizers(self.network, settings.learning_rate)
        self.weight = torch.ones(CHANNELS, device=device)
        self.weight[list(RARE)] = torch.tensor(list(RARE.values()), device=device)
        self.steps, self.frozen, self._spent = 0, False, 0.0
        self._average_from_here()
        if (out / "last.pt").exists():
            self._load(out / "last.pt")
        self.network.train()
        self._keep_frozen()
        self.ahead = Ahead(self.draw, device, BATCHES if device.type == "cuda" else 0)  # else for nothing
        self._began = time.monotonic()

    def start_from(self, path: Path) -> None:
        """Take the weights of an earlier run's bn.pt; or of a plain.pt, or the checkpoint that inference.export.back
        makes of an exported network, whose norms and coarser heads are then made anew. Raises ValueError if they are
        not this student's.
        """
        stored = read_tensors(path, self.device)
        own = dict(_numbers(self.network))
        without = folded(own)
        if "network_weights" in stored:  # a checkpoint names each weight several times
            stored = {name: value for name, value in stored["network_weights"].items() if name in without}
        given = {(name, getattr(value, "shape", None)) for name, value in stored.items()}
        if given == _shapes(without):
            batches = (self._for_norms(number) for number in range(self.settings.norm_batches))
            unfold(self.network, stored, batches)
            self._teach_heads()
            self.network.train()
        elif odd := sorted(name for name, _ in _shapes(own) ^ given):
            raise ValueError(f"{path} is not the bn.pt of this student: {odd[0]} is missing or has another shape")
        else:
            self.network.load_state_dict(stored, strict=False)
        self._average_from_here()

    def run(self) -> None:
        """Train to the end of the budget. Raises ValueError if the loss is no longer finite."""
        try:
            self._run()
        finally:
            self.ahead.close()

    def _run(self) -> None:
        saved = logged = time.monotonic()
        losses: list[Tensor] = []
        while self.progress() < 1:
            losses.append(self.step())
            due = time.monotonic() - saved > self.settings.save_seconds
            if due or time.monotonic() - logged > LOG_SECONDS:
                self._log(losses)  # before saving: it stops a run whose weights are lost
                logged = time.monotonic()
            if due:
                self.save()
                saved = time.monotonic()
        if losses:
            self._log(losses)
        self.save()

    def progress(self) -> float:
        """0..1: of the budget."""
        if self.settings.steps is not None:
            return self.steps / self.settings.steps
        assert self.settings.minutes is not None
        return self.seconds() / (60 * self.settings.minutes)

    def seconds(self) -> float:
        return self._spent + time.monotonic() - self._began

    def step(self) -> Tensor:
        """One step of the optimizers; the loss, on the device. Its random numbers follow from the seed and its number,
        so that a run that was cut off goes on as if it had not been."""
        progress = self.progress()
        if not self.frozen and progress > self.settings.freeze:
            self._freeze()
        batch = self.ahead.take(self.steps, self.frozen)
        rng = batch.chance.rng
        with self._autocast():
            outputs = self.network(_laid(batch.image), DEEP)
        loss = deep_loss(outputs, batch.label, self.weight)
        if self.frozen and rng.random() < self.settings.consistency:
            loss = loss + self._disagreement(rng, batch.image, outputs[0])
        set_rate(self.optimizers, self.settings.rate(progress, self.steps))
        self.network.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.steps += 1
        with torch.no_grad():
            decay = min(DECAY, self.steps / (self.steps + 20))
            numbers = dict(_numbers(self.network))
            torch._foreach_lerp_([self.average[name] for name in numbers], list(numbers.values()), 1 - decay)
        return loss.detach()

    def draw(self, step: int, late: bool) -> Batch:
        """What a step is trained on. Changes nothing here, so that any thread may call it."""
        chance = Chance.seeded(self.device, self.settings.seed, step)
        size = self._size(chance.rng, "late" if late else "early")
        patches = self._late if late else self._early
        return Batch(chance, *patches.batch(chance, self.settings.shape(size), size.count))

    def save(self) -> None:
        """Write plain.pt, bn.pt and last.pt, each whole or not at all."""
        average = {name: value.float().cpu() for name, value in self.average.items()}
        _write(self.out / "plain.pt", _half(folded(average)))
        _write(self.out / "bn.pt", _half(average))
        state = {
            "network": self.network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "average": self.average,
            "steps": self.steps,
            "seconds": self.seconds(),
            "frozen": self.frozen,
        }
        _write(self.out / "last.pt", state)

    def averaged(self) -> UNet:
        """The network with the averaged weights, for good."""
        self.network.load_state_dict(self.average, strict=False)
        return self.network.eval()

    def _load(self, path: Path) -> None:
        state = read_tensors(path, self.device)
        try:
            self.network.load_state_dict(state["network"])
            for optimizer, stored in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(stored)
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"{path} is of another student's run: choose another folder") from error
        self.average = state["average"]
        self.steps, self.frozen, self._spent = state["steps"], state["frozen"], state["seconds"]
        print(f"goes on at step {self.steps}, after {self._spent:.0f} s", flush=True)

    def _freeze(self) -> None:
        """Take the norms' statistics anew, as a plain mean over many batches, and keep them; change to late patches."""
        norms = self.network.norms()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        with torch.no_grad(), self._autocast():
            for number in range(self.settings.norm_batches):
                self.network(self._for_norms(number))
        self.frozen = True
        self._keep_frozen()
        self._average_from_here()
        print(f"norms frozen at step {self.steps}", flush=True)

    def _teach_heads(self) -> None:
        """Train those of deep supervision's heads that are zero, as an exported network's are, which has none.

        The rest stays as it is: heads that know nothing would tell it to forget.
        """
        heads = [head for head in self.network.decoder.heads(DEEP) if not head.weight.any()]
        if not heads:
            return
        values = [value for head in heads for value in head.parameters()]
        optimizer = torch.optim.Adam(values, HEAD_RATE)
        self.network.eval()
        for number in range(HEAD_STEPS):
            image, label = self._seen(number)
            with self._autocast():
                outputs = self.network(image, DEEP)
            gradients = torch.autograd.grad(deep_loss(outputs, label, self.weight), values)
            for value, gradient in zip(values, gradients, strict=True):
                value.grad = gradient
            optimizer.step()

    def _for_norms(self, number: int) -> Tensor:
        """A batch of images on which the norms' statistics are taken."""
        return self._seen(number)[0]

    def _seen(self, number: int) -> tuple[Tensor, Tensor]:
        """Images and labels of a batch that no step is trained on."""
        chance = Chance.seeded(self.device, self.settings.seed, self.steps, number)
        size = self._size(chance.rng, "norms")
        image, label = self._early.batch(chance, self.settings.shape(size), size.count)
        return _laid(image), label

    def _keep_frozen(self) -> None:
        if self.frozen:
            for norm in self.network.norms():
                norm.eval()
            self.weight = torch.ones_like(self.weight)

    def _average_from_here(self) -> None:
        self.average = {name: value.detach().clone() for name, value in _numbers(self.network)}

    def _size(self, rng: np.random.Generator, stage: str) -> Size:
        shares = np.array([getattr(size, stage) for size in self.settings.sizes])
        return self.settings.sizes[rng.choice(len(shares), p=shares / shares.sum())]

    def _disagreement(self, rng: np.random.Generator, image: Tensor, logits: Tensor) -> Tensor:
        """Of the network's answer to a part of `image`, anywhere in it, with that to the whole, by nnU-Net's weights
        of a window: nnU-Net's predictor and wide windows then say the same."""
        whole: Shape = (image.shape[2], image.shape[3], image.shape[4])
        part = self.settings.part(rng, whole)
        starts = [int(rng.integers(size - own + 1)) for size, own in zip(whole, part, strict=True)]
        cut: Any = (..., *(slice(start, start + own) for start, own in zip(starts, part, strict=True)))
        with self._autocast():
            inner = self.network(_laid(image[cut]))[0]
        return disagreement(inner, logits[cut], torch.from_numpy(gaussian(part)).to(self.device))

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.bfloat16)

    def _log(self, losses: list[Tensor]) -> None:
        """Print and keep the mean loss since the last line."""
        loss = float(torch.stack(losses).mean())
        losses.clear()
        line = {"step": self.steps, "s": round(self.seconds(), 1), "loss": round(loss, 4)}
        with (self.out / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        print(line, flush=True)
        if not math.isfinite(loss):
            raise ValueError(f"the loss at step {self.steps} is not finite: try a lower --learning-rate")


def computes_bfloat16(device: torch.device) -> bool:
    """Whether PyTorch computes in bfloat16 there: where it emulates it, a convolution takes 180 times as long."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return computes("bf16") and torch.backends.cpu.get_cpu_capability() == "AVX512"  # or held to less by its variable


def open_volumes(packed: Path, names: list[str], device: torch.device) -> list[Volume]:
    """Raises ValueError, naming them, if some of the scans are not in the folder."""
    if absent := [name for name in names if not packed_file(packed, name).is_file()]:
        raise ValueError(f"{packed} lacks {len(absent)} of {len(names)} scans, {absent[0]} among them: copy every part")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        read = pool.map(read_packed, [packed_file(packed, name) for name in names])
        return [Volume(one, device) for one in read]


def train(packed: Path, spec: Spec, out: Path, settings: Settings, device: torch.device, start: Path | None) -> None:
    """Train on the scans of `spec`, all in the folder `packed`, and score the validation scans.

    Raises ValueError if a scan is missing, `start` is another network's, or the loss is no longer finite.
    """
    out.mkdir(parents=True, exist_ok=True)
    opened = open_volumes(packed, [*spec.shares, *spec.validation], device)
    volumes, held_out = opened[: len(spec.shares)], opened[len(spec.shares) :]
    early, late = (
        Patches(volumes, [shares[volume.name] for volume in volumes], settings.voxels(), lesions)
        for shares, lesions in zip((spec.shares, spec.late), LESIONS, strict=True)
    )
    trainer = Trainer(settings, early, late, out, device)
    if start and not trainer.steps:
        trainer.start_from(start)
    print(f"{len(volumes)} scans on {device}", flush=True)
    trainer.run()
    scores = validate(trainer.averaged(), held_out, settings.voxels(), settings.blocks(), settings.bfloat16)
    (out / "val.json").write_text(json.dumps(scores) + "\n")
    for name, score in scores.items():
        print(f"{name}: mean DSC of the organs {score['organs']}")


def _numbers(network: UNet) -> list[tuple[str, Tensor]]:
    """Parameters and the norms' statistics: all but the norms' counts of batches."""
    return [(name, value) for name, value in network.state_dict().items() if value.is_floating_point()]


def _shapes(state: State) -> set[tuple[str, torch.Size]]:
    return {(name, value.shape) for name, value in state.items()}


def _laid(image: Tensor) -> Tensor:
    return image.contiguous(memory_format=LAID)


def _half(state: State) -> State:
    return {name: value.half().contiguous() for name, value in state.items()}


def _write(path: Path, content: dict[str, Any]) -> None:
    unfinished = path.with_suffix(".tmp")
    torch.save(content, unfinished)
    unfinished.replace(path)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packed", type=Path, help="folder of training.pack, the files of all parts in it")
    parser.add_argument("out", type=Path)
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--minutes", type=float)
    budget.add_argument("--steps", type=int)
    parser.add_argument(
        "--from",
        dest="start",
        type=Path,
        metavar="BN.PT",
        help="weights to begin with; plain.pt and checkpoints without norms do as well",
    )
    parser.add_argument("--spec", type=Path, help=f"default: {SPEC} in PACKED")
    names = sorted(name for name, student in STUDENTS.items() if not student.norms)
    parser.add_argument("--student", choices=names, default="near_isotropic")
    parser.add_argument("--spacing", type=float, nargs=3, metavar=("Z", "Y", "X"), help="mm, other than the student's")
    parser.add_argument("--learning-rate", type=float, default=Settings.learning_rate, help="the highest (%(default)s)")
    parser.add_argument("--consistency", type=float, default=0.0, metavar="SHARE",
                        help="of the late steps that draw a part of each patch to the whole (%(default)s)")  # fmt: skip
    parser.add_argument("--precision", choices=("auto", "bf16", "f32"), default="auto",
                        help="auto: bfloat16 where the device computes in it")  # fmt: skip
    parser.add_argument("--threads", type=int, help="of the processor; default: as many as it has cores")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    narrow = computes_bfloat16(device)
    asked = arguments.precision
    known = "the device computes in it" if narrow else "the device would only emulate bfloat16"
    why = known if asked == "auto" else "asked for"
    bfloat16 = asked == "bf16" or (asked == "auto" and narrow)
    print(f"trains in {'bfloat16' if bfloat16 else 'float32'}: {why}", flush=True)
    try:
        settings = Settings(
            minutes=arguments.minutes,
            steps=arguments.steps,
            student=STUDENTS[arguments.student],
            spacing=arguments.spacing and tuple(arguments.spacing),
            learning_rate=arguments.learning_rate,
            consistency=arguments.consistency,
            bfloat16=bfloat16,
            seed=arguments.seed,
        )
        spec = read_spec(arguments.spec or arguments.packed / SPEC)
        train(arguments.packed, spec, arguments.out, settings, device, arguments.start)
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
