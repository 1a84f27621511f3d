"""A checkpoint of nnU-Net v2 -> a network that runs, and back. Needs PyTorch, ONNX and nnU-Net's architectures."""
