//! Properties of liveness, with a clock that the tests control.
//!
//! Times are nanoseconds. An answer that arrives within the millisecond of its heartbeat, as on loopback, is
//! another case than a later one: a coarser time would hide it.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::peer_watch::PeerWatch;
use super::policy::Liveness;
use super::timers::Due;
use crate::properties::check;
use crate::types::close_reason::CloseReason;
use crate::types::liveness::{Acknowledged, Heartbeat, LivenessConfig, Silence};

/// A live peer answers within this time, without the round trips.
const ANSWER_TIME: u64 = 600 * MS;
/// A shorter pause is the usual delay of a timer.
const MIN_PAUSE: u64 = 50 * MS;

/// A millisecond.
const MS: u64 = 1_000_000;
const S: u64 = 1000 * MS;

fn ns(n: u64) -> Duration {
    Duration::from_nanos(n)
}

fn nanos(time: Duration) -> u64 {
    time.as_nanos() as u64
}

/// A time from a range of milliseconds: a whole number of them, or not.
fn time(range: Range<u64>) -> impl Strategy<Value = u64> + Clone {
    (range, prop_oneof![Just(0u64), 0..MS]).prop_map(|(millis, rest)| millis * MS + rest)
}

/// A time between two events: a part of a millisecond, or longer.
fn gap(range: Range<u64>) -> impl Strategy<Value = u64> + Clone {
    prop_oneof![1 => 0..MS, 5 => time(range)]
}

/// A configuration.
#[derive(Debug, Clone, Copy)]
struct Rules {
    every: Option<u64>,
    timeout: Option<u64>,
    idle: Option<u64>,
    receive_only: bool,
    first_byte: Option<u64>,
}

impl Rules {
    fn config(self) -> LivenessConfig {
        let heartbeat = |every| Heartbeat { bytes: Arc::new(b"PING".to_vec()), every: ns(every) };
        LivenessConfig {
            heartbeat: self.every.map(heartbeat),
            heartbeat_timeout: self.timeout.map(ns),
            idle_timeout: self.idle.map(ns),
            idle_receive_only: self.receive_only,
            first_byte_timeout: self.first_byte.map(ns),
            ..LivenessConfig::default()
        }
    }
}

fn rules() -> impl Strategy<Value = Rules> {
    let often = |longest| prop::option::weighted(0.6, time(20..longest));
    let rarely = prop::option::weighted(0.2, time(20..800));
    (often(400), often(600), often(800), any::<bool>(), rarely)
        .prop_map(|(every, timeout, idle, receive_only, first_byte)| Rules {
            every,
            timeout: timeout.filter(|_| every.is_some()),
            idle: idle.map(|idle| idle + every.unwrap_or(0)),
            receive_only: receive_only && idle.is_some(),
            first_byte,
        })
        .prop_filter("valid", |rules| rules.config().validate("test").is_ok())
}

/// The events of a connection. Times count from its start.
#[derive(Debug, Default)]
struct Course {
    received: u64,
    has_received: bool,
    eof: Option<u64>,
    wrote: u64,
    attempt: Option<u64>,
    /// The first heartbeat after bytes were last received.
    awaited: Option<u64>,
    reads: bool,
}

impl Course {
    /// The time from which silence counts.
    fn heard(&self) -> u64 {
        self.eof.unwrap_or(self.received)
    }

    fn sent(&mut self, now: u64) {
        if self.awaited.is_none_or(|awaited| awaited <= self.heard()) {
            self.awaited = Some(now);
        }
    }

    /// The times at which each action is due, without pauses: the heartbeat timeout, the idle timeout,
    /// the next heartbeat.
    fn times(&self, rules: &Rules) -> [Option<u64>; 3] {
        let awaited = self.awaited.filter(|awaited| *awaited > self.heard());
        let receives = self.reads && self.eof.is_none();
        let timeout = rules.timeout.filter(|_| receives);
        let timeout = awaited.and_then(|awaited| Some(awaited + timeout?));
        let first_byte = rules.first_byte.filter(|_| !self.has_received);
        let counts_sent = first_byte.is_none() && !rules.receive_only;
        let traffic = if counts_sent { self.heard().max(self.wrote) } else { self.heard() };
        let applies = self.reads || self.eof.is_some();
        let idle = first_byte.or(rules.idle).filter(|_| applies).map(|idle| traffic + idle);
        let beat = rules.every.map(|every| {
            let since =
                if rules.timeout.is_some() { self.wrote.min(self.heard()) } else { self.wrote };
            since.max(self.attempt.unwrap_or(0)) + every
        });
        [timeout, idle, beat]
    }

