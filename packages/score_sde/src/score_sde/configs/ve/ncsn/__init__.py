"""NCSN (Song and Ermon, 2019) and its ablations towards NCSNv2, as variance-exploding experiments."""
