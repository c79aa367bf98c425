//! Limits of one caller: a rate, and a number of requests at the same time.

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

/// The number of requests between two removals of callers whose whole burst is available again.
const HOUSEKEEPING: u32 = 4096;

/// A caller, as the limits distinguish them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Caller {
    /// The holder of a key.
    Holder(Arc<str>),
    /// The subject of a token.
    Subject(Arc<str>),
    /// An IPv4 address, or an IPv6 network of 64 bits: one customer may use all of its addresses.
    Address(IpAddr),
    /// A caller without a key, a token or an address.
    Unknown,
}

/// The bits of an IPv6 address that name its network.
const NETWORK_MASK: u128 = !0 << 64;

impl Caller {
    /// Returns the caller at an address.
    pub(super) fn at(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & NETWORK_MASK).into(),
            address => address,
        })
    }

    /// Returns the name of the key or token.
    pub(super) fn holder(&self) -> Option<Arc<str>> {
        match self {
            Self::Holder(name) | Self::Subject(name) => Some(name.clone()),
            Self::Address(_) | Self::Unknown => None,
        }
    }
}

/// The number of requests that one caller may make in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// The number of requests.
    pub requests: NonZeroU32,
    /// The time in which a caller may make them.
    pub per: Duration,
    /// The number of requests that a caller may make at once.
    pub burst: NonZeroU32,
}

impl Rate {
    /// Parses a number and `/s`, `/min` or `/h`, such as `10/s`. The burst is the whole number.
    pub fn parse(text: &str) -> Option<Self> {
        let (requests, unit) = text.split_once('/')?;
        let is_number = (1..10).contains(&requests.len()) && !requests.starts_with('+');
        let requests = requests.parse().ok().filter(|_| is_number)?;
        let seconds = match unit {
            "s" => 1,
            "min" => 60,
            "h" => 3600,
            _ => return None,
        };
        Some(Self { requests, per: Duration::from_secs(seconds), burst: requests })
    }
}

/// The limits of each caller.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    rate: Option<Meter>,
    in_flight: Option<InFlight>,
}

/// The state of a caller's rate limit, as `draft-ietf-httpapi-ratelimit-headers-07` defines it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RateLimitStatus {
    /// The number of requests that the caller may make at once.
    limit: u32,
    /// The number of them that are left.
    remaining: u32,
    /// The time until all are left again, in seconds.
    reset: u64,
}

impl RateLimitStatus {
    /// Returns the headers of a response that show it.
    pub(crate) fn headers(self) -> [(HeaderName, HeaderValue); 3] {
        let Self { limit, remaining, reset } = self;
        [(LIMIT, limit.into()), (REMAINING, remaining.into()), (RESET, reset.into())]
    }
}

/// The admission of a request.
#[derive(Debug, Default)]
pub struct Admission {
    /// The holder of its key, or the subject of its token.
    pub holder: Option<Arc<str>>,
    /// The caller's permit, where it has a limit of concurrent requests. It is held until the
    /// response has ended.
    pub permit: Option<InFlightPermit>,
    /// The scopes of its token; `None` if it was admitted without one.
    pub scopes: Option<Arc<[String]>>,
    /// Whether its caller is one whose requests are in the priority class `batch`.
    pub is_batch: bool,
    pub(crate) rate_limit: Option<RateLimitStatus>,
}

/// The refusal of a request.
#[derive(Debug)]
pub struct Refusal {
    /// The error that the client receives.
    pub error: ServeError,
    /// The holder of its key, or the subject of its token, where that is known.
    pub holder: Option<Arc<str>>,
    pub(crate) rate_limit: Option<RateLimitStatus>,
    /// The ways to authenticate, as values of `WWW-Authenticate`.
    pub(crate) challenges: Vec<HeaderValue>,
}

impl From<ServeError> for Refusal {
    fn from(error: ServeError) -> Self {
        Self { error, holder: None, rate_limit: None, challenges: Vec::new() }
    }
}

impl Limits {
    pub(crate) fn new(rate: Option<Rate>, in_flight: Option<usize>) -> Self {
        let in_flight = in_flight.map(|most| InFlight { most, counts: Arc::default() });
        Self { rate: rate.map(Meter::new), in_flight }
    }

    /// Returns whether there is any limit.
    pub(super) fn are_set(&self) -> bool {
        self.rate.is_some() || self.in_flight.is_some()
    }

    /// Counts a request.
    ///
    /// # Errors
    /// The caller has reached a limit.
    pub(crate) fn take(&self, caller: &Caller) -> Result<Admission, Refusal> {
        // The permit first: a request that gets none must not count for the rate.
        let permit = self.in_flight.as_ref().map(|limit| limit.take(caller)).transpose()?;
        let rate_limit = self.rate.as_ref().map(|rate| rate.take(caller)).transpose()?;
        let (holder, is_batch) = (caller.holder(), false);
        Ok(Admission { holder, scopes: None, is_batch, rate_limit, permit })
    }
}

