//! The backoff of a slot whose workers fail.

use std::time::Duration;

/// The backoff after the second consecutive failure of a slot.
const FIRST_DELAY: Duration = Duration::from_millis(100);

/// The longest backoff.
const MAX_DELAY: Duration = Duration::from_secs(30);

/// The time after which a ready worker counts as successful, so that its end starts a new row of
/// failures. Requests that crash workers seconds apart then cost one start each and no backoff,
/// while a slot still starts at most one worker per second.
const LONG_LIFE: Duration = Duration::from_secs(1);

/// The relative spread of a backoff to either side, so that slots that failed together do not keep
/// loading their models at the same time.
const JITTER: f64 = 0.2;

/// Returns the number of consecutive failures, given the number before the last worker and the time
/// for which that worker was ready (`None` if it never was).
pub(crate) fn failures_after(failures: u32, ready_for: Option<Duration>) -> u32 {
    match ready_for {
        Some(served) if served >= LONG_LIFE => 1,
        _ => failures.saturating_add(1),
    }
}

/// Returns the backoff after this many consecutive failures: zero after the first, then doubled
/// each time, up to 30 s. Equal seeds give equal spreads.
pub(crate) fn delay(failures: u32, seed: u64) -> Duration {
    let spread = 1.0 + JITTER * (2.0 * unit(seed, failures) - 1.0);
    unspread_delay(failures).mul_f64(spread).min(MAX_DELAY)
}

fn unspread_delay(failures: u32) -> Duration {
    match failures.checked_sub(2) {
        None => Duration::ZERO,
        Some(doublings) => {
            FIRST_DELAY.saturating_mul(2u32.saturating_pow(doublings)).min(MAX_DELAY)
        }
    }
}

/// Returns a pseudo-random number in 0..1 (the finalizer of splitmix64).
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
    fn the_first_restart_is_immediate_and_later_ones_back_off() {
        let millis: Vec<_> = (0..12).map(|failures| unspread_delay(failures).as_millis()).collect();
        let expected = [0, 0, 100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000];
        assert_eq!(millis, expected);
    }

    #[test]
    fn crashes_seconds_apart_cause_no_backoff() {
        let mut failures = 0;
        for _ in 0..5 {
            failures = failures_after(failures, Some(Duration::from_millis(1500)));
            assert_eq!(delay(failures, 7), Duration::ZERO);
        }
    }

    proptest! {
        #[test]
        fn delays_stay_below_the_limit_and_near_the_unspread_ones(failures: u32, seed: u64) {
            let (steady, spread) = (unspread_delay(failures), delay(failures, seed));
            prop_assert!(spread <= MAX_DELAY);
            prop_assert!(spread <= steady.mul_f64(1.0 + JITTER + 1e-9));
            prop_assert!(spread >= steady.mul_f64(1.0 - JITTER - 1e-9));
            prop_assert_eq!(spread, delay(failures, seed));
        }

        #[test]
        fn unspread_delays_never_decrease(failures in 0u32..u32::MAX) {
            prop_assert!(unspread_delay(failures + 1) >= unspread_delay(failures));
        }

        #[test]
        fn brief_workers_add_up_and_a_successful_one_starts_anew(
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
