"""The card: what a network expects and what its outputs mean. Inference holds no constant of any model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import inf
from pathlib import Path

from .errors import WeightsError
from .options import Way

HEAD_FILE = "head.npy"
WEIGHTS_FILE = "weights.bin"  # what the graphs of a network share if float16 holds its weights exactly
# Where the weights of one graph lie beside it, too large to be inside.
OWN_WEIGHTS = {"model.onnx": "model.bin", "model_f16.onnx": "model_f16.bin"}
# The files of a network for each precision of its arithmetic, the graph first; bf16 is made from f32.
FORMS = {"f32": ("model.onnx",), "f16": ("model_f16.onnx",), "int8": ("model_int8.xml", "model_int8.bin")}


@dataclass(frozen=True)
class Label:
    """One output channel.

    value      what it writes into the label map
    one_piece  whether it is an organ, all of which lies together
    hosts      values of the labels in which it grows, if it is a tumour that does nowhere else
    """

    value: int
    name: str
    one_piece: bool = False
    hosts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Largest:
    """Labels of which, taken together, the largest piece alone is kept: nnU-Net v1's postprocessing.

    values  of the label map
    below   mm3; only pieces smaller than this go. None: all but the largest
    """

    values: tuple[int, ...]
    below: float | None = None


@dataclass(frozen=True)
class Channel:
    """One input channel. Its voxels are clipped, `mean` is subtracted and the rest divided by `std`.

    name       such as "CT"
    normalise  where these numbers come from, of NORMALISE
    clip       HU, lower and upper bound (0.5 and 99.5 percentile of the training foreground)
    mean, std  HU, of the z-score; where they are the scan's own, prepare.py finds them
    masked     "zscore" knows only what is not 0 in some channel, holes filled, and the rest stays 0
    """

    name: str
    normalise: str
    clip: tuple[float, float] = (-inf, inf)
    mean: float = 0.0
    std: float = 1.0
    masked: bool = False

    @property
    def is_ct(self) -> bool:
        """Whether its voxels are HU."""
        return self.normalise == "ct"

    def of(self, hu: float) -> float:
        """What the network sees where the image has a value."""
        return (hu - self.mean) / self.std


@dataclass(frozen=True)
class Resize:
    """How something changes its grid, as nnU-Net does it.

    order             of the spline
    order_z           of the spline along an axis that is resampled on its own
    force_separate_z  the plan's rule for such a coarse axis; None: by the ratio of spacings
    method            of METHODS
    """

    order: int
    order_z: int = 0
    force_separate_z: bool | None = None
    method: str = "spline"


@dataclass(frozen=True)
class Resample:
    """How images come to the network's spacing, and logits back to the scan's.

    version  of nnU-Net whose steps these are: 2 normalises an image before it is resampled, 1 after. They differ in the
             coarse axis on the way back too
    """

    image: Resize
    logits: Resize
    version: int = 2


@dataclass(frozen=True)
class Earlier:
    """The network whose label map is an input of a later one, as in nnU-Net's cascade.

    card              of the earlier network
    values            of its label map: each is one more input channel, 1 where the map has it, after those of the image
    order             how the map comes to the later one's spacing: 0, the nearest label; 1, the one with most weight
                      among the neighbours
    force_separate_z  the plan's rule for a coarse axis, which takes the nearest; None: by the ratio of spacings
    method            of METHODS: what equal weights are, and which of such labels is taken
    """

    card: Card
    values: tuple[int, ...]
    order: int
    force_separate_z: bool | None
    method: str = "spline"


@dataclass(frozen=True)
class Guide:
    """A network that finds first, and roughly, the organs near which all of another's labels lie.

    card    of the guide, which lies in the other's folder and is called "NAME/guide"
    values  of its label map: those organs
    """

    card: Card
    values: tuple[int, ...]


MOST_IN_HALF = 640  # sums of float16 that are held for a voxel: of five folds of 128 labels


@dataclass(frozen=True)
class Card:
    """What one exported network expects. Axes are (z, y, x) after `axes` was applied.

    name              of the network, such as "organ"
    folder            where card.json and the model files lie
    files             file name -> sha256, of every model file that the exporter wrote
    forms             precision -> the graph and what belongs to it, of `files`
    orientation       of the scans it was trained on, letters as in scan.Grid; None: as each file stores them
    axes              the plan's transpose_forward: network axis i is array axis axes[i]
    spacing           mm, at which the network sees a scan; the first is None for a network of single planes (2D), which
                      sees them as far apart as they are
    patch             voxels of one window
    window_multiple   any multiple of it, in voxels, may be a window: the network has no instance norm, and what it
                      says of a voxel depends on its surroundings alone. None: every window is a patch
    mirror_axes       of a window, 0 to 2, along which it may be mirrored (test-time augmentation); None: none is known
    channels          one an input channel
    resample          how images come to `spacing`, and logits back
    head              file of the last layer, where the graphs end before it: see grids.decode. None: they do not
    decode            what logits mean, of DECODE: "argmax", one of all labels; "regions", later labels over earlier
    labels            one an output channel; with argmax the first is background
    largest           what of the labels is kept, in this order
    way               the name of the way of windows that it was made for: "dense" unless it says otherwise
    step              distance of windows as a share of the patch
    precision         what "auto" takes where engine and processor have it; None: the first choice of the engine
    activations       numbers that the network holds at once for a voxel of a window, at most, counted in its graph;
                      None: nobody has counted
    trained_on        a sentence for people: data, iterations, known weakness
    folds             networks whose logits are averaged in this one
    after             the network that has to run before, if its label map is an input
    guide             the network that shows where to look, where one was put into its folder
    digest            sha256 of card.json, which holds those of the model files
    """

    name: str
    folder: Path
    files: dict[str, str]
    forms: dict[str, tuple[str, ...]]
    orientation: str | None
    axes: tuple[int, int, int]
    spacing: tuple[float | None, float, float]
    patch: tuple[int, int, int]
    window_multiple: tuple[int, int, int] | None
    mirror_axes: tuple[int, ...] | None
    channels: tuple[Channel, ...]
    resample: Resample
    head: str | None
    decode: str
    labels: tuple[Label, ...]
    largest: tuple[Largest, ...]
    way: str
    step: float
    precision: str | None
    activations: float | None
    trained_on: str
    folds: int
    after: Earlier | None
    guide: Guide | None
    digest: str

    def spacing_for(self, own: tuple[float, float, float]) -> tuple[float, float, float]:
        """`spacing` for a scan with voxels of its own spacing, both mm in the network's axes."""
        return (own[0] if self.spacing[0] is None else self.spacing[0], *self.spacing[1:])

    def wide_multiple(self, way: Way) -> tuple[int, int, int] | None:
        """`window_multiple` where a way lays windows as wide as what is looked at; None where they are patches."""
        return self.window_multiple if way.wide else None

    def lays_patches(self, way: Way) -> bool:
        """Whether a way lays the windows that nnU-Net does, of those that it does not leave out."""
        return not way.boxed and not self.wide_multiple(way)

    @property
    def in_half(self) -> bool:
        """Whether in float32 its windows are added up in float16, as nnU-Net 2 does: those of each fold by itself.

        nnU-Net 1 has float32; and memory would grow with the labels.
        """
        return self.resample.version == 2 and self.folds * len(self.labels) <= MOST_IN_HALF

    def apart(self, precision: str) -> bool:
        """Whether answers have the logits of all folds side by side, (b, folds * k, z, y, x), not their mean."""
        return precision == "f32" and self.in_half and self.folds > 1

    @property
    def inputs(self) -> int:
        """Input channels of the network: those of the image, and one for each label of an earlier network."""
        return len(self.channels) + (len(self.after.values) if self.after else 0)

    @property
    def names(self) -> dict[int, str]:
        """Value in the label map -> name, background left out."""
        return {label.value: label.name for label in self.labels if label.value}

    def form(self, precision: str) -> Path:
        """Path of the graph for a precision, a key of FORMS, after the digests of all its files were found right.

        Raises WeightsError as `file` does.
        """
        graph, *_ = [self.file(name) for name in self.forms.get(precision, FORMS[precision])]
        return graph

    def file(self, name: str) -> Path:
        """Path of a model file after its digest was found right.

        Raises WeightsError where the exporter did not write it, it is missing, or its bytes changed.
        """
        if name not in self.files:
            raise WeightsError(f"network {self.name} was exported without {name}: export it again")
        path = self.folder / name
        try:
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise WeightsError(f"{path} cannot be read: {error.strerror}") from error
        if digest != self.files[name]:
            raise WeightsError(f"{path} is damaged: its sha256 is {digest}, the card says {self.files[name]}")
        return path
