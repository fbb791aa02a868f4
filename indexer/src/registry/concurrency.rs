//! How many requests a registry gets at once: a level that finds itself.
//!
//! Registries differ by two orders of magnitude in what they bear, and no operator knows the number. So the level
//! climbs as long as climbing pays: it starts low and doubles; when a higher level did not bring more answers a
//! second it steps back and stays there for a while, then tries a little more. Signs of overload halve it.
//!
//! Throughput and not latency is measured, for latency differs more between a HEAD and a large config than between
//! an idle registry and a busy one. Only rounds in which all of the level was used tell anything.

use std::time::{Duration, Instant};

/// Where every client begins.
const FIRST_LEVEL: usize = 8;

/// A round is at least this long and has at least [`ROUND_PER_LEVEL`] answers for each request of its level.
const ROUND: Duration = Duration::from_millis(100);
const ROUND_PER_LEVEL: usize = 4;

/// Rounds spent at a level that was found good before a higher one is tried.
const HOLD_ROUNDS: u32 = 20;

/// The level, and what is needed to judge it.
#[derive(Debug)]
pub(super) struct Level {
    current: usize,
    floor: usize,
    ceiling: usize,
    phase: Phase,
    round: Option<Round>,
    /// The last reduction: requests sent before it tell nothing about the level after it.
    reduced_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Measures the level as it is, then tries a higher one; `rounds` are left until then.
    Holding { rounds: u32, doubles: bool },
    /// Measures a level that is higher than `before`, which brought `rate` answers a second.
    Trying { before: usize, rate: f64, doubles: bool },
}

#[derive(Debug)]
struct Round {
    started: Instant,
    answers: usize,
}

impl Level {
    /// A level that will not exceed `ceiling`, nor fall below 1.
    pub(super) fn new(ceiling: usize) -> Self {
        let ceiling = ceiling.max(1);
        Self {
            current: FIRST_LEVEL.min(ceiling),
            floor: FIRST_LEVEL.min(ceiling / 2).max(1),
            ceiling,
            phase: Phase::Holding {
                rounds: 0,
                doubles: true,
            },
            round: None,
            reduced_at: None,
        }
    }

    /// How many requests may be in flight.
    pub(super) fn current(&self) -> usize {
        self.current
    }

    /// A request that was no sign of overload ended. `is_full`: all of the level was in use.
    pub(super) fn answered(&mut self, now: Instant, is_full: bool) {
        if !is_full {
            // Too little demand: time went by without telling what the registry bears.
            self.round = None;
            return;
        }
        let Some(round) = &mut self.round else {
            self.round = Some(Round {
                started: now,
                answers: 0,
            });
            return;
        };
        round.answers += 1;
        let elapsed = now.duration_since(round.started);
        if elapsed >= ROUND && round.answers >= ROUND_PER_LEVEL * self.current {
            let rate = round.answers as f64 / elapsed.as_secs_f64();
            self.round = None;
            self.judge(rate);
        }
    }

    /// A request that was sent at `sent` met a sign of overload: 429, 503 or a timeout.
    pub(super) fn overloaded(&mut self, sent: Instant, now: Instant) {
        if self.reduced_at.is_some_and(|reduced_at| sent < reduced_at) {
            return;
        }
        self.reduced_at = Some(now);
        // One object that hangs must not take the only place: below the first level, a `Retry-After` is what slows us.
        self.current = (self.current / 2).max(self.floor);
        self.hold();
    }

    fn judge(&mut self, rate: f64) {
        match self.phase {
            Phase::Holding { rounds: 0, doubles } => self.climb(rate, doubles),
            Phase::Holding { rounds, doubles } => {
                self.phase = Phase::Holding {
                    rounds: rounds - 1,
                    doubles,
                };
            }
            Phase::Trying {
                before,
                rate: rate_before,
                doubles,
            } => {
                // A quarter of the growth that more requests could have brought is worth having.
                let growth = self.current as f64 / before as f64 - 1.0;
                if rate >= rate_before * (1.0 + growth / 4.0) {
                    self.climb(rate, doubles);
                } else {
                    self.current = before;
                    self.hold();
                }
            }
        }
    }

    fn climb(&mut self, rate: f64, doubles: bool) {
        let before = self.current;
        let step = if doubles { before } else { before.div_ceil(4) };
        self.current = (before + step).min(self.ceiling);
        if self.current == before {
            return self.hold();
        }
        self.phase = Phase::Trying { before, rate, doubles };
    }

    fn hold(&mut self) {
        self.round = None;
        self.phase = Phase::Holding {
            rounds: HOLD_ROUNDS,
            doubles: false,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets a registry that answers `rate(level)` requests a second run for a number of rounds.
    fn run(level: &mut Level, rounds: usize, now: &mut Instant, rate: impl Fn(usize) -> f64) {
        for _ in 0..rounds {
            let answers_a_second = rate(level.current());
            let gap = Duration::from_secs_f64(1.0 / answers_a_second);
            let answers = (ROUND_PER_LEVEL * level.current()).max((answers_a_second * 0.12) as usize);
            for _ in 0..=answers + 1 {
                *now += gap;
                level.answered(*now, true);
            }
        }
    }

    #[test]
    fn climbs_to_the_ceiling_when_each_request_more_pays() {
        let (mut level, mut now) = (Level::new(32), Instant::now());
        run(&mut level, 10, &mut now, |level| 100.0 * level as f64);
        assert_eq!(level.current(), 32);
        run(&mut level, 100, &mut now, |level| 100.0 * level as f64);
        assert_eq!(level.current(), 32);
    }

    #[test]
    fn stays_where_more_brings_nothing() {
        let (mut level, mut now) = (Level::new(64), Instant::now());
        let saturates_at_8 = |level: usize| 100.0 * level.min(8) as f64;
        run(&mut level, 10, &mut now, saturates_at_8);
        assert_eq!(level.current(), 8);
        for _ in 0..100 {
            run(&mut level, 1, &mut now, saturates_at_8);
            assert!((8..=10).contains(&level.current()), "{}", level.current());
        }
    }

    #[test]
    fn finds_a_registry_that_became_faster() {
        let (mut level, mut now) = (Level::new(64), Instant::now());
        run(&mut level, 10, &mut now, |level| 100.0 * level.min(8) as f64);
        assert_eq!(level.current(), 8);
        run(&mut level, 200, &mut now, |level| 100.0 * level as f64);
        assert_eq!(level.current(), 64);
    }

    #[test]
    fn halves_once_for_all_requests_that_were_in_flight() {
        let (mut level, mut now) = (Level::new(32), Instant::now());
        run(&mut level, 10, &mut now, |level| 100.0 * level as f64);
        let sent = now;
        for delay in 1..=32 {
            level.overloaded(sent, now + Duration::from_millis(delay));
        }
        assert_eq!(level.current(), 16);
        let later = now + Duration::from_millis(40);
        level.overloaded(later, later);
        assert_eq!(level.current(), 8);
    }

    #[test]
    fn never_stops_altogether() {
        let (mut level, start) = (Level::new(0), Instant::now());
        assert_eq!(level.current(), 1);
        for seconds in 0..5 {
            let now = start + Duration::from_secs(seconds);
            level.overloaded(now, now);
        }
        assert_eq!(level.current(), 1);
    }

    #[test]
    fn learns_nothing_from_a_registry_with_little_to_do() {
        let (mut level, mut now) = (Level::new(32), Instant::now());
        for _ in 0..10_000 {
            now += Duration::from_millis(1);
            level.answered(now, false);
        }
        assert_eq!(level.current(), FIRST_LEVEL);
    }
}
