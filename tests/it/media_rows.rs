//! Rows that name pictures and sounds: what is learnt is the exact PCA of what transformers makes of them.

use crate::support::adapters::read_a;
use crate::support::eva;
use crate::support::exact;
use crate::support::graph::{F32, Net, net, pattern};
use crate::support::tolerance::{rounded_away, within};
use base64::Engine;
use eva_onnx::media::{SettingsFile, SoundProcessor};
use ndarray::Array2;
use serde_json::{Value, json};
use std::f32::consts::TAU;
use std::fs;
use std::io::BufWriter;
use std::path::Path;

/// Width and height of the pictures, and their samples.
const SIZE: (u32, u32) = (4, 2);
const SAMPLES: usize = 24;

/// A folder with a model whose layer `fc` reads `x` of so many features, and settings.
fn folder(net: Net, features: usize, settings: Option<&Value>) -> tempfile::TempDir {
    let net = net.values("w", &[features as i64, 5], &pattern(5 * features));
    let (dir, _) = net.node("MatMul", "/fc/MatMul", &["x", "w"], "y").output("y").open();
    if let Some(settings) = settings {
        fs::write(dir.path().join("preprocessor_config.json"), settings.to_string()).unwrap();
    }
    dir
}

/// A model of pictures of [`SIZE`].
fn of_pictures(settings: Option<&Value>) -> tempfile::TempDir {
    let net = net().named_input("pixel_values", F32, &["batch", "3", "2", "4"]);
    let net =
        net.integers("flat", &[2], &[-1, SAMPLES as i64]).node("Reshape", "/Reshape", &["pixel_values", "flat"], "x");
    folder(net, SAMPLES, settings)
}

fn vit() -> Value {
    json!({"image_processor_type": "ViTImageProcessor", "size": {"height": 2, "width": 4}})
}

/// The samples of a picture that looks random.
fn samples(number: usize) -> Vec<u8> {
    (0..SAMPLES).map(|at| ((at * 37 + number * 101 + at * at * number) % 256) as u8).collect()
}

fn write_png(path: &Path, samples: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut encoder = png::Encoder::new(BufWriter::new(fs::File::create(path).unwrap()), SIZE.0, SIZE.1);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header().unwrap().write_image_data(samples).unwrap();
}

/// What a picture becomes: channel by channel, from -1 to 1.
fn pixel_values(samples: &[u8]) -> impl Iterator<Item = f64> + '_ {
    let channel = |channel| samples.iter().skip(channel).step_by(3).map(|sample| f64::from(*sample) / 127.5 - 1.0);
    (0..3).flat_map(channel)
}

/// Runs `init` in a folder, and returns what it says if it fails.
fn init(dir: &Path, options: &[&str]) -> Result<(), String> {
    let mut command = eva::eva();
    command.current_dir(dir).args(["init", "m.onnx", "--device", "cpu", "--out", "out"]);
    let output = command.args(["--trust-node-names", "--tau", "1", "--rank", "4"]).args(options).output().unwrap();
    if output.status.success() { Ok(()) } else { Err(eva::text(&output.stderr)) }
}

/// Expects the leading directions of `seen`, the inputs of the layer one after the other.
#[track_caller]
fn learns(dir: &Path, options: &[&str], seen: &[f64], features: usize) {
    let seen = Array2::from_shape_vec((seen.len() / features, features), seen.to_vec()).unwrap();
    init(dir, options).unwrap_or_else(|said| panic!("{said}"));
    let (_, a) = read_a(&dir.join("out")).into_iter().find(|(module, _)| module == "fc").unwrap();
    within(1.0 - exact(seen.view()).captured(a.view()), rounded_away(), &options.join(" "));
    let report: Value = serde_json::from_slice(&fs::read(dir.join("out/eva.json")).unwrap()).unwrap();
    assert_eq!(report["groups"][0]["rows"], seen.nrows());
    fs::remove_dir_all(dir.join("out")).unwrap();
}

fn base64(bytes: &[u8]) -> String {
    base64::prelude::BASE64_STANDARD.encode(bytes)
}

fn write_lines(path: &Path, rows: &[Value]) {
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    fs::write(path, lines).unwrap();
}

