use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, Reference};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use http::header::{HeaderName, HeaderValue};
use litplex_core::ServeError;

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// Requests after which callers that have been away for long are forgotten.
const HOUSEKEEPING: u32 = 4096;

/// Who calls, as far as limits are concerned.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Caller {
    /// The holder of a key.
    Holder(Arc<str>),
    /// Whom a token speaks of.
    Subject(Arc<str>),
    /// Whoever is at this address, or in the network of IPv6 that one customer has: each may use any
    /// of its 2⁶⁴ addresses.
    Address(IpAddr),
    /// Somebody of whom nothing is known.
    Unknown,
}

/// What of an address of IPv6 is the network.
const NETWORK_MASK: u128 = !0 << 64;

impl Caller {
    /// Returns who is at an address.
    pub(super) fn at(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & NETWORK_MASK).into(),
            address => address,
        })
    }

    pub(super) fn holder(&self) -> Option<Arc<str>> {
        match self {
            Self::Holder(name) | Self::Subject(name) => Some(name.clone()),
            Self::Address(_) | Self::Unknown => None,
        }
    }
}

/// How many requests one caller may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// This many,
    pub requests: NonZeroU32,
    /// in this time.
    pub per: Duration,
    /// As many of them at once.
    pub burst: NonZeroU32,
}

/// What callers may do, each for itself.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    rate: Option<Meter>,
    in_flight: Option<InFlight>,
}

/// Where a caller stands, as `draft-ietf-httpapi-ratelimit-headers-07` tells it.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    /// How many requests it may make at once.
    limit: u32,
    /// How many of them are left.
    remaining: u32,
    /// In how many seconds all are again.
    reset: u64,
}

impl Standing {
    /// Returns the headers of an answer that tell it.
    pub fn headers(self) -> [(HeaderName, HeaderValue); 3] {
        let Self { limit, remaining, reset } = self;
        [(LIMIT, limit.into()), (REMAINING, remaining.into()), (RESET, reset.into())]
    }
}

/// A request that was let in. It takes its place until this is dropped.
#[derive(Debug, Default)]
pub struct Admission {
    /// Whose key or token it carries.
    pub holder: Option<Arc<str>>,
    /// Where its caller stands.
    pub standing: Option<Standing>,
    /// Its place among the requests of its caller.
    pub place: Option<Place>,
}

/// Why a request is not let in.
#[derive(Debug)]
pub struct Refusal {
    /// What is answered.
    pub error: ServeError,
    /// Whose key or token it carries, where that is known.
    pub holder: Option<Arc<str>>,
    /// Where its caller stands.
    pub standing: Option<Standing>,
    /// What would let it in.
    pub challenges: Vec<HeaderValue>,
}

impl From<ServeError> for Refusal {
    fn from(error: ServeError) -> Self {
        Self { error, holder: None, standing: None, challenges: Vec::new() }
    }
}

impl Limits {
    pub(crate) fn new(rate: Option<Rate>, in_flight: Option<usize>) -> Self {
        let in_flight = in_flight.map(|most| InFlight { most, of: Arc::default() });
        Self { rate: rate.map(Meter::new), in_flight }
    }

    pub(super) fn are_any(&self) -> bool {
        self.rate.is_some() || self.in_flight.is_some()
    }

    /// Counts a request, or says why it is too much.
    pub(crate) fn take(&self, caller: &Caller) -> Result<Admission, Refusal> {
        // First who is there: a request that is refused for that must not count.
        let place = self.in_flight.as_ref().map(|limit| limit.take(caller)).transpose()?;
        let standing = self.rate.as_ref().map(|rate| rate.take(caller)).transpose()?;
        Ok(Admission { holder: caller.holder(), standing, place })
    }
}

/// Measures rates by the generic cell rate algorithm, as `governor` has it.
struct Meter {
    rate: Rate,
    limiter: RateLimiter<Caller, DashMapStateStore<Caller>, TokioClock, StateInformationMiddleware>,
    taken: AtomicU32,
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rate.fmt(f)
    }
}

impl Meter {
    fn new(rate: Rate) -> Self {
        let period = interval(rate).max(Duration::from_nanos(1));
        let quota = Quota::with_period(period).unwrap_or(Quota::per_second(rate.requests));
        let limiter = RateLimiter::dashmap_with_clock(quota.allow_burst(rate.burst), TokioClock);
        Self { rate, limiter: limiter.with_middleware(), taken: AtomicU32::new(0) }
    }

    fn take(&self, caller: &Caller) -> Result<Standing, Refusal> {
        if self.taken.fetch_add(1, Relaxed) % HOUSEKEEPING == HOUSEKEEPING - 1 {
            self.limiter.retain_recent();
        }
        match self.limiter.check_key(caller) {
            Ok(state) => Ok(self.standing(state.remaining_burst_capacity())),
            Err(until) => {
                let wait = until.wait_time_from(TokioClock.now());
                let Rate { requests, per, .. } = self.rate;
                let detail = format!("more than {requests} requests in {per:?}");
                let standing = Some(self.standing(0));
                Err(Refusal { standing, ..too_many(detail, wait).into() })
            }
        }
    }

