"""What the server says, for people and for programs."""

import json

SAYS = """
    class Says(ls.LitAPI):
        def predict(self, x):
            print(x)
            return x

    ls.LitServer(Says()).run(port=0)
"""


def test_every_line_is_an_object_where_that_is_asked_for(serve):
    server = serve(SAYS, env={"LITMUX_LOG_FORMAT": "json"})
    server.post("/predict", json='a "quoted" text')
    server.wait_for_line("quoted")
    server.stop()
    lines = [json.loads(line) for line in server.lines]
    assert {"timestamp", "level", "message"} <= set(lines[0])
    (said,) = [line for line in lines if "quoted" in line["message"]]
    assert (said["message"], said["worker"]) == ('a "quoted" text', "/predict#0")


def test_all_that_a_worker_prints_is_printed(serve):
    server = serve(SAYS)
    text = "\n".join(f"line {number}" for number in range(50_000))
    server.post("/predict", json=text)
    server.post("/predict", json="the end")
    server.wait_for_line("the end")
    printed = [line.strip() for line in server.lines if "| line " in line]
    assert printed == [f"/predict#0 | line {number}" for number in range(50_000)]
