"""``python -m shared``: the course's command line."""

import sys

from shared.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
