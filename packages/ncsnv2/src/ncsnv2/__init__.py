"""Improved Techniques for Training Score-Based Generative Models (Song and Ermon, NeurIPS 2020)."""
