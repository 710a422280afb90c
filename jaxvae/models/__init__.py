"""The network, its priors, its densities, and a trained model's parameters.

Nothing here knows of data, training or files.
"""
