//! What is wrong with a file.

use super::super::error::BadFile;

pub(super) fn broken(what: &str) -> BadFile {
    BadFile::Broken(what.to_owned())
}
