//! Red, green and blue of luma and chroma, as jdcolor.c has them: factors of 16 bits behind the point.

/// Red, green and blue of every pixel.
pub(super) fn rgb(luma: &[u8], chroma_of_blue: &[u8], chroma_of_red: &[u8]) -> Vec<u8> {
    let mut samples = Vec::with_capacity(3 * luma.len());
    for ((luma, blue), red) in luma.iter().zip(chroma_of_blue).zip(chroma_of_red) {
        let [luma, blue, red] = [i32::from(*luma), i32::from(*blue) - 128, i32::from(*red) - 128];
        let levels = [
            luma + ((91881 * red + HALF) >> 16),
            luma + ((-22554 * blue + HALF - 46802 * red) >> 16),
            luma + ((116_130 * blue + HALF) >> 16),
        ];
        samples.extend(levels.map(|level| level.clamp(0, 255) as u8));
    }
    samples
}

const HALF: i32 = 1 << 15;
