//! What can be wrong with data files, beside their rows.

use std::path::PathBuf;

use super::row::RowOrigin;
use crate::hint::Hint;

/// Why a data file could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It is something else.
    #[error("`{}` is {foreign}", file.display())]
    Foreign {
        /// The file.
        file: PathBuf,
        /// What it is.
        foreign: Foreign,
    },
    /// It was written to, cut or replaced while it was read.
    #[error("`{}` changed while it was read", file.display())]
    Changed {
        /// The file.
        file: PathBuf,
    },
    /// A folder has no file whose name is that of data.
    #[error("directory `{}` has no data files", folder.display())]
    EmptyFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// The name of a picture or a sound is no text.
    #[error("the name of `{}` is not valid UTF-8", file.display())]
    Name {
        /// The file.
        file: PathBuf,
    },
    /// The files of a folder are of different formats.
    #[error("`{}` is {is}, but `{}` is {but}", one.display(), other.display())]
    Mixed {
        /// The first file.
        one: PathBuf,
        /// Its format.
        is: &'static str,
        /// Another file.
        other: PathBuf,
        /// Its format.
        but: &'static str,
    },
    /// Something follows the array that holds the rows.
    #[error("`{}` line {line}: there is more after the array of rows", file.display())]
    AfterArray {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
    },
    /// A row has too many bytes.
    #[error("{origin}: the row has more than {} MiB", most >> 20)]
    LongRow {
        /// The row.
        origin: RowOrigin,
        /// Most bytes of a row.
        most: usize,
    },
    /// A line of a table has another number of columns than the first one.
    #[error("{origin}: {got} columns, and the first line names {expected}")]
    Columns {
        /// The line.
        origin: RowOrigin,
        /// Columns of the first line.
        expected: u64,
        /// Columns of this line.
        got: u64,
    },
    /// There are fewer rows than shards of them.
    #[error("shard {index}/{count} has no rows: the data has {rows}")]
    EmptyShard {
        /// The shard, from 0.
        index: usize,
        /// Shards.
        count: usize,
        /// Rows of the data.
        rows: usize,
    },
    /// A file of arrays is broken, or holds what is not read.
    #[error("`{}` holds arrays that are not read: {message}", file.display())]
    Arrays {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A Parquet file is broken, or has columns that are not read.
    #[error("`{}` is a Parquet file that cannot be read: {message}", file.display())]
    Parquet {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A cell of a Parquet file has no value in JSON.
    #[error("{origin}: `{column}` holds {found}")]
    Cell {
        /// The row.
        origin: RowOrigin,
        /// The column.
        column: String,
        /// What it holds.
        found: &'static str,
    },
    /// Several files of one array each, which may be columns or rows.
    #[error("`{}` and `{}` hold one array each", one.display(), other.display())]
    LoneArrays {
        /// A file.
        one: PathBuf,
        /// A file with another name.
        other: PathBuf,
    },
    /// A file is read from several places, and this one is a stream or compressed as a whole.
    #[error("`{}` is {format}, which is read from its end, and cannot be {as_what}", file.display())]
    NoStream {
        /// The file.
        file: PathBuf,
        /// Its format.
        format: &'static str,
        /// What it comes as.
        as_what: &'static str,
    },
    /// Two columns of a table have one name.
    #[error("`{}` has two columns `{name}`", file.display())]
    TwoColumns {
        /// The file.
        file: PathBuf,
        /// Their name.
        name: String,
    },
}

impl FileError {
    /// The row that is wrong, where the rows after it can be read.
    pub(crate) fn row(&self) -> Option<&RowOrigin> {
        match self {
            Self::Columns { origin, .. } | Self::Cell { origin, .. } => Some(origin),
            _ => None,
        }
    }
}

impl Hint for FileError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Foreign { foreign, .. } => foreign.hint(),
            Self::Changed { .. } => "run again when nothing writes to it, or with a copy of it",
            Self::EmptyFolder { .. } => {
                "name the files with `--data`; in a folder, data files end in .jsonl, .json, .csv, .tsv or .txt, \
                 also with .gz or .zst after it, or in .parquet, .npz, .npy or .safetensors, pictures in .png or .jpg, sounds in .wav or \
                 .flac"
            }
            Self::Name { .. } => "rename it",
            Self::Mixed { .. } => "name the files that belong together with `--data`",
            Self::AfterArray { .. } => "a file holds one array, or one object a line",
            Self::LongRow { .. } => "split the row",
            Self::Columns { .. } => "put quotes around cells that hold the delimiter or the end of a line",
            Self::EmptyShard { .. } => "use fewer shards, at most one a row",
            Self::TwoColumns { .. } => "rename one of them",
            Self::Arrays { .. } => {
                "arrays are numbers, true and false, or text, with one row each along their first axis: \
                 `numpy.savez(\"rows.npz\", name=array)` writes some"
            }
            Self::Parquet { .. } => {
                "copy the file again, or write its rows as JSON lines: `to_json(\"rows.jsonl\")` of Hugging Face's datasets does"
            }
            Self::Cell { .. } => "change the row, or leave it out with `--on-bad-row skip`",
            Self::LoneArrays { .. } => {
                "put arrays that belong together into one folder, or one file with `numpy.savez`; name the folder"
            }
            Self::NoStream { .. } => "save it as a file of its own, and name that with `--data`",
        };
        Some(hint.to_owned())
    }
}

