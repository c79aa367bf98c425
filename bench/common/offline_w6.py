"""W6 without any server: the model alone in one process, one thread: a Python worker's limit.

usage: BENCH_MODEL=... python offline_w6.py, with the Python of a venv that ./setup --w6 has made
"""

import json
import time
from pathlib import Path

import work

SENTENCES = Path(__file__).parent.parent / "data" / "sentences.json"


def measure(model, batches, secs=4):
    texts, start, cpu = 0, time.monotonic(), time.process_time()
    while time.monotonic() - start < secs:
        for batch in batches:
            model(batch)
            texts += len(batch)
            if time.monotonic() - start > secs:
                break
    wall, cpu = time.monotonic() - start, time.process_time() - cpu
    return {"texts_s": round(texts / wall, 1), "cpu_ms_per_text": round(cpu / texts * 1e3, 2)}


def batches(texts, size):
    return [texts[i : i + size] for i in range(0, len(texts), size)]


def token_counts(model, texts):
    model.tokenizer.no_padding()
    counts = sorted(len(model.tokenizer.encode(text).ids) for text in texts)
    mean = sum(counts) / len(counts)
    return {"min": counts[0], "median": counts[len(counts) // 2], "max": counts[-1], "mean": mean}


def main():
    texts = json.loads(SENTENCES.read_text())
    model = work.Embedder()
    model(texts[:16])
    out = {f"batch{n}": measure(model, batches(texts, n)) for n in (1, 4, 8, 16)}
    by_length = sorted(texts, key=len)
    out["batch16_sorted_by_length"] = measure(model, batches(by_length, 16))
    out["tokens"] = token_counts(model, texts)
    print(json.dumps(out))


if __name__ == "__main__":
    main()
