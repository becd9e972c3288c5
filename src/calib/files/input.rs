//! A data file as a stream: decompressed, without byte order mark, its beginning known.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use zstd::stream::read::Decoder as ZstdDecoder;

use super::super::error::Error;

/// Bytes that tell the format of a file.
const HEAD: u64 = 1 << 16;

/// Binary logarithm of the most bytes that Zstandard may look back, as its command line allows.
const MOST_WINDOW: u32 = 27;

/// The path that stands for standard input.
pub(super) const STDIN: &str = "-";

/// The name of a file in messages.
pub(super) fn shown(path: &Path) -> Arc<Path> {
    if path == Path::new(STDIN) { Path::new("standard input").into() } else { path.into() }
}

type Stream = Box<dyn Read>;

/// An open file.
pub(super) struct Input {
    /// Its name in messages.
    pub(super) name: Arc<Path>,
    /// The first bytes.
    pub(super) head: Vec<u8>,
    /// Whether they are all.
    pub(super) whole: bool,
    /// Whether the bytes are those of the file, without decompression.
    pub(super) plain: bool,
    rest: Stream,
}

impl Input {
    /// Opens a file, or standard input.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let name = shown(path);
        let failed = |source| Error::Io { file: name.to_path_buf(), source };
        let file: Stream =
            if path == Path::new(STDIN) { Box::new(io::stdin()) } else { Box::new(File::open(path).map_err(failed)?) };
        let (mut head, mut rest) = begun(file).map_err(failed)?;
        let packing = Packing::of(&head);
        if let Some(packing) = packing {
            let unpacked = packing.unpacked(Box::new(Cursor::new(head).chain(rest)));
            (head, rest) = unpacked.and_then(begun).map_err(failed)?;
        }
        let whole = (head.len() as u64) < HEAD;
        Ok(Self { name: name.clone(), head: without_mark(head), whole, plain: packing.is_none(), rest })
    }

    /// All its bytes from the beginning.
    pub(super) fn reader(self) -> BufReader<impl Read> {
        BufReader::with_capacity(1 << 16, Cursor::new(self.head).chain(self.rest))
    }
}

/// How the bytes of a file are compressed.
#[derive(Clone, Copy)]
enum Packing {
    Gzip,
    Zstd,
}

impl Packing {
    /// What the first bytes tell. A Zstandard file may begin with a frame that is skipped (RFC 8878, section 3.1.2).
    fn of(head: &[u8]) -> Option<Self> {
        match head {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            _ => None,
        }
    }

    /// All that is packed in a file, whose parts may be packed one by one.
    fn unpacked(self, packed: Stream) -> io::Result<Stream> {
        Ok(match self {
            Self::Gzip => Box::new(MultiGzDecoder::new(packed)),
            Self::Zstd => {
                let mut decoder = ZstdDecoder::new(packed)?;
                decoder.window_log_max(MOST_WINDOW)?;
                Box::new(decoder)
            }
        })
    }
}

/// The first bytes, and a reader of the others.
fn begun(mut file: Stream) -> io::Result<(Vec<u8>, Stream)> {
    let mut head = Vec::new();
    file.by_ref().take(HEAD).read_to_end(&mut head)?;
    Ok((head, file))
}

fn without_mark(mut head: Vec<u8>) -> Vec<u8> {
    if head.starts_with(b"\xef\xbb\xbf") {
        head.drain(..3);
    }
    head
}
