"""``python -m ada2i`` is the command ``ada2i``."""

from ada2i.cli import main

if __name__ == "__main__":
    main()