    fn due(&self, rules: &Rules, now: u64) -> Due {
        let actions = [
            Due::Close(CloseReason::HeartbeatTimeout),
            Due::Close(CloseReason::IdleTimeout),
            Due::Heartbeat,
        ];
        let due = actions.into_iter().zip(self.times(rules));
        let mut due = due.filter(|(_, at)| at.is_some_and(|at| at <= now));
        due.next().map_or(Due::Nothing, |(action, _)| action)
    }
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Received,
    Wrote,
    Eof,
    /// A thread starts or stops to wait for input.
    Reads(bool),
}

/// K5, K6: without pauses each heartbeat and each timeout is due exactly when the configuration states,
/// whatever the order of reads, writes, heartbeats that the kernel accepts or not, their answers, and the FIN.
/// A caller that waits as long as `next` returns misses nothing and does not spin.
#[test]
fn liveness_without_pauses_agrees_with_the_definition() {
    let event = prop_oneof![
        4 => Just(Event::Received),
        4 => Just(Event::Wrote),
        1 => Just(Event::Eof),
        2 => any::<bool>().prop_map(Event::Reads),
    ];
    let events = prop::collection::vec((gap(0..300), event), 0..30);
    // Whether the kernel accepts a heartbeat, and when its answer arrives.
    let beat = (prop::bool::weighted(0.8), prop::option::of(gap(0..20)));
    let beats = prop::collection::vec(beat, 1..5);
    check(1500, (rules(), events, beats), |(rules, events, beats)| {
        let start = Instant::now();
        let live = Liveness::new(rules.config(), start);
        let mut course = Course { reads: true, ..Course::default() };
        let (mut now, mut attempts, mut answer) = (0, 0, None);
        let mut events = events.into_iter();
        let mut event = events.next();
        let mut next_event = event.map_or(2 * S, |(gap, _)| gap);
        loop {
            let at = start + ns(now);
            if now == next_event {
                match event.map(|(_, event)| event) {
                    Some(Event::Received) if course.eof.is_none() => {
                        live.note_received(at);
                        (course.received, course.has_received) = (now, true);
                    }
                    Some(Event::Received) => {}
                    Some(Event::Wrote) => {
                        live.note_wrote(at);
                        course.wrote = now;
                    }
                    Some(Event::Eof) => {
                        live.note_eof(at);
                        course.eof.get_or_insert(now);
                    }
                    Some(Event::Reads(reads)) => course.reads = reads,
                    None => return Ok(()),
                }
                event = events.next();
                next_event = now + event.map_or(2 * S, |(gap, _)| gap);
            }
            if answer == Some(now) {
                answer = None;
                if course.eof.is_none() {
                    live.note_received(at);
                    (course.received, course.has_received) = (now, true);
                }
            }
            let mut due = live.due(at, None, course.reads);
            if due == Due::Close(CloseReason::IdleTimeout) {
                due = live.due_with_acknowledgments(at, course.reads, || None);
            }
            prop_assert_eq!(due, course.due(&rules, now), "after {} ns", now);
            match due {
                Due::Close(_) => return Ok(()),
                Due::Heartbeat => {
                    live.note_attempt(at);
                    course.attempt = Some(now);
                    let (is_accepted, delay) = beats[attempts % beats.len()];
                    if is_accepted {
                        live.note_heartbeat(at, 4);
                        live.note_sent(at);
                        course.sent(now);
                        answer = answer.or(delay.map(|delay| now + delay));
                    }
                    attempts += 1;
                    continue;
                }
                Due::Nothing => {}
            }
            let until = next_event.min(answer.unwrap_or(u64::MAX));
            let next = live.next(at, course.reads, Some(ns(until - now))).map(nanos);
            let expected = course.times(&rules).into_iter().flatten().min();
            prop_assert_ne!(next, Some(0), "spins after {} ns", now);
            // Sent data is queried once the idle timeout would expire without it.
            let is_late = match (next, expected) {
                (Some(next), Some(expected)) => now + next > expected,
                (next, expected) => next.is_some() != expected.is_some(),
            };
            prop_assert!(!is_late, "{:?} at {} ns, and {:?} is due", next, now, expected);
            now = next.map_or(until, |next| until.min(now + next));
        }
    });
}

