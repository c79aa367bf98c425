"""Output for the terminal: colours, and the progress of long stages."""

import shutil
import subprocess
import sys
import time

LIVE = sys.stdout.isatty()
HEARTBEAT = 30


class DemoError(Exception):
    """An error that is shown as a sentence, without a traceback."""


def _paint(code):
    return (lambda text: f"\033[{code}m{text}\033[0m") if LIVE else str


bold, dim, green, red = _paint(1), _paint(2), _paint(32), _paint(31)


class Stage:
    """One numbered line that ends with how long the stage took.

    with Stage(1, 4, "installing") as stage:
        stage.run(["pip", ...], log)
    """

    def __init__(self, number, count, title):
        self.title = f"[{number}/{count}] {title} ..."

    def __enter__(self):
        self.started = self.spoke = time.monotonic()
        print(self.title, end=" ", flush=True)
        return self

    def __exit__(self, error, *_):
        end = red("failed") if error else green(f"{self.seconds():.0f} s")
        print(f"\r\033[K{self.title} {end}" if LIVE else end, flush=True)

    def seconds(self):
        return time.monotonic() - self.started

    def run(self, command, log, **options):
        """Runs a command with its output in the file `log`; raises DemoError on failure."""
        with Background(command, log, **options) as process:
            process.finish(self)

    def show_life(self, log):
        if LIVE:
            now = f"{self.title} {self.seconds():.0f} s  {tail(log, 1).strip()}"
            # A line that wraps could not be rewritten.
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\033[K{dim(now[:width])}", end="", flush=True)
        elif time.monotonic() - self.spoke > HEARTBEAT:
            self.spoke = time.monotonic()
            print(f"{self.seconds():.0f} s ...", end=" ", flush=True)


class Background:
    """A command beside the stages, with its output in the file `log`. It is killed at the end.

    with Background(["cargo", ...], log) as build:
        ...
        build.finish(stage)
    """

    def __init__(self, command, log, **options):
        self.command, self.log, self.options = command, log, options

    def __enter__(self):
        with open(self.log, "w", encoding="utf-8") as output:
            self.process = subprocess.Popen(
                self.command, stdout=output, stderr=output, **self.options
            )
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def finish(self, stage):
        """Waits for the end, which is shown as the stage's; raises DemoError on failure."""
        while self.process.poll() is None:
            time.sleep(0.2)
            stage.show_life(self.log)
        if self.process.returncode:
            shown = " ".join(map(str, self.command))
            raise DemoError(
                f"`{shown}` failed (all of its output: {self.log}):\n{tail(self.log, 15)}"
            )


def tail(path, count):
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])
