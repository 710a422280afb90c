"""Trains a variational autoencoder on multi-label tag data: see `launch.py --help`.

python launch.py --config=configs/medium.py:data=musiccaps --config.loss.kld_weight=4.0
"""

import sys

from jaxvae.cli import launch
from jaxvae.interrupt import leave

if __name__ == "__main__":
    leave(launch(sys.argv))
