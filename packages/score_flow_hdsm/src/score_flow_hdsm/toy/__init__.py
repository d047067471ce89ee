"""The toy study of high-order denoising score matching (Lu et al. 2022, section 6.1), in PyTorch on a CPU."""