/// What a file is that holds no rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Foreign {
    /// UTF-16.
    #[error("text in UTF-16")]
    Utf16,
    /// Arrow IPC.
    #[error("an Arrow file")]
    Arrow,
    /// ZIP, and what is packed in it: workbooks, NumPy's .npz.
    #[error("a ZIP archive or a workbook")]
    Zip,
    /// Compressed, and not with gzip or Zstandard, or twice.
    #[error("compressed in a way that is not read")]
    Compressed,
    /// tar.
    #[error("a tar archive")]
    Tar,
    /// PDF.
    #[error("a PDF document")]
    Pdf,
    /// Something with zero bytes.
    #[error("no text")]
    Binary,
}

impl Foreign {
    /// What the first bytes of a file tell.
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        let starts: [(&[u8], Self); 10] = [
            (b"\xff\xfe", Self::Utf16),
            (b"\xfe\xff", Self::Utf16),
            (b"ARROW1", Self::Arrow),
            (b"\xff\xff\xff\xff", Self::Arrow),
            (b"\x28\xb5\x2f\xfd", Self::Compressed),
            (b"PK\x03\x04", Self::Zip),
            (b"\xfd7zXZ", Self::Compressed),
            (b"BZh", Self::Compressed),
            (b"%PDF", Self::Pdf),
            (b"\x1f\x8b", Self::Compressed),
        ];
        let known = starts.into_iter().find(|(start, _)| head.starts_with(start)).map(|(_, foreign)| foreign);
        let tar = head.get(257..262).is_some_and(|magic| magic == b"ustar").then_some(Self::Tar);
        known.or(tar).or_else(|| head.contains(&0).then_some(Self::Binary))
    }

    fn hint(self) -> &'static str {
        match self {
            Self::Utf16 => "save it as UTF-8, for example with `iconv -f utf-16 -t utf-8`",
            Self::Arrow => "write the rows as Parquet: `to_parquet(\"rows.parquet\")` of Hugging Face's datasets does",
            Self::Zip | Self::Tar => "unpack it first; save a workbook as CSV",
            Self::Compressed => {
                "unpack it first, for example with `xz -dk` or `bunzip2 -k`; .gz and .zst are read as they are"
            }
            Self::Pdf => "extract its text first",
            Self::Binary => {
                "data is JSON lines, JSON, CSV, TSV or plain text in UTF-8, also as .gz or .zst, or Parquet or arrays"
            }
        }
    }
}
