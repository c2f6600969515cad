//! Tests of the timers of a connection, with a clock that the tests control.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::peer_watch::PeerWatch;
use super::policy::Liveness;
use super::timers::Due;
use crate::types::close_reason::CloseReason;
use crate::types::keepalive::Keepalive;
use crate::types::liveness::{Acknowledged, Heartbeat, LivenessConfig, Silence};

const S: Duration = Duration::from_secs(1);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn liveness(config: LivenessConfig) -> (Liveness, Instant) {
    config.validate("test").unwrap();
    let start = Instant::now();
    (Liveness::new(config, start), start)
}

fn heartbeat(every: Duration) -> Option<Heartbeat> {
    Some(Heartbeat { bytes: Arc::new(b"PING".to_vec()), every })
}

/// K3: a vanished peer is reported in time although the kernel's count of the silence overflows
/// (FreeBSD).
#[test]
fn vanished_peer_is_reported_where_the_silence_overflows() {
    let dead_after = 5 * 3600 * S;
    let config = LivenessConfig { dead_after: Some(dead_after), ..LivenessConfig::default() };
    let limit = config.watched_up_to(3600 * S).unwrap();
    let start = Instant::now();
    let mut watch = PeerWatch::new(start, limit);
    loop {
        let now = watch.next;
        assert!(now <= start + dead_after, "not reported after {:?}", now - start);
        let heard = Duration::from_micros(u64::from((now - start).as_micros() as u32));
        if watch.is_dead(now, limit, Silence { heard, owes: true, rtt: ms(20) }) {
            break;
        }
    }
    // A shorter time is not changed.
    assert_eq!(config.watched_up_to(2 * dead_after), Some(dead_after));
}

/// K5: a heartbeat is due once nothing was written for the interval, and not before.
#[test]
fn heartbeat_is_due_when_nothing_was_written() {
    let (live, start) =
        liveness(LivenessConfig { heartbeat: heartbeat(2 * S), ..LivenessConfig::default() });
    assert_eq!(live.next(start, true, None), Some(2 * S));
    assert_eq!(live.due(start + ms(1999), None, true), Due::Nothing);
    assert_eq!(live.due(start + 2 * S, None, true), Due::Heartbeat);
    live.note_wrote(start + 3 * S);
    assert_eq!(live.due(start + 4 * S, None, true), Due::Nothing);
    assert_eq!(live.next(start + 4 * S, false, None), Some(S));
}

fn send(live: &Liveness, at: Instant) {
    live.note_attempt(at);
    live.note_heartbeat(at, 4);
    live.note_sent(at);
}

/// Runs the actions that are due every 10 ms, as an event loop without pauses does. Returns the close
/// reason with its time, and the times of heartbeats.
fn run(
    live: &Liveness,
    start: Instant,
    from: Duration,
    until: Duration,
    mut each: impl FnMut(Duration),
) -> (Option<(CloseReason, Duration)>, Vec<Duration>) {
    let (mut at, mut sent) = (from, Vec::new());
    while at < until {
        each(at);
        match live.due(start + at, None, true) {
            Due::Heartbeat => {
                send(live, start + at);
                sent.push(at);
            }
            Due::Close(end) => return (Some((end, at)), sent),
            Due::Nothing => {}
        }
        assert_ne!(
            live.next(start + at, true, None),
            Some(Duration::ZERO),
            "the next action is due immediately"
        );
        at += ms(10);
    }
    (None, sent)
}

fn with_timeout(every: Duration, timeout: Duration) -> (Liveness, Instant) {
    liveness(LivenessConfig {
        heartbeat: heartbeat(every),
        heartbeat_timeout: Some(timeout),
        ..LivenessConfig::default()
    })
}

/// K5: a side that writes all the time also sends heartbeats. The timeout counts from the first.
#[test]
fn heartbeat_timeout_counts_from_the_first_heartbeat_sent() {
    let (live, start) = with_timeout(S, 3 * S);
    let (end, sent) = run(&live, start, Duration::ZERO, 60 * S, |at| {
        live.note_wrote(start + at);
    });
    assert_eq!(end, Some((CloseReason::HeartbeatTimeout, 4 * S)));
    assert_eq!(sent, [S, 2 * S, 3 * S]);
}

