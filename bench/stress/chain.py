"""Three stages that call each other, /a → /b → /c, or that are the steps of a pipeline.

Each stage notes every input that it begins to compute, so that a tool knows the work that was done.
"""

import struct
from collections import Counter

STAGES = ("a", "b", "c")

PROGRAM = """
    import asyncio, os, struct, time

    class Stage(ls.LitAPI):
        def __init__(self, name, seconds, following=None):
            super().__init__()
            self.note_file, self.seconds = f"began-{{name}}", seconds
            self.following = following and ls.endpoint(f"/{{following}}")
        def setup(self, device):
            self.notes = os.open(self.note_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        def note(self, x):
            os.write(self.notes, struct.pack("<q", x))
        def predict(self, x):
            self.note(x)
            time.sleep(self.seconds)
            return self.following(x) if self.following else x

    class AsyncStage(Stage):
        async def predict(self, x):
            self.note(x)
            await asyncio.sleep(self.seconds)
            return await self.following.acall(x)

    if __name__ == "__main__":
        ls.run_servers(
            *(
                ls.LitServer(
                    globals()[kind](name, seconds, following), path=f"/{{name}}",
                    accelerator="cpu", workers_per_device=workers, **{options!r},
                )
                for name, kind, seconds, following, workers in {stages!r}
            ),
            *(
                ls.LitServer(ls.Pipeline(*steps), path=path, **{options!r})
                for path, steps in {pipelines!r}.items()
            ),
            port=0,
        )
"""


def program(seconds, workers, callers=None, pipeline=False, **options):
    """Returns the text of a server of the three stages.

    `seconds` and `workers` are those of each stage. `callers` is the class of the stages that call
    the next one, or None if none calls; `pipeline` adds one of the three at `/graph`.
    """
    following = {"a": "b", "b": "c"} if callers else {}
    stages = [
        (name, callers if name in following else "Stage", own_s, following.get(name), count)
        for name, own_s, count in zip(STAGES, seconds, workers, strict=True)
    ]
    pipelines = {"/graph": [f"/{name}" for name in STAGES]} if pipeline else {}
    return PROGRAM.format(stages=stages, pipelines=pipelines, options=options)


def begun(server, name):
    """Returns how often the stage began to compute each input."""
    data = (server.folder / f"began-{name}").read_bytes()
    return Counter(number for (number,) in struct.iter_unpack("<q", data))
