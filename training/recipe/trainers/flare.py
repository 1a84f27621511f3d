"""nnU-Net trainers of the FLARE 2023 paper's student and teacher.

nnU-Net finds them by name where the environment has nnUNet_extTrainer=training/recipe/trainers:

    nnUNetv2_train DATASET student all -tr StudentTrainer

VISCERA_EPOCHS and VISCERA_ITERATIONS (an epoch's, 250) in the environment shorten a training.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

ELASTIC = 0.2  # share of the patches that are deformed; nnU-Net's own default is none


class StudentTrainer(nnUNetTrainer):  # type: ignore[misc]  # nnU-Net has no types
    """1500 epochs; brightness, gamma, rotation, scaling, elastic deformation (paper, section 3.2), no mirroring."""

    epochs = 1500
    left_out: tuple[type, ...] = (
        GaussianNoiseTransform,
        GaussianBlurTransform,
        ContrastTransform,
        SimulateLowResolutionTransform,
    )

    def __init__(
        self, plans: dict[str, Any], configuration: str, fold: int | str, dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008, nnU-Net's own signature, which it inspects
    ) -> None:  # fmt: skip
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = int(os.environ.get("VISCERA_EPOCHS", self.epochs))
        self.num_iterations_per_epoch = int(os.environ.get("VISCERA_ITERATIONS", 250))
        self.num_val_iterations_per_epoch = max(self.num_iterations_per_epoch // 5, 1)  # nnU-Net's proportion

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> Any:  # noqa: N802
        rotation, dummy, patch, _ = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        # Left and right organs have labels of their own, and nothing is mirrored at inference either.
        self.inference_allowed_mirroring_axes = None
        return rotation, dummy, patch, None

    @classmethod
    def get_training_transforms(cls, *args: Any, **kwargs: Any) -> Any:
        chain = nnUNetTrainer.get_training_transforms(*args, **kwargs)
        chain.transforms = [t for t in chain.transforms if not isinstance(_inner(t), cls.left_out)]
        for transform in chain.transforms:
            if isinstance(transform, SpatialTransform):
                transform.p_elastic_deform = ELASTIC
        return chain


class TeacherTrainer(StudentTrainer):
    """1000 epochs; the student's augmentation with Gaussian noise and simulated low resolution."""

    epochs = 1000
    left_out = (GaussianBlurTransform, ContrastTransform)


def _inner(transform: Any) -> Any:
    """What a RandomTransform applies, else the transform itself."""
    return transform.transform if isinstance(transform, RandomTransform) else transform
