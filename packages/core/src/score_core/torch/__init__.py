"""The PyTorch wing. Images are ``[B, C, H, W]``."""
