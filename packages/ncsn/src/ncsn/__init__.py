"""Generative Modeling by Estimating Gradients of the Data Distribution (Song and Ermon, NeurIPS 2019)."""
