"""Writes sentences.json: 200 fixed texts of mixed lengths (about 3 to 110 words)."""

import json
import random
from pathlib import Path

r = random.Random(20261123)
subj = [
    "The engineer",
    "Our new neighbour",
    "A patient teacher",
    "The old lighthouse keeper",
    "My younger sister",
    "The night train",
    "A flock of starlings",
    "The city council",
    "An experienced sailor",
    "The database server",
    "A curious child",
    "The baker on the corner",
    "Nobody in the village",
    "The research team",
    "A retired pilot",
]
verb = [
    "repaired",
    "described",
    "carefully measured",
    "forgot about",
    "photographed",
    "sold",
    "finally understood",
    "painted",
    "argued about",
    "rebuilt",
    "discovered",
    "ignored",
    "translated",
    "delivered",
    "worried about",
]
obj = [
    "the broken turbine",
    "a box of letters",
    "the winter schedule",
    "two barrels of apples",
    "the map of the harbour",
    "an unusual request",
    "the memory leak",
    "a recipe for rye bread",
    "the final report",
    "a wooden violin",
    "the flooded cellar",
    "a set of blue curtains",
    "the slow query",
    "a distant galaxy",
    "the price of coffee",
]
tail = [
    "before the storm arrived",
    "without telling anyone",
    "during the annual fair",
    "because the deadline was close",
    "in less than an hour",
    "while the radio played quietly",
    "after reading the manual twice",
    "at the end of a long summer",
    "on the ferry to the island",
    "as if nothing had happened",
    "although the budget was small",
    "near the abandoned station",
]
link = ["; meanwhile", ", and then", ", but", ". Later", ". In the end", ", so"]


def clause():
    return f"{r.choice(subj)} {r.choice(verb)} {r.choice(obj)}"


def linked(before):
    """Continues the clause, or starts a new sentence."""
    after, how = clause(), r.choice(link)
    if how[0] != ".":
        after = after[0].lower() + after[1:]
    return f"{before}{how} {after} {r.choice(tail)}"


def sentence():
    clauses = r.choices([0, 1, 2, 3, 5, 8], [25, 35, 18, 12, 7, 3])[0]
    if clauses == 0:
        return f"{r.choice(subj)} {r.choice(verb).split()[0]} it."
    text = clause() + " " + r.choice(tail)
    for _ in range(clauses - 1):
        text = linked(text)
    return text + "."


def main():
    sentences = []
    while len(sentences) < 200:
        text = sentence()
        if text not in sentences:
            sentences.append(text)
    Path(__file__).with_name("sentences.json").write_text(json.dumps(sentences, indent=0))


if __name__ == "__main__":
    main()
