"""Prints what is measured and keeps it in benches/results.md, a section a command."""

import datetime
import os
import subprocess

from programs import ROOT, median, peak, ratios

FILE = ROOT / "benches/results.md"
README = ROOT / "README.md"
INTRODUCTION = """# Measured results

Written by `make bench` and `make bench-cuda`. The rows of the README's table are rows of the tables here; after a run,
`python benches/results.py` copies them. A test compares the two files.
"""
# One row a model and device, for the README.
COLUMNS = [
    "model, batches",
    "on",
    "plain pass, eva-onnx",
    "PEFT's EVA",
    "memory: plain, eva-onnx",
    "variance captured: worst, mean",
    "\\|cosine\\|",
]


class Section:
    """Markdown that is printed as it comes and put into FILE at the end."""

    def __init__(self, name, title, machine):
        self.name, self.lines = name, []
        self.say(f"## {title}\n\n{machine}; commit {commit()}; {datetime.date.today()}\n")

    def say(self, text=""):
        print(text, flush=True)
        self.lines += text.split("\n")

    def table(self, header, rows):
        self.say(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
        for row in rows:
            self.say(f"| {' | '.join(row)} |")
        self.say()

    def save(self):
        """Puts this section in the place of the last one of its name."""
        begin, end = f"<!-- begin {self.name} -->\n", f"<!-- end {self.name} -->\n"
        body = begin + "\n".join(self.lines).strip("\n") + "\n" + end
        text = FILE.read_text() if FILE.is_file() else INTRODUCTION
        if begin in text:
            before, rest = text.split(begin)
            text = before + body + rest.split(end)[1]
        else:
            text += "\n" + body
        FILE.write_text(text)


def row(model, device, runs, peft=None, ours=None, theirs=None):
    """A row of COLUMNS.

    `runs` is what Programs.pairs gives, `peft` a report of PEFT's EVA, `ours` and `theirs` are summaries of the
    accuracy. What was not measured is a dash.
    """
    plain, total = median(runs["plain"], "wall"), median(runs["ours"], "wall")
    ratio, least, most = ratios(runs, "wall")
    processor, _, _ = ratios(runs, "processor")
    captured, cosine = (f"{ours[0]:.4f}, {ours[1]:.4f}", f"{ours[2]:.4f}") if ours else ("-", "-")
    if theirs:
        captured += f"; PEFT {theirs[0]:.4f}, {theirs[1]:.4f}"
        cosine += f"; PEFT {theirs[2]:.4f}"
    return [
        model,
        device,
        f"{plain:.1f} s, {total:.1f} s: {ratio:.2f}x ({least:.2f}-{most:.2f}); processor {processor:.2f}x",
        against(peft, total) if peft else "-",
        f"{peak(runs['plain']):.1f}, {peak(runs['ours']):.1f} GiB",
        captured,
        cosine,
    ]


def against(peft, total):
    """The seconds of PEFT's initialisation, its model loaded, and how many times ours they are."""
    over = "" if peft.get("converged", True) else "over "
    return f"{over}{peft['seconds']:.0f} s, {over}{peft['seconds'] / total:.1f}x eva-onnx"


def commit():
    """The commit that is measured; COMMIT names it where there is no repository."""
    try:
        head = git("rev-parse", "--short", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":!benches/results.md", ":!README.md")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("COMMIT", "unknown")
    return head + (" with changes" if changed else "")


def git(*arguments):
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def rows_for_readme(text):
    """The rows of all tables with COLUMNS."""
    rows, inside = [], False
    for line in text.splitlines():
        if line == f"| {' | '.join(COLUMNS)} |":
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and not line.startswith("|---"):
            rows.append(line)
    return rows


def main():
    """Copies the rows into the README."""
    begin, end = "<!-- rows of benches/results.md -->\n", "<!-- end of rows -->\n"
    table = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}", *rows_for_readme(FILE.read_text())]
    before, rest = README.read_text().split(begin)
    README.write_text(before + begin + "\n".join(table) + "\n" + end + rest.split(end)[1])


if __name__ == "__main__":
    main()
