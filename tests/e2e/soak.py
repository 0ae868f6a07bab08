"""Hours in minutes: many connections, one of more than 1 GiB, and fault after fault.

What grows is what counts: memory and descriptors of client and agent are looked at every few
seconds, and the slope over the run is told. `make soak` writes it into docs/reliability.md;
a short form is a test.
"""

from __future__ import annotations

import itertools
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from . import chaos
from .pods import pod_of
from .ways import Network

EVERY_S = 5.0
# At the beginning pools fill and code is compiled: that is no growth.
WARM_SHARE = 0.25


@dataclass(slots=True)
class Samples:
    """One figure of one process, over time.

    Attributes:
        values: (seconds since the beginning, figure).
    """

    of: str
    unit: str
    values: list[tuple[float, float]] = field(default_factory=list)

    def warm(self) -> list[tuple[float, float]]:
        return self.values[int(len(self.values) * WARM_SHARE) :]

    def slope_a_minute(self) -> float:
        """Least squares over all but the beginning."""
        times, figures = zip(*self.warm(), strict=True)
        return statistics.linear_regression(times, figures).slope * 60

    def growth(self) -> float:
        """The median of the last third against that of the first, without the beginning."""
        figures = [figure for _, figure in self.warm()]
        third = len(figures) // 3
        return statistics.median(figures[-third:]) - statistics.median(figures[:third])


@dataclass(slots=True)
class Result:
    """What a soak has to say."""

    samples: list[Samples]
    lost: chaos.Lost
    faults: int
    fault_every_s: float
    restarted: int
    seconds: float

    def of(self, name: str) -> Samples:
        return next(each for each in self.samples if each.of == name)


def run(
    setup: chaos.Setup,
    network: Network,
    *,
    minutes: float,
    megabytes: int,
    fault_every_s: float,
) -> Result:
    """Loads for so long, a network's fault each so often, samples in between."""
    seconds = minutes * 60
    starts = setup.count("command-started")
    faults = itertools.cycle(chaos.network_faults(network, 3.0) + chaos.other_faults(network, 3.0))
    loads: list[chaos.Load] = [
        chaos.Requests(25, pause_s=1.0),
        chaos.Requests(25, pause_s=1.0, through_forward=True),
        chaos.Transfers(megabytes, over_s=seconds * 0.8),
    ]
    samples = {
        what: Samples(of=what, unit=unit)
        for what, unit in (
            ("client, memory", "KiB"),
            ("client, descriptors", ""),
            ("agent, memory", "KiB"),
            ("agent, descriptors", ""),
        )
    }
    losses: list[chaos.Lost] = []
    count = 0
    began = time.monotonic()
    for load in loads:
        load.begin(setup)
    with ExitStack() as stack:
        stack.callback(lambda: losses.extend(load.end() for load in loads))
        next_fault = began + fault_every_s
        while (now := time.monotonic()) - began < seconds:
            look(setup, samples, now - began)
            if now >= next_fault:
                fault = next(faults)
                chaos.inflict(setup, fault, chaos.Row(fault=fault, load="soak"))
                count += 1
                next_fault = now + fault_every_s
            time.sleep(EVERY_S)
    return Result(
        samples=list(samples.values()),
        lost=chaos.Lost(
            bytes=sum(lost.bytes for lost in losses),
            connections=sum(lost.connections for lost in losses),
            answers=sum(lost.answers for lost in losses),
            moved=sum(lost.moved for lost in losses),
            note=" ".join(lost.note for lost in losses if lost.note),
        ),
        faults=count,
        fault_every_s=fault_every_s,
        restarted=setup.count("command-started") - starts,
        seconds=time.monotonic() - began,
    )


def look(setup: chaos.Setup, samples: dict[str, Samples], at_s: float) -> None:
    pid = setup.session.process.pid
    status = Path(f"/proc/{pid}/status").read_text()
    client = status.partition("VmRSS:")[2].split()[0], len(list(Path(f"/proc/{pid}/fd").iterdir()))
    found = setup.node.first_process(pod_of(setup.session))
    for of, figures in (("client", client), ("agent", (found.memory, found.descriptors))):
        for what, figure in zip(("memory", "descriptors"), figures, strict=True):
            samples[f"{of}, {what}"].values.append((at_s, float(figure)))


def table(result: Result) -> str:
    heads = ("", "at the beginning", "at the end", "most", "slope, a minute")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for each in result.samples:
        figures = [figure for _, figure in each.warm()]
        told: list[str] = [_told(figure, each.unit) for figure in (figures[0], figures[-1])]
        told += [_told(max(figures), each.unit), f"{each.slope_a_minute():+.2f} {each.unit}"]
        lines.append(f"| {each.of} | {' | '.join(text.strip() for text in told)} |")
    lost = result.lost
    lines += [
        "",
        f"{result.faults} faults, one every {result.fault_every_s:g} s; 50 connections with "
        f"{lost.answers} answers and 2 with {lost.moved / 2**30:.2f} GiB, all found right; bytes "
        f"lost {lost.bytes}, connections lost {lost.connections}, processes restarted "
        f"{result.restarted}.",
    ]
    return "\n".join(lines)


def _told(figure: float, unit: str) -> str:
    return f"{figure / 1024:.1f} MiB" if unit == "KiB" else f"{figure:.0f}"
