"""Preparation against nnU-Net's own preprocessor, on made scans and on every shared one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from inference.card import Card, Channel, Earlier
from inference.errors import ScanError
from inference.grids.prepare import prepare
from inference.grids.view import View
from inference.scan import Grid, Scan
from tests.conftest import ROOT
from tests.inference.cards import make_card

STUDENT, TEACHER = (4.0, 1.2, 1.2), (2.5, 0.86, 0.86)
SPACINGS = [
    ((2.5, 0.78, 0.78), STUDENT),
    ((3.0, 3.0, 3.0), STUDENT),
    ((2.5, 0.78, 0.78), TEACHER),
    ((1.0, 1.0, 1.0), TEACHER),
    ((5.0, 0.57, 0.57), TEACHER),  # the scan is coarse along z
    ((0.8, 0.8, 5.0), TEACHER),  # and along x
    ((0.8, 0.8, 5.0), STUDENT),
    (STUDENT, STUDENT),
]


def nnunet(voxels: np.ndarray, spacing: tuple[float, ...], card: Any) -> tuple[np.ndarray, Any]:
    """(z, y, x) float32 and the bounding box, by nnU-Net's DefaultPreprocessor.run_case_npy."""
    data, box = nnunets(voxels[None], spacing, card)
    return data[0], box


def nnunets(
    image: np.ndarray, spacing: tuple[float, ...], card: Any, labels: np.ndarray | None = None, **changes: Any
) -> tuple[np.ndarray, Any]:
    """The same of (c, z, y, x), with changes of the plan's configuration.

    labels  (z, y, x), 0 to 2, of a cascade's earlier stage: two more channels
    """
    pytest.importorskip("nnunetv2")
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from training.plans import bare_plans

    plans = bare_plans("Dataset999_Test")
    plans["configurations"]["student"] |= {"spacing": list(card.spacing), **changes}
    every = plans["foreground_intensity_properties_per_channel"]
    plans["foreground_intensity_properties_per_channel"] = {str(index): every["0"] for index in range(len(image))}
    plans["transpose_forward"] = list(card.axes)
    plans["transpose_backward"] = [card.axes.index(axis) for axis in range(3)]
    manager = PlansManager(plans)
    properties: dict[str, Any] = {"spacing": list(spacing)}
    before = None if labels is None else labels[None].astype(np.int16)
    described = {"labels": {"background": 0, "a": 1, "b": 2}}
    data, found, properties = DefaultPreprocessor(verbose=False).run_case_npy(
        image.astype(np.float32), before, properties, manager, manager.get_configuration("student"), described
    )
    if labels is not None:
        data = np.concatenate([data, found == 1, found == 2])
    return data, properties["bbox_used_for_cropping"]


SCHEMES = {
    "ct": "CTNormalization",
    "zscore": "ZScoreNormalization",
    "rescale01": "RescaleTo01Normalization",
    "rgb01": "RGBTo01Normalization",
    "none": "NoNormalization",
}


@pytest.mark.usefixtures("nnunet")
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("spacing", [(2.5, 0.78, 0.78), (0.8, 5.0, 0.8)])
def test_channels_are_normalised_as_nnunet_does(spacing: tuple[float, float, float], masked: bool) -> None:
    """A channel of each kind. They are 0 around the same part, and some in it: nnU-Net fills holes in what is not."""
    image = np.abs(textured((len(SCHEMES) * 22, 40, 34))).astype(np.float32).reshape(len(SCHEMES), 22, 40, 34)
    image *= np.array([1, 0.7, 3, 0.02, 1])[:, None, None, None]
    image[:, :2] = image[:, :, -3:] = image[:, 9:13, 15:20, 11:16] = 0
    image[:, 16:, :7] = 0  # a corner that is no hole
    assert image[3].max() <= 255
    usual = make_card(TEACHER, inputs=1)
    channels = [usual.channels[0], *(Channel(name, name, masked=masked) for name in list(SCHEMES)[1:])]
    channels = [replace(channel, masked=masked and channel.normalise == "zscore") for channel in channels]
    card = replace(usual, channels=tuple(channels))
    scan = Scan(tuple(image), Grid.of(image.shape[1:], spacing, "LPS"))
    volume = prepare(scan, View.of(scan, card), card, np)
    expected, _ = nnunets(
        image, spacing, card, normalization_schemes=list(SCHEMES.values()), use_mask_for_norm=[masked] * len(SCHEMES)
    )
    assert volume.shape == expected.shape
    for ours, theirs in zip(volume, expected, strict=True):
        assert np.abs(ours - theirs).max() < 1e-5 * max(np.abs(theirs).max(), 1)


@pytest.mark.usefixtures("nnunet")
def test_what_an_earlier_stage_labels_is_not_empty() -> None:
    """The mask of what counts for a mean has labels outside the patient too, and the rest is a label of its own."""
    image = np.abs(textured((22, 40, 34))) + 1
    image[:, :9] = image[:, :, 20:] = 0
    image[0, 0, 0] = image[-1, -1, -1] = 5  # nothing is cropped
    labels = np.random.default_rng(1).integers(0, 3, (11, 8, 17), np.uint8).repeat(2, 0).repeat(5, 1).repeat(2, 2)
    card = replace(make_card(TEACHER), channels=(Channel("MR", "zscore", masked=True),))
    card = replace(card, after=Earlier(card, (1, 2), 1, None))
    scan = Scan.of(image, (2.5, 1.1, 0.78), "LPS")
    volume = prepare(scan, View.of(scan, card), card, np, labels)
    expected, _ = nnunets(
        image[None], (2.5, 1.1, 0.78), card, labels,
        normalization_schemes=["ZScoreNormalization"], use_mask_for_norm=[True],
    )  # fmt: skip
    assert np.abs(volume[0] - expected[0]).max() < 1e-4
    assert (volume[1:] != expected[1:]).mean() < 1e-3