/// K5: any received bytes answer a heartbeat.
#[test]
fn heartbeat_timeout_does_not_expire_if_the_peer_answers() {
    let (live, start) = with_timeout(S, 2 * S);
    let (end, sent) = run(&live, start, Duration::ZERO, 60 * S, |at| {
        if at.as_millis() % 1900 == 0 {
            live.note_received(start + at);
        }
    });
    assert_eq!(end, None);
    assert!(sent.len() > 20, "{}", sent.len());
}

/// K5: a heartbeat that the kernel did not accept does not start the timeout.
#[test]
fn heartbeat_timeout_needs_a_heartbeat_that_was_sent() {
    let (live, start) = with_timeout(S, 2 * S);
    for at in (0..60_000).step_by(10).map(ms) {
        match live.due(start + at, None, true) {
            Due::Heartbeat => live.note_attempt(start + at),
            due => assert_eq!(due, Due::Nothing),
        }
    }
}

/// K5: after a pause at any point the peer gets another heartbeat and the full timeout.
#[test]
fn heartbeat_timeout_restarts_after_a_pause() {
    for before in [ms(1200), ms(2900), ms(4000)] {
        for pause in [ms(1800), 3 * S, 3600 * S] {
            let (live, start) = with_timeout(S, 3 * S);
            let (end, _) = run(&live, start, Duration::ZERO, before, |_| {});
            assert_eq!(end, None);
            let resumed = before + pause;
            let (end, sent) = run(&live, start, resumed, resumed + 60 * S, |_| {});
            assert_eq!(sent[0], resumed, "paused after {before:?} for {pause:?}");
            let (end, at) = end.unwrap();
            assert_eq!(end, CloseReason::HeartbeatTimeout);
            assert!(at >= resumed + 3 * S && at <= resumed + 3 * S + ms(20), "{at:?}");
        }
    }
}

/// K5: short delays do not count as pauses, so a busy program detects a peer that does not answer.
#[test]
fn heartbeat_timeout_expires_in_a_busy_program() {
    let (live, start) = with_timeout(10 * S, 30 * S);
    for at in (0..41_000).step_by(700).map(ms) {
        match live.due(start + at, None, true) {
            Due::Heartbeat => send(&live, start + at),
            Due::Close(end) => {
                assert_eq!(end, CloseReason::HeartbeatTimeout);
                assert!(at >= 40 * S, "{at:?}");
                return;
            }
            Due::Nothing => {}
        }
    }
    panic!("the timeout did not expire");
}

/// K6: the idle timeout ends a connection without received bytes. Heartbeats do not postpone it. It
/// applies only to a caller that waits to read.
#[test]
fn idle_timeout_expires_without_received_bytes() {
    for heartbeat in [None, heartbeat(S)] {
        let (live, start) = liveness(LivenessConfig {
            idle_timeout: Some(3 * S),
            heartbeat,
            ..LivenessConfig::default()
        });
        let received = ms(1500);
        let (end, sent) = run(&live, start, Duration::ZERO, 60 * S, |at| {
            if at == received {
                live.note_received(start + at);
            }
        });
        assert_eq!(end, Some((CloseReason::IdleTimeout, ms(4500))));
        assert_eq!(sent.is_empty(), live.config().heartbeat.is_none());
        assert_ne!(live.due(start + 5 * S, None, false), Due::Close(CloseReason::IdleTimeout));
    }
}

/// K5, K6: a pause does not count as idle time.
#[test]
fn idle_timeout_restarts_after_a_pause() {
    let (live, start) =
        liveness(LivenessConfig { idle_timeout: Some(2 * S), ..LivenessConfig::default() });
    assert_eq!(run(&live, start, Duration::ZERO, S, |_| {}).0, None);
    let (end, _) = run(&live, start, 5 * S, 60 * S, |_| {});
    assert_eq!(end, Some((CloseReason::IdleTimeout, 7 * S)));
}

/// K6: bytes that stay unread do not count as traffic. The program is given a short time to read them,
/// once.
#[test]
fn idle_timeout_with_unread_bytes_gives_time_to_read_once() {
    let (live, start) =
        liveness(LivenessConfig { idle_timeout: Some(2 * S), ..LivenessConfig::default() });
    let (mut put_off, mut ends) = (Vec::new(), Vec::new());
    for at in (0..14_500).step_by(10).map(ms) {
        let now = start + at;
        if at == 10 * S {
            live.note_received(now);
        }
        if live.due(now, None, true) != Due::Nothing {
            if live.gives_time_to_read(now) { &mut put_off } else { &mut ends }.push(at);
        }
    }
    assert_eq!(put_off, [2 * S, 12 * S], "other bytes arrived after 10 s");
    assert_eq!(ends[0], ms(2050));
    assert_eq!(ends.iter().find(|at| **at > 10 * S), Some(&ms(12_050)));
}

