"""One step of training, one epoch of training or evaluation, compiled: batches, noise, losses."""
