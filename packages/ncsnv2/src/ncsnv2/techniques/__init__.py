"""The paper's five techniques as tools for a dataset: ``python -m ncsnv2.techniques DATA``."""