/// K6: a program that waits as long as `next` returns and reads nothing is idle after the timeout and
/// the time to read, which is at most a quarter of the timeout.
#[test]
fn idle_timeout_of_a_poll_loop_with_unread_bytes_expires_in_time() {
    for (timeout, expected) in [(ms(700), ms(750)), (ms(20), ms(25)), (20 * S, ms(20_050))] {
        for first_byte in [false, true] {
            let (live, start) = liveness(LivenessConfig {
                idle_timeout: Some(timeout),
                first_byte_timeout: first_byte.then_some(timeout),
                ..LivenessConfig::default()
            });
            let mut at = Duration::ZERO;
            while live.due(start + at, None, true) == Due::Nothing
                || live.gives_time_to_read(start + at)
            {
                at += live.next(start + at, true, None).unwrap();
            }
            assert_eq!(at, expected);
        }
    }
}

/// When an idle timeout of 2 s ends the connection of a program that writes every 100 ms until
/// `writes_until` to a peer whose kernel acknowledges until `acknowledged_until`.
fn idle_end(
    writes_until: Duration,
    acknowledged_until: Duration,
    config: LivenessConfig,
) -> Duration {
    let (live, start) = liveness(LivenessConfig { idle_timeout: Some(2 * S), ..config });
    let (mut bytes, mut written) = (1, 1);
    let (mut heard, mut sent) = (Duration::ZERO, Duration::ZERO);
    for at in (0..60_000).step_by(10).map(ms) {
        let now = start + at;
        if at <= writes_until && at.as_millis() % 100 == 0 {
            live.note_wrote(now);
            written += 10;
            sent = at;
        }
        if at < acknowledged_until && bytes < written {
            (bytes, heard) = (written, at);
        }
        let outstanding = bytes < written;
        let kernel = Acknowledged {
            bytes,
            in_flight: outstanding,
            outstanding,
            heard: at - heard,
            sent: at - sent,
            rtt: ms(1),
        };
        let mut due = live.due(now, None, true);
        if due == Due::Close(CloseReason::IdleTimeout) {
            due = live.due_with_acknowledgments(now, true, || Some(kernel));
        }
        match due {
            Due::Close(_) => return at,
            // The peer acknowledges a heartbeat like other data.
            Due::Heartbeat => {
                send(&live, now);
                written += 4;
                sent = at;
            }
            Due::Nothing => {}
        }
    }
    Duration::MAX
}

/// K6: acknowledged data counts as traffic. Unacknowledged data does not.
#[test]
fn idle_timeout_counts_acknowledged_data() {
    let config = |every, idle_receive_only| LivenessConfig {
        heartbeat: every,
        idle_receive_only,
        ..LivenessConfig::default()
    };
    for every in [None, heartbeat(S)] {
        let end =
            |writes, acknowledged| idle_end(writes, acknowledged, config(every.clone(), false));
        assert_eq!(end(Duration::ZERO, Duration::ZERO), 2 * S + ms(0));
        assert_eq!(end(10 * S, Duration::MAX), 12 * S);
        // The peer acknowledges the last data at 9.9 s.
        let vanished = end(Duration::MAX, 10 * S);
        assert!(vanished >= ms(11_900) && vanished <= 13 * S, "{vanished:?}");
        assert_eq!(idle_end(10 * S, Duration::MAX, config(every.clone(), true)), 2 * S);
    }
}