/// One call of a program that waits for input, and what happens before the next call.
#[derive(Debug, Clone, Copy)]
struct Call {
    /// The timeout of the call.
    limit: Option<u64>,
    /// How much later than intended the program continues: a slow callback, SIGSTOP, a suspended machine.
    late: u64,
    received: bool,
    wrote: bool,
    /// The kernel accepts a heartbeat.
    accepts: bool,
}

/// The pauses of a program.
#[derive(Debug, Default)]
struct PauseList(Vec<(u64, u64)>);

impl PauseList {
    /// When a timeout restarted after the last traffic: after the first pause of at least a quarter of the
    /// timeout, and after each later pause of at least twice the size.
    fn restart(&self, timeout: u64, traffic: u64) -> Option<u64> {
        let size = |length: u64| (length / MIN_PAUSE).ilog2();
        let mut last: Option<(u64, u64)> = None;
        for (end, length) in self.0.iter().copied() {
            let counts = end > traffic && length >= MIN_PAUSE && length >= timeout / 4;
            if counts && last.is_none_or(|(_, largest)| size(length) > size(largest)) {
                last = Some((end, length));
            }
        }
        last.map(|(end, _)| end)
    }
}

/// K5, K6: after a pause the peer gets a heartbeat and the whole timeout. A peer fails only by a heartbeat
/// that the kernel accepted after the pause, and only if nothing was received for the timeout after it. A
/// silent peer is detected in time once the program does not pause.
#[test]
fn liveness_with_pauses_ends_only_silent_peers_and_ends_them_in_time() {
    let late = prop_oneof![6 => Just(0u64), 2 => 1..MIN_PAUSE, 3 => MIN_PAUSE..3 * S];
    let call = (
        prop::option::of(gap(10..300)),
        late,
        prop::bool::weighted(0.15),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.9),
    )
        .prop_map(|(limit, late, received, wrote, accepts)| Call {
            limit,
            late,
            received,
            wrote,
            accepts,
        });
    let calls = prop::collection::vec(call, 0..25);
    check(1500, (rules(), calls), |(rules, calls)| {
        let start = Instant::now();
        let live = Liveness::new(rules.config(), start);
        let silent = Call { limit: None, late: 0, received: false, wrote: false, accepts: true };
        let (mut now, mut attended) = (0, 0);
        let mut pauses = PauseList::default();
        let mut sent = Vec::new();
        let (mut received, mut wrote, mut attempt) = (0, 0, None);
        let mut has_received = false;
        let busy = calls.len();
        let mut silent_since = 0;
        for (number, call) in calls.into_iter().chain(std::iter::repeat_n(silent, 200)).enumerate()
        {
            let at = start + ns(now);
            if now >= attended + MIN_PAUSE {
                pauses.0.push((now, now - attended));
            }
            attended = attended.max(now);
            if number <= busy {
                silent_since = now;
            }
            if call.wrote {
                live.note_wrote(at);
                wrote = now;
            }
            if call.received {
                live.note_received(at);
                (received, has_received, attended) = (now, true, now);
            }
            let mut due = live.due(at, None, true);
            if due == Due::Close(CloseReason::IdleTimeout) {
                due = live.due_with_acknowledgments(at, true, || None);
            }
            match due {
                Due::Heartbeat => {
                    let every = rules.every.unwrap();
                    let timeout = rules.timeout.unwrap_or(0);
                    let unanswered = sent.iter().any(|sent| *sent > received);
                    let after_pause = rules.timeout.is_some()
                        && unanswered
                        && pauses.restart(timeout, received).is_some_and(|end| attempt < Some(end));
                    let traffic = if rules.timeout.is_some() { wrote.min(received) } else { wrote };
                    let last = traffic.max(attempt.unwrap_or(0));
                    prop_assert!(now - last >= every || after_pause, "too early after {} ns", now);
                    live.note_attempt(at);
                    attempt = Some(now);
                    if call.accepts {
                        live.note_heartbeat(at, 4);
                        live.note_sent(at);
                        sent.push(now);
                    }
                    prop_assert_ne!(live.due(at, None, true), Due::Heartbeat);
                }
                Due::Close(CloseReason::HeartbeatTimeout) => {
                    let timeout = rules.timeout.unwrap();
                    let from = pauses.restart(timeout, received).unwrap_or(0);
                    let fails =
                        |sent: &u64| *sent > received && *sent >= from && now - *sent >= timeout;
                    prop_assert!(sent.iter().any(fails), "ended after {} ns: {:?}", now, sent);
                    return Ok(());
                }
                Due::Close(_) => {
                    let first = rules.first_byte.filter(|_| !has_received);
                    let timeout = first.or(rules.idle).unwrap();
                    let counts_sent = first.is_none() && !rules.receive_only;
                    let traffic = if counts_sent { received.max(wrote) } else { received };
                    let from = pauses.restart(timeout, traffic).unwrap_or(0).max(traffic);
                    prop_assert!(now - from >= timeout, "ended {} ns after {}", now - from, from);
                    return Ok(());
                }
                Due::Nothing => {}
            }
            let limits = [
                rules.timeout.map(|timeout| timeout + rules.every.unwrap_or(0)),
                rules.first_byte.filter(|_| !has_received).or(rules.idle),
            ];
            if let Some(limit) = limits.into_iter().flatten().min() {
                prop_assert!(now <= silent_since + limit, "not ended after {} ns", now);
            }
            let next = live.next(at, true, call.limit.map(ns)).map(nanos);
            let Some(until) = next.into_iter().chain(call.limit).min() else {
                continue;
            };
            attended = attended.max(now + until);
            now += until + call.late;
        }
        Ok(())
    });
}

