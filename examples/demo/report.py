"""The report of the demo: the responses as text and as a page."""

import re
import textwrap
from dataclasses import dataclass
from itertools import combinations

from console import bold, dim, green, red

AMOUNT = re.compile(r"\d[\d,]*\.\d\d")
NUMBER = re.compile(r"INV-\d+")


@dataclass(frozen=True)
class Found:
    number: str
    total: str


def invoice_facts(lines):
    numbers = [match[0] for line in lines if (match := NUMBER.search(line["text"]))]
    return Found(number=numbers[0] if numbers else "?", total=total(lines))


def total(lines):
    """Returns the amount on the row that starts with TOTAL, also of a tilted row."""
    amounts = [line for line in lines if AMOUNT.fullmatch(line["text"])]
    for label in lines:
        if amounts and label["text"].upper().startswith("TOTAL"):
            return min(amounts, key=lambda amount: off_row(label["box"], amount["box"]))["text"]
    return "?"


def off_row(label, box):
    """Returns the distance of `box` from the line of text on which `label` is."""
    (left, top), (right, slanted_top) = label[0], label[1]
    slope = (slanted_top - top) / max(right - left, 1)
    return abs(box[0][1] - top - slope * (box[0][0] - left))


def similarity(a, b):
    dot = sum(x * y for x, y in zip(a, b))
    return dot / (sum(x * x for x in a) * sum(y * y for y in b)) ** 0.5


def nearest_pairs(texts, vectors):
    pairs = combinations(zip(texts, vectors), 2)
    scored = ((similarity(va, vb), a, b) for (a, va), (b, vb) in pairs)
    return sorted(scored, reverse=True)


def show_heading(path, what):
    print(f"\n{bold(path)}  {dim(what)}\n")


def show_picture(name, sent_as, answer):
    model = answer.body["milliseconds"]
    took = f"{answer.milliseconds:.0f} ms, {model:.0f} of them in the model"
    print(f"  {bold(name)}, sent as {sent_as}  {dim(took)}")
    for left, right in in_two_columns(answer.body["lines"]):
        print(f"    {line_cell(left):<44}{line_cell(right)}".rstrip())
    found = invoice_facts(answer.body["lines"])
    print(f"    {green('=')} invoice {bold(found.number)}, total {bold(found.total)}\n")


def in_two_columns(lines):
    half = (len(lines) + 1) // 2
    return zip(lines[:half], lines[half:] + [None] * (2 * half - len(lines)))


def line_cell(line):
    return f"{line['score']:.2f}  {line['text']}" if line else ""


def show_vectors(texts, answers):
    times = sorted(answer.milliseconds for answer in answers)
    sizes = sorted({answer.body["batch_size"] for answer in answers})
    print(f"  {len(texts)} sentences, one request each, all at once")
    print(f"    latency      {times[0]:.0f} to {times[-1]:.0f} ms")
    print(f"    batch sizes  {', '.join(map(str, sizes))}")
    print("    closest in meaning")
    for score, a, b in nearest_pairs(texts, [a.body["embedding"] for a in answers])[:5]:
        print(f"      {score:.2f}  {a:<44} {b}")


def show_agreement(cosines):
    print(f"    lowest cosine to the reference vectors of {len(cosines)} texts  {min(cosines):.6f}")


def show_chat(question, events):
    """Prints the answer as it arrives; returns its text and the times of its events."""
    print(f"  {bold(question)}\n")
    writer, times, last = Writer(), [], {}
    for milliseconds, last in events:
        times.append(milliseconds)
        for choice in last["choices"]:
            writer.write(choice["delta"].get("content") or "")
    print()
    usage = last.get("usage") or {"prompt_tokens": 0, "completion_tokens": 0}
    if len(times) > 1:
        seconds = (times[-1] - times[0]) / 1000
        rate = f"{usage['completion_tokens'] / seconds:.0f} tokens/s"
        print(
            dim(f"    {usage['prompt_tokens']} tokens of prompt, {usage['completion_tokens']} of ")
            + dim(f"answer; the first after {times[0]:.0f} ms, then {rate}")
        )
    return writer.text, times


def show_document(name, answer, steps):
    print(
        f"  {bold(name)}, {answer.body['added']} passages  {dim(f'{answer.milliseconds:.0f} ms')}"
    )
    show_steps("/documents", steps)


def show_steps(pipeline, steps):
    print(dim(f"    {pipeline}: {times_of(steps)}"))


def times_of(steps):
    return ", ".join(f"{name} {milliseconds:.1f} ms" for name, milliseconds in steps.items())


def show_answer(question, values):
    """Prints the passage and the answer as they arrive; returns the passages and the answer."""
    print(f"\n  {bold(question)}\n")
    writer, passages = Writer(), []
    for value in values:
        if "passages" in value:
            passages = value["passages"]
            show_passage(passages[0])
        elif "text" in value:
            writer.write(value["text"])
        else:
            print("\n" + dim(f"    /ask: {times_of(value['milliseconds'])}"))
    return passages, writer.text


def show_passage(passage):
    left, top, right, bottom = (round(edge) for edge in passage["box"])
    place = f"{passage['page']}, {left},{top} to {right},{bottom}, score {passage['score']:.2f}"
    print(dim(f"    {place}"))
    for row in passage["text"].splitlines():
        print(dim(f"    | {row}"))


class Writer:
    """Prints text piece by piece, and breaks its lines between words."""

    def __init__(self, indent="    ", width=76):
        self.indent, self.width = indent, width
        self.text, self.column = "", 0

    def write(self, piece):
        self.text += piece
        for word in re.findall(r"\n|\S+[^\S\n]?|\s", piece):
            if word == "\n" or self.column + len(word.rstrip()) > self.width:
                print()
                self.column = 0
            if word != "\n":
                print(word if self.column else self.indent + word, end="", flush=True)
                self.column += len(word)


def show_chats(answers):
    times = [answer.milliseconds for answer in answers]
    usages = [answer.body["usage"] for answer in answers]
    prompts, texts = (
        sum(usage[f"{of}_tokens"] for usage in usages) for of in ("prompt", "completion")
    )
    tokens = f"{prompts} tokens of prompts, {texts} of answers"
    print(dim(f"    {len(answers)} chats at once: {tokens}, in {max(times) / 1000:.1f} s"))


def show_problems(problems):
    print(red(f"\n{len(problems)} thing(s) went wrong:"))
    for problem in problems:
        print(textwrap.indent(problem, "  ").replace("  ", "- ", 1))


def show_invitation(port):
    url = f"http://127.0.0.1:{port}"
    json_type = "-H 'Content-Type: application/json'"
    print(f"""
{bold("Try it yourself")} {dim("(from the repository's root)")}

  curl {url}/ocr -F image=@.demo/photo.jpg
  curl {url}/ocr -H 'Content-Type: image/png' --data-binary @.demo/invoice.png
  curl {url}/embed {json_type} -d '{{"text": "hello"}}'
  curl -N {url}/v1/chat/completions {json_type} \\
    -d '{{"stream": true, "messages": [{{"role": "user", "content": "Who are you?"}}]}}'
  curl {url}/documents -F image=@.demo/photo.jpg
  curl {url}/search {json_type} -d '{{"question": "What does a toner cost?"}}'
  curl -N {url}/ask {json_type} -d '{{"question": "Where are the spare keys?"}}'

Serving until Ctrl-C.""")