/// K6: the first data of a connection that is written shortly before the idle timeout, and acknowledged
/// after it, counts as traffic.
#[test]
fn idle_timeout_waits_for_the_acknowledgment_of_the_first_write() {
    for acknowledged in [ms(2150), Duration::MAX] {
        let (live, start) =
            liveness(LivenessConfig { idle_timeout: Some(2 * S), ..LivenessConfig::default() });
        let wrote = ms(1950);
        let end = (0..60_000).step_by(10).map(ms).find(|&at| {
            if at == wrote {
                live.note_wrote(start + at);
            }
            let in_flight = at >= wrote && at < acknowledged;
            let kernel = Acknowledged {
                bytes: if at < acknowledged { 1 } else { 11 },
                in_flight,
                outstanding: in_flight,
                heard: if at < acknowledged { at } else { at - acknowledged },
                sent: if at < wrote { at } else { at - wrote },
                rtt: ms(200),
            };
            let mut due = live.due(start + at, None, true);
            if due == Due::Close(CloseReason::IdleTimeout) {
                due = live.due_with_acknowledgments(start + at, true, || Some(kernel));
            }
            due != Due::Nothing
        });
        let expected = if acknowledged == Duration::MAX { 3 * S } else { acknowledged + 2 * S };
        assert_eq!(end, Some(expected));
    }
}

/// K6: a heartbeat that is in flight when the idle timeout is checked does not count as data later.
#[test]
fn idle_timeout_does_not_count_a_heartbeat_in_flight() {
    let (live, start) = liveness(LivenessConfig {
        idle_timeout: Some(2 * S),
        heartbeat: heartbeat(ms(100)),
        ..LivenessConfig::default()
    });
    // Each segment is acknowledged after 60 ms. The program sends one byte.
    let mut sent = vec![(ms(50), 1)];
    let end = (0..60_000).step_by(10).map(ms).find(|&at| {
        if at == ms(50) {
            live.note_wrote(start + at);
        }
        let acknowledged = sent.iter().filter(|(sent, _)| *sent + ms(60) <= at);
        let in_flight = acknowledged.clone().count() < sent.len();
        let kernel = Acknowledged {
            bytes: acknowledged.clone().map(|(_, len)| len).sum::<u64>() + 1,
            in_flight,
            outstanding: in_flight,
            heard: at - acknowledged.map(|(sent, _)| *sent + ms(60)).max().unwrap_or_default(),
            sent: at.saturating_sub(sent.last().unwrap().0),
            rtt: ms(60),
        };
        let mut due = live.due(start + at, None, true);
        if due == Due::Close(CloseReason::IdleTimeout) {
            due = live.due_with_acknowledgments(start + at, true, || Some(kernel));
        }
        if due == Due::Heartbeat {
            send(&live, start + at);
            sent.push((at, 4));
        }
        due == Due::Close(CloseReason::IdleTimeout)
    });
    let end = end.unwrap();
    assert!(end >= 2 * S && end <= 4 * S, "{end:?}");
}

/// K6: data counts that the peer acknowledged before the network failed, also if the acknowledged bytes are fewer
/// than those of the heartbeats that the peer has not acknowledged since.
#[test]
fn idle_timeout_counts_data_before_several_heartbeats_in_flight() {
    let (live, start) = liveness(LivenessConfig {
        idle_timeout: Some(S),
        heartbeat: heartbeat(ms(100)),
        ..LivenessConfig::default()
    });
    // Each segment is acknowledged after 10 ms, until the network fails at 1300 ms.
    let mut sent = Vec::new();
    let end = (0..60_000).step_by(5).map(ms).find(|&at| {
        if at == ms(995) || at == ms(1250) {
            live.note_wrote(start + at);
            sent.push((at, 1));
        }
        let is_acknowledged = |sent: &&(Duration, u64)| sent.0 + ms(10) <= at && sent.0 < ms(1290);
        let acknowledged = sent.iter().filter(is_acknowledged);
        let in_flight = acknowledged.clone().count() < sent.len();
        let kernel = Acknowledged {
            bytes: acknowledged.clone().map(|(_, len)| len).sum::<u64>() + 1,
            in_flight,
            outstanding: in_flight,
            heard: at - acknowledged.map(|(sent, _)| *sent + ms(10)).max().unwrap_or_default(),
            sent: at - sent.last().map_or(Duration::ZERO, |(sent, _)| *sent),
            rtt: ms(10),
        };
        let mut due = live.due(start + at, None, true);
        if due == Due::Close(CloseReason::IdleTimeout) {
            due = live.due_with_acknowledgments(start + at, true, || Some(kernel));
        }
        if due == Due::Heartbeat {
            send(&live, start + at);
            sent.push((at, 4));
        }
        due == Due::Close(CloseReason::IdleTimeout)
    });
    let end = end.unwrap();
    assert!(end >= ms(1250) + S && end <= ms(1260) + 2 * S, "{end:?}");
}

