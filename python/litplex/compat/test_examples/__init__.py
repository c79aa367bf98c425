"""Small models to try servers with, as in ``litserve.test_examples``."""

from litplex.compat.test_examples.openai_spec_example import (
    OpenAIBatchContext,
    TestAPI,
    TestAPIWithCustomEncode,
    TestAPIWithStructuredOutput,
    TestAPIWithToolCalls,
)
from litplex.compat.test_examples.simple_example import (
    SimpleBatchedAPI,
    SimpleLitAPI,
    SimpleStreamAPI,
    SimpleTorchAPI,
)

__all__ = [
    "OpenAIBatchContext",
    "SimpleBatchedAPI",
    "SimpleLitAPI",
    "SimpleStreamAPI",
    "SimpleTorchAPI",
    "TestAPI",
    "TestAPIWithCustomEncode",
    "TestAPIWithStructuredOutput",
    "TestAPIWithToolCalls",
]
