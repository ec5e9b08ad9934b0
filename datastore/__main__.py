"""``python -m datastore``."""

from datastore.cli import main

if __name__ == "__main__":
    main()
