//! Components of fewer samples in the size of the picture, as jdsample.c makes them.

/// The samples of a component, row by row.
pub(super) struct Plane {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) samples: Vec<u8>,
}

impl Plane {
    fn row(&self, at: usize) -> &[u8] {
        &self.samples[at * self.width..][..self.width]
    }

    /// A row, and the one that row `at` of twice as many is nearest to beside it; rows at the edges are beside themselves.
    fn nearest(&self, at: usize) -> (&[u8], &[u8]) {
        let near = at / 2;
        let far = if at.is_multiple_of(2) { near.saturating_sub(1) } else { (near + 1).min(self.height - 1) };
        (self.row(near), self.row(far))
    }
}

/// The samples of a plane in a picture of this size, of which each stands for so many pixels across and down. Where it
/// stands for two, those between samples are interpolated.
pub(super) fn upsampled(plane: Plane, factors: (usize, usize), (width, height): (usize, usize)) -> Vec<u8> {
    if factors == (1, 1) {
        return plane.samples;
    }
    let mut samples = Vec::with_capacity(width * height);
    for at in 0..height {
        match factors {
            (2, 1) if plane.width > 2 => {
                let row = plane.row(at);
                let sum = |at: usize| i32::from(row[at]);
                across(plane.width, sum, [0, 1, 2], 2).take(width).for_each(|sample| samples.push(sample));
            }
            (2, 2) if plane.width > 2 => {
                let (near, far) = plane.nearest(at);
                let sum = |at: usize| 3 * i32::from(near[at]) + i32::from(far[at]);
                across(plane.width, sum, [8, 8, 7], 4).take(width).for_each(|sample| samples.push(sample));
            }
            (1, 2) => {
                let (near, far) = plane.nearest(at);
                let half = if at.is_multiple_of(2) { 1 } else { 2 };
                samples.extend(
                    near.iter()
                        .zip(far)
                        .map(|(near, far)| ((3 * i32::from(*near) + i32::from(*far) + half) >> 2) as u8),
                );
            }
            (wide, high) => {
                let row = plane.row(at / high);
                samples.extend((0..width).map(|column| row[column / wide]));
            }
        }
    }
    samples
}

/// Twice as many samples as there are sums: three quarters of the nearest and one of the next, where sums lose `bits` in
/// all. `halves` are added before that at the first sample, to the left and to the right.
fn across(
    count: usize,
    sum: impl Fn(usize) -> i32,
    [edge, left, right]: [i32; 3],
    bits: u32,
) -> impl Iterator<Item = u8> {
    let whole = move |sum: i32, half: i32| ((4 * sum + half) >> bits) as u8;
    (0..count).flat_map(move |at| {
        let this = sum(at);
        let one = if at == 0 { whole(this, edge) } else { ((3 * this + sum(at - 1) + left) >> bits) as u8 };
        let other = if at + 1 == count { whole(this, right) } else { ((3 * this + sum(at + 1) + right) >> bits) as u8 };
        [one, other]
    })
}
