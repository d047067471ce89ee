"""The papers behind the table rows, as BibTeX."""

from score_core.errors import UsageError

# How a table row names a paper: title (venue year).
_SCORE_SDE = "Score-Based Generative Modeling through Stochastic Differential Equations (ICLR 2021)"
_NCSN = "Generative Modeling by Estimating Gradients of the Data Distribution (NeurIPS 2019)"
_NCSNV2 = "Improved Techniques for Training Score-Based Generative Models (NeurIPS 2020)"
_SCORE_FLOW = "Maximum Likelihood Training of Score-Based Diffusion Models (NeurIPS 2021)"
_HDSM = "Maximum Likelihood Training for Score-Based Diffusion ODEs by High-Order Denoising Score Matching (ICML 2022)"
_VARIATIONAL = "A Variational Perspective on Diffusion-Based Generative Models and Score Matching (NeurIPS 2021)"

BIBTEX: dict[str, str] = {
    _NCSN: """@inproceedings{song2019generative,
  title     = {Generative Modeling by Estimating Gradients of the Data Distribution},
  author    = {Song, Yang and Ermon, Stefano},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {32},
  year      = {2019},
  eprint    = {1907.05600},
  archiveprefix = {arXiv}
}""",
    _NCSNV2: """@inproceedings{song2020improved,
  title     = {Improved Techniques for Training Score-Based Generative Models},
  author    = {Song, Yang and Ermon, Stefano},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {33},
  year      = {2020},
  eprint    = {2006.09011},
  archiveprefix = {arXiv}
}""",
    _SCORE_SDE: """@inproceedings{song2021scorebased,
  title     = {Score-Based Generative Modeling through Stochastic Differential Equations},
  author    = {Song, Yang and Sohl-Dickstein, Jascha and Kingma, Diederik P. and Kumar, Abhishek and Ermon, Stefano
               and Poole, Ben},
  booktitle = {International Conference on Learning Representations},
  year      = {2021},
  eprint    = {2011.13456},
  archiveprefix = {arXiv}
}""",
    _SCORE_FLOW: """@inproceedings{song2021maximum,
  title     = {Maximum Likelihood Training of Score-Based Diffusion Models},
  author    = {Song, Yang and Durkan, Conor and Murray, Iain and Ermon, Stefano},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {34},
  year      = {2021},
  eprint    = {2101.09258},
  archiveprefix = {arXiv}
}""",
    _HDSM: """@inproceedings{lu2022maximum,
  title     = {Maximum Likelihood Training for Score-Based Diffusion {ODE}s by High-Order Denoising Score Matching},
  author    = {Lu, Cheng and Zheng, Kaiwen and Bao, Fan and Chen, Jianfei and Li, Chongxuan and Zhu, Jun},
  booktitle = {International Conference on Machine Learning},
  year      = {2022},
  eprint    = {2206.08265},
  archiveprefix = {arXiv}
}""",
    _VARIATIONAL: """@inproceedings{huang2021variational,
  title     = {A Variational Perspective on Diffusion-Based Generative Models and Score Matching},
  author    = {Huang, Chin-Wei and Lim, Jae Hyun and Courville, Aaron},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {34},
  year      = {2021},
  eprint    = {2106.02808},
  archiveprefix = {arXiv}
}""",
}


def bibtex(paper: str) -> str:
    """The BibTeX entry of ``paper``, which is named as in the table rows: title (venue year).

    Raises:
        UsageError: the paper is none of the known ones.
    """
    if paper not in BIBTEX:
        raise UsageError(f"No citation is known for {paper!r}. Known papers: {'; '.join(BIBTEX)}.")
    return BIBTEX[paper]