#[test]
fn pictures_are_found_beside_the_data_file() {
    let dir = of_pictures(Some(&vit()));
    let at = |path: &str| dir.path().join(path);
    let (mut rows, mut table, mut seen) = (Vec::new(), "image,caption\n".to_owned(), Vec::new());
    for number in 0..10 {
        let name = format!("pictures/{number}.png");
        write_png(&at("data").join(&name), &samples(number));
        rows.push(match number % 6 {
            0 => json!({"image": name}),
            1 => json!({"image": {"path": name, "bytes": null}, "label": 3}),
            2 => json!({"image": [name]}),
            5 => {
                json!({"image": {"path": "elsewhere.png", "bytes": base64(&fs::read(at("data").join(&name)).unwrap())}})
            }
            _ => json!({"file_name": name}),
        });
        table.push_str(&format!("{name},a picture\n"));
        seen.extend(pixel_values(&samples(number)));
    }
    write_lines(&at("data/rows.jsonl"), &rows);
    fs::write(at("data/rows.json"), Value::from(rows).to_string()).unwrap();
    fs::write(at("data/rows.csv"), table).unwrap();
    for file in ["data/rows.jsonl", "data/rows.json", "data/rows.csv"] {
        learns(dir.path(), &["--data", file], &seen, SAMPLES);
    }
    learns(dir.path(), &["--data", "data/rows.json", "--shuffle"], &seen, SAMPLES);
}

#[test]
fn a_folder_of_pictures_is_data() {
    let dir = of_pictures(Some(&vit()));
    let mut seen = Vec::new();
    for number in 0..9 {
        write_png(&dir.path().join(format!("pictures/{}/{number}.png", ["cat", "dog"][number % 2])), &samples(number));
        seen.extend(pixel_values(&samples(number)));
    }
    fs::write(dir.path().join("pictures/cat/.hidden.png"), "").unwrap();
    learns(dir.path(), &["--data", "pictures"], &seen, SAMPLES);
    learns(dir.path(), &["--data", "pictures", "--shuffle"], &seen, SAMPLES);
    learns(
        dir.path(),
        &["--data", "pictures/dog/1.png", "--data", "pictures/cat"],
        &[
            &seen[SAMPLES..2 * SAMPLES],
            &(0..9).step_by(2).flat_map(|at| &seen[SAMPLES * at..][..SAMPLES]).copied().collect::<Vec<_>>(),
        ]
        .concat(),
        SAMPLES,
    );
}

#[test]
fn settings_may_lie_above_the_folder_of_the_model() {
    let dir = of_pictures(Some(&vit()));
    fs::create_dir(dir.path().join("onnx")).unwrap();
    fs::rename(dir.path().join("m.onnx"), dir.path().join("onnx/m.onnx")).unwrap();
    let nested = json!({"image_processor": vit(), "processor_class": "SomeProcessor"});
    fs::remove_file(dir.path().join("preprocessor_config.json")).unwrap();
    fs::write(dir.path().join("processor_config.json"), nested.to_string()).unwrap();
    let mut seen = Vec::new();
    for number in 0..9 {
        write_png(&dir.path().join(format!("onnx/pictures/{number}.png")), &samples(number));
        seen.extend(pixel_values(&samples(number)));
    }
    learns(&dir.path().join("onnx"), &["--data", "pictures"], &seen, SAMPLES);
}

/// A chirp, in 16 bits.
fn write_wav(path: &Path, number: usize, rate: u32) {
    let spec =
        hound::WavSpec { channels: 1, sample_rate: rate, bits_per_sample: 16, sample_format: hound::SampleFormat::Int };
    let mut writer = hound::WavWriter::create(path, spec).unwrap();
    for at in 0..8000 + 500 * number {
        let (time, start) = (at as f32 / rate as f32, 150.0 + 90.0 * number as f32);
        writer.write_sample((9000.0 * (TAU * (start + 1500.0 * time) * time).sin()) as i16).unwrap();
    }
    writer.finalize().unwrap();
}

