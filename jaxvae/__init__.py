"""Variational autoencoders for multi-label tag data, in JAX.

Importing this package is cheap: each room is imported when it is first used.
"""

__version__ = "0.1.0"
