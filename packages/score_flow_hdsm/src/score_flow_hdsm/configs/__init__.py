"""The experiments of both papers: ``vp/...``, ``subvp/...``, ``ve/...`` as mle_score_ode has them, and score_flow's own
versions of the first two below ``score_flow/``; ``digits`` on embedded data."""
