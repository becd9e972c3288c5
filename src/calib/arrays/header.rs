//! The header of a file of one NumPy array.
//!
//! Source: the specification of the NPY format, `numpy/lib/_format_impl.py`.

use std::sync::LazyLock;

use regex::Regex;

use super::element::Element;

/// How the elements of an array follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The last index changes first.
    RowMajor,
    /// The first index changes first.
    ColumnMajor,
}

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) element: Element,
    pub(super) shape: Vec<usize>,
    pub(super) order: Order,
    /// Where the elements begin.
    pub(super) start: usize,
}

/// What files begin with.
pub(super) const MAGIC: &[u8] = b"\x93NUMPY";
/// Most bytes of a header; NumPy reads no longer ones either.
const LONGEST: usize = 10_000;

impl Header {
    /// The header at the beginning of a file, of which `bytes` are the first [`Header::MOST`], or all.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let cut = || "it is cut off".to_owned();
        let rest = bytes.strip_prefix(MAGIC).ok_or("it is no NumPy array")?;
        let [major, _, rest @ ..] = rest else { return Err(cut()) };
        let (length, rest) = match (major, rest) {
            (1, [low, high, rest @ ..]) => (usize::from(u16::from_le_bytes([*low, *high])), rest),
            (2 | 3, [a, b, c, d, rest @ ..]) => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
            (1..=3, _) => return Err(cut()),
            (version, _) => return Err(format!("its version {version} is not known")),
        };
        if length > LONGEST {
            return Err(format!("its header has {length} bytes, over {LONGEST}"));
        }
        let text = std::str::from_utf8(rest.get(..length).ok_or_else(cut)?).map_err(|_| "its header is no text")?;
        let start = bytes.len() - rest.len() + length;
        let (element, shape, order) = parse(text)?;
        Ok(Self { element, shape, order, start })
    }

    /// Bytes that a header ends within.
    pub(super) const MOST: usize = LONGEST + 12;
}

/// Element, shape and order of the dictionary of a header, which NumPy writes as Python's `repr` does.
fn parse(text: &str) -> Result<(Element, Vec<usize>, Order), String> {
    static ENTRIES: LazyLock<Result<[Regex; 3], regex::Error>> = LazyLock::new(|| {
        Ok([
            Regex::new(r"'descr':\s*'([^']*)'")?,
            Regex::new(r"'fortran_order':\s*(True|False)")?,
            Regex::new(r"'shape':\s*\(([\d,\sL]*)\)")?,
        ])
    });
    let entries = ENTRIES.as_ref().map_err(ToString::to_string)?;
    let entry = |at: usize| Some(entries[at].captures(text)?.get(1)?.as_str());
    if entry(0).is_none() && text.contains("'descr': [") {
        return Err("its elements have several fields".to_owned());
    }
    let (Some(descr), Some(fortran), Some(shape)) = (entry(0), entry(1), entry(2)) else {
        return Err("its header is not understood".to_owned());
    };
    let element = Element::of_numpy(descr)?;
    let size =
        |size: &str| size.trim().trim_end_matches('L').parse::<usize>().map_err(|_| format!("a size of `{size}`"));
    let sizes = shape.split(',').filter(|size| !size.trim().is_empty());
    let order = if fortran == "True" { Order::ColumnMajor } else { Order::RowMajor };
    Ok((element, sizes.map(size).collect::<Result<_, String>>()?, order))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: u8, text: &str) -> Vec<u8> {
        let length = text.len() as u32;
        let length = if version == 1 { (length as u16).to_le_bytes().to_vec() } else { length.to_le_bytes().to_vec() };
        [MAGIC, &[version, 0], &length, text.as_bytes(), b"elements"].concat()
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let shown = match Header::read(&file(1, text)) {
            Ok(Header { element, shape, order, start }) => {
                assert_eq!(start, 10 + text.len());
                format!("{element:?} {shape:?} {order:?}")
            }
            Err(error) => error,
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn what_numpy_writes() {
        check(
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }  \n",
            "Number { dtype: F32, swapped: false } [3, 4] RowMajor",
        );
        check(
            "{'descr': '>i8', 'fortran_order': True, 'shape': (3,), }",
            "Number { dtype: I64, swapped: true } [3] ColumnMajor",
        );
        check(
            "{'descr': '|b1', 'fortran_order': False, 'shape': (), }",
            "Number { dtype: Bool, swapped: false } [] RowMajor",
        );
        check(
            "{'descr': '<U12', 'fortran_order': False, 'shape': (5L,), }",
            "Text { letters: 12, swapped: false } [5] RowMajor",
        );
        for version in [2, 3] {
            let text = "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 0), }";
            let header = Header::read(&file(version, text)).unwrap();
            assert_eq!((header.start, header.shape), (12 + text.len(), vec![2, 0]));
        }
    }

    #[test]
    fn what_is_not_read() {
        check(
            "{'descr': '|O', 'fortran_order': False, 'shape': (3,), }",
            "its elements are Python objects, which are pickled",
        );
        check("{'descr': '<c8', 'fortran_order': False, 'shape': (3,), }", "its elements are of type `<c8`");
        check("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,), }", "its elements have several fields");
        check("{'descr': '<f4', 'shape': (3,), }", "its header is not understood");
        check(
            "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }",
            "a size of `99999999999999999999`",
        );
        assert_eq!(Header::read(&file(4, "")), Err("its version 4 is not known".to_owned()));
        assert_eq!(Header::read(&file(1, "{}")[..11]), Err("it is cut off".to_owned()));
        assert_eq!(Header::read(b"\x93NUMPY"), Err("it is cut off".to_owned()));
        assert_eq!(Header::read(b"text"), Err("it is no NumPy array".to_owned()));
        assert!(Header::read(&file(2, &"x".repeat(20_000))).is_err_and(|text| text.contains("over 10000")));
    }
}
