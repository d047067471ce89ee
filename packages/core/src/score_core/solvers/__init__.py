"""Extra few-step update rules with the interface of :mod:`score_core.predictors`, one file each."""
