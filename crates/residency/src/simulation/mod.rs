//! Simulated days of six models with room for three, against other rules and against the best possible ones.
//!
//! The clairvoyant optimum knows every future request. No rule that does not comes near it: under independent
//! requests the informed optimum, which knows the true rates, is the best rule, and itself needs up to 1.28
//! times the reload seconds of the clairvoyant one. Both serve requests in their order. The state machine may let
//! a request wait, and can therefore be better than the informed optimum.

mod machine;
mod optimum;
mod rules;
mod trace;

use std::time::Duration;

use crate::Patience;
use machine::Day;
use trace::Trace;

/// The number of days; in each, sizes, load times and popularity are dealt anew. `LITPLEX_DAYS` and
/// `LITPLEX_FIRST_DAY` choose more and others.
const DAYS: u64 = 3;

/// The reload seconds of all days together.
#[derive(Debug, Default)]
struct Totals {
    ours: f64,
    /// With loads at once, as the others do.
    at_once: f64,
    clairvoyant: f64,
    informed: f64,
    lru: f64,
    ollama: f64,
    gdsf: f64,
    /// The most of the days, as the ratio of ours to the informed optimum.
    worst: f64,
    /// The mean wait of all requests, in seconds, of ours and with loads at once.
    wait: f64,
    wait_at_once: f64,
}

fn totals(exponent: f64, has_shift: bool) -> Totals {
    let mut totals = Totals::default();
    let (first, days) = (number("LITPLEX_FIRST_DAY", 0), number("LITPLEX_DAYS", DAYS));
    for seed in first..first + days {
        let trace = Trace::day(exponent, has_shift, seed);
        let ours = run(&trace, Patience::default());
        let at_once = run(&trace, Patience { longest_wait: Duration::ZERO, ..Patience::default() });
        let informed = optimum::informed(&trace);
        totals.ours += ours.reload;
        totals.at_once += at_once.reload;
        totals.clairvoyant += optimum::clairvoyant(&trace);
        totals.informed += informed;
        totals.lru += rules::lru(&trace);
        totals.ollama += rules::ollama(&trace);
        totals.gdsf += rules::gdsf(&trace);
        totals.worst = totals.worst.max(ours.reload / informed);
        totals.wait += ours.waited / ours.requests / days as f64;
        totals.wait_at_once += at_once.waited / at_once.requests / days as f64;
    }
    let Totals { ours, clairvoyant, informed, lru, ollama, gdsf, at_once, .. } = totals;
    println!(
        "Zipf {exponent}, shift {has_shift}: {:.3} of clairvoyant, {:.3} of informed (worst day {:.3}), \
         {:.3} of LRU, {:.3} of Ollama, {:.3} of GDSF; at once {:.3} of informed; informed is {:.3} of \
         clairvoyant, {:.3} of LRU; mean wait {:.3} s, at once {:.3} s",
        ours / clairvoyant,
        ours / informed,
        totals.worst,
        ours / lru,
        ours / ollama,
        ours / gdsf,
        at_once / informed,
        informed / clairvoyant,
        informed / lru,
        totals.wait,
        totals.wait_at_once,
    );
    totals
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|it| it.parse().ok()).unwrap_or(default)
}

fn run(trace: &Trace, patience: Patience) -> Day {
    let day = machine::run(trace, patience);
    assert_eq!(day.refused, 0, "a request is refused");
    day
}

fn check(exponent: f64, has_shift: bool) {
    let Totals { ours, clairvoyant, informed, lru, ollama, worst, .. } =
        totals(exponent, has_shift);
    assert!(ours <= informed * 1.05, "{}", ours / informed);
    assert!(worst <= 1.2, "{worst}");
    assert!(ours <= clairvoyant * 1.2, "{}", ours / clairvoyant);
    assert!(ours <= lru * 0.8, "{}", ours / lru);
    assert!(ours <= ollama * 0.8, "{}", ours / ollama);
}

#[test]
fn a_stationary_day_of_zipf_09_is_near_the_informed_optimum() {
    check(0.9, false);
}

#[test]
fn a_stationary_day_of_zipf_11_is_near_the_informed_optimum() {
    check(1.1, false);
}

#[test]
fn a_day_of_zipf_09_with_a_shift_is_near_the_informed_optimum() {
    check(0.9, true);
}

#[test]
fn a_day_of_zipf_11_with_a_shift_is_near_the_informed_optimum() {
    check(1.1, true);
}
