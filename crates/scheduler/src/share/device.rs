//! The fair share of a device: which of the workers that have jobs compute now. Pure.
//!
//! It is deficit round robin (M. Shreedhar and G. Varghese, *Efficient Fair Queueing using Deficit Round
//! Robin*, SIGCOMM 1995) in continuous time, because batches can be interrupted: while workers wait for the
//! device, each member earns its share of every second, and the members that compute pay for the second.
//! What a member has earned and not used is its balance; the highest balance computes next.
//!
//! A member that was idle begins at nothing, as a new flow of FQ-CoDel (RFC 8290, section 4) does: it has no
//! credit for the past, and goes before those that have used as much as they earned. A debt stays until the
//! member has earned it, so that a pause between two requests cannot cancel it.

use litplex_core::Priority;
use tokio::time::{Duration, Instant};

use crate::event::WorkerId;

/// The seconds by which a worker that computes may fall behind one that is paused, before they change
/// places. A new turn does not wait for it.
const QUANTUM: f64 = 0.005;

/// The seconds by which interactive jobs may be ahead of their share while others wait.
const LEAD: f64 = 0.05;

/// The seconds after which the workers of one member change places.
const ROTATION: f64 = 0.1;

/// The seconds that a worker waits before others of its member may no longer use the room in which it does
/// not fit.
const PATIENCE: Duration = Duration::from_secs(1);

/// The part of a core by which workers may exceed the capacity: measured use is never exact.
const SLACK: f64 = 0.25;

/// The shortest time that a worker runs, and between two decisions that no event asks for.
const SHORTEST: Duration = Duration::from_millis(1);

/// The id of a member, which is an endpoint on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MemberId(pub(crate) u64);

/// A change of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// The turn begins: the worker may be given jobs.
    Granted,
    /// The worker must stop until it is resumed.
    Paused,
    /// The worker continues.
    Resumed,
    /// The worker cannot be stopped. It must be given no more jobs, and ends its turn with those that it has.
    Yield,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    Paused,
}

#[derive(Debug)]
struct Member {
    id: MemberId,
    weight: f64,
    /// The seconds that it has earned and not used; negative for a debt.
    balance: f64,
}

/// The use of a device by a worker, from its first job to its last.
#[derive(Debug)]
struct Turn {
    id: WorkerId,
    member: MemberId,
    class: Priority,
    /// The part of the capacity that it takes.
    demand: f64,
    can_pause: bool,
    state: State,
    has_to_yield: bool,
    /// The seconds in which it has run while others waited.
    ran: f64,
    /// The time since which it is in its state.
    since: Instant,
}

/// A turn that is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    pub(crate) turn: WorkerId,
    pub(crate) member: MemberId,
    pub(crate) class: Priority,
    pub(crate) demand: f64,
    pub(crate) can_pause: bool,
}

/// The members of a device and their turns.
#[derive(Debug)]
pub(crate) struct Device {
    capacity: f64,
    members: Vec<Member>,
    /// In the order in which they were asked for.
    turns: Vec<Turn>,
    /// The time up to which the balances are true.
    at: Instant,
}

impl Device {
    /// Returns a device on which turns of so much demand run at the same time.
    pub(crate) fn new(capacity: f64, now: Instant) -> Self {
        Self { capacity, members: Vec::new(), turns: Vec::new(), at: now }
    }

    /// Adds a member, or changes its weight.
    pub(crate) fn join(&mut self, id: MemberId, weight: f64, now: Instant) {
        self.advance(now);
        match self.members.iter_mut().find(|member| member.id == id) {
            Some(member) => member.weight = weight,
            None => self.members.push(Member { id, weight, balance: 0.0 }),
        }
    }

    pub(crate) fn leave(&mut self, id: MemberId, now: Instant) {
        self.advance(now);
        self.members.retain(|member| member.id != id);
        self.turns.retain(|turn| turn.member != id);
    }

    pub(crate) fn has_no_members(&self) -> bool {
        self.members.is_empty()
    }

