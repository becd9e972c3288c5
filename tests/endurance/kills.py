"""Kills every command that writes at random moments, and looks at what is left and at what the next run makes of it.

    python tests/endurance/kills.py [--kills N] [--only NAME] [--rows N] [--binary FILE] [--seed N] [--work DIR]

The moments are uniform over the time that a whole run takes. After each kill, the inputs must be what they were, and the
output absent or whole. The same command is run again, with --resume if a state is there, and killed again, until it ends by
itself: its output must have the bytes of a run that was never killed, and nothing else may be left. Prints two tables, of
kills and of signals that a program may catch; exits with status 1 if something is wrong.
"""

import argparse
import random
import shutil
import signal
import statistics
import subprocess
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from commands import BINARY, COMMANDS, OF_PROCESS, TARGET, Work, table

# Runs that are timed before the first kill.
TIMED = 2


@dataclass
class Found:
    """What was seen of one command."""

    seconds: float = 0.0
    kills: int = 0
    # Kills after which there was a state, an output, or a staging folder.
    with_state: int = 0
    with_output: int = 0
    with_staging: int = 0
    # Runs that ended by themselves, and those of them that went on from a state.
    done: int = 0
    resumed: int = 0
    wrong: list = field(default_factory=list)

    def say(self, what, text):
        self.wrong.append((what, text))
        print(f"WRONG: {what}: {text}", flush=True)

    def count(self, what):
        return sum(kind == what for kind, _ in self.wrong)


def expected(work):
    """The result of a run that is not killed, whose weights are those of a run that keeps no state, and its seconds."""
    command, seconds, results = work.command, [], []
    for options in [[], *[command.keeps] * TIMED]:
        work.clear()
        started = time.monotonic()
        work.must(command.arguments + options)
        seconds.append(time.monotonic() - started)
        results.append(work.result())
    work.clear()
    without, first = results[:2]
    # Notes may say where a run keeps its state.
    other = [name for name in differing(without, first) if name not in OF_PROCESS]
    other += [name for result in results[2:] for name in differing(result, first)]
    if other:
        raise SystemExit(f"{command.name}: runs that are not killed differ in {other}")
    return first, statistics.median(seconds[1:])


def differing(one, other):
    """The names of files that two outputs do not have alike."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def look(work, result, found):
    """What a killed run left."""
    if not work.inputs_are_whole():
        found.say("inputs", "an input was written to")
    there = work.result()
    if there and there != result:
        found.say("half-written", f"the output differs in {differing(there, result)}")
    if there and work.command.checked and there == result:
        status, said = work.run([str(work.binary), *work.command.checked])
        if status:
            found.say("half-written", f"check: {said}")
    found.with_output += bool(there)
    found.with_state += work.has_state()
    found.with_staging += bool(work.left())


def until_done(work, result, found, most, rng):
    """Runs a command until it ends by itself or was killed often enough; whether it ended."""
    command = work.command
    while True:
        going_on = work.has_state()
        line = command.line(work.binary) + (command.resumes if going_on else [])
        if work.result():
            # Killed after the output appeared.
            line.append("--force")
        process = work.start(line)
        try:
            said = process.communicate(timeout=rng.uniform(0, found.seconds) if found.kills < most else None)[1]
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            said = process.communicate()[1]
        if process.returncode == -signal.SIGKILL:
            found.kills += 1
            look(work, result, found)
            continue
        if process.returncode:
            return found.say("refused", f"{' '.join(line[1:])}: status {process.returncode}: {said}")
        found.done += 1
        found.resumed += going_on
        if work.result() != result:
            found.say("other bytes", f"after {found.kills} kills: {differing(work.result(), result)}")
        rest = [path.name for path in work.left()] + work.others()
        if command.state and not command.state.startswith(command.out + "/") and (work.folder / command.state).exists():
            rest.append(command.state)
        if rest:
            found.say("left", f"{rest}")
        if not work.inputs_are_whole():
            found.say("inputs", "an input was written to")
        return


def kill(folder, binary, command, most, seed):
    work = Work(folder, binary, command)
    result, seconds = expected(work)
    found, rng = Found(seconds), random.Random(f"{command.name} {seed}")
    while found.kills < most and len(found.wrong) < 20:
        until_done(work, result, found, most, rng)
        work.clear()
    return found


def signalled(folder, binary, command, number, seed):
    """Sends a signal in the middle of a run: its exit status, what is there then, and whether the next run is right."""
    work = Work(folder, binary, command)
    result, seconds = expected(work)
    rng = random.Random(f"{command.name} {number} {seed}")
    for _ in range(50):
        process = work.start(command.line(work.binary))
        time.sleep(rng.uniform(0.2, 0.9) * seconds)
        process.send_signal(number)
        said = process.communicate()[1]
        if process.returncode:
            break
        work.clear()
    there = work.result()
    # `train` writes the adapter of the steps so far, which is another.
    output = "none" if not there else "whole" if there == result else "of the steps so far"
    if there and command.checked and work.run([str(work.binary), *command.checked])[0]:
        output = "half-written"
    left = "none" if not work.left() else ", ".join(path.name for path in work.left())
    state, going_on = "yes" if work.has_state() else "no", work.has_state()
    line = command.line(work.binary) + (command.resumes if going_on else []) + (["--force"] if there else [])
    status, _ = work.run(line)
    same = "same bytes" if status == 0 and work.result() == result else f"status {status}, other bytes"
    name = signal.Signals(number).name
    last = said.strip().splitlines()[-1] if said.strip() else ""
    row = [command.name, name, process.returncode, output, left, state, same, last]
    fine = process.returncode == 130 and output != "half-written" and left == "none" and same == "same bytes"
    return row, fine and work.inputs_are_whole()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="in all; every command gets as many")
    parser.add_argument("--only", help="one command")
    parser.add_argument("--rows", type=int, help="of the data, where a run takes longer than some seconds")
    parser.add_argument("--binary", type=Path, default=BINARY)
    parser.add_argument("--work", type=Path, default=TARGET / "endurance/kills")
    parser.add_argument("--seed", default="0")
    args = parser.parse_args()
    # In the background of a script, Ctrl-C is ignored, and what is started there ignores it, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    commands = [command for command in COMMANDS if args.only in (None, command.name)]
    commands = [replace(command, rows=args.rows or command.rows) for command in commands]
    rows, signals, fine = [], [], True
    for command in commands:
        folder = args.work / command.name.replace(" --", "-")
        found = kill(folder, args.binary, command, -(-args.kills // len(commands)), args.seed)
        wrong = [found.count(what) for what in ("inputs", "half-written", "refused", "other bytes", "left")]
        rows.append([command.name, f"{found.seconds:.2f}", found.kills, found.with_state, found.with_staging,
                     found.with_output, found.done, found.resumed, *wrong])
        fine &= not found.wrong
        for number in (signal.SIGINT, signal.SIGTERM):
            row, right = signalled(folder, args.binary, command, number, args.seed)
            signals.append(row)
            fine &= right
        shutil.rmtree(folder)
    table(["command", "s", "killed while it ran", "left a state", "left a staging folder", "output was there",
           "runs to the end", "of them from a state", "inputs changed", "half-written", "refused", "other bytes",
           "left over"], rows)
    print()
    table(["command", "signal", "exit status", "output", "staging folders", "state", "the next run", "says"], signals)
    raise SystemExit(not fine)


if __name__ == "__main__":
    main()
