"""`python -m jaxvae`, and the `jaxvae` script of an installed package."""

from jaxvae import interrupt


def main() -> None:
    """Runs the command of the command line, and ends the process."""
    interrupt.end_at_signals()  # before anything slow is imported

    from jaxvae import cli

    interrupt.leave(cli.main())


if __name__ == "__main__":
    main()
