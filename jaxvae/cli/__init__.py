"""The command-line interface: parses arguments and prints, nothing else."""
