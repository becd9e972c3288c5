//! Numbers as text.

/// A whole number with a narrow space between thousands.
pub(super) fn whole(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A share as a percentage with one digit after the point.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// Seconds, in minutes from ten minutes on.
pub(super) fn duration(seconds: f64) -> String {
    if seconds < 600.0 { format!("{seconds:.1} s") } else { format!("{:.1} min", seconds / 60.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!([whole(0), whole(999), whole(1_234_567)], ["0", "999", "1\u{202f}234\u{202f}567"]);
        assert_eq!(percent(0.12345), "12.3 %");
        assert_eq!([duration(59.96), duration(600.0)], ["60.0 s", "10.0 min"]);
    }
}
