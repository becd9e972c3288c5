//! Modules that read the same tensors: one grouping in `inspect`, its JSON and `eva.json`.

use std::collections::{BTreeMap, BTreeSet};

use eva_onnx::group::group;
use serde_json::Value;

use crate::support::graph::{BOOL, F32, net};
use crate::support::{eva, exports};

/// The group of every module of an `eva.json`.
fn of_report(report: &Value) -> BTreeMap<String, u64> {
    let layer = |layer: &Value| (layer["module"].as_str().unwrap().to_owned(), layer["group"].as_u64().unwrap());
    report["layers"].as_array().unwrap().iter().map(layer).collect()
}

/// The group of every module of `inspect --json` that has one.
fn of_document(document: &Value) -> BTreeMap<String, u64> {
    let mut groups = BTreeMap::new();
    for linear in document["linears"].as_array().unwrap() {
        let Some(group) = linear["group"].as_u64() else { continue };
        for part in linear["modules"].as_array().unwrap() {
            let other = groups.insert(part["module"].as_str().unwrap().to_owned(), group);
            assert!(other.is_none_or(|other| other == group), "all calls of a module are in its group");
        }
    }
    groups
}

/// The numbers in the column `group` of the table of `inspect`.
fn of_table(table: &str) -> BTreeSet<u64> {
    let cells = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let rows = cells.filter(|cells| cells.len() == 7 && cells[6] == "yes");
    rows.map(|cells| cells[4].parse().unwrap()).collect()
}

/// ALBERT calls the modules of its only block several times, each time with other tensors.
#[test]
fn albert_has_one_grouping() {
    let dir = exports::unpacked("albert/optimum");
    std::fs::write(dir.path().join("rows.jsonl"), "{\"input_ids\": [1, 7, 14, 21, 28, 5, 3, 8]}\n").unwrap();
    let run = |arguments: &[&str]| {
        let output = eva::eva().current_dir(dir.path()).args(arguments).output().unwrap();
        eva::succeeded(&output)
    };
    let table = run(&["inspect", "model.onnx"]);
    let document: Value = serde_json::from_str(&run(&["inspect", "model.onnx", "--json"])).unwrap();
    run(&[
        "init",
        "model.onnx",
        "--data",
        "rows.jsonl",
        "--out",
        "adapter",
        "--quiet",
        "--device",
        "cpu",
        "--rank",
        "2",
    ]);
    let report: Value = serde_json::from_slice(&std::fs::read(dir.path().join("adapter/eva.json")).unwrap()).unwrap();

    let groups = of_report(&report);
    let ids: BTreeSet<u64> = groups.values().copied().collect();
    assert_eq!(ids, (0..report["groups"].as_array().unwrap().len() as u64).collect());
    assert_eq!(of_document(&document), groups);
    assert_eq!(of_table(&table), ids);
    let count = format!("{} targeted modules in {} groups", groups.len(), ids.len());
    assert!(table.lines().next().unwrap().contains(&count), "{table}");
}

/// Both branches of an `If` have a tensor `h`.
#[test]
fn tensors_of_two_subgraphs_are_two_groups() {
    let branch = |module: &str| {
        let weight = format!("{module}.weight");
        let branch = net().weight(&weight, &[4, 4]).node("Sqrt", "", &["x"], "h");
        branch.node("MatMul", "", &["h", &weight], "y").output("y")
    };
    let net = net().input("x", F32).input("switch", BOOL).node("If", "choose", &["switch"], "y");
    let net = net.branch("then_branch", branch("a")).branch("else_branch", branch("b")).output("y");
    let (linears, _) = net.find(None);
    let grouping = group(linears.iter().map(|linear| (linear, linear.modules.iter().collect())));
    assert_eq!(grouping.ids(), [("a", 0), ("b", 1)].into());
}
