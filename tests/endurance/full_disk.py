"""Gives every command that writes ever less room on a disk, and looks at what is left.

    unshare --user --map-root-user --mount python tests/endurance/full_disk.py [--rows N] [--binary FILE] [--work DIR]

Linux only: mounts a small file system in memory, for which it must be root, or run as above. A command without enough room
must end with status 2, say so, and leave neither a half-written output nor a staging folder; with room again it must give
the bytes of any other run. Prints one table; exits with status 1 if something is wrong.
"""

import argparse
import errno
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

from commands import BINARY, COMMANDS, TARGET, Work, table

# Room in KiB of the first try, and by how much there is more in the next.
FIRST, MORE = 4, 2
# What a command must say: the system's words, or that the room which it will need is not there.
SAID = ("No space left on device", "are free in")


def fill(folder, kilobytes):
    """Fills a file system but for so many KiB, with the file `ballast`."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
    size = ballast.stat().st_size
    os.truncate(ballast, max(0, size - (kilobytes << 10)))


def mounted(folder, megabytes=96):
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], check=True)


def measure(folder, binary, command):
    work = Work(folder / "in-memory", binary, command)
    work.must(command.arguments + command.keeps)
    result = work.result()
    work.clear()
    kilobytes, tries, statuses, wrong, stages = FIRST, 0, set(), [], set()
    while True:
        fill(work.folder, kilobytes)
        status, said = work.run(command.line(work.binary))
        ballast = work.folder / "ballast"
        ballast.unlink()
        tries += 1
        there = work.result()
        if status == 0:
            if there != result:
                wrong.append(f"{kilobytes} KiB: status 0 and other bytes")
            break
        statuses.add(status)
        stages.add("after a state" if work.has_state() else "before")
        if status != 2 or not any(text in said for text in SAID):
            wrong.append(f"{kilobytes} KiB: status {status}: {said.strip()}")
        if there:
            wrong.append(f"{kilobytes} KiB: {sorted(there)} are there")
        if work.left():
            wrong.append(f"{kilobytes} KiB: {[path.name for path in work.left()]} are left")
        status, said = work.run(command.line(work.binary) + (command.resumes if work.has_state() else []))
        if status or work.result() != result:
            wrong.append(f"{kilobytes} KiB, then room: status {status}, {said.strip()}")
        if not work.inputs_are_whole():
            wrong.append(f"{kilobytes} KiB: an input was written to")
        work.clear()
        kilobytes *= MORE
    for line in wrong:
        print(f"WRONG: {command.name}: {line}", flush=True)
    return [command.name, tries - 1, ", ".join(map(str, sorted(statuses))), ", ".join(sorted(stages)), f"{kilobytes} KiB",
            len(wrong)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, help="of the data, where a run takes longer than some seconds")
    parser.add_argument("--binary", type=Path, default=BINARY)
    parser.add_argument("--work", type=Path, default=TARGET / "endurance/full-disk")
    args = parser.parse_args()
    shutil.rmtree(args.work, ignore_errors=True)
    mounted(args.work)
    try:
        commands = [replace(command, rows=args.rows or command.rows) for command in COMMANDS]
        rows = [measure(args.work, args.binary, command) for command in commands]
    finally:
        subprocess.run(["umount", args.work], check=True)
    table(["command", "tries without room", "exit status", "ended", "room that is enough", "wrong"], rows)
    raise SystemExit(any(row[-1] for row in rows))


if __name__ == "__main__":
    main()