    pub(crate) fn ask(&mut self, ask: Ask, now: Instant) {
        self.advance(now);
        let Ask { turn: id, member, class, demand, can_pause } = ask;
        self.turns.push(Turn {
            id,
            member,
            class,
            demand,
            can_pause,
            state: State::Waiting,
            has_to_yield: false,
            ran: 0.0,
            since: now,
        });
    }

    /// Ends a turn. Returns whether its worker is paused.
    pub(crate) fn end(&mut self, id: WorkerId, now: Instant) -> bool {
        self.advance(now);
        let Some(at) = self.turns.iter().position(|turn| turn.id == id) else { return false };
        let turn = self.turns.remove(at);
        if !self.has_turns(turn.member) {
            // What an idle member has earned is lost; what it owes is not.
            self.member_mut(turn.member).iter_mut().for_each(|it| it.balance = it.balance.min(0.0));
        }
        turn.state == State::Paused
    }

    /// Sets the part of the capacity that a turn takes.
    pub(crate) fn set_demand(&mut self, id: WorkerId, demand: f64) {
        self.turns.iter_mut().filter(|turn| turn.id == id).for_each(|turn| turn.demand = demand);
    }

    /// Returns whether the turns that run could fill the device, or keep others from it.
    pub(crate) fn is_contended(&self) -> bool {
        self.turns.iter().any(|turn| turn.state != State::Running)
    }

    /// Returns the turns that run.
    pub(crate) fn running(&self) -> impl Iterator<Item = WorkerId> {
        self.turns.iter().filter(|turn| turn.state == State::Running).map(|turn| turn.id)
    }

    /// Decides which turns run from now on. Returns the changes; those that stop a worker are first.
    pub(crate) fn decide(&mut self, now: Instant) -> Vec<(WorkerId, Change)> {
        self.advance(now);
        if !self.is_contended() {
            return Vec::new();
        }
        let wanted = self.select(false);
        let chosen = self.select(true);
        let (mut stops, mut starts) = (Vec::new(), Vec::new());
        for (at, turn) in self.turns.iter_mut().enumerate() {
            match (turn.state, chosen[at]) {
                (State::Running, true) if !wanted[at] && !turn.can_pause && !turn.has_to_yield => {
                    turn.has_to_yield = true;
                    stops.push((turn.id, Change::Yield));
                }
                (State::Running, false) => {
                    (turn.state, turn.since) = (State::Paused, now);
                    stops.push((turn.id, Change::Paused));
                }
                (State::Waiting, true) => {
                    (turn.state, turn.since) = (State::Running, now);
                    starts.push((turn.id, Change::Granted));
                }
                (State::Paused, true) => {
                    (turn.state, turn.since) = (State::Running, now);
                    starts.push((turn.id, Change::Resumed));
                }
                (State::Running, true) | (State::Waiting | State::Paused, false) => {}
            }
        }
        stops.append(&mut starts);
        stops
    }

    /// Returns the time of the next decision, unless an event comes before it.
    pub(crate) fn due(&self) -> Option<Instant> {
        if !self.is_contended() {
            return None;
        }
        let changes =
            self.turns.iter().filter(|turn| turn.state != State::Running).flat_map(|turn| {
                let runs = self.turns.iter().filter(|other| other.state == State::Running);
                runs.filter_map(|other| self.crossing(turn, other))
            });
        let soonest = changes.fold(QUANTUM, f64::min);
        Some(self.at + Duration::from_secs_f64(soonest).max(SHORTEST))
    }

    /// Returns the seconds after which a turn that waits is worth as much as one that runs.
    fn crossing(&self, waits: &Turn, runs: &Turn) -> Option<f64> {
        let last = self.worth(runs.member, self.count_running(runs.member) - 1);
        let gap = last - self.worth(waits.member, self.count_running(waits.member));
        let speed = self.rate(waits.member) - self.rate(runs.member);
        (gap > 0.0 && speed > 0.0).then(|| gap / speed)
    }

