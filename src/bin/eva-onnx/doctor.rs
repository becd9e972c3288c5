//! `doctor`: what there is to run models.

use super::args::Doctor;
use super::error::{ExitStatus, Failure};
use super::printed::Printed;
use super::table::counted;
use eva_onnx::results::{Cuda, Diagnosis, Searched};
use std::fmt::Write as _;

pub(crate) fn run(args: &Doctor) -> Result<Printed, Failure> {
    let diagnosis = eva_onnx::doctor(args.ort_lib.as_deref());
    let status = if diagnosis.problem.is_none() { ExitStatus::Done } else { ExitStatus::Environment };
    let text = if args.json {
        serde_json::to_string_pretty(&diagnosis).unwrap_or_default() + "\n"
    } else {
        summary(&diagnosis)
    };
    Ok(Printed { text, status, ..Printed::default() })
}

fn summary(diagnosis: &Diagnosis) -> String {
    let Diagnosis { onnxruntime, searched, cores, memory_bytes, .. } = diagnosis;
    let mut text = format!("eva-onnx {}\n", diagnosis.version);
    if let Some(runtime) = onnxruntime {
        let _ = writeln!(text, "ONNX Runtime {} by {}: {}", runtime.version, runtime.found_by, runtime.path.display());
        let _ = writeln!(text, "  execution providers: {}", runtime.providers.join(", "));
    }
    for Searched { step, places, refused, .. } in searched {
        let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
        let places = if places.is_empty() { "nothing to look at".to_owned() } else { places.join(", ") };
        let _ = writeln!(text, "  looked in {step}: {places}");
        refused.iter().for_each(|reason| text.push_str(&format!("    refused: {reason}\n")));
    }
    if onnxruntime.is_some() {
        text.push_str(&cuda(&diagnosis.cuda));
    }
    let memory = memory_bytes.map_or_else(String::new, |bytes| format!(", {:.1} GiB of memory", gib(bytes)));
    let _ = writeln!(text, "{}{memory}", counted(*cores, "core"));
    match &diagnosis.problem {
        None => text.push_str("a small model ran on the CPU: all is well\n"),
        Some(problem) => {
            let _ = writeln!(text, "no model can run: {problem}");
        }
    }
    if let Some(hint) = &diagnosis.hint {
        let _ = writeln!(text, "hint: {hint}");
    }
    text
}

fn cuda(cuda: &Cuda) -> String {
    let mut text = match &cuda.problem {
        None => "CUDA: usable\n".to_owned(),
        Some(problem) => format!("CUDA: not usable: {}\n", problem.trim()),
    };
    if let Some(driver) = &cuda.driver {
        let _ = writeln!(text, "  driver: {driver}");
    }
    for library in &cuda.libraries {
        let path = library.path.as_ref().map_or_else(|| "missing".to_owned(), |path| path.display().to_string());
        let _ = writeln!(text, "  {}: {path}", library.name);
    }
    if let Some(hint) = &cuda.hint {
        let _ = writeln!(text, "  hint: {hint}");
    }
    text
}

/// Bytes in GiB.
pub(crate) fn gib(bytes: u64) -> f64 {
    bytes as f64 / (1u64 << 30) as f64
}
