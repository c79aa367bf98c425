"""Tests of the model and of its server: pip install -r requirements-test.txt && pytest"""

import httpx
import litplex as ls
import pytest
from server import WordsAPI


@pytest.fixture(scope="session")
def url():
    """The address of a server that runs beside the tests, on a free port."""
    endpoint = ls.LitServer(WordsAPI(max_batch_size=8), path="/words")
    with ls.start(endpoint, port=0) as server:
        yield server.url


def test_the_model_counts_words():
    api = WordsAPI()
    api.setup("cpu")
    assert api.predict(["a fine day", ""]) == [3, 0]


def test_a_text_is_answered(url):
    response = httpx.post(f"{url}/words", json={"text": "a fine day"})
    assert response.status_code == 200
    assert response.json() == {"words": 3}


def test_a_request_without_a_text_is_refused(url):
    response = httpx.post(f"{url}/words", json={"word": "a"})
    assert response.status_code == 422
    assert "text" in response.json()["detail"]
