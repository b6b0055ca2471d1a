"""A program of its own, which its parent has started and talks to."""

import sys
from multiprocessing.connection import Client

from tests.support.followers.jobs import serve

if __name__ == "__main__":
    serve(Client(sys.argv[1]))
