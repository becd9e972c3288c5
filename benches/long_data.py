"""Measures the time to the first batch and the peak memory for short and long data files.

    python benches/long_data.py [--bytes N] [--binary FILE]

Writes the rows of fixtures/calibration.jsonl again and again, up to N bytes (1 GiB) as JSON lines, and in other forms.
`eva-onnx init` runs the example model on them for two batches. Prints a Markdown table: that of docs/data.md. Zstandard
and Parquet need pyarrow, and are left out without it.
"""

import argparse
import csv
import gzip
import itertools
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from programs import ROOT, TARGET

try:
    import pyarrow
    import pyarrow.parquet
except ImportError:
    pyarrow = None

MODEL = ROOT / "graphs/example/dynamo/model.onnx"
ROWS = [json.loads(line) for line in (ROOT / "fixtures/calibration.jsonl").read_text().splitlines()]
MIB = 1 << 20


def rows(size):
    """Rows of about so many bytes as JSON lines, none like another."""
    written = at = 0
    while written < size:
        row = ROWS[at % len(ROWS)]
        row = {"question": f"{at}. {row['question']}", "answer": row["answer"]}
        at += 1
        written += len(json.dumps(row)) + 1
        yield row


def lines(path, size):
    with open(path, "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows(size))


def table(path, size):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, ["question", "answer"])
        writer.writeheader()
        writer.writerows(rows(size))


def compressed(path, size):
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.writelines(json.dumps(row) + "\n" for row in rows(size))


def zstandard(path, size):
    with pyarrow.CompressedOutputStream(path, "zstd") as file:
        for row in rows(size):
            file.write(json.dumps(row).encode() + b"\n")


def parquet(path, size):
    schema = pyarrow.schema([("question", pyarrow.string()), ("answer", pyarrow.string())])
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        all_rows = rows(size)
        while group := list(itertools.islice(all_rows, 1 << 16)):
            writer.write_table(pyarrow.Table.from_pylist(group, schema))


FORMS = {"JSON lines": lines, "JSON lines, shuffled": lines, "JSON lines, gzip": compressed, "CSV": table}
if pyarrow:
    FORMS |= {"JSON lines, Zstandard": zstandard, "Parquet": parquet}


def measured(binary, data, out, *options):
    """Seconds to the first batch, and MiB."""
    command = [binary, "init", MODEL, "--data", data, "--out", out, "--force", "--device", "cpu", "--json", "--quiet"]
    command += ["--max-batches", "2", "--rank", "4", *options]
    report = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return report["seconds"]["load"], report["peak_rss_bytes"] / MIB


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bytes", type=int, default=1 << 30)
    parser.add_argument("--binary", type=Path, default=TARGET / "release/eva-onnx")
    arguments = parser.parse_args()
    sizes = [MIB, arguments.bytes]
    print("| data | " + " | ".join(f"{size // MIB} MiB: first batch, memory" for size in sizes) + " |")
    print("|---|" + "---|" * len(sizes))
    with tempfile.TemporaryDirectory() as work:
        for name, write in FORMS.items():
            cells = []
            for size in sizes:
                data = Path(work) / "rows"
                write(data, size)
                options = ["--shuffle"] if "shuffled" in name else []
                seconds, mebibytes = measured(arguments.binary, data, Path(work) / "out", *options)
                cells.append(f"{seconds:.2f} s, {mebibytes:.0f} MiB")
                data.unlink()
                shutil.rmtree(Path(work) / "out", ignore_errors=True)
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
