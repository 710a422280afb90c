r"""Trains a variational autoencoder on multi-label tag data.

    python launch.py --config=configs/medium.py                      # the embedded corpus
    python launch.py --config=configs/medium.py:data=musiccaps       # MusicCaps, from the hub
    python launch.py --config=configs/small.py:trainer=quick_test \
        --config.data.dataset_name=clips.csv --config.data.taxonomy_path=concepts_to_tags.json

Presets behind the colon: data=embedded|musiccaps|msd|mtt, trainer=default|quick_test|distributed.
The run's folder is outputs/vae_training/<date and time>, or what --workdir names; the same
--workdir resumes. Exit codes: 0 done, 1 training failed (or another process of the job ended), 2
something given is wrong, 130 or 143 stopped by SIGINT or SIGTERM, after saving.
"""

import sys

from jaxvae.cli import launch
from jaxvae.interrupt import leave

if __name__ == "__main__":
    leave(launch(sys.argv, description=__doc__))
