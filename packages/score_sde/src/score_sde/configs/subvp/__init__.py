"""Experiments with the sub-variance-preserving SDE."""
