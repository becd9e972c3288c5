//! What a run recorded, as one HTML file: `eva.json` and `train.json` as tables and drawings.
//!
//! The page needs no scripts and loads nothing, and its content security policy allows neither. Cells of the heat map
//! show a card under the pointer or the keyboard's focus, by CSS alone.

mod cards;
mod chart;
mod error;
mod facts;
mod grid;
mod heat;
mod record;
mod sections;
mod ticks;

pub use error::Error;
pub use grid::Grid;
pub use heat::level;
pub use record::{Module, Record, RunRecord, TrainRecord};

use maud::{DOCTYPE, Markup, PreEscaped, html};

/// The style sheet, which the page holds.
pub const STYLE: &str = include_str!("style.css");

/// What the page may load: nothing but the style sheet with this SHA-256 hash.
pub const POLICY: &str = "default-src 'none'; style-src 'sha256-v8NyfcUcnFqYjA+2Z5hyEEUkO1iVp+DrgxGjfV/HDKU='; base-uri 'none'; form-action 'none'";

impl Record {
    /// The whole page.
    pub fn to_html(&self) -> String {
        let title = self.title();
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta http-equiv="Content-Security-Policy" content=(POLICY);
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="generator" content={ "eva-onnx " (env!("CARGO_PKG_VERSION")) };
                    title { (title) }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    header { h1 { (title) } }
                    main { (self.body()) }
                }
            }
        };
        page.into_string() + "\n"
    }

    fn title(&self) -> String {
        let model = self.run.as_ref().map(|run| &run.model).or(self.training.as_ref().map(|training| &training.model));
        format!("Adapter for {}", model.map_or("a model", String::as_str))
    }

    fn body(&self) -> Markup {
        html! {
            @if let Some(run) = &self.run {
                (sections::overview(run))
                (heat::section(run))
                (sections::types(run))
                (sections::convergence(run))
            }
            @if let Some(training) = &self.training { (sections::training(training)) }
            @if let Some(run) = &self.run {
                (sections::notes(run))
                (sections::time(run))
                (sections::command(run))
            }
        }
    }
}
