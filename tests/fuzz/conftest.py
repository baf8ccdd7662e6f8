"""Live systems for hostile input, as the scenarios have them."""

from tests.scenarios.conftest import cluster

__all__ = ["cluster"]