#[test]
fn sounds_become_spectrograms() {
    let settings = json!({"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 8, "chunk_length": 1});
    let net = net().named_input("input_features", F32, &["batch", "8", "100"]);
    let dir = folder(
        net.node("Transpose", "/Transpose", &["input_features"], "x").ints("perm", &[0, 2, 1]),
        8,
        Some(&settings),
    );
    let file = SettingsFile { path: Some(dir.path().join("preprocessor_config.json")), model_type: None };
    let processor = SoundProcessor::open(&file).unwrap();
    let (mut rows, mut seen) = (Vec::new(), Vec::new());
    for number in 0..6 {
        let name = format!("{number}.wav");
        write_wav(&dir.path().join(&name), number, 16000);
        let sound = eva_onnx::media::sound(&dir.path().join(&name), 16000, None).unwrap();
        let (_, tensor) = processor.input(&sound).unwrap();
        let values = tensor.view::<f32>().unwrap();
        for frame in 0..100 {
            seen.extend((0..8).map(|band| f64::from(values[[band, frame]])));
        }
        rows.push(if number == 3 {
            let samples: Vec<f64> = sound.iter().map(|sample| f64::from(*sample)).collect();
            json!({"audio": {"array": samples, "sampling_rate": 16000, "path": "elsewhere.wav"}})
        } else {
            json!({"audio": name, "text": "what is said"})
        });
    }
    write_lines(&dir.path().join("rows.jsonl"), &rows);
    learns(dir.path(), &["--data", "rows.jsonl"], &seen, 8);
    write_wav(&dir.path().join("0.wav"), 0, 8000);
    let said = init(dir.path(), &["--data", "rows.jsonl"]).unwrap_err();
    assert!(
        said.contains("`rows.jsonl` line 1: `0.wav` has 8000 samples a second, and the model takes 16000"),
        "{said}"
    );
    assert!(said.contains("ffmpeg -i IN -ar 16000 -ac 1 OUT.wav"), "{said}");
}

#[test]
fn files_at_fault_are_named_with_their_row() {
    let dir = of_pictures(Some(&vit()));
    let at = |path: &str| dir.path().join(path);
    (0..6).for_each(|number| write_png(&at(&format!("{number}.png")), &samples(number)));
    let good: Vec<Value> = (0..6).map(|number| json!({"image": format!("{number}.png")})).collect();
    let whole = fs::read(at("0.png")).unwrap();
    fs::write(at("cut.png"), &whole[..whole.len() - 20]).unwrap();
    fs::write(at("other.png"), "GIF89a").unwrap();
    // Width and height follow the first 16 bytes; their checksum is in the four bytes after the header.
    let mut large = whole.clone();
    large[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    let mut crc = flate2::Crc::new();
    crc.update(&large[12..29]);
    large[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    fs::write(at("large.png"), large).unwrap();
    for (file, message) in [
        ("none.png", "cannot be read"),
        ("cut.png", "is broken: it ends too early"),
        ("other.png", "is a GIF picture, not a PNG or JPEG picture"),
        ("large.png", "has 60000 x 60000 pixels, and pictures of at most 178956970 are read"),
    ] {
        let rows: Vec<Value> = [&good[..2], &[json!({"image": file})], &good[2..]].concat();
        write_lines(&at("rows.jsonl"), &rows);
        let said = init(dir.path(), &["--data", "rows.jsonl"]).unwrap_err();
        assert!(said.contains(&format!("`rows.jsonl` line 3: `{file}` {message}")), "{said}");
        assert!(said.contains("hint: "), "{said}");
        let seen: Vec<f64> = (0..6).flat_map(|number| pixel_values(&samples(number)).collect::<Vec<_>>()).collect();
        learns(dir.path(), &["--data", "rows.jsonl", "--on-bad-row", "skip"], &seen, SAMPLES);
    }
}

#[test]
fn without_settings_files_are_refused() {
    let dir = of_pictures(None);
    write_png(&dir.path().join("pictures/a.png"), &samples(0));
    let said = init(dir.path(), &["--data", "pictures"]).unwrap_err();
    assert!(said.contains("there is no preprocessor_config.json beside the model"), "{said}");
    assert!(said.contains("arrays `pixel_values`"), "{said}");
}
