"""Trains a variational autoencoder on multi-label tag data: see `launch.py --help`.

python launch.py --config=configs/medium.py:data=musiccaps --config.loss.kld_weight=4.0
"""

import gc
import sys

from jaxvae.runtime import signals

if __name__ == "__main__":
    signals.exit_on_signal()  # before anything slow is imported
    gc.set_threshold(100_000)  # libraries and traces stay; sifting them is a tenth of a start

    from jaxvae.cli.main import launch

    signals.exit_process(launch(sys.argv))
