//! What ends a command without a result.

use eva_onnx::{calib, eva, feeds, linear, onnx, output, runtime};

/// A message with its hint and exit status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What happened.
    pub message: String,
    /// What the user can do about it.
    pub hint: Option<String>,
    /// 1 the input is at fault, 2 usage or environment, 130 interrupted.
    pub status: u8,
}

/// Exit status when the input is at fault.
pub(crate) const INPUT: u8 = 1;
/// Exit status for usage and environment.
pub(crate) const ENVIRONMENT: u8 = 2;
/// Exit status after an interrupt.
pub(crate) const INTERRUPTED: u8 = 130;

impl Failure {
    /// Usage that clap cannot check.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, status: ENVIRONMENT }
    }

    /// Names the file that the message is about, unless it does so itself.
    pub(crate) fn in_file(mut self, path: &std::path::Path) -> Self {
        let name = path.display().to_string();
        if !self.message.contains(&name) {
            self.message = format!("`{name}`: {}", self.message);
        }
        self
    }
}

macro_rules! failure_from {
    ($($error:ty => $status:expr),+ $(,)?) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self { message: error.to_string(), hint: error.hint(), status: $status(&error) }
            }
        }
    )+};
}

failure_from! {
    onnx::Error => |_: &onnx::Error| INPUT,
    eva_onnx::checkpoint::Error => |_: &eva_onnx::checkpoint::Error| INPUT,
    linear::Error => |_: &linear::Error| INPUT,
    calib::Error => |_: &calib::Error| INPUT,
    feeds::Error => |_: &feeds::Error| INPUT,
    eva_onnx::formats::Error => |_: &eva_onnx::formats::Error| INPUT,
    eva_onnx::splice::Error => |error: &eva_onnx::splice::Error| match error {
        eva_onnx::splice::Error::Write { .. } => ENVIRONMENT,
        _ => INPUT,
    },
    output::Error => |_: &output::Error| ENVIRONMENT,
    eva_onnx::capture::Error => capture_status,
    runtime::Error => runtime_status,
    eva::Error => |error: &eva::Error| match error {
        eva::Error::Interrupted => INTERRUPTED,
        eva::Error::Capture(error) => capture_status(error),
        _ => INPUT,
    },
}

fn runtime_status(error: &runtime::Error) -> u8 {
    match error {
        runtime::Error::Load { .. } | runtime::Error::Run { .. } | runtime::Error::Tensor { .. } => INPUT,
        _ => ENVIRONMENT,
    }
}

fn capture_status(error: &eva_onnx::capture::Error) -> u8 {
    match error {
        eva_onnx::capture::Error::Runtime(error) => runtime_status(error),
        _ => INPUT,
    }
}
