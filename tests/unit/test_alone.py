"""What `fastwsgi.run` does not take; what it does is in the tests of whole processes."""

import pytest

import fastwsgi
from fastwsgi.alone import NOT_FOR_RUN


@pytest.mark.parametrize("name", NOT_FOR_RUN)
def test_options_of_the_command_are_refused(name):
    with pytest.raises(fastwsgi.ConfigError, match=f"^run does not take {name}: "):
        fastwsgi.run("no_such_module:app", **{name: None})
