"""The module ``litserve.specs.openai_embedding``."""

from litplex._model import embeddings
from litplex._model.embeddings import *  # noqa: F403

__all__ = embeddings.__all__