/// A peer whose kernel answers each segment within `answer`, until it vanishes.
#[derive(Debug, Clone)]
struct Peer {
    rtt: u64,
    answer: u64,
    vanishes: Option<u64>,
    /// When segments are sent that the peer must answer.
    sent: Vec<u64>,
}

impl Peer {
    fn silence(&self, now: u64) -> Silence {
        let is_lost = |sent: u64| self.vanishes.is_some_and(|vanishes| sent >= vanishes);
        let mut heard = 0;
        let mut owes = false;
        for sent in self.sent.iter().copied().filter(|sent| *sent <= now) {
            if is_lost(sent) || sent + self.answer > now {
                owes = true;
            } else {
                heard = heard.max(sent + self.answer);
            }
        }
        Silence { heard: ns(now - heard), owes, rtt: ns(self.rtt) }
    }
}

/// K3: a live peer that answers each segment is never reported as dead, however rarely segments are
/// sent, as window probes are, and however late the checks come.
#[test]
fn peer_that_answers_is_never_dead() {
    // How late a check is, and whether it comes so soon after a segment that no answer has arrived.
    let late = (prop_oneof![3 => Just(0u64), 1 => gap(1..20_000)], any::<bool>());
    let inputs = (
        time(2000..60_000),
        (time(1..300), time(0..500)),
        prop::collection::vec(gap(0..30_000), 1..40),
        prop::collection::vec(late, 1..20),
    );
    check(1500, inputs, |(dead_after, (rtt, delay), gaps, late)| {
        let mut at = 0;
        let sent = gaps.iter().map(|gap| {
            at += gap;
            at
        });
        let sent = sent.collect();
        let peer = Peer { rtt, answer: rtt + delay.min(dead_after / 4), vanishes: None, sent };
        let (start, dead_after) = (Instant::now(), ns(dead_after));
        let mut watch = PeerWatch::new(start, dead_after);
        for (late, is_soon) in late.iter().cycle().take(400) {
            let mut now = nanos(watch.next - start) + late;
            if *is_soon {
                now = peer.sent.iter().copied().find(|sent| *sent >= now).unwrap_or(now);
            }
            let is_dead = watch.is_dead(start + ns(now), dead_after, peer.silence(now));
            prop_assert!(!is_dead, "after {} ns", now);
            if now > at + 100 * S {
                break;
            }
        }
        Ok(())
    });
}

