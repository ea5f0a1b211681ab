"""`python -m chatwheel`, for `torchrun -m chatwheel train ...`."""

from chatwheel.cli.app import main

if __name__ == "__main__":
    main()
