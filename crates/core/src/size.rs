//! Sizes in words, as the log and the command show them.

/// Returns a number of bytes in its largest decimal unit, with a digit after the point.
pub fn size_in_words(bytes: u64) -> String {
    let units = [("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
    let number = bytes as f64;
    // 999.99 kB would be rounded to 1000.0 kB.
    match units.into_iter().find(|(_, size)| number >= 0.99995 * size) {
        Some((unit, size)) => format!("{:.1} {unit}", number / size),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_said_in_its_largest_unit() {
        for (bytes, words) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (1_536, "1.5 kB"),
            (999_940, "999.9 kB"),
            (999_960, "1.0 MB"),
            (712_345_678, "712.3 MB"),
            (3_221_225_472, "3.2 GB"),
            (1_500_000_000_000, "1500.0 GB"),
        ] {
            assert_eq!(size_in_words(bytes), words);
        }
    }
}
