"""`python -m i3dzoo`."""

from i3dzoo.cli import main

if __name__ == "__main__":
    main()
