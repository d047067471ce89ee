"""Maximum-likelihood training of score-based models (Song et al. 2021) and of their ODEs (Lu et al. 2022)."""
