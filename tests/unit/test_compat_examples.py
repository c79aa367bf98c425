"""The example models of LitServe, and its images in JSON."""

import base64
import io
import json
import pickle
import types

import pydantic
import pytest
from litplex.compat import test_examples as examples
from litplex.compat.schema.image import ImageInput, ImageOutput
from litplex.compat.test_examples import openai_embedding_spec_example as models
from litplex.compat.test_examples import openai_spec_example as chats


def run_through(api, request):
    """Passes a request through the hooks, as a worker does."""
    output = api.predict(api.decode_request(request))
    if isinstance(output, types.GeneratorType):
        return list(api.encode_response(output))
    return api.encode_response(output)


def made(example):
    api = example()
    api.setup("cpu")
    return api


def test_examples_square():
    assert run_through(made(examples.SimpleLitAPI), {"input": 4.0}) == {"output": 16.0}


def test_examples_square_batches():
    api = made(examples.SimpleBatchedAPI)
    inputs = api.batch([api.decode_request({"input": value}) for value in (4.0, 5)])
    outputs = [api.encode_response(output) for output in api.unbatch(api.predict(inputs))]
    assert outputs == [{"output": 16.0}, {"output": 25.0}]


def test_examples_stream():
    outputs = [{"output": f"{number}: a b"} for number in range(3)]
    assert run_through(made(examples.SimpleStreamAPI), {"input": "a b"}) == outputs


def test_examples_compute_with_torch():
    pytest.importorskip("torch")
    assert run_through(made(examples.SimpleTorchAPI), {"input": 4.0}) == {"output": 9.0}


@pytest.mark.filterwarnings("ignore:.* has both batch and unbatch")
@pytest.mark.parametrize("name", examples.__all__)
def test_examples_can_be_sent_to_workers(name):
    assert pickle.loads(pickle.dumps(getattr(examples, name)()))


def contents(messages):
    return [message["content"] for message in messages]


def test_examples_for_chats():
    ask = [{"role": "user", "content": "hi"}]
    assert list(made(chats.TestAPI).predict(ask)) == ["This is a generated output"]
    custom = run_through(made(chats.TestAPIWithCustomEncode), ask)
    assert custom == [{"role": "assistant", "content": "This is a custom encoded output"}]
    call = run_through(made(chats.TestAPIWithToolCalls), ask)[0]["tool_calls"][0]
    assert (call["id"], call["function"]["name"]) == ("call_1", "function_1")
    event = run_through(made(chats.TestAPIWithStructuredOutput), ask)[0]["content"]
    assert json.loads(event)["participants"] == ["Alice", "Bob"]
    usage = run_through(made(chats.OpenAIWithUsage), ask)[0]
    assert (usage["content"], usage["total_tokens"]) == ("10 + 6 is equal to 16.", 35)
    tokens = run_through(made(chats.OpenAIWithUsageEncodeResponse), ask)
    assert "".join(contents(tokens)) == "10 + 6 is equal to 16."
    assert tokens[-1]["total_tokens"] == 35


def run_batch(example):
    api = made(example)
    contexts = [{"temperature": 0.7}, {"temperature": 0.3}]
    with_context = {} if example is chats.OpenAIBatchingWithUsage else {"context": contexts}
    outputs = api.predict(api.batch([[], []]), **with_context)
    return zip(*api.encode_response(api.unbatch(outputs), context=contexts))


@pytest.mark.filterwarnings("ignore:.* has both batch and unbatch")
def test_examples_for_batches_of_chats():
    for messages in run_batch(chats.OpenAIBatchContext):
        text = "".join(contents(messages))
        assert (len(messages), text[:9], text[-6:]) == (20, "Hi! It's ", "chat? ")
    for messages in run_batch(chats.OpenAIBatchingWithUsage):
        assert contents(messages) == ["10 + 6 is equal to 16.", ""]
        assert messages[-1]["prompt_tokens"] == 25


@pytest.mark.parametrize(("request_", "count"), [("a", 1), (["a", "b", "c"], 3)])
def test_examples_for_embeddings(request_, count):
    vectors = run_through(made(models.TestEmbedAPI), request_)["embeddings"]
    assert (len(vectors), len(vectors[0])) == (count, 768)
    batch = made(models.TestEmbedBatchedAPI).predict([request_, request_])
    assert [len(vectors) for vectors in batch] == [count, count]
    assert run_through(made(models.TestEmbedAPIWithUsage), request_)["total_tokens"] == 10
    assert len(run_through(made(models.TestEmbedAPIWithNonDictOutput), request_)) == count
    assert set(run_through(made(models.TestEmbedAPIWithMissingEmbeddings), request_)) == {"output"}


def encoded(data):
    return base64.b64encode(data).decode()


def png():
    image = pytest.importorskip("PIL.Image").new("RGB", (2, 3), (255, 0, 0))
    file = io.BytesIO()
    image.save(file, "PNG")
    return encoded(file.getvalue())


class Pair(ImageInput):
    mask: str = ""


def test_images_are_read():
    given = Pair(image_data=png(), mask=png())
    for image in (given.get_image(), given.get_image("mask")):
        assert (image.format, image.size, image.getpixel((0, 0))) == ("PNG", (2, 3), (255, 0, 0))


@pytest.mark.parametrize(
    "fields", [{"image_data": "no base64!"}, {"image_data": "ü"}, {"mask": "x"}, {"image_data": 5}]
)
def test_images_must_be_base64(fields):
    with pytest.raises(pydantic.ValidationError):
        Pair(**fields)


def test_a_missing_or_broken_image_is_an_error():
    with pytest.raises(ValueError, match="`image_data` has no image"):
        ImageInput().get_image()
    with pytest.raises(ValueError, match="`other` has no image"):
        ImageInput(image_data="").get_image("other")
    pytest.importorskip("PIL.Image")
    with pytest.raises(ValueError, match="`image_data` has no image that Pillow can read"):
        ImageInput(image_data=encoded(b"text")).get_image()


def test_images_are_answered():
    image = pytest.importorskip("PIL.Image").new("RGB", (2, 3))
    answer = json.loads(ImageOutput(image=image).model_dump_json())
    assert ImageInput(image_data=answer["image"]).get_image().size == (2, 3)
    with pytest.raises(ValueError, match="not int"):
        ImageOutput(image=5).model_dump()
