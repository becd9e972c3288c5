//! The signs of components.

use ndarray::Array2;

/// Flips the sign of each row so that its entry of largest magnitude is positive (the first one on a tie), as
/// scikit-learn's `svd_flip(u_based_decision=False)`.
pub(super) fn fix_signs(components: &mut Array2<f64>) {
    for mut row in components.rows_mut() {
        let pivot = row.iter().fold(0.0_f64, |best, &v| if v.abs() > best.abs() { v } else { best });
        if pivot < 0.0 {
            row.mapv_inplace(|v| -v);
        }
    }
}
