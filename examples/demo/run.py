#!/usr/bin/env python3
"""The litplex demo: one server with OCR, embeddings, a language model, and answers from documents.

Prepares everything it needs under `.demo/`, starts the server, calls each endpoint, shows the
answers, and serves until Ctrl-C. With --once it checks the answers and exits instead.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from http.client import HTTPException

import report
from calls import Client
from console import DemoError, red
from prepare import BINARY, CHAT_MODEL, HERE, INVOICE, MODEL, NOTES, PHOTO, PYTHON, ROOT, prepare

READY_WITHIN = 120
STOPPED_WITHIN = 30
SENTENCES = [
    "The invoice is due on Friday.",
    "Payment is expected by the end of the week.",
    "A cat sleeps on the windowsill.",
    "A kitten is napping by the window.",
    "The train to the coast was delayed.",
    "Our rail journey to the sea started late.",
    "How do I reset my password?",
    "I cannot log in to my account any more.",
    "The soup needs a little more salt.",
    "Add some seasoning to the broth.",
    "Rain is expected all weekend.",
    "Saturday and Sunday will be wet.",
]
DOCUMENT_STEPS = ("ocr", "chunks", "vectors", "index")
SEARCH_STEPS = ("question", "index")
# What is asked about the pages: the page that has the answer, and a part of it.
QUESTIONS = {
    "When do the desks arrive?": ("notes.png", "2 April"),
    "How long does a toner last?": ("notes.png", "three thousand"),
    "What is the date of the invoice?": ("invoice.png", "14 March"),
}
QUESTION = "Write two sentences about a red fox."


def main():
    options = parse_options()
    require_free(options.port)
    prepare()
    server = start_server(options.port)
    try:
        problems = demonstrate(server, Client(options.port))
        if problems:
            report.show_problems(problems)
        if not options.once:
            report.show_invitation(options.port)
            serve(server)
    except KeyboardInterrupt:
        if options.once:
            raise
        problems = []
    finally:
        code = stop_server(server)
    if code:
        problems.append(f"the server ended with exit code {code} when told to stop")
        report.show_problems(problems[-1:])
    if options.once and not problems:
        print("\nEvery answer is as it should be.")
    return 1 if problems else 0


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--once", action="store_true", help="check the answers, then exit")
    parser.add_argument("--port", type=int, default=8000, help="default: %(default)s")
    return parser.parse_args()


def require_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            hint = f"choose another with --port {port + 1}"
            raise DemoError(f"port {port} is not free ({error.strerror}): {hint}") from error


def start_server(port):
    print(f"\nstarting {BINARY.name} on http://127.0.0.1:{port}", flush=True)
    settings = {
        "LITPLEX_DEMO_MODEL": str(MODEL),
        "LITPLEX_DEMO_CHAT": str(CHAT_MODEL),
        "LITPLEX_DEMO_OCR_PYTHON": str(PYTHON),
        "LITPLEX_DEMO_PORT": str(port),
    }
    # In a separate session, so that Ctrl-C reaches it once, through this process.
    return subprocess.Popen(
        [BINARY], cwd=ROOT, env={**os.environ, **settings}, start_new_session=True
    )


def wait_ready(server, client):
    deadline = time.monotonic() + READY_WITHIN
    while not client.healthy():
        if server.poll() is not None:
            raise DemoError(f"the server ended with exit code {server.returncode}, see above")
        if time.monotonic() > deadline:
            raise DemoError(f"the server was not ready within {READY_WITHIN} s, see above")
        time.sleep(0.1)


def serve(server):
    code = server.wait()
    raise DemoError(f"the server ended by itself with exit code {code}, see above")


def stop_server(server):
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
    try:
        return server.wait(STOPPED_WITHIN)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        server.kill()
        return server.wait()


def demonstrate(server, client):
    """Calls every endpoint and shows the responses; returns their errors."""
    wait_ready(server, client)
    problems = []
    for endpoint in (read_pictures, compare_sentences, chat, answer_questions):
        try:
            problems += endpoint(client)
        except (DemoError, HTTPException, OSError) as error:
            problems.append(f"{endpoint.__name__}: {error}")
    return problems


def read_pictures(client):
    report.show_heading("/ocr", "Python, RapidOCR, in a virtual environment of its own")
    clean = client.read_raw(INVOICE, "image/png")
    report.show_picture(INVOICE.name, "image/png", clean)
    photo = client.read_upload(PHOTO, "image/jpeg")
    report.show_picture(PHOTO.name, "multipart/form-data", photo)
    return [
        *check_invoice(INVOICE.name, clean, report.Found("INV-2041", "1,367.31")),
        *check_invoice(PHOTO.name, photo, report.Found("INV-2042", "321.78")),
    ]


def check_invoice(name, answer, expected):
    found = report.invoice_facts(answer.body["lines"])
    return [] if found == expected else [f"{name}: read {found}, but it says {expected}"]


def compare_sentences(client):
    report.show_heading("/embed", "Rust, all-MiniLM-L6-v2 on candle, batches of up to 32")
    report.show_vectors(SENTENCES, client.embed(SENTENCES))
    items = reference("reference.json")
    answers = client.embed([item["text"] for item in items])
    cosines = [
        report.similarity(answer.body["embedding"], item["embedding"])
        for answer, item in zip(answers, items)
    ]
    report.show_agreement(cosines)
    return [
        f"/embed: cosine {cosine:.6f} to the reference for {item['text'][:40]!r}"
        for cosine, item in zip(cosines, items)
        if cosine < 0.9999
    ]


def chat(client):
    report.show_heading(
        "/v1/chat/completions", "Rust, SmolLM2-135M-Instruct on candle, continuous batching"
    )
    messages = [{"role": "user", "content": QUESTION}]
    request = {"messages": messages, "temperature": 0, "max_tokens": 64}
    text, times = report.show_chat(QUESTION, client.stream_chat(request))
    whole, stopped = client.chats([request, {**request, "stop": ["animal", "."]}])
    items = reference("reference-chat.json")
    answers = client.chats([chat_request(item) for item in items])
    report.show_chats(answers)
    return [
        *check_stream(text, times, content_of(whole)),
        *check_stopped(content_of(whole), content_of(stopped)),
        *(problem for item, answer in zip(items, answers) for problem in check_chat(item, answer)),
    ]


def reference(name):
    return json.loads((HERE / name).read_text(encoding="utf-8"))["items"]


def chat_request(item):
    """Asks for the most likely answer."""
    return {
        "messages": item["messages"],
        "temperature": 0,
        "max_tokens": len(item["answer"]),
    }


def check_stream(text, times, whole):
    if not text or text != whole:
        return [f"chat: the streamed answer is {text!r}, the whole one {whole!r}"]
    if times[0] > times[-1] / 2:
        return ["chat: the first token arrived only with the last ones"]
    return []


def content_of(answer):
    return answer.body["choices"][0]["message"]["content"]


def check_stopped(whole, stopped):
    expected = whole.partition("animal")[0].partition(".")[0]
    return [] if stopped == expected else [f"chat: stopped, the answer is {stopped!r} of {whole!r}"]


def check_chat(item, answer):
    (choice,) = answer.body["choices"]
    counts = {"prompt_tokens": len(item["prompt"]), "completion_tokens": len(item["answer"])}
    expected = (
        item["text"],
        item["finish_reason"],
        {**counts, "total_tokens": sum(counts.values())},
    )
    got = (choice["message"]["content"], choice["finish_reason"], answer.body["usage"])
    return [] if got == expected else [f"chat: {got} is not the reference {expected}"]


def answer_questions(client):
    report.show_heading(
        "/documents", "a pipeline: /ocr, /chunks, /embed for each passage, /passages"
    )
    for page in (NOTES, INVOICE):
        with client.steps("/documents", DOCUMENT_STEPS) as steps:
            answer = client.add_document(page, "image/png")
        report.show_document(page.name, answer, steps)
    report.show_heading(
        "/ask", "Python, calls /search (a pipeline: /embed, /passages) and the chat"
    )
    problems = []
    for question, expected in QUESTIONS.items():
        with client.steps("/search", SEARCH_STEPS) as steps:
            passages, answer = report.show_answer(question, client.ask(question))
        report.show_steps("/search", steps)
        problems += check_answer(question, passages, answer, *expected)
    return problems


def check_answer(question, passages, answer, page, part):
    if not passages or passages[0]["page"] != page or part not in passages[0]["text"]:
        return [f"/ask: {question} expected a passage of {page} with {part!r}, got {passages[:1]}"]
    if part not in answer:
        return [f"/ask: {question} expected an answer with {part!r}, got {answer!r}"]
    return []


def interrupt(*_):
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGHUP, interrupt)
    try:
        sys.exit(main())
    except DemoError as error:
        sys.exit(red(f"\n{error}"))
    except KeyboardInterrupt:
        sys.exit(130)