def test_values_that_are_no_rgb_are_refused() -> None:
    card = replace(make_card(), channels=(Channel("red", "rgb01"),))
    with pytest.raises(ScanError, match="channel red has values from -1 to 0: its network takes 0 to 255"):
        prepared(Scan.of(-np.eye(9, dtype=np.int16)[None].repeat(3, 0), (4.0, 1.2, 1.2), "LPS"), card)


def prepared(scan: Scan, card: Card) -> np.ndarray:
    (volume,) = prepare(scan, View.of(scan, card), card, np)
    return np.asarray(volume)


def textured(shape: tuple[int, int, int]) -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=shape)
    return np.rint(ndimage.gaussian_filter(noise, 1) * 800).astype(np.int16)


@pytest.mark.usefixtures("nnunet")
@pytest.mark.parametrize(("spacing", "new"), SPACINGS)
def test_equal_to_nnunet(spacing: tuple[float, float, float], new: tuple[float, float, float]) -> None:
    voxels = textured((20, 50, 44))
    voxels[:2] = 0  # a border of zeros, which nnU-Net crops
    voxels[:, -3:] = 0
    card = make_card(new)
    scan = Scan.of(voxels, spacing, "LPS")
    volume = prepared(scan, card)
    expected, box = nnunet(voxels, spacing, card)
    assert volume.shape == expected.shape
    assert np.abs(volume - expected).max() < 1e-5
    assert [[part.start, part.stop] for part in View.of(scan, card).crop] == [list(pair) for pair in box]


@pytest.mark.usefixtures("nnunet")
def test_equal_to_nnunet_on_transposed_axes() -> None:
    voxels = textured((24, 30, 36))
    card = make_card((3.0, 1.5, 1.5), axes=(2, 0, 1))
    volume = prepared(Scan.of(voxels, (1.2, 1.3, 4.0), "LPS"), card)
    expected, _ = nnunet(voxels, (1.2, 1.3, 4.0), card)
    assert volume.shape == expected.shape
    assert np.abs(volume - expected).max() < 1e-5


def equal_to_nnunet(path: Path, new: tuple[float, float, float]) -> None:
    """In the middle of a scan: as much as nnU-Net resamples in seconds."""
    image = nib.load(path)
    voxels = np.asarray(image.dataobj).T
    z, y, x = (slice(max(n // 2 - half, 0), n // 2 + half) for n, half in zip(voxels.shape, (24, 80, 80), strict=True))
    voxels = voxels[z, y, x]
    spacing = tuple(float(mm) for mm in image.header.get_zooms()[::-1])
    card = make_card(new)
    volume = prepared(Scan.of(voxels, (spacing[0], spacing[1], spacing[2]), "LPS"), card)
    expected, _ = nnunet(voxels, spacing, card)
    assert volume.shape == expected.shape
    assert np.abs(volume - expected).max() < 1e-3


@pytest.mark.usefixtures("nnunet")
@pytest.mark.slow
@pytest.mark.parametrize("new", [STUDENT, TEACHER], ids=["student", "teacher"])
def test_equal_to_nnunet_on_the_sample(new: tuple[float, float, float]) -> None:
    equal_to_nnunet(ROOT / "docs" / "sample" / "HCC_048_0000.nii.gz", new)


SCANS = [
    "labelled/ts_example",
    "labelled/ts_slab",
    "labelled/amos_0001",
    "unlabelled/HCC_006",
    "unlabelled/HCC_009",
    "unlabelled/ACRIN_001",
]


@pytest.mark.usefixtures("nnunet")
@pytest.mark.slow
@pytest.mark.parametrize("new", [STUDENT, TEACHER], ids=["student", "teacher"])
@pytest.mark.parametrize("name", SCANS)
def test_equal_to_nnunet_on_real_scans(name: str, new: tuple[float, float, float], shared_data: Path) -> None:
    equal_to_nnunet(shared_data / f"{name}_0000.nii.gz", new)


def test_any_orientation_gives_the_network_the_same_volume() -> None:
    voxels = textured((10, 20, 30))
    card = make_card(orientation="LPS")
    expected = prepared(Scan.of(voxels, (4.0, 1.5, 1.0), "LPS"), card)
    # The same patient stored as sagittal slices: x to the front, y to the feet, z to the right.
    stored = np.ascontiguousarray(voxels.transpose(2, 0, 1)[::-1, ::-1, ::-1])
    turned = prepared(Scan.of(stored, (1.0, 4.0, 1.5), "AIR"), card)
    np.testing.assert_allclose(turned, expected, atol=1e-6)


def test_a_scan_thinner_than_half_a_voxel_keeps_one_plane() -> None:
    volume = prepared(Scan.of(np.ones((1, 40, 40), np.int16), (1.0, 1.0, 1.0), "LPS"), make_card())
    assert volume.shape[0] == 1
