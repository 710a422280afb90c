"""Runtime services: devices, processes of a job, signals, the compilation cache."""
