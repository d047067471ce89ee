"""Experiments with the variance-preserving SDE and the DDPM architecture."""
