"""The PyTorch wing: networks, training, evaluation, sampling."""
