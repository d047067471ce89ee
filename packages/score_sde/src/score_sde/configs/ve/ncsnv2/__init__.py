"""NCSNv2 (Song and Ermon, 2020) as variance-exploding experiments."""