/// K6: data counts that is written just after a heartbeat, and not yet acknowledged when the idle timeout is
/// checked.
#[test]
fn idle_timeout_counts_data_just_after_a_heartbeat() {
    let (live, start) = liveness(LivenessConfig {
        idle_timeout: Some(ms(1310)),
        heartbeat: heartbeat(ms(1190)),
        ..LivenessConfig::default()
    });
    let (mut sent, mut acknowledged) = (0, 0);
    let mut last_sent = Duration::ZERO;
    let end = (0..60_000).map(ms).find(|&at| {
        if at == ms(1192) || at == ms(2030) {
            live.note_wrote(start + at);
            (sent, last_sent) = (sent + 1, at);
        }
        // The data is acknowledged late, as the heartbeat is not.
        if at == ms(1191) || at == ms(1312) || at == ms(2510) {
            acknowledged = sent;
        }
        let in_flight = acknowledged < sent;
        let kernel = Acknowledged {
            bytes: 1 + acknowledged,
            in_flight,
            outstanding: in_flight,
            heard: at.saturating_sub(if at < ms(1312) { ms(1191) } else { ms(1312) }),
            sent: at - last_sent,
            rtt: ms(1),
        };
        let mut due = live.due(start + at, None, true);
        if due == Due::Close(CloseReason::IdleTimeout) {
            due = live.due_with_acknowledgments(start + at, true, || Some(kernel));
        }
        if due == Due::Heartbeat {
            send(&live, start + at);
            (sent, last_sent) = (sent + 4, at);
        }
        due == Due::Close(CloseReason::IdleTimeout)
    });
    let end = end.unwrap();
    assert!(end >= ms(2030) + ms(1310), "{end:?}");
}

/// K6: neither the SYN nor heartbeats are data of the program, whatever the kernel has acknowledged.
#[test]
fn idle_timeout_without_data_ignores_acknowledgments() {
    for every in [None, Some(ms(975))] {
        let (live, start) = liveness(LivenessConfig {
            idle_timeout: Some(2 * S),
            heartbeat: every.and_then(heartbeat),
            ..LivenessConfig::default()
        });
        let mut sent = Vec::new();
        let end = (0..60_000).step_by(5).map(ms).find(|&at| {
            // The peer answers a keepalive probe at 1900 ms, and each heartbeat after 60 ms.
            let probe = Some(ms(1900)).filter(|probe| every.is_none() && *probe <= at);
            let answers = sent.iter().map(|sent| *sent + ms(60)).filter(|answer| *answer <= at);
            let in_flight = answers.clone().count() < sent.len();
            let kernel = Acknowledged {
                bytes: 1 + 4 * answers.clone().count() as u64,
                in_flight,
                outstanding: in_flight,
                heard: at - answers.chain(probe).max().unwrap_or_default(),
                sent: at - sent.last().copied().unwrap_or_default(),
                rtt: ms(60),
            };
            let mut due = live.due(start + at, None, true);
            if due == Due::Close(CloseReason::IdleTimeout) {
                due = live.due_with_acknowledgments(start + at, true, || Some(kernel));
            }
            if due == Due::Heartbeat {
                send(&live, start + at);
                sent.push(at);
            }
            due == Due::Close(CloseReason::IdleTimeout)
        });
        assert_eq!(end, Some(2 * S), "{every:?}");
    }
}

