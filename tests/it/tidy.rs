//! The order of the house: files import one way, and stay short.

use crate::support::eva::root;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Lines of a file, unit tests included.
const LONGEST: usize = 400;

type Module = Vec<String>;

/// A source file, and what it names.
struct File {
    path: String,
    /// Absolute paths of what is imported for use here, and of what the code names in full.
    named: Vec<Module>,
    /// What imports add to the names of the module, by the last name.
    imported: BTreeMap<String, Module>,
}

/// Every file of Rust below a folder of the repository.
fn sources(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
        }
    }
    found.sort();
}

/// `src/a/b.rs` and `src/a/b/mod.rs` are `a::b`; the roots of the crates are `` and `bin`.
fn module(path: &str) -> Module {
    let path = path.trim_start_matches("src/").replace("bin/eva-onnx", "bin");
    let parts = path.trim_end_matches(".rs").split('/');
    parts.filter(|part| !["mod", "lib", "main"].contains(part)).map(str::to_owned).collect()
}

/// The code without comments and unit tests.
fn code(path: &str) -> String {
    let text = fs::read_to_string(root().join(path)).unwrap();
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap().split("#[cfg(test)]\npub").next().unwrap();
    text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// Every path of the tree of a `use`, such as `a::{b, c::{d, self}}`, with the names that they get.
fn leaves(tree: &str, before: &[String], found: &mut Vec<(Module, String)>) {
    let tree = tree.trim();
    let Some((head, group)) = tree.split_once('{') else {
        let (path, name) = tree.split_once(" as ").unwrap_or((tree, ""));
        let mut path: Module =
            before.iter().cloned().chain(path.split("::").map(|part| part.trim().to_owned())).collect();
        path.retain(|part| !part.is_empty());
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let name = if name.is_empty() { path.last().cloned().unwrap_or_default() } else { name.trim().to_owned() };
        return found.push((path, name));
    };
    let before: Module = before.iter().cloned().chain(head.split("::").map(|part| part.trim().to_owned())).collect();
    let (mut depth, mut start) = (0, 0);
    let group = group.trim_end().strip_suffix('}').unwrap();
    for (at, letter) in group.char_indices().chain([(group.len(), ',')]) {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !group[start..at].trim().is_empty() {
                    leaves(&group[start..at], &before, found);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// A path as it is read in a module, from the root; `None` for what is of another crate.
fn absolute(path: &[String], module: &Module, modules: &BTreeSet<Module>) -> Option<Module> {
    let mut parts = path.iter().filter(|part| !part.is_empty()).cloned().peekable();
    let mut base = module.clone();
    match parts.peek()?.as_str() {
        "crate" => {
            base.truncate(usize::from(module.first().is_some_and(|first| first == "bin")));
            parts.next();
        }
        "self" => {
            parts.next();
        }
        "super" => {
            while parts.next_if(|part| part == "super").is_some() {
                base.pop();
            }
        }
        first => {
            let child: Module = base.iter().cloned().chain([first.to_owned()]).collect();
            modules.contains(&child).then_some(())?;
        }
    }
    base.extend(parts);
    Some(base)
}

fn read(path: &str, modules: &BTreeSet<Module>) -> File {
    let (code, module) = (code(path), module(path));
    let import = regex::Regex::new(r"(?m)^\s*(pub(?:\([^)]*\))? )?use ([^;]*);").unwrap();
    let (mut named, mut imported) = (Vec::new(), BTreeMap::new());
    for found in import.captures_iter(&code) {
        let mut paths = Vec::new();
        leaves(&found[2].split_whitespace().collect::<Vec<_>>().join(" "), &[], &mut paths);
        for (path, name) in paths {
            let Some(path) = absolute(&path, &module, modules) else { continue };
            // What a module only passes on is no need of its own.
            if found.get(1).is_none() {
                named.push(path.clone());
            }
            imported.insert(name, path);
        }
    }
    let inline = regex::Regex::new(r"\b\w+(?:::\w+)+").unwrap();
    for found in inline.find_iter(&import.replace_all(&code, "")) {
        let path: Module = found.as_str().split("::").map(str::to_owned).collect();
        named.extend(absolute(&path, &module, modules));
    }
    File { path: path.to_owned(), named, imported }
}

/// The module that holds what a path names, through what modules pass on.
fn holder(path: &Module, files: &BTreeMap<Module, File>) -> Option<Module> {
    let mut path = path.clone();
    for _ in 0..8 {
        let known =
            (0..=path.len()).rev().map(|length| path[..length].to_vec()).find(|module| files.contains_key(module))?;
        let next = path.get(known.len()).and_then(|name| files[&known].imported.get(name));
        match next {
            Some(next) if next[..] != path[..] => path = next.clone(),
            _ => return Some(known),
        }
    }
    None
}

/// Everything that a module needs, directly or not.
fn reached(from: &Module, needs: &BTreeMap<Module, BTreeSet<Module>>) -> BTreeSet<Module> {
    let (mut seen, mut left) = (BTreeSet::new(), vec![from]);
    while let Some(module) = left.pop() {
        for next in &needs[module] {
            if seen.insert(next.clone()) {
                left.push(next);
            }
        }
    }
    seen
}

#[test]
fn imports_go_one_way() {
    let mut paths = Vec::new();
    sources(&root().join("src"), &mut paths);
    let modules: BTreeSet<Module> = paths.iter().map(|path| module(path)).collect();
    let files: BTreeMap<Module, File> = paths.iter().map(|path| (module(path), read(path, &modules))).collect();
    let needs: BTreeMap<Module, BTreeSet<Module>> = files
        .iter()
        .map(|(module, file)| {
            let held = file.named.iter().filter_map(|path| holder(path, &files));
            (module.clone(), held.filter(|held| held != module).collect())
        })
        .collect();
    let reached: BTreeMap<&Module, BTreeSet<Module>> =
        needs.keys().map(|module| (module, reached(module, &needs))).collect();
    let mut circles = BTreeSet::new();
    for (module, others) in &reached {
        let circle = others.iter().filter(|other| reached[other].contains(*module));
        let circle: BTreeSet<&str> = circle.map(|module| files[module].path.as_str()).collect();
        if !circle.is_empty() {
            circles.insert(circle.into_iter().collect::<Vec<_>>().join(" "));
        }
    }
    let edges = |circle: &String| {
        let inside: Vec<&str> = circle.split(' ').collect();
        let mut lines = vec![format!("these files need each other: {circle}")];
        for (module, needs) in &needs {
            let from = files[module].path.as_str();
            for to in needs.iter().map(|need| files[need].path.as_str()) {
                if inside.contains(&from) && inside.contains(&to) {
                    lines.push(format!("  {from} needs {to}"));
                }
            }
        }
        lines.join("\n")
    };
    assert!(circles.is_empty(), "{}", circles.iter().map(edges).collect::<Vec<_>>().join("\n"));
}

#[test]
fn files_are_short() {
    let mut paths = Vec::new();
    for folder in ["src", "tests", "benches"] {
        sources(&root().join(folder), &mut paths);
    }
    for path in paths {
        let text = fs::read_to_string(root().join(&path)).unwrap();
        let lines = text.lines().count();
        assert!(lines <= LONGEST || text.contains("// @generated\n"), "{path} has {lines} lines");
    }
}
