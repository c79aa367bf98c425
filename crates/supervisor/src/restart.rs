use std::time::Duration;

/// The delay after which a slot that fails a second time in a row is tried again.
const FIRST_DELAY: Duration = Duration::from_millis(100);

/// No slot waits longer than this.
const MAX_DELAY: Duration = Duration::from_secs(30);

/// A worker that was ready for so long has served: what ended it is news, not a failure to start.
/// Bad requests that come seconds apart then cost a start each and no more, and a worker that
/// dies later than this can still be started no more than once a second.
const LONG_LIFE: Duration = Duration::from_secs(1);

/// How far a delay is spread to either side, so that slots that failed together do not load their
/// models together for ever.
const JITTER: f64 = 0.2;

/// Returns how many lives in a row have been short, given how many had been before the last one
/// and how long that was ready (`None` if it never was).
pub(crate) fn failures_after(failures: u32, ready_for: Option<Duration>) -> u32 {
    match ready_for {
        Some(served) if served >= LONG_LIFE => 1,
        _ => failures.saturating_add(1),
    }
}

/// Returns how long a slot stays empty after so many failures in a row: not at all after the
/// first, then twice as long each time, up to 30 s. Equal seeds spread equally.
pub(crate) fn delay(failures: u32, seed: u64) -> Duration {
    let spread = 1.0 + JITTER * (2.0 * unit(seed, failures) - 1.0);
    steady_delay(failures).mul_f64(spread).min(MAX_DELAY)
}

fn steady_delay(failures: u32) -> Duration {
    match failures.checked_sub(2) {
        None => Duration::ZERO,
        Some(doublings) => {
            FIRST_DELAY.saturating_mul(2u32.saturating_pow(doublings)).min(MAX_DELAY)
        }
    }
}

/// A number in 0..1 that looks random (the finish of splitmix64).
fn unit(seed: u64, failures: u32) -> f64 {
    let mut bits = seed.wrapping_add(u64::from(failures).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (bits ^ (bits >> 31)) as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_restart_is_at_once_and_the_next_ones_ever_later() {
        let millis: Vec<_> = (0..12).map(|failures| steady_delay(failures).as_millis()).collect();
        let expected = [0, 0, 100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000];
        assert_eq!(millis, expected);
    }

    #[test]
    fn crashes_seconds_apart_are_each_answered_at_once() {
        let mut failures = 0;
        for _ in 0..5 {
            failures = failures_after(failures, Some(Duration::from_millis(1500)));
            assert_eq!(delay(failures, 7), Duration::ZERO);
        }
    }

    proptest! {
        #[test]
        fn delays_keep_the_cap_and_stay_near_the_steady_ones(failures: u32, seed: u64) {
            let (steady, spread) = (steady_delay(failures), delay(failures, seed));
            prop_assert!(spread <= MAX_DELAY);
            prop_assert!(spread <= steady.mul_f64(1.0 + JITTER + 1e-9));
            prop_assert!(spread >= steady.mul_f64(1.0 - JITTER - 1e-9));
            prop_assert_eq!(spread, delay(failures, seed));
        }

        #[test]
        fn steady_delays_never_fall(failures in 0u32..u32::MAX) {
            prop_assert!(steady_delay(failures + 1) >= steady_delay(failures));
        }

        #[test]
        fn short_lives_add_up_and_a_long_one_ends_the_row(
            failures: u32,
            short in prop::option::of(0u64..1000),
            long in 1000u64..1_000_000_000,
        ) {
            let millis = Duration::from_millis;
            prop_assert!(failures_after(failures, short.map(millis)) >= failures.max(1));
            prop_assert_eq!(delay(failures_after(failures, Some(millis(long))), 0), Duration::ZERO);
        }
    }
}
