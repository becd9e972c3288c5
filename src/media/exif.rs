//! The orientation in the Exif data of a picture.

/// Tag and type of the orientation, a 16-bit number.
const ORIENTATION: (u16, u16) = (0x0112, 3);
/// Bytes of an entry.
const ENTRY: usize = 12;

/// The orientation, from 1 to 8, that Exif data record, if they do: a TIFF header, and a directory of entries.
pub(super) fn orientation(exif: &[u8]) -> Option<u8> {
    let big = match exif.get(..4)? {
        [b'I', b'I', 42, 0] => false,
        [b'M', b'M', 0, 42] => true,
        _ => return None,
    };
    let short = |at: usize| -> Option<u16> {
        let bytes = exif.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    };
    let long = |at: usize| -> Option<usize> {
        let bytes: [u8; 4] = exif.get(at..at.checked_add(4)?)?.try_into().ok()?;
        usize::try_from(if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }).ok()
    };
    let directory = long(4)?;
    let entries = (0..usize::from(short(directory)?)).map(|entry| directory + 2 + ENTRY * entry);
    let found = entries.into_iter().find(|at| Some(ORIENTATION) == short(*at).zip(short(at + 2)))?;
    u8::try_from(short(found + 8)?).ok().filter(|orientation| (1..=8).contains(orientation))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_orders_of_bytes() {
        let little = b"II*\0\x08\0\0\0\x02\0\x00\x01\x03\0\x01\0\0\0\x05\0\0\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0";
        assert_eq!(orientation(little), Some(6));
        let big = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x08\0\0";
        assert_eq!(orientation(big), Some(8));
    }

    #[test]
    fn broken_data_have_none() {
        let big = b"MM\0*\0\0\0\x08\0\x09\x01\x12\0\x03\0\0\0\x01\0\x09\0\0";
        assert_eq!(orientation(big), None);
        assert_eq!(orientation(b"II*\0\xff\xff\xff\xff"), None);
        (0..big.len()).for_each(|length| assert_eq!(orientation(&big[..length]), None));
        assert_eq!(orientation(b"PK\x03\x04"), None);
    }
}
