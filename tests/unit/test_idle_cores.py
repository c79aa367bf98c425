"""The cores that other processes leave to a worker: measured, and lent to llama.cpp."""

import os
import time

import pytest
from litplex._worker._idle_cores import IdleCores, threads_for

TICKS = os.sysconf("SC_CLK_TCK")


class Machine:
    """A machine of so many cores, on which time passes only here."""

    def __init__(self, monkeypatch, tmp_path, cores):
        self.cores, self.stat = cores, tmp_path / "stat"
        self.now = self.used = 0.0
        self.idle = [0.0] * cores
        self.write()
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "process_time", lambda: self.used)

    def write(self):
        ticks = [int(idle * TICKS) for idle in self.idle]
        lines = [f"cpu{core} 9 9 9 {idle} 0 9 9 0 0 0" for core, idle in enumerate(ticks)]
        self.stat.write_text(
            "\n".join([f"cpu  9 9 9 {sum(ticks)} 0 9 9 0 0 0", *lines, "intr 1 2"])
        )

    def passes(self, seconds, others, own):
        """Lets time pass, in which others and this process use so many cores."""
        self.now += seconds
        self.used += seconds * own
        busy = min(others + own, self.cores) / self.cores
        self.idle = [idle + seconds * (1 - busy) for idle in self.idle]
        self.write()


@pytest.fixture
def machine(monkeypatch, tmp_path):
    return lambda cores: Machine(monkeypatch, tmp_path, cores)


@pytest.mark.parametrize(
    ("cores", "threads"), [(2.0, 2), (1.75, 2), (1.6, 1), (0.1, 0), (7.9, 4), (-0.1, 0)]
)
def test_a_part_of_a_core_that_others_use_counts(cores, threads):
    assert threads_for(cores, most=4) == threads


def test_a_worker_alone_may_use_all_cores(machine):
    alone = machine(4)
    cores = IdleCores(4, alone.stat)
    assert cores.number(1) == 1, "nothing is measured yet"
    alone.passes(0.2, others=0, own=1)
    assert cores.number(1) == 4
    alone.passes(0.2, others=0, own=4)
    assert cores.number(1) == 4, "its own threads take no core from it"


def test_cores_that_others_use_are_given_back_down_to_the_share(machine):
    shared = machine(4)
    cores = IdleCores(4, shared.stat)
    shared.passes(0.2, others=0, own=1)
    assert cores.number(1) == 4
    shared.passes(0.2, others=1, own=3)
    assert cores.number(1) == 3
    shared.passes(0.2, others=3.5, own=0.5)
    assert cores.number(1) == 1
    assert cores.number(2) == 2


def test_a_measurement_takes_a_tenth_of_a_second(machine):
    alone = machine(2)
    cores = IdleCores(2, alone.stat)
    alone.passes(0.09, others=0, own=1)
    assert cores.number(1) == 1
    alone.passes(0.02, others=0, own=1)
    assert cores.number(1) == 2


def test_a_part_of_the_time_of_cores_is_not_measured(machine):
    with pytest.raises(OSError, match="4 cores, of which the server may use 2"):
        IdleCores(2, machine(4).stat)


def test_a_system_that_does_not_count_idle_time_is_found(machine, tmp_path):
    unknown = machine(2)
    unknown.stat.write_text("cpu  1 2 3 4 5\n")
    with pytest.raises(OSError, match="how long each core was idle"):
        IdleCores(2, unknown.stat)