/// K3: `dead_after` is watched where the kernel reports silence. A change of the time starts the watch again.
#[test]
fn change_of_dead_after_starts_its_watch_again() {
    let config = LivenessConfig { dead_after: Some(4 * S), ..LivenessConfig::default() };
    let (live, start) = liveness(config);
    let watched = |limit| crate::sys::LONGEST_SILENCE.is_some().then_some(limit);
    assert_eq!(live.config().watched(), watched(4 * S));
    assert_eq!(live.next(start, true, None), watched(S));
    live.change(|config| config.idle_timeout = Some(3600 * S), start + ms(500));
    assert_eq!(live.config().idle_timeout, Some(3600 * S));
    live.change(|config| config.dead_after = Some(8 * S), start + ms(500));
    assert_eq!(live.config().watched(), watched(8 * S));
    if crate::sys::LONGEST_SILENCE.is_some() {
        assert_eq!(live.next(start + ms(500), true, None), Some(2 * S));
        live.change(|config| config.heartbeat = None, start + S);
        assert_eq!(live.next(start + S, true, None), Some(ms(1500)), "the time is the same");
        assert!(!live.wants_silence(start + ms(2499)) && live.wants_silence(start + ms(2500)));
        live.postpone_silence_query(start + 3 * S);
        assert!(!live.wants_silence(start + ms(4999)) && live.wants_silence(start + 5 * S));
        let silence = Silence { heard: 8 * S, owes: true, rtt: ms(1) };
        assert_eq!(live.due(start + 9 * S, Some(silence), false), Due::Nothing);
        let silence = Silence { heard: 10 * S, ..silence };
        let dead = Due::Close(CloseReason::Dead);
        assert_eq!(live.due(start + 11 * S, Some(silence), false), dead);
    }
}

/// K1, K4: an open connection with `dead_after` or `middlebox_timeout` keeps its keepalive, or one that is
/// as short.
#[test]
fn permits_rejects_keepalive_that_does_not_fit() {
    let dead = LivenessConfig { dead_after: Some(5 * S), ..LivenessConfig::default() };
    let middlebox = LivenessConfig { middlebox_timeout: Some(2 * S), ..LivenessConfig::default() };
    let keepalive = |idle| Keepalive::new(idle, S, 3).unwrap();
    for config in [dead, middlebox] {
        let (live, _) = liveness(config);
        assert!(live.permits(None).is_err() && live.permits(Some(keepalive(9 * S))).is_err());
        assert!(live.permits(Some(keepalive(2 * S))).is_ok());
    }
    let (live, _) = liveness(LivenessConfig::default());
    assert!(live.permits(None).is_ok() && live.permits(Some(keepalive(9 * S))).is_ok());
}

/// A thread that waits runs checks only if the configuration has any.
#[test]
fn has_dues_is_true_for_a_watch_and_for_limits() {
    let none = LivenessConfig::default();
    assert!(!none.has_dues());
    assert!(LivenessConfig { idle_timeout: Some(S), ..none.clone() }.has_dues());
    let dead = LivenessConfig { dead_after: Some(4 * S), ..none };
    assert_eq!(dead.has_dues(), crate::sys::LONGEST_SILENCE.is_some());
}

/// K5: the number of heartbeats counts each one that the kernel accepted.
#[test]
fn heartbeats_counts_each_accepted_heartbeat() {
    let (live, start) = with_timeout(S, 3 * S);
    let (_, sent) = run(&live, start, Duration::ZERO, 60 * S, |_| {});
    live.note_attempt(start + 5 * S);
    assert_eq!((live.heartbeats(), sent.len()), (3, 3));
}

/// V4: a connection has received once bytes were read.
#[cfg(feature = "serve")]
#[test]
fn has_received_is_true_after_the_first_byte() {
    let (live, start) = liveness(LivenessConfig::default());
    assert!(!live.has_received());
    live.note_received(start);
    assert!(live.has_received());
}

/// K6: acknowledgments of one large write, which the peer reads slowly, count as traffic.
#[test]
fn idle_timeout_counts_acknowledgments_of_a_large_write() {
    let (live, start) =
        liveness(LivenessConfig { idle_timeout: Some(2 * S), ..LivenessConfig::default() });
    live.note_wrote(start + ms(10));
    for at in (0..60_000).step_by(10).map(ms) {
        let taken = at.min(20 * S);
        let kernel = Acknowledged {
            bytes: taken.as_millis() as u64,
            in_flight: true,
            outstanding: true,
            heard: at - taken,
            sent: at - taken,
            rtt: ms(1),
        };
        let mut due = live.due(start + at, None, true);
        if due == Due::Close(CloseReason::IdleTimeout) {
            due = live.due_with_acknowledgments(start + at, true, || Some(kernel));
        }
        if due == Due::Close(CloseReason::IdleTimeout) {
            assert_eq!(at, 22 * S);
            return;
        }
    }
    panic!("the timeout did not expire");
}