/// K3: a vanished peer is reported within `dead_after` and a second, and not before it was silent for
/// `dead_after`. Checks that came late add at most a second.
#[test]
fn peer_that_vanished_is_dead_in_time() {
    let late = prop_oneof![3 => Just(0u64), 1 => gap(1..5000)];
    let inputs = (
        time(2000..60_000),
        (time(1..200), time(0..500)),
        time(0..100_000),
        prop::collection::vec(gap(0..30_000), 0..10),
        prop::collection::vec(late, 0..10),
    );
    check(1500, inputs, |(dead_after, (rtt, delay), vanishes, writes, late)| {
        // The kernel probes an idle peer three times within `dead_after`, but not within a second.
        let keepalive = (dead_after / 3).clamp(S, 45 * S);
        let mut sent = Vec::new();
        let mut writes = writes.into_iter().scan(0, |at, gap| {
            *at += gap;
            Some(*at)
        });
        let mut write = writes.next();
        let mut at = 0;
        while at <= vanishes + 2 * dead_after {
            let probe = at + keepalive;
            at = write.filter(|write| *write <= probe).unwrap_or(probe);
            if write == Some(at) {
                write = writes.next();
            }
            sent.push(at);
        }
        let answer = rtt + delay.min(dead_after / 4);
        // The last answer may arrive after the peer has vanished.
        let answered = sent.iter().copied().filter(|sent| *sent < vanishes).max();
        let silent_from = vanishes.max(answered.map_or(0, |sent| sent + answer));
        let peer = Peer { rtt, answer, vanishes: Some(vanishes), sent };
        let (start, limit) = (Instant::now(), ns(dead_after));
        let mut watch = PeerWatch::new(start, limit);
        let (mut late, mut last_late) = (late.into_iter(), 0);
        loop {
            let due = nanos(watch.next - start);
            let late = late.next().unwrap_or(0);
            let now = due + late;
            if late > 0 {
                last_late = now;
            }
            let silence = peer.silence(now);
            let is_dead = watch.is_dead(start + ns(now), limit, silence);
            let latest = (silent_from + dead_after).max(last_late) + S;
            prop_assert!(now <= latest, "not reported {} ns after the latest time", now - latest);
            if is_dead {
                prop_assert!(silence.heard >= limit, "silent for {:?}", silence.heard);
                return Ok(());
            }
            prop_assert!(watch.next > start + ns(now), "the checks do not advance");
        }
    });
}

/// Data that the program or the library sends.
#[derive(Debug, Clone, Copy)]
struct Sent {
    at: u64,
    len: u64,
    /// When the peer acknowledges it.
    acknowledged: Option<u64>,
    is_heartbeat: bool,
}

/// The report of the kernel. A keepalive probe is answered at each multiple of `probe` while no data
/// is in flight.
fn report(sent: &[Sent], now: u64, rtt: u64, probe: Option<u64>) -> Acknowledged {
    let is_acknowledged = |sent: &&Sent| sent.acknowledged.is_some_and(|at| at <= now);
    let bytes: u64 = sent.iter().filter(is_acknowledged).map(|sent| sent.len).sum();
    let in_flight = !sent.iter().all(|sent| is_acknowledged(&sent));
    let answers = sent.iter().filter(is_acknowledged).filter_map(|sent| sent.acknowledged);
    let probed = probe.filter(|_| !in_flight).map(|probe| now / probe * probe);
    let heard = answers.chain(probed).max().unwrap_or(0);
    let last = sent.iter().map(|sent| sent.at).max().unwrap_or(0);
    Acknowledged {
        // The kernel counts the SYN.
        bytes: 1 + bytes,
        in_flight,
        outstanding: in_flight,
        heard: ns(now - heard),
        sent: ns(now - last),
        rtt: ns(rtt),
    }
}

