"""The files of score_flow."""
