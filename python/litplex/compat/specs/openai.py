"""The module ``litserve.specs.openai``."""

from litplex._model import chat
from litplex._model.chat import *  # noqa: F403

__all__ = chat.__all__
