from typing_extensions import disjoint_base

from fastwsgi._crew import Crew

@disjoint_base
class Greenlets(Crew):
    """The same as Crew, in the thread that starts it, which has to run gevent's hub from then on."""

    def rest(self) -> None:
        """Let others run for a moment: one of them holds a slot."""

    def wait(self, index: int, progress: int) -> bool:
        """A producer in a slot waits for its client; False: in a thread, which has to wait in its own way."""
