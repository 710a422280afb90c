"""The network, its priors, its densities, and a trained model's parameters.

The package does not depend on data, training or files.
"""
