//! Round numbers along an axis.

/// The largest number of ticks.
const MOST: f64 = 6.0;

/// Round numbers from `low` to `high`, both within their range, at most six.
pub(super) fn ticks(low: f64, high: f64) -> Vec<f64> {
    if !(low.is_finite() && high.is_finite() && high > low) {
        return vec![low];
    }
    let rough = (high - low) / (MOST - 1.0);
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| *step >= rough * 0.999);
    let step = step.unwrap_or(10.0 * power);
    let first = (low / step - 1e-9).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    (first..=last).map(|i| i as f64 * step).collect()
}

/// A tick as text, without digits that rounding left.
pub(super) fn label(tick: f64) -> String {
    let text = format!("{tick:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        let labels = |low, high| ticks(low, high).into_iter().map(label).collect::<Vec<_>>();
        assert_eq!(labels(0.0, 1.0), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        assert_eq!(labels(1.0, 24.0), ["5", "10", "15", "20"]);
        assert_eq!(labels(1.93, 2.41), ["2", "2.1", "2.2", "2.3", "2.4"]);
        assert_eq!(labels(3.0, 3.0), ["3"]);
        assert!(ticks(0.0, 1e9).len() <= 6 && ticks(-7.3, 811.0).len() <= 6);
    }
}
