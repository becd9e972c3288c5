//! Writes what a model gets for pictures and sounds: `cargo run --example media -- FOLDER OUT.safetensors FILE...`, where
//! FOLDER has the model's preprocessor_config.json. The tensors are called by the number of the file, from 0.

#![expect(clippy::print_stderr)]

use eva_onnx::Hint;
use eva_onnx::media::{Channels, PictureProcessor, SettingsFile, SoundProcessor, picture, sound};
use eva_onnx::tensor::Tensor;
use safetensors::{Dtype, tensor::TensorView};
use std::env;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [folder, out, files @ ..] = &arguments[..] else {
        eprintln!("usage: media FOLDER OUT.safetensors FILE...");
        return ExitCode::FAILURE;
    };
    match tensors(folder, files).and_then(|tensors| write(&tensors, out)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn tensors(folder: &str, files: &[String]) -> Result<Vec<Tensor>, String> {
    let settings = SettingsFile { path: Some(Path::new(folder).join("preprocessor_config.json")), model_type: None };
    let is_sound = |file: &String| file.ends_with(".wav") || file.ends_with(".flac");
    if files.iter().any(is_sound) {
        let processor = SoundProcessor::open(&settings).map_err(|error| said(&error))?;
        let tensor = |file: &String| {
            let sound = sound(Path::new(file), processor.rate, processor.heard()).map_err(|error| said(&error))?;
            processor.input(&sound).map(|(_, tensor)| tensor).ok_or_else(|| "no samples".to_owned())
        };
        return files.iter().map(tensor).collect();
    }
    let processor = PictureProcessor::open(&settings).map_err(|error| said(&error))?;
    let tensor = |file: &String| {
        let picture = picture(Path::new(file)).map_err(|error| said(&error))?;
        processor.tensor(&picture, Channels::First).map_err(|error| said(&error))
    };
    files.iter().map(tensor).collect()
}

fn said(error: &dyn Hint) -> String {
    format!("{error}; {}", error.hint().unwrap_or_default())
}

fn write(tensors: &[Tensor], out: &str) -> Result<(), String> {
    let bytes =
        |tensor: &Tensor| tensor.to_floats().into_iter().flat_map(|value| (value as f32).to_le_bytes()).collect();
    let data: Vec<Vec<u8>> = tensors.iter().map(bytes).collect();
    let views =
        tensors.iter().zip(&data).enumerate().map(|(at, (tensor, data))| {
            Ok((at.to_string(), TensorView::new(Dtype::F32, tensor.shape().to_vec(), data)?))
        });
    let views: Result<Vec<_>, safetensors::SafeTensorError> = views.collect();
    let written = views.and_then(|views| safetensors::serialize_to_file(views, None, Path::new(out)));
    written.map_err(|error| error.to_string())
}
