//! Pure serialisers, and the one place that puts their bytes on disk.

pub mod fs;
pub mod peft;
pub mod report;
