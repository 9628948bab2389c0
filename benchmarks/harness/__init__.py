"""The benchmark: what is started, what is asked of it, how that is measured, and how it is told."""
