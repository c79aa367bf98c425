//! When a load pays: what an eviction costs, and what waiting has cost already.

/// The value of a worker's residence, or of that of a set of them.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Worth {
    /// The arrivals per second.
    pub(crate) rate: f64,
    /// The reload seconds that it saves per second: the sum of the products of rate and time to load.
    pub(crate) value: f64,
}

/// Returns the price of an eviction: the waiting, in request-seconds, after which it pays.
///
/// With Poisson arrivals, a victim `v` is called before the next call of the newcomer `n` with the probability
/// `rate_v / (rate_v + rate_n)`. Then its reload is the loss; else the newcomer's reload is saved. The expected
/// loss is the price. It is zero or less, and the load begins at once, if the newcomer is worth as much as the
/// victims together. It is never above the reload times of the victims: one request, which waits one
/// request-second per second, cannot starve.
///
/// This is ski rental (Karlin et al. 1988): those that wait pay rent for the memory, and once the rent is as
/// high as the price, the holder leaves. Rent and reload together are at most twice the cheaper one.
pub(crate) fn price(victims: Worth, newcomer: Worth) -> f64 {
    let rates = victims.rate + newcomer.rate;
    if rates <= 0.0 { 0.0 } else { (victims.value - newcomer.value) / rates }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worth(rate: f64, reload: f64) -> Worth {
        Worth { rate, value: rate * reload }
    }

    #[test]
    fn a_newcomer_that_is_worth_more_pays_at_once() {
        assert!(price(worth(0.1, 2.0), worth(0.2, 2.0)) < 0.0);
        assert!(price(worth(0.1, 2.0), worth(0.1, 2.0)) <= 0.0);
        assert_eq!(price(Worth::default(), Worth::default()), 0.0);
    }

    #[test]
    fn a_rare_newcomer_pays_the_reload_of_a_busy_victim_and_never_more() {
        let price = price(worth(10.0, 3.0), worth(0.001, 3.0));
        assert!((2.99..3.0).contains(&price), "{price}");
    }
}
