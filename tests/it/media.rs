//! Pictures and sounds as files, compared with what transformers and Pillow make of them (`fixtures/media/make.py`).

use crate::support::eva::root;
use crate::support::tolerance::{MEL, UNIT_VARIANCE, within};
use eva_onnx::Hint;
use eva_onnx::media::{Channels, PictureProcessor, Rgb, SettingsFile, SoundProcessor, picture, sound};
use eva_onnx::tensor::Tensor;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

fn fixture(file: &str) -> PathBuf {
    root().join("fixtures/media").join(file)
}

/// The cases of one kind.
fn golden(kind: &str) -> Vec<Value> {
    let golden: Value = serde_json::from_slice(&fs::read(fixture("golden.json")).unwrap()).unwrap();
    golden[kind].as_array().unwrap().clone()
}

fn text<'a>(case: &'a Value, field: &str) -> &'a str {
    case[field].as_str().unwrap()
}

fn bytes(case: &Value) -> Vec<u8> {
    let text = text(case, "values");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn floats(case: &Value) -> Vec<f32> {
    bytes(case).chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

fn shape(case: &Value) -> Vec<usize> {
    case["shape"].as_array().unwrap().iter().map(|size| size.as_u64().unwrap() as usize).collect()
}

/// A folder with these settings.
fn settings(settings: &Value) -> (tempfile::TempDir, SettingsFile) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("preprocessor_config.json");
    fs::write(&path, settings.to_string()).unwrap();
    (dir, SettingsFile { path: Some(path), model_type: None })
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.view::<f32>().unwrap().iter().copied().collect()
}

#[test]
fn pictures_are_those_of_pillow() {
    for case in golden("pictures") {
        let file = text(&case, "file");
        let read: Rgb = picture(&fixture(file)).unwrap();
        assert_eq!([read.height, read.width, 3], shape(&case)[..], "{file}");
        assert!(read.samples() == bytes(&case), "{file}");
    }
}

#[test]
fn sizes_are_those_of_pillow_to_the_bit() {
    let cases = golden("resized");
    for case in &cases {
        let size = shape(case);
        let (_dir, file) = settings(&json!({
            "image_processor_type": "ViTImageProcessor", "do_rescale": false, "do_normalize": false,
            "resample": case["resample"], "size": {"height": size[0], "width": size[1]},
        }));
        let picture = picture(&fixture(text(case, "file"))).unwrap();
        let tensor = PictureProcessor::open(&file).unwrap().tensor(&picture, Channels::Last).unwrap();
        assert_eq!(tensor.shape(), size);
        let expected: Vec<f32> = bytes(case).into_iter().map(f32::from).collect();
        assert!(values(&tensor) == expected, "{} to {size:?}, filter {}", case["file"], case["resample"]);
    }
    assert!(cases.len() > 100);
}

#[test]
fn processors_are_those_of_transformers_to_the_bit() {
    let cases = golden("processed");
    for case in &cases {
        let (_dir, file) = settings(&case["settings"]);
        let picture = picture(&fixture(text(case, "file"))).unwrap();
        let tensor = PictureProcessor::open(&file).unwrap().tensor(&picture, Channels::First).unwrap();
        assert_eq!(tensor.shape(), shape(case), "{} {}", case["name"], case["file"]);
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert!(bits(values(&tensor)) == bits(floats(case)), "{} {}", case["name"], case["file"]);
    }
    assert!(cases.len() > 30);
}

#[test]
fn sounds_are_those_of_transformers() {
    for case in golden("sounds") {
        let (_dir, file) = settings(&case["settings"]);
        let (name, processor) = (text(&case, "name"), SoundProcessor::open(&file).unwrap());
        let sound = sound(&fixture(text(&case, "file")), processor.rate, processor.heard()).unwrap();
        let (input, tensor) = processor.input(&sound).unwrap();
        assert_eq!(input, if name.starts_with("whisper") { "input_features" } else { "input_values" });
        assert_eq!(tensor.shape(), shape(&case), "{name}");
        let tolerance = match name {
            "wav2vec2-plain" => 0.0,
            "wav2vec2" => UNIT_VARIANCE,
            _ => MEL,
        };
        for (got, expected) in values(&tensor).into_iter().zip(floats(&case)) {
            within(f64::from((got - expected).abs()), tolerance, &format!("{name} {}", case["file"]));
        }
    }
}

/// Why settings cannot be followed, without the path.
fn refused(json: &Value) -> String {
    let (dir, file) = settings(json);
    let error = PictureProcessor::open(&file).unwrap_err();
    assert!(error.hint().unwrap().contains("pixel_values"), "{error}");
    error.to_string().replace(&format!("{}/", dir.path().display()), "")
}

#[test]
fn what_cannot_be_followed_is_refused_by_name() {
    let vit = |field: &str, value: Value| {
        let mut settings = json!({"image_processor_type": "ViTImageProcessorFast"});
        settings[field] = value;
        refused(&settings)
    };
    let said = |said: &str| format!("`preprocessor_config.json`: {said}");
    assert_eq!(vit("do_pad", json!(true)), said("`do_pad` is no step of ViTImageProcessor"));
    assert_eq!(vit("do_center_crop", json!(true)), said("`do_center_crop` is no step of ViTImageProcessor"));
    assert_eq!(vit("resample", json!(9)), said("`resample` must be a filter of Pillow from 0 to 5, got 9"));
    assert_eq!(vit("image_std", json!([1, 2])), said("`image_std` must be three numbers or one, got [1,2]"));
    assert_eq!(vit("do_resize", json!("yes")), said("`do_resize` must be true or false, got \"yes\""));
    assert_eq!(
        vit("size", json!({"longest_edge": 9})),
        said("`size` is {\"longest_edge\":9}, and `height` and `width` or `shortest_edge` are known")
    );
    let class = "`preprocessor_config.json` is for DetrImageProcessor, which is not known here";
    assert_eq!(refused(&json!({"image_processor_type": "DetrImageProcessor"})), class);
    let none = "`preprocessor_config.json` does not say which processor of transformers it is for";
    assert_eq!(refused(&json!({"size": 224})), none);
    let lacking = PictureProcessor::open(&SettingsFile::default()).unwrap_err();
    let expected = "there is no preprocessor_config.json beside the model, which says how pictures become its input";
    assert_eq!(lacking.to_string(), expected);
    let whisper = settings(&json!({"feature_extractor_type": "WhisperFeatureExtractor", "dither": 0.1}));
    assert!(SoundProcessor::open(&whisper.1).is_err_and(|error| error.to_string().contains("`dither` must be 0")));
    let other = settings(&json!({"feature_extractor_type": "ASTFeatureExtractor"}));
    assert!(SoundProcessor::open(&other.1).is_err_and(|error| error.to_string().contains("ASTFeatureExtractor")));
}

#[test]
fn the_class_may_follow_from_the_model() {
    let (_dir, file) = settings(&json!({"size": 5, "image_mean": [0.5, 0.5, 0.5]}));
    let file = SettingsFile { model_type: Some("swin".to_owned()), ..file };
    let picture = picture(&fixture("rgb.png")).unwrap();
    let tensor = PictureProcessor::open(&file).unwrap().tensor(&picture, Channels::First).unwrap();
    assert_eq!(tensor.shape(), [3, 5, 5]);
}