    /// Returns for each turn whether it runs. Those that cannot be stopped do, and those that have just
    /// begun, if `forced`.
    fn select(&self, forced: bool) -> Vec<bool> {
        let must_run = |turn: &Turn| {
            let is_kept = !turn.can_pause || self.at - turn.since < SHORTEST;
            forced && turn.state == State::Running && is_kept
        };
        let mut chosen: Vec<bool> = self.turns.iter().map(must_run).collect();
        let mut is_left: Vec<bool> = chosen.iter().map(|is_chosen| !is_chosen).collect();
        loop {
            let candidates = (0..self.turns.len()).filter(|at| is_left[*at]);
            let Some(next) = candidates.max_by(|a, b| self.compare(*a, *b, &chosen)) else { break };
            is_left[next] = false;
            let (turn, taken) = (&self.turns[next], self.demand_of(&chosen));
            // The first one always fits: otherwise a large demand would wait forever.
            let is_first = !chosen.contains(&true);
            chosen[next] = is_first || taken + turn.demand <= self.capacity + SLACK;
            let is_stopped = turn.state != State::Running;
            if !chosen[next] && is_stopped && self.at - turn.since >= PATIENCE {
                let others = self.turns.iter().zip(&mut is_left);
                others
                    .filter(|(it, _)| it.member == turn.member)
                    .for_each(|(_, left)| *left = false);
            }
        }
        chosen
    }

    fn demand_of(&self, chosen: &[bool]) -> f64 {
        self.turns.iter().zip(chosen).filter(|(_, is)| **is).map(|(turn, _)| turn.demand).sum()
    }

    /// Compares two turns, of which the greater one is chosen before the other. The turns of one member
    /// have one balance: each that is chosen makes the next one worth less.
    fn compare(&self, a: usize, b: usize, chosen: &[bool]) -> std::cmp::Ordering {
        let (one, other) = (&self.turns[a], &self.turns[b]);
        if one.member == other.member {
            let rank = |turn: &Turn| {
                let kept = if turn.state == State::Running { ROTATION } else { 0.0 };
                turn.ran - kept - turn.lead()
            };
            return rank(other).total_cmp(&rank(one)).then(b.cmp(&a));
        }
        let worth = |turn: &Turn| {
            let same =
                self.turns.iter().zip(chosen).filter(|(it, is)| **is && it.member == turn.member);
            self.worth(turn.member, same.count())
        };
        let is_new = |turn: &Turn| turn.state == State::Waiting;
        let by_worth = worth(one).total_cmp(&worth(other));
        by_worth.then(is_new(one).cmp(&is_new(other))).then(b.cmp(&a))
    }

    /// Returns what decides between members: the worth of one more turn of a member of which so many are
    /// chosen. As many as run, or have not run yet, are kept for a quantum.
    fn worth(&self, id: MemberId, chosen: usize) -> f64 {
        let own = || self.turns.iter().filter(|turn| turn.member == id);
        let kept = own().filter(|turn| turn.state != State::Paused).count();
        let kept = if chosen < kept { QUANTUM } else { 0.0 };
        let lead = own().map(Turn::lead).fold(0.0, f64::max);
        let member = self.members.iter().find(|member| member.id == id);
        let balance = member.map_or(0.0, |it| it.balance * self.scale(it));
        balance + lead + kept - QUANTUM * chosen as f64
    }

    fn count_running(&self, id: MemberId) -> usize {
        let own = self.turns.iter().filter(|turn| turn.member == id);
        own.filter(|turn| turn.state == State::Running).count()
    }

    /// Returns the factor that makes the balances of members of different weights comparable.
    fn scale(&self, member: &Member) -> f64 {
        let count = self.members.iter().filter(|it| self.is_active(it)).count().max(1);
        self.active_weight() / count as f64 / member.weight
    }

    /// Returns by how much the worth of a member's turns changes in a second.
    fn rate(&self, id: MemberId) -> f64 {
        let Some(at) = self.members.iter().position(|member| member.id == id) else { return 0.0 };
        let (paid, earned) = self.prices()[at];
        (earned - paid) * self.scale(&self.members[at])
    }