/// K6: a connection whose peer acknowledges the data of the program is not idle, also if the data was just
/// written. Without such data it is idle after the timeout and the time of an answer. Heartbeats and
/// their acknowledgments do not count.
#[test]
fn idle_timeout_counts_the_data_that_the_peer_acknowledges() {
    let write = (gap(0..1500), 1..5000u64, gap(0..500));
    let inputs = (
        (time(300..3000), prop::option::of(time(50..2000))),
        (time(0..50), prop::option::of(time(40..2000))),
        prop::collection::vec(write, 0..12),
        prop::option::of(time(0..8000)),
    );
    check(1500, inputs, |((idle, every), (rtt, probe), writes, vanishes)| {
        let every = every.filter(|every| *every < idle);
        let rules =
            Rules { every, timeout: None, idle: Some(idle), receive_only: false, first_byte: None };
        let start = Instant::now();
        let live = Liveness::new(rules.config(), start);
        let mut writes = writes.into_iter();
        let mut sent: Vec<Sent> = Vec::new();
        let mut write = writes.next();
        let mut next_write = write.map(|(gap, ..)| gap);
        // The peer acknowledges in order.
        let send = |sent: &mut Vec<Sent>, at: u64, len: u64, delay: u64, is_heartbeat: bool| {
            let before = sent.last().map_or(Some(0), |sent| sent.acknowledged);
            let alive = vanishes.is_none_or(|vanishes| at < vanishes);
            let acknowledged = before.filter(|_| alive).map(|before| before.max(at + rtt + delay));
            sent.push(Sent { at, len, acknowledged, is_heartbeat });
        };
        let mut now = 0;
        loop {
            let at = start + ns(now);
            if let (true, Some((_, len, delay))) = (next_write == Some(now), write) {
                live.note_wrote(at);
                send(&mut sent, now, len, delay, false);
                write = writes.next();
                next_write = write.map(|(gap, ..)| now + gap);
                continue;
            }
            let alive = vanishes.is_none_or(|vanishes| now < vanishes);
            let probe = probe.filter(|_| alive);
            let mut due = live.due(at, None, true);
            if due == Due::Close(CloseReason::IdleTimeout) {
                let kernel = report(&sent, now, rtt, probe);
                due = live.due_with_acknowledgments(at, true, || Some(kernel));
            }
            // The data of the program that the peer acknowledges, now or later.
            let counts = |sent: &&Sent| !sent.is_heartbeat && sent.acknowledged.is_some();
            let last = sent.iter().rev().find(counts);
            let answer = ANSWER_TIME + 2 * rtt;
            match due {
                Due::Close(_) => {
                    if let Some(last) = last {
                        let since = now - last.at;
                        prop_assert!(since >= idle, "ended {} ns after a write", since);
                    }
                    return Ok(());
                }
                Due::Heartbeat => {
                    live.note_attempt(at);
                    live.note_heartbeat(at, 4);
                    live.note_sent(at);
                    send(&mut sent, now, 4, 0, true);
                    continue;
                }
                Due::Nothing => {}
            }
            let traffic = last.and_then(|last| last.acknowledged).unwrap_or(0);
            // The acknowledgments of heartbeats hide the time of an earlier one.
            let hidden = if every.is_some() { idle } else { 0 };
            // The time of an acknowledgment is known with an accuracy of one answer. The peer has the
            // time of a second answer for data that was just written.
            let latest = traffic + idle + 2 * answer + hidden;
            prop_assert!(now <= latest, "not ended {} ns after the latest time", now - latest);
            let until_write = next_write.map(|next| next - now);
            let next = live.next(at, true, until_write.map(ns)).map(nanos);
            prop_assert_ne!(next, Some(0), "spins after {} ns", now);
            now += next.into_iter().chain(until_write).min().unwrap();
        }
    });
}