/// K6: the timeout counts from the last acknowledgment of data. The program writes at the start, and
/// the peer reads until 1.5 s. Then it answers window probes or, if it has read all, keepalive probes.
#[test]
fn idle_timeout_counts_from_the_last_acknowledgment_of_data() {
    for outstanding in [false, true] {
        let (live, start) =
            liveness(LivenessConfig { idle_timeout: Some(2 * S), ..LivenessConfig::default() });
        live.note_wrote(start);
        let end = (0..60_000).step_by(10).map(ms).find(|&at| {
            let taken = at.min(ms(1500));
            let kernel = Acknowledged {
                bytes: taken.as_millis() as u64 + 1,
                in_flight: at < ms(1500),
                outstanding: at < ms(1500) || outstanding,
                heard: if at < ms(1500) { Duration::ZERO } else { ms(at.as_millis() as u64 % 70) },
                sent: at - taken,
                rtt: ms(1),
            };
            let mut due = live.due(start + at, None, true);
            if due == Due::Close(CloseReason::IdleTimeout) {
                due = live.due_with_acknowledgments(start + at, true, || Some(kernel));
            }
            due == Due::Close(CloseReason::IdleTimeout)
        });
        let end = end.unwrap();
        assert!(end >= ms(3500) && end <= ms(3500) + ms(700), "{outstanding}: {end:?}");
    }
}

/// K5, K6: an event loop that pauses most of the time detects a silent peer within two timeouts, a
/// heartbeat interval and a few pauses. A peer that answers stays connected.
#[test]
fn timeouts_expire_in_a_loop_that_often_pauses() {
    for pause in [200, 400, 900, 5000].map(ms) {
        for answers in [false, true] {
            let bound = 2 * ms(600) + ms(200) + 4 * pause;
            for config in [
                LivenessConfig {
                    heartbeat: heartbeat(ms(200)),
                    heartbeat_timeout: Some(ms(600)),
                    ..LivenessConfig::default()
                },
                LivenessConfig {
                    heartbeat: heartbeat(ms(200)),
                    idle_timeout: Some(ms(600)),
                    ..LivenessConfig::default()
                },
            ] {
                let (live, start) = liveness(config);
                let (mut at, mut end, mut unanswered) = (Duration::ZERO, None, false);
                while at < 40 * pause && end.is_none() {
                    // The loop reads before it checks timers.
                    if answers && std::mem::take(&mut unanswered) {
                        live.note_received(start + at);
                    }
                    match live.due(start + at, None, true) {
                        Due::Heartbeat => {
                            send(&live, start + at);
                            unanswered = true;
                        }
                        Due::Close(_) => end = Some(at),
                        Due::Nothing => {}
                    }
                    live.next(start + at, true, Some(ms(50)));
                    at += ms(50) + pause;
                }
                if answers {
                    assert_eq!(end, None, "{pause:?}");
                } else {
                    let end = end.unwrap();
                    assert!(end >= ms(600) && end <= bound, "{pause:?}: {end:?}");
                }
            }
        }
    }
}

/// K5: unread bytes that arrived after the heartbeat answer it. An older unread byte does not.
#[test]
fn heartbeat_timeout_counts_unread_answers() {
    for knows_when in [false, true] {
        for answers in [false, true] {
            let (live, start) = with_timeout(S, 3 * S);
            let (mut unread, mut arrived) = (1, Duration::ZERO);
            let mut end = None;
            for at in (0..60_000).step_by(10).map(ms) {
                match live.due(start + at, None, true) {
                    Due::Heartbeat => {
                        send(&live, start + at);
                        if answers {
                            (unread, arrived) = (unread + 1, at);
                        }
                    }
                    Due::Nothing => {}
                    Due::Close(_) => {
                        let age = knows_when.then(|| at - arrived);
                        if !live.answered_by_unread(start + at, unread, age) {
                            end = Some(at);
                            break;
                        }
                    }
                }
            }
            let expected = match (answers, knows_when) {
                (true, _) => None,
                (false, true) => Some(4 * S),
                // At the first check the byte may be an answer.
                (false, false) => Some(ms(7010)),
            };
            assert_eq!(end, expected, "{knows_when}");
        }
    }
}

