//! The pages for users: their commands run, their links lead somewhere, and the README's figures are measured ones.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::eva::{eva, root};

/// Every page, with the number of commands that run here and of those marked `no-run`.
const PAGES: [(&str, usize, usize); 16] = [
    ("README.md", 10, 3),
    ("docs/adapters.md", 10, 0),
    ("docs/data.md", 7, 6),
    ("docs/exporters.md", 0, 0),
    ("docs/gpu.md", 1, 4),
    ("docs/kinds.md", 0, 0),
    ("docs/library.md", 0, 0),
    ("docs/method.md", 0, 0),
    ("docs/names.md", 10, 0),
    ("docs/options.md", 6, 3),
    ("docs/python.md", 0, 0),
    ("docs/report.md", 3, 0),
    ("docs/scale.md", 7, 2),
    ("docs/summary.md", 0, 0),
    ("docs/training.md", 5, 1),
    ("docs/troubleshooting.md", 0, 0),
];

/// Rows of the calibration data that the pages' commands are given.
const ROWS: usize = 32;

/// The fenced blocks of a page: what stands after the fence, and the lines.
fn blocks(text: &str) -> Vec<(String, Vec<String>)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, Vec<String>)> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(info), None) => open = Some((info.to_owned(), Vec::new())),
            (None, Some((_, lines))) => lines.push(line.to_owned()),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is never closed");
    blocks
}

/// The words of a command line; single quotes keep spaces, and a comment ends it.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
            continue;
        }
        for word in part.split_whitespace() {
            if word.starts_with('#') {
                return words;
            }
            words.push(word.to_owned());
        }
    }
    words
}

/// A folder as the pages assume it: a model with its tokenizer and checkpoint, and data.
fn workplace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let copy = |from: PathBuf, to: PathBuf| {
        fs::create_dir_all(&to).unwrap();
        for file in fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    };
    copy(root().join("graphs/example/dynamo"), dir.path().to_owned());
    copy(root().join("graphs/example/checkpoint"), dir.path().join("checkpoint"));
    let rows = fs::read_to_string(root().join("fixtures/calibration.jsonl")).unwrap();
    let rows: Vec<_> = rows.lines().take(ROWS).collect();
    fs::write(dir.path().join("calibration.jsonl"), rows.join("\n")).unwrap();
    dir
}

#[track_caller]
fn run(page: &str, line: &str, dir: &Path) {
    let words = words(line);
    assert_eq!(words[0], "eva-onnx", "{page}: mark blocks with other programs `no-run`: {line}");
    let output = eva().args(&words[1..]).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{page}: {line}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn commands_of_the_pages_run() {
    for (page, runs, marked) in PAGES {
        let dir = workplace();
        let mut found = (0, 0);
        for (info, lines) in blocks(&fs::read_to_string(root().join(page)).unwrap()) {
            let lines = lines.iter().filter(|line| !line.trim().is_empty());
            match info.as_str() {
                "sh" => lines.for_each(|line| {
                    run(page, line, dir.path());
                    found.0 += 1;
                }),
                "sh no-run" => found.1 += lines.count(),
                _ => {}
            }
        }
        assert_eq!(found, (runs, marked), "commands of {page} that run here, and that cannot");
    }
}

#[test]
fn every_page_is_listed() {
    let mut pages: Vec<String> = fs::read_dir(root().join("docs"))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    pages.sort();
    let listed: Vec<_> = PAGES.iter().filter_map(|(page, ..)| page.strip_prefix("docs/")).collect();
    assert_eq!(pages, listed);
}

/// Where GitHub puts a heading: lower case, punctuation dropped, spaces as dashes.
fn anchor(heading: &str) -> String {
    let kept = heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .collect::<String>();
    kept.replace(' ', "-")
}

#[test]
fn links_lead_somewhere() {
    let others = ["ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"];
    for page in PAGES.iter().map(|(page, ..)| *page).chain(others) {
        let text = fs::read_to_string(root().join(page)).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("http") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let path =
                if file.is_empty() { root().join(page) } else { root().join(page).with_file_name("").join(file) };
            assert!(path.exists(), "{page} links to {target}");
            if !heading.is_empty() {
                let text = fs::read_to_string(path).unwrap();
                let mut headings = text.lines().filter(|line| line.starts_with('#'));
                assert!(
                    headings.any(|line| anchor(line.trim_start_matches('#').trim()) == heading),
                    "{page} links to {target}"
                );
            }
        }
    }
}

#[test]
fn the_readme_is_short_and_its_figures_were_printed_by_a_benchmark() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.lines().count() < 120);
    let results = fs::read_to_string(root().join("benches/results.md")).unwrap_or_default();
    let (_, rest) = readme.split_once("<!-- rows of benches/results.md -->\n").unwrap();
    let (table, _) = rest.split_once("<!-- end of rows -->").unwrap();
    for row in table.lines().skip(2) {
        assert!(
            results.lines().any(|line| line == row),
            "`python benches/results.py` copies the rows; not there: {row}"
        );
    }
}
