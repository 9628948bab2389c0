"""A module whose import takes very long."""

import os
import time

open(os.path.join(os.environ["TEST_DIRECTORY"], "importing"), "w").close()
time.sleep(60)


def app(environ, start_response):
    raise AssertionError("never served")
