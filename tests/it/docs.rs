//! The pages for users: their commands run and print what they show, their links lead somewhere, and the README's figures
//! are measured ones.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::eva::{eva, root, text};
use crate::support::exports;

/// Every page, with the number of commands that run here and of those marked `no-run`.
const PAGES: [(&str, usize, usize); 23] = [
    ("README.md", 10, 3),
    ("docs/README.md", 0, 0),
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
    ("docs/scale.md", 7, 3),
    ("docs/start/genai.md", 4, 0),
    ("docs/start/optimum.md", 3, 1),
    ("docs/start/peft.md", 7, 0),
    ("docs/start/scale.md", 6, 0),
    ("docs/start/training.md", 4, 0),
    ("docs/start/vision.md", 3, 1),
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

/// A folder as the pages assume it: a model with its tokenizer and checkpoint, and data; and models of other kinds in
/// folders of their own.
fn workplace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let copy = |from: &Path, to: PathBuf| {
        fs::create_dir_all(&to).unwrap();
        for file in fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    };
    let at = |name: &str| dir.path().join(name);
    copy(&root().join("graphs/example/dynamo"), dir.path().to_owned());
    copy(&root().join("graphs/example/checkpoint"), at("checkpoint"));
    copy(&root().join("graphs/example/optimum"), at("llama"));
    copy(exports::unpacked("genai-llama/int4").path(), at("genai"));
    copy(exports::unpacked("vit/dynamo").path(), at("vit"));
    let settings = r#"{"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}}"#;
    fs::write(at("vit/preprocessor_config.json"), settings).unwrap();
    fs::create_dir(at("pictures")).unwrap();
    for name in ["photo.jpg", "rgb.png", "tall.png", "wide.png"] {
        fs::copy(root().join("fixtures/media").join(name), at("pictures").join(name)).unwrap();
    }
    let rows = fs::read_to_string(root().join("fixtures/calibration.jsonl")).unwrap();
    let rows: Vec<_> = rows.lines().take(ROWS).collect();
    fs::write(at("calibration.jsonl"), rows.join("\n")).unwrap();
    // Ids of the 40 tokens of the models in `graphs/exports`, in rows of 8 to 15.
    let ids =
        |row: usize| (0..8 + row % 8).map(|at| ((7 * row + 3 * at * at) % 37 + 3).to_string()).collect::<Vec<_>>();
    let tokens = (0..ROWS).map(|row| format!("{{\"input_ids\": [{}]}}\n", ids(row).join(", ")));
    fs::write(at("tokens.jsonl"), tokens.collect::<String>()).unwrap();
    dir
}

/// Runs a command and returns what it prints.
#[track_caller]
fn run(page: &str, line: &str, dir: &Path) -> String {
    let words = words(line);
    assert_eq!(words[0], "eva-onnx", "{page}: mark blocks with other programs `no-run`: {line}");
    let output = eva().args(&words[1..]).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{page}: {line}\n{}", String::from_utf8_lossy(&output.stderr));
    text(&output.stdout)
}

/// What depends on the machine: times, memory, rates, seconds of the parts of a run, the version of ONNX Runtime.
const VOLATILE: &str = r"\b\d[\d.,]* (s|ms|min|h|MiB|GiB)\b|\b\d+ predictions/s|\(load .*\)|\b\d+\.\d+\.\d+\b";

/// A block `console`: commands after `$ `, each with the lines that it prints, in which `[..]` stands for anything.
fn session(page: &str, lines: &[String], dir: &Path) -> String {
    let volatile = regex::Regex::new(VOLATILE).unwrap();
    let commands = lines.iter().filter_map(|line| line.strip_prefix("$ "));
    let shown = commands.map(|line| {
        let printed = run(page, line, dir);
        // Blank lines at the ends would only make the page longer.
        let printed = printed.trim_matches('\n').lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
        let printed = volatile.replace_all(&printed, "[..]");
        if printed.is_empty() { format!("$ {line}\n") } else { format!("$ {line}\n{printed}\n") }
    });
    shown.collect()
}

#[test]
fn commands_of_the_pages_run_and_print_what_is_shown() {
    let is_update = std::env::var_os("UPDATE_DOCS").is_some();
    for (page, runs, marked) in PAGES {
        let dir = workplace();
        let mut found = (0, 0);
        let text = fs::read_to_string(root().join(page)).unwrap();
        let mut updated = text.clone();
        for (info, lines) in blocks(&text) {
            let commands = lines.iter().filter(|line| !line.trim().is_empty());
            match info.as_str() {
                "sh" => commands.for_each(|line| {
                    run(page, line, dir.path());
                    found.0 += 1;
                }),
                "sh no-run" => found.1 += commands.count(),
                "console" => {
                    found.0 += commands.filter(|line| line.starts_with("$ ")).count();
                    let (shown, printed) = (lines.join("\n") + "\n", session(page, &lines, dir.path()));
                    if !is_update {
                        snapbox::Assert::new().normalize_paths(false).eq(&printed, &shown);
                    }
                    updated = updated.replacen(&format!("```console\n{shown}"), &format!("```console\n{printed}"), 1);
                }
                _ => {}
            }
        }
        assert_eq!(found, (runs, marked), "commands of {page} that run here, and that cannot");
        if is_update && updated != text {
            fs::write(root().join(page), &updated).unwrap();
        }
    }
}

#[test]
fn every_page_is_listed() {
    let files = |folder: &str| {
        let pages = fs::read_dir(root().join(folder)).unwrap().map(|file| file.unwrap().path());
        let pages = pages.filter(|path| path.is_file()).map(|path| path.file_name().unwrap().to_owned());
        pages.map(|name| format!("{folder}/{}", name.into_string().unwrap())).collect::<Vec<_>>()
    };
    let mut pages: Vec<String> = ["docs", "docs/start"].into_iter().flat_map(files).collect();
    pages.sort();
    let listed: Vec<_> = PAGES.iter().map(|(page, ..)| *page).filter(|page| page.starts_with("docs/")).collect();
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
