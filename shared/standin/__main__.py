"""``python -m shared.standin --port 8808``: the stand-in as a process of its own."""

import argparse

from shared.standin.server import serve

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8808, help="0 takes a free one")
    serve(parser.parse_args().port)
