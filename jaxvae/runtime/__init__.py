"""Where a program runs: devices, processes of one job, signals, the cache of compiled programs."""
