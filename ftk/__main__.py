"""`python -m ftk` is `ftk`."""

from ftk.cli.app import main

if __name__ == "__main__":
    main()
