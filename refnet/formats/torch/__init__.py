"""PyTorch checkpoints, zipped or not, and safetensors."""
