"""A Variational Perspective on Diffusion-Based Generative Models and Score Matching.

Huang, Lim and Courville, NeurIPS 2021.
"""