    fn standing(&self, remaining: u32) -> Standing {
        let limit = self.rate.burst.get();
        let reset = interval(self.rate) * limit.saturating_sub(remaining);
        Standing { limit, remaining, reset: whole_seconds(reset) }
    }
}

/// After which time one more request may be made.
fn interval(rate: Rate) -> Duration {
    rate.per / rate.requests.get()
}

fn whole_seconds(time: Duration) -> u64 {
    time.as_millis().div_ceil(1000) as u64
}

fn too_many(detail: String, wait: Duration) -> ServeError {
    let retry_after = Some(whole_seconds(wait).max(1));
    ServeError { retry_after, ..ServeError::new(429, detail) }
}

/// How many requests of each caller are being answered.
#[derive(Debug)]
struct InFlight {
    most: usize,
    // The one lock of the edge: it is held for a look-up, and only where there is such a limit.
    of: Arc<Mutex<HashMap<Caller, usize>>>,
}

impl InFlight {
    fn take(&self, caller: &Caller) -> Result<Place, ServeError> {
        let mut all = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(caller.clone()).or_default();
        if *count >= self.most {
            let detail = format!("{count} requests of this caller are being answered");
            return Err(too_many(detail, Duration::ZERO));
        }
        *count += 1;
        Ok(Place { caller: caller.clone(), of: self.of.clone() })
    }
}

/// A request that is being answered, until it is dropped.
#[derive(Debug)]
pub struct Place {
    caller: Caller,
    of: Arc<Mutex<HashMap<Caller, usize>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.caller);
            }
        }
    }
}

/// The time of the runtime, which tests can pause.
#[derive(Debug, Clone, Copy)]
struct TokioClock;

/// Time since the process asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Moment(tokio::time::Instant);

impl Clock for TokioClock {
    type Instant = Moment;

    fn now(&self) -> Moment {
        Moment(tokio::time::Instant::now())
    }
}

impl Reference for Moment {
    fn duration_since(&self, earlier: Self) -> governor::nanos::Nanos {
        self.0.saturating_duration_since(earlier.0).into()
    }

    fn saturating_sub(&self, duration: governor::nanos::Nanos) -> Self {
        Self(self.0.checked_sub(duration.into()).unwrap_or(self.0))
    }
}

impl std::ops::Add<governor::nanos::Nanos> for Moment {
    type Output = Self;

    fn add(self, duration: governor::nanos::Nanos) -> Self {
        Self(self.0 + Duration::from(duration))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn rate(requests: u32, seconds: u64, burst: u32) -> Option<Rate> {
        let [requests, burst] = [requests, burst].map(|n| NonZeroU32::new(n).unwrap());
        Some(Rate { requests, per: Duration::from_secs(seconds), burst })
    }

    fn at(last: u8) -> Caller {
        Caller::Address([10, 0, 0, last].into())
    }

    #[test]
    fn a_network_of_ipv6_is_one_caller() {
        let at = |address: &str| Caller::at(address.parse().unwrap());
        assert_eq!(at("2001:db8:1:2::3"), at("2001:db8:1:2:ffff:1:2:3"));
        assert_ne!(at("2001:db8:1:2::3"), at("2001:db8:1:3::3"));
        assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"));
        assert_ne!(at("192.0.2.1"), at("192.0.2.2"));
    }

    #[tokio::test(start_paused = true)]
    async fn each_caller_has_its_own_rate() {
        let limits = Limits::new(rate(60, 60, 3), None);
        for left in [2, 1, 0] {
            let standing = limits.take(&at(1)).unwrap().standing.unwrap();
            assert_eq!(standing.remaining, left);
        }
        let Refusal { error, standing, .. } = limits.take(&at(1)).unwrap_err();
        assert_eq!((error.status, error.retry_after), (429, Some(1)));
        assert_eq!(standing.unwrap().headers().map(|(_, value)| value), ["3", "0", "3"]);
        assert!(limits.take(&at(2)).is_ok(), "another caller");
        advance(Duration::from_secs(1)).await;
        assert!(limits.take(&at(1)).is_ok());
        assert!(limits.take(&at(1)).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_is_when_the_next_may_come() {
        let limits = Limits::new(rate(1, 3600, 1), None);
        limits.take(&Caller::Unknown).unwrap();
        advance(Duration::from_secs(600)).await;
        let refusal = limits.take(&Caller::Unknown).unwrap_err();
        assert_eq!(refusal.error.retry_after, Some(3000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_free_again_when_its_request_has_ended() {
        let limits = Limits::new(None, Some(2));
        let first = limits.take(&at(1)).unwrap();
        let second = limits.take(&at(1)).unwrap();
        assert_eq!(limits.take(&at(1)).unwrap_err().error.status, 429);
        assert!(limits.take(&at(2)).is_ok(), "another caller");
        drop(first);
        assert!(limits.take(&at(1)).is_ok());
        drop(second);
        let all = &limits.in_flight.as_ref().unwrap().of;
        assert!(all.lock().unwrap().is_empty(), "who is gone is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_finds_no_place_does_not_count() {
        let limits = Limits::new(rate(1, 60, 2), Some(1));
        let place = limits.take(&at(1)).unwrap();
        assert!(limits.take(&at(1)).is_err());
        drop(place);
        assert!(limits.take(&at(1)).is_ok());
    }
}
