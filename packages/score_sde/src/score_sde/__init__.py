"""Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., ICLR 2021)."""
