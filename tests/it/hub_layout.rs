//! Models as the Hugging Face Hub keeps them: the graph in a folder `onnx`, and what describes it in the folder above.

use crate::support::eva::{eva, root, succeeded, text};
use std::fs;
use std::path::Path;
use std::process::Output;

/// The example model in the layout of the Hub, in the folder `repo`.
fn repository() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let repo = dir.path().join("repo");
    fs::create_dir_all(repo.join("onnx")).unwrap();
    for file in fs::read_dir(root().join("graphs/example/dynamo")).unwrap() {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        let folder = if name.starts_with("model.onnx") { repo.join("onnx") } else { repo.clone() };
        fs::copy(file.path(), folder.join(name)).unwrap();
    }
    dir
}

fn init(in_folder: &Path, model: &Path, out: &Path) -> Output {
    let mut command = eva();
    command.current_dir(in_folder).args(["init", "--max-batches", "2", "--device", "cpu", "--quiet", "--data"]);
    command.arg(root().join("fixtures/calibration.jsonl")).arg("--out").arg(out).arg(model).output().unwrap()
}

#[test]
fn the_files_above_are_read_as_if_they_were_beside() {
    let dir = repository();
    let folder = dir.path();
    let made = |out: &str, from: &Path, model: &Path| {
        succeeded(&init(from, model, &folder.join(out)));
        ["adapter_config.json", "adapter_model.safetensors"].map(|file| fs::read(folder.join(out).join(file)).unwrap())
    };
    let beside = made("beside", folder, &root().join("graphs/example/dynamo/model.onnx"));
    let onnx = folder.join("repo/onnx");
    let paths =
        [(folder, Path::new("repo/onnx/model.onnx")), (&onnx, Path::new("model.onnx")), (folder, Path::new("repo"))];
    for (index, (from, model)) in paths.into_iter().enumerate() {
        assert!(made(&index.to_string(), from, model) == beside, "{}", model.display());
    }
    let mut splice = eva();
    let splice =
        splice.arg("splice").arg(folder.join("repo")).arg(folder.join("beside")).arg("--out").arg(folder.join("s"));
    succeeded(&splice.output().unwrap());
    for file in ["model.onnx", "config.json", "tokenizer.json"] {
        assert!(folder.join("s").join(file).is_file(), "{file}");
    }
}

#[test]
fn a_folder_in_place_of_the_model() {
    let dir = repository();
    let onnx = dir.path().join("repo/onnx");
    let inspect = |path: &Path| eva().arg("inspect").arg(path).output().unwrap();
    let whole = succeeded(&inspect(&onnx.join("model.onnx")));
    assert_eq!(succeeded(&inspect(dir.path())), whole);
    fs::copy(onnx.join("model.onnx"), onnx.join("model_q4.onnx")).unwrap();
    let output = inspect(&onnx);
    assert_eq!(succeeded(&output), whole);
    assert!(
        text(&output.stderr).contains("onnx/model.onnx` is used, not the variant of it in its folder"),
        "{}",
        text(&output.stderr)
    );
    fs::copy(onnx.join("model.onnx"), onnx.join("embed_tokens.onnx")).unwrap();
    let output = inspect(&onnx);
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    assert!(
        ["model.onnx", "model_q4.onnx", "embed_tokens.onnx"].iter().all(|name| message.contains(name)),
        "{message}"
    );
    assert!(message.contains("give the file of one of them"), "{message}");
    let empty = tempfile::tempdir().unwrap();
    assert!(text(&inspect(empty.path()).stderr).contains("has no .onnx file"));
}
