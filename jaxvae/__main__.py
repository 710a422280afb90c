"""`python -m jaxvae`, and the `jaxvae` script of an installed package."""

from jaxvae import cli, interrupt


def main() -> None:
    """Runs the command of the command line, and ends the process."""
    interrupt.leave(cli.main())


if __name__ == "__main__":
    main()
