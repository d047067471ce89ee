"""The experiments in the plane: distributions with known scores, Langevin samplers, the paper's Figures 1, 2 and 3."""