/// V4: the first-byte timeout applies until the first byte. Then the idle timeout applies, if any.
#[test]
fn first_byte_timeout_applies_until_the_first_byte() {
    let config = LivenessConfig { first_byte_timeout: Some(2 * S), ..LivenessConfig::default() };
    let ends = |config: &LivenessConfig, first: Option<Duration>| {
        let (live, start) = liveness(config.clone());
        let each = |at| {
            if Some(at) == first {
                live.note_received(start + at);
            }
            // Data that this side sends, such as a greeting, is not a byte of the peer.
            live.note_wrote(start + at);
        };
        run(&live, start, Duration::ZERO, 60 * S, each).0
    };
    assert_eq!(ends(&config, None), Some((CloseReason::IdleTimeout, 2 * S)));
    assert_eq!(ends(&config, Some(S)), None);
    let config = LivenessConfig { idle_timeout: Some(5 * S), ..config };
    assert_eq!(ends(&config, None), Some((CloseReason::IdleTimeout, 2 * S)));
    assert_eq!(ends(&config, Some(S)), Some((CloseReason::IdleTimeout, 6 * S)));
}

/// K7: a call to which the limits do not apply looks for an end when a limit expires, soon again, and
/// then four times within the limit. Another limit that begins later ends the frequent looks.
#[test]
fn next_look_follows_the_limit_soon_and_then_rarely() {
    let config = LivenessConfig { idle_timeout: Some(8 * S), ..LivenessConfig::default() };
    let (live, start) = liveness(config);
    let mut looks = 0;
    assert_eq!(live.next_look(start + S, &mut looks), Some(7 * S));
    let mut at = start + 8 * S;
    for expected in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2000, 2000] {
        let wait = live.next_look(at, &mut looks).unwrap();
        assert_eq!(wait, ms(expected));
        at += wait;
    }
    live.note_received(at);
    assert_eq!(live.next_look(at, &mut looks), Some(8 * S));
    assert_eq!(looks, 0);
    looks = u32::MAX;
    assert_eq!(live.next_look(at + 20 * S, &mut looks), Some(2 * S));
    let (live, start) = liveness(LivenessConfig::default());
    assert_eq!(live.next_look(start, &mut looks), None);
}

/// K5: an answer counts that arrives within the same millisecond as its heartbeat, as on loopback.
#[test]
fn answer_just_after_its_heartbeat_counts() {
    let us = Duration::from_micros;
    for beat in (0..1000).step_by(170).map(us) {
        for answer in [us(0), us(1), us(20), us(900)] {
            let (live, start) = liveness(LivenessConfig {
                heartbeat: heartbeat(ms(500)),
                heartbeat_timeout: Some(ms(250)),
                ..LivenessConfig::default()
            });
            let sent = start + ms(500) + beat;
            assert_eq!(live.due(sent, None, true), Due::Heartbeat);
            send(&live, sent);
            live.note_received(sent + answer);
            for check in (0..600).map(|n| sent + ms(1) + us(833) * n) {
                let due = live.due(check, None, true);
                assert_eq!(due, Due::Nothing, "{beat:?} {answer:?} {:?}", check - sent);
                if check - sent > ms(498) {
                    break;
                }
            }
        }
    }
}

/// K5: unread bytes answer a heartbeat although the kernel counts their age in ticks of 4 ms.
#[test]
fn unread_answer_counts_within_a_tick_of_the_kernel() {
    let (live, start) = liveness(LivenessConfig {
        heartbeat: heartbeat(ms(500)),
        heartbeat_timeout: Some(ms(250)),
        ..LivenessConfig::default()
    });
    let sent = start + ms(500);
    live.next(start, true, Some(ms(500)));
    send(&live, sent);
    assert_eq!(live.next(sent, true, None), Some(ms(250)), "the caller waits until then");
    // The answer arrived 1 ms after the heartbeat, and the kernel reports 253 ms instead of 249 ms.
    assert!(live.answered_by_unread(sent + ms(250), 4, Some(ms(253))));
    // As an answer that may have arrived at the time of the heartbeat.
    assert!(live.answered_by_unread(sent + ms(250), 4, Some(ms(260))));
    assert_ne!(live.due(sent + ms(250), None, true), Due::Close(CloseReason::HeartbeatTimeout));
    // The program has read all bytes, and `note_received` has recorded them.
    assert!(!live.answered_by_unread(sent + ms(250), 0, Some(ms(1))));
    // Bytes that arrived long before the heartbeat are no answer.
    let later = start + ms(1000);
    send(&live, later);
    assert!(!live.answered_by_unread(later + ms(250), 4, Some(ms(400))));
}