/// A meter of the rate of each caller, with the generic cell rate algorithm of `governor`.
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

    fn take(&self, caller: &Caller) -> Result<RateLimitStatus, Refusal> {
        if self.taken.fetch_add(1, Relaxed) % HOUSEKEEPING == HOUSEKEEPING - 1 {
            self.limiter.retain_recent();
        }
        match self.limiter.check_key(caller) {
            Ok(state) => Ok(self.status(state.remaining_burst_capacity())),
            Err(until) => {
                let wait = until.wait_time_from(TokioClock.now());
                let Rate { requests, per, .. } = self.rate;
                let detail =
                    format!("rate limit reached: more than {requests} requests in {per:?}");
                let rate_limit = Some(self.status(0));
                Err(Refusal { rate_limit, ..too_many(detail, wait).into() })
            }
        }
    }

    fn status(&self, remaining: u32) -> RateLimitStatus {
        let limit = self.rate.burst.get();
        let reset = interval(self.rate) * limit.saturating_sub(remaining);
        RateLimitStatus { limit, remaining, reset: whole_seconds(reset) }
    }
}

/// Returns the time after which one more request may be made.
fn interval(rate: Rate) -> Duration {
    rate.per / rate.requests.get()
}

fn whole_seconds(time: Duration) -> u64 {
    time.as_millis().div_ceil(1000) as u64
}

fn too_many(detail: String, wait: Duration) -> ServeError {
    ServeError::rate_limited(detail, whole_seconds(wait).max(1))
}

/// A limit of the requests that each caller may have at the same time.
#[derive(Debug)]
struct InFlight {
    most: usize,
    // The one lock of admission: held for a look-up, and only where there is such a limit.
    counts: Arc<Mutex<HashMap<Caller, usize>>>,
}

impl InFlight {
    fn take(&self, caller: &Caller) -> Result<InFlightPermit, ServeError> {
        let mut all = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(caller.clone()).or_default();
        if *count >= self.most {
            let detail =
                format!("concurrent request limit reached ({count}); retry when one completes");
            return Err(too_many(detail, Duration::ZERO));
        }
        *count += 1;
        Ok(InFlightPermit { caller: caller.clone(), counts: self.counts.clone() })
    }
}

/// A caller's permit for one request. The request counts until the permit is dropped.
#[derive(Debug)]
pub struct InFlightPermit {
    caller: Caller,
    counts: Arc<Mutex<HashMap<Caller, usize>>>,
}

impl Drop for InFlightPermit {
    fn drop(&mut self) {
        let mut all = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.caller);
            }
        }
    }
}

/// The clock of the runtime, which tests can pause.
#[derive(Debug, Clone, Copy)]
struct TokioClock;

/// An instant of that clock.
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
            let status = limits.take(&at(1)).unwrap().rate_limit.unwrap();
            assert_eq!(status.remaining, left);
        }
        let Refusal { error, rate_limit, .. } = limits.take(&at(1)).unwrap_err();
        assert_eq!((error.status(), error.retry_after), (429, Some(1)));
        assert_eq!(rate_limit.unwrap().headers().map(|(_, value)| value), ["3", "0", "3"]);
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
    async fn a_permit_is_returned_when_its_request_has_ended() {
        let limits = Limits::new(None, Some(2));
        let first = limits.take(&at(1)).unwrap();
        let second = limits.take(&at(1)).unwrap();
        assert_eq!(limits.take(&at(1)).unwrap_err().error.status(), 429);
        assert!(limits.take(&at(2)).is_ok(), "another caller");
        drop(first);
        assert!(limits.take(&at(1)).is_ok());
        drop(second);
        let all = &limits.in_flight.as_ref().unwrap().counts;
        assert!(all.lock().unwrap().is_empty(), "callers without requests are removed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_a_permit_does_not_count_for_the_rate() {
        let limits = Limits::new(rate(1, 60, 2), Some(1));
        let permit = limits.take(&at(1)).unwrap();
        assert!(limits.take(&at(1)).is_err());
        drop(permit);
        assert!(limits.take(&at(1)).is_ok());
    }

    #[test]
    fn a_rate_is_a_number_in_a_time() {
        let rate = Rate::parse("90/min").unwrap();
        assert_eq!((rate.requests.get(), rate.burst), (90, rate.requests));
        assert_eq!(rate.per, Duration::from_secs(60));
        for wrong in ["", "10", "0/s", "-1/s", "1.5/s", "10/day", "10/ s", "+1/s", "1000000000/s"] {
            assert_eq!(Rate::parse(wrong), None, "{wrong:?}");
        }
    }
}
