"""A checkpoint of nnU-Net -> a network that runs, and back. Needs PyTorch, ONNX and nnU-Net's architectures."""
