"""Sub-VP."""
