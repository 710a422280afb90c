"""`python -m jaxvae`, and the `jaxvae` script of an installed package."""

import gc

from jaxvae.runtime import signals


def main() -> None:
    """Runs the command of the command line, and ends the process."""
    signals.exit_on_signal()  # before anything slow is imported
    gc.set_threshold(100_000)  # libraries and traces stay; sifting them is a tenth of a start

    from jaxvae.cli.main import main as command

    signals.exit_process(command())


if __name__ == "__main__":
    main()