    /// Returns what each member pays and earns in a second. A member that gets all it wants, and that is less
    /// than its share, earns what it pays: the rest of its share is for the others.
    fn prices(&self) -> Vec<(f64, f64)> {
        let running = self.running_demand().max(f64::MIN_POSITIVE);
        let paid: Vec<_> = self.members.iter().map(|it| self.price(it.id) / running).collect();
        let mut is_content = vec![false; self.members.len()];
        loop {
            let uses = |at: usize| if is_content[at] { paid[at] } else { 0.0 };
            let rest = 1.0 - (0..paid.len()).map(uses).sum::<f64>();
            let weighs = |(at, member): (usize, &Member)| {
                let counts = self.is_active(member) && !is_content[at];
                if counts { member.weight } else { 0.0 }
            };
            let weights: Vec<f64> = self.members.iter().enumerate().map(weighs).collect();
            let sum = weights.iter().sum::<f64>().max(f64::MIN_POSITIVE);
            let earned =
                |at: usize| if is_content[at] { paid[at] } else { rest * weights[at] / sum };
            let wants_less = |at: &usize| {
                let member = &self.members[*at];
                weights[*at] > 0.0
                    && member.balance >= 0.0
                    && paid[*at] < earned(*at)
                    && !self.is_stopped(member.id)
            };
            match (0..paid.len()).find(wants_less) {
                Some(at) => is_content[at] = true,
                None => return (0..paid.len()).map(|at| (paid[at], earned(at))).collect(),
            }
        }
    }

    /// Returns whether a turn of a member does not run.
    fn is_stopped(&self, id: MemberId) -> bool {
        self.turns.iter().any(|turn| turn.member == id && turn.state != State::Running)
    }

    fn is_active(&self, member: &Member) -> bool {
        member.balance < 0.0 || self.has_turns(member.id)
    }

    fn has_turns(&self, id: MemberId) -> bool {
        self.turns.iter().any(|turn| turn.member == id)
    }

    fn active_weight(&self) -> f64 {
        let active = self.members.iter().filter(|member| self.is_active(member));
        active.map(|member| member.weight).sum()
    }

    fn running_demand(&self) -> f64 {
        self.turns.iter().filter(|turn| turn.state == State::Running).map(Turn::price).sum()
    }

    fn price(&self, id: MemberId) -> f64 {
        let own = self.turns.iter().filter(|turn| turn.member == id);
        own.filter(|turn| turn.state == State::Running).map(Turn::price).sum()
    }

    fn member_mut(&mut self, id: MemberId) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.id == id)
    }

    /// Brings the balances up to now.
    fn advance(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        if seconds == 0.0 || self.members.is_empty() {
            return;
        }
        let is_contended = self.is_contended();
        let weight = self.active_weight();
        let changes: Vec<f64> = if is_contended {
            self.prices().into_iter().map(|(paid, earned)| seconds * (earned - paid)).collect()
        } else {
            // No worker waits: what was earned and what is owed lose their meaning.
            let towards_zero = |member: &Member| {
                let most = if weight > 0.0 { seconds * member.weight / weight } else { 0.0 };
                -member.balance.clamp(-most, most)
            };
            self.members.iter().map(towards_zero).collect()
        };
        for (member, change) in self.members.iter_mut().zip(changes) {
            member.balance += change;
        }
        if is_contended {
            let runs = self.turns.iter_mut().filter(|turn| turn.state == State::Running);
            runs.for_each(|turn| turn.ran += seconds);
        }
        // An idle member that has paid its debt is no creditor.
        for at in 0..self.members.len() {
            if !self.has_turns(self.members[at].id) {
                self.members[at].balance = self.members[at].balance.min(0.0);
            }
        }
    }
}

impl Turn {
    fn lead(&self) -> f64 {
        if self.class == Priority::Interactive { LEAD } else { 0.0 }
    }

    /// Returns its part of what all turns that run pay. A worker that waits for something takes little of
    /// the device and pays little.
    fn price(&self) -> f64 {
        self.demand.max(0.01)
    }
}
