"""`python -m fastwsgi`."""

from fastwsgi.cli import command

command()
