"""The commands: parsing of arguments and printing, nothing else."""
