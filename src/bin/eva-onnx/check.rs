//! `check`: whether an adapter fits a model.

use super::args::Check;
use super::error::{ExitStatus, Failure};
use super::printed::Printed;
use super::table::counted;
use eva_onnx::results::Checked;
use std::fmt::Write as _;

pub(crate) fn run(args: &Check) -> Result<Printed, Failure> {
    let mut checked = eva_onnx::check(&args.model, &args.adapter, &args.naming.to_options())?;
    let status = if checked.fits { ExitStatus::Done } else { ExitStatus::Input };
    if args.json {
        let text = serde_json::to_string_pretty(&checked).unwrap_or_default() + "\n";
        return Ok(Printed { text, status, ..Printed::default() });
    }
    Ok(Printed { text: summary(&checked), notes: std::mem::take(&mut checked.notes), status, ..Printed::default() })
}

fn summary(checked: &Checked) -> String {
    let [least, most] = checked.ranks;
    let of = |names: Vec<&str>| if names.is_empty() { String::new() } else { format!(", {}", names.join(" and ")) };
    let dtypes = |dtypes: &[eva_onnx::DType]| of(dtypes.iter().map(|dtype| dtype.as_str()).collect());
    let mut text = format!(
        "{}, ranks {least} to {most}{}; layers of the model{}\n",
        counted(checked.modules, "module"),
        dtypes(&checked.adapter_dtypes),
        dtypes(&checked.model_dtypes)
    );
    for form in &checked.forms {
        let problem = form.problem.as_ref().map_or_else(|| "yes".to_owned(), |problem| format!("no: {problem}"));
        let _ = writeln!(text, "splice --as {}: {problem}", form.form.as_str());
    }
    for problem in &checked.problems {
        let _ = writeln!(text, "does not fit: {problem}");
    }
    if let Some(hint) = &checked.hint {
        let _ = writeln!(text, "hint: {hint}");
    }
    if checked.fits {
        text.push_str("the adapter fits the model\n");
    }
    text
}
