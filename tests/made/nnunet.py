"""nnU-Net's own predictor, in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def nnunet_of(
    model: Path, folds: tuple[int, ...] = (0,), *, tta: bool = False, checkpoint: str = "checkpoint_final.pth"
) -> Any:
    """The predictor of a result folder, with its networks loaded.

    Its search for a trainer by name is left out: it imports every trainer, and with them packages that need not be
    installed. Of those in tests only nnUNetTrainerBN builds another network than the usual one.
    """
    import torch
    from nnunetv2.inference import predict_from_raw_data
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.training.nnUNetTrainer.variants.network_architecture.nnUNetTrainerBN import nnUNetTrainerBN

    predict_from_raw_data.recursive_find_trainer_class_by_name = lambda name: (
        nnUNetTrainerBN if name == nnUNetTrainerBN.__name__ else nnUNetTrainer
    )
    predictor = predict_from_raw_data.nnUNetPredictor(use_mirroring=tta, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), folds, checkpoint)
    return predictor
