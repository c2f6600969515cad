//! V2: event-driven serving. V3: pushing, groups, queue limits. V4: limits. V5: drain. V6: framing.
//! V7: calls from inside callbacks.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support;
use crate::support::timing::undisturbed;
use crate::support::*;
use keepsock::{CloseReason, ErrorKind, Framing, LengthFormat, Sockopt, TcpState};

both_apis![
    callbacks_of_connection_run_in_order,
    service_serves_every_transport,
    framing_of_split_input_delivers_whole_messages,
    message_too_long_ends_only_its_connection,
    message_with_its_delimiter_is_rejected,
    send_with_framing_adds_the_marks,
    half_closed_peer_receives_replies,
    close_with_unread_input_delivers_queued_bytes,
    abort_of_connection_resets_it,
    send_and_close_from_any_thread_succeed,
    calls_from_inside_callbacks_succeed,
    panic_in_callback_ends_only_its_connection,
    group_broadcast_reaches_members_only,
    slow_client_beyond_queue_limit_is_disconnected,
    slow_client_with_drop_oldest_gets_newest_messages,
    pause_stops_reading_until_resume,
    posted_resume_for_each_message_delivers_all,
    reset_during_pause_is_reported_after_the_received_bytes,
    reset_during_pause_ends_without_resume,
    send_after_reset_keeps_the_received_bytes,
    timer_expires_once_in_time,
    heartbeats_and_timeouts_end_silent_peers,
    full_service_or_denied_address_is_rejected,
    full_service_with_wait_policy_delays_clients,
    drain_calls_each_connection_and_closes_it,
    drain_past_deadline_aborts_remaining_connections,
    drain_calls_connection_added_during_drain,
    free_of_service_ends_all_connections,
    token_or_close_ends_accepting,
    service_with_several_loops_serves_every_connection,
    added_connection_is_served,
    framing_with_max_beyond_the_prefix_is_rejected,
    connect_from_inside_callback_does_not_wait,
    connect_that_fails_calls_back_with_user_value,
    connect_without_free_descriptors_fails_and_the_service_continues,
    serve_with_invalid_options_is_rejected,
    service_stats_and_dump_are_consistent,
    connection_reports_peer_and_stats,
    timer_always_due_delays_no_connection,
    half_closed_connection_gets_timer_and_drained_callbacks,
    half_close_by_both_sides_closes_connection,
    reset_after_half_close_ends_connection,
    reset_after_fin_is_the_reason,
    reset_after_both_fins_follows_the_end_of_stream,
    idle_timeout_during_pause_does_not_run,
    close_of_full_server_stops_service,
    timer_after_long_callback_is_not_postponed,
    data_callback_after_close_does_not_run,
    writable_callback_after_close_does_not_run,
    timer_of_closing_connection_is_rejected,
    idle_timeout_starts_at_first_byte,
    liveness_after_a_slow_callback_ends_nothing,
    liveness_of_a_connect_is_its_own,
    liveness_of_an_added_client_is_its_own,
    close_timeout_of_a_connect_or_an_added_client_is_its_own,
    idle_timeout_of_slow_reader_counts_acknowledgments_of_one_send,
    timeouts_apply_while_callbacks_are_slow,
    idle_timeout_ends_half_closed_connection,
    idle_timeout_of_reader_counts_sent_bytes,
    heartbeat_timeout_while_sending_is_kept,
    close_with_much_unread_input_discards_it,
    timer_set_in_callback_expires_during_buffered_data,
    read_at_passed_descriptors_delivers_all_bytes,
    read_at_urgent_data_delivers_all_bytes,
    idle_timeout_with_unread_urgent_byte_ends_connection,
    idle_timeout_after_replies_ends_connection_at_once,
    drain_past_deadline_begins_no_data_callback,
    abort_from_other_thread_discards_buffered_messages,
    full_service_uses_no_cpu_after_foreign_shutdown,
    join_and_leave_take_linear_time,
    echo_returns_all_to_client_that_sends_first,
    held_client_that_never_reads_is_idle,
    held_client_that_resets_is_noticed,
    held_connection_delivers_replies_before_close,
    held_and_paused_connection_waits_for_resume,
    timer_send_beyond_limit_disconnects,
    accept_with_waiting_callback_serves_new_clients,
    end_of_stream_during_pause_and_resume_follows_all_messages,
    drain_with_queued_bytes_outlasts_the_close_timeout,
    drain_counts_reset_connection_as_aborted,
    reply_larger_than_the_queue_limit_is_delivered,
    connect_of_a_full_service_fails_at_once,
    connect_that_the_service_ends_names_the_peer,
    drain_ends_pending_connects,
    new_client_goes_to_a_loop_that_is_not_in_a_callback,
    listener_closed_at_the_start_does_not_wake_its_loop,
];

/// The events that the callbacks report, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    Open(u64),
    Data(u64, Vec<u8>),
    Writable(u64),
    Finished(u64),
    Timer(u64),
    Drain(u64),
    Close(u64, CloseReason),
    Failed(i32, usize),
}

use What::{Close, Data, Open};

/// Callbacks that report each event, and otherwise do what the library does by default.
pub(super) fn reporting<A: Api>() -> (On<A>, Receiver<What>) {
    let (tell, told) = channel();
    let tell = Arc::new(Mutex::new(tell));
    fn to(tell: &Arc<Mutex<Sender<What>>>) -> impl Fn(What) + Send + Sync + use<> {
        let tell = tell.clone();
        move |what| drop(tell.lock().unwrap().send(what))
    }
    let on = On {
        open: Some(with(to(&tell), |tell, c: &A::Connection| tell(Open(c.id())))),
        data: Some(Box::new({
            let tell = to(&tell);
            move |c: &A::Connection, data: &[u8]| tell(Data(c.id(), data.to_vec()))
        })),
        writable: Some(with(to(&tell), |tell, c: &A::Connection| tell(What::Writable(c.id())))),
        finished: Some(with(to(&tell), |tell, c: &A::Connection| {
            tell(What::Finished(c.id()));
            c.close();
        })),
        timer: Some(with(to(&tell), |tell, c: &A::Connection| tell(What::Timer(c.id())))),
        drain: Some(with(to(&tell), |tell, c: &A::Connection| {
            tell(What::Drain(c.id()));
            c.close();
        })),
        close: Some(Box::new({
            let tell = to(&tell);
            move |c: &A::Connection, end| tell(Close(c.id(), end))
        })),
        connect_failed: Some(Box::new({
            let tell = to(&tell);
            move |failure: Failure, data| tell(What::Failed(failure.status, data))
        })),
    };
    (on, told)
}

fn with<T: Send + Sync + 'static, C: 'static>(
    tell: T,
    call: impl Fn(&T, &C) + Send + Sync + 'static,
) -> Box<dyn Fn(&C) + Send + Sync> {
    Box::new(move |c| call(&tell, c))
}

pub(super) fn next(told: &Receiver<What>) -> What {
    told.recv_timeout(Duration::from_secs(60)).expect("no event is reported")
}

/// Returns the first event for which `wanted` is true, and skips the others.
pub(super) fn until(told: &Receiver<What>, wanted: impl Fn(&What) -> bool) -> What {
    loop {
        let what = next(told);
        if wanted(&what) {
            return what;
        }
    }
}

pub(super) fn closes(what: &What) -> bool {
    matches!(what, Close(..))
}

/// A client of the standard library.
pub(super) fn raw(server: &impl ServerEndpoint) -> TcpStream {
    let stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

pub(super) trait ServerEndpoint {
    fn address(&self) -> String;
}

pub(super) struct At(String);

impl ServerEndpoint for At {
    fn address(&self) -> String {
        self.0.clone()
    }
}

pub(super) fn at<A: Api>(server: &A::Server) -> At {
    At(server.endpoint())
}

pub(super) fn listen<A: Api>(options: &[Opt<'_, A>]) -> A::Server {
    A::listen("127.0.0.1:0", options).unwrap()
}

pub(super) fn echoes<A: Api>() -> On<A> {
    On { data: Some(Box::new(|c, data| drop(c.send(data)))), ..On::default() }
}

pub(super) fn all(mut stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

pub(super) fn some(mut stream: &TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// V2, V7: the open callback is first, the close callback last, and the data callbacks are in
/// order.
fn callbacks_of_connection_run_in_order<A: Api>() {
    let server = listen::<A>(&[]);
    let (on, told) = reporting::<A>();
    let service = server.serve_events(&[], on).unwrap();
    let mut client = raw(&at::<A>(&server));
    let Open(id) = next(&told) else { panic!("no open") };
    client.write_all(b"one").unwrap();
    assert_eq!(next(&told), Data(id, b"one".to_vec()));
    client.write_all(b"two").unwrap();
    assert_eq!(next(&told), Data(id, b"two".to_vec()));
    assert_eq!(service.connections(), 1);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(next(&told), What::Finished(id));
    assert_eq!(next(&told), Close(id, CloseReason::PeerClosed));
    assert_eq!(all(&client), b"");
    eventually("the connection is closed", || service.connections() == 0);
    // The next connection uses the free entry.
    let _other = raw(&at::<A>(&server));
    let Open(other) = next(&told) else { panic!("no open") };
    assert_ne!(id, other);
}

/// S3, V2: TCP and Unix endpoints, and both IP families on one port, are served.
fn service_serves_every_transport<A: Api>() {
    let dir = TempDir::new();
    for endpoint in ["127.0.0.1:0", "[::1]:0", "*:0", &dir.endpoint("s")] {
        let server = A::listen(endpoint, &[]).unwrap();
        let _service = server.serve_events(&[], echoes::<A>()).unwrap();
        let to = server.endpoint().replace('*', "127.0.0.1");
        let client = A::connect(&to, &[]).unwrap();
        client.write_all(b"hello").unwrap();
        let mut answer = [0; 5];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello", "{endpoint}");
    }
}

/// V6: lines and messages are delivered whole, however they arrive. The last line may have no end.
fn framing_of_split_input_delivers_whole_messages<A: Api>() {
    let long = vec![b'x'; 100_000];
    let framings: [(Framing, Vec<u8>); 3] = [
        (
            Framing::Lines { max: 100_000 },
            [b"one\r\n\ntwo\n".as_slice(), &long, b"\nlast"].concat(),
        ),
        (
            Framing::Delimited { delimiter: 0, max: 100_000 },
            [b"one\0\0two\0".as_slice(), &long, b"\0last"].concat(),
        ),
        (
            Framing::Prefixed { format: LengthFormat::U32Be, max: 100_000 },
            [
                b"\0\0\0\x03one\0\0\0\0\0\0\0\x03two\0\x01\x86\xa0".as_slice(),
                &long,
                b"\0\0\0\x04last",
            ]
            .concat(),
        ),
    ];
    for (framing, stream) in framings {
        for piece in [1, 7, stream.len()] {
            let server = listen::<A>(&[]);
            let (on, told) = reporting::<A>();
            let _service = server.serve_events(&[Serve::Framing(framing)], on).unwrap();
            let mut client = raw(&at::<A>(&server));
            client.set_nodelay(true).unwrap();
            let split = if piece == 1 { 40 } else { 0 };
            for byte in stream[..split].chunks(1) {
                client.write_all(byte).unwrap();
            }
            for part in stream[split..].chunks(piece.max(1000)) {
                client.write_all(part).unwrap();
            }
            client.shutdown(Shutdown::Write).unwrap();
            let Open(id) = next(&told) else { panic!("no open") };
            for message in [b"one".as_slice(), b"", b"two", &long, b"last"] {
                assert_eq!(next(&told), Data(id, message.to_vec()), "{framing:?}");
            }
            assert_eq!(next(&told), What::Finished(id), "{framing:?}");
            assert_eq!(next(&told), Close(id, CloseReason::PeerClosed));
        }
    }
}

/// V6: a line without an end, or a message with a length beyond the limit, ends its connection with
/// a clear close reason, and no other connection.
fn message_too_long_ends_only_its_connection<A: Api>() {
    for (framing, bad, good, answer) in [
        (Framing::Lines { max: 10 }, &[b'x'; 5000][..], &b"fine\n"[..], &b"fine\n"[..]),
        (Framing::Delimited { delimiter: b';', max: 10 }, &[b'x'; 11], b"fine;", b"fine;"),
        (
            Framing::Prefixed { format: LengthFormat::U16Be, max: 10 },
            b"\0\x0b",
            b"\0\x04fine",
            b"\0\x04fine",
        ),
    ] {
        let server = listen::<A>(&[]);
        let (mut on, told) = reporting::<A>();
        on.data = Some(Box::new(|c, data| drop(c.send(data))));
        let service = server.serve_events(&[Serve::Framing(framing)], on).unwrap();
        let (mut one, mut other) = (raw(&at::<A>(&server)), raw(&at::<A>(&server)));
        one.write_all(bad).unwrap();
        let Close(_, end) = until(&told, closes) else { unreachable!() };
        assert_eq!(end, CloseReason::MessageTooLong, "{framing:?}");
        other.write_all(good).unwrap();
        assert_eq!(some(&other, answer.len()), answer);
        let err = one.read(&mut [0; 8]).unwrap_err();
        assert_eq!(err.kind(), std::io::ErrorKind::ConnectionReset);
        eventually("the connection is closed", || service.connections() == 1);
        assert_eq!(service.stats().ends, [(CloseReason::MessageTooLong, 1)]);
    }
}

/// V6: a message that contains its delimiter would be several messages for the peer: a send and a
/// broadcast reject it. The maximum of the framing limits received messages only.
fn message_with_its_delimiter_is_rejected<A: Api>() {
    for (framing, bad, good, received) in [
        (Framing::Lines { max: 4 }, &b"two\nlines"[..], &b"one long line"[..], "one long line\n"),
        (
            Framing::Delimited { delimiter: b';', max: 4 },
            b"a;",
            b"no\nother mark",
            "no\nother mark;",
        ),
    ] {
        let server = listen::<A>(&[]);
        let (mut on, told) = reporting::<A>();
        let (outcome, outcomes) = channel();
        let outcome = Mutex::new(outcome);
        on.data = Some(Box::new(move |c, _| {
            c.join("group").unwrap();
            outcome.lock().unwrap().send(c.send(bad)).unwrap();
            c.send(good).unwrap();
        }));
        let service = server.serve_events(&[Serve::Framing(framing)], on).unwrap();
        let mut client = raw(&at::<A>(&server));
        client.write_all(if bad.contains(&b';') { b"hi;" } else { b"hi\n" }).unwrap();
        assert_eq!(some(&client, received.len()), received.as_bytes());
        let reply = outcomes.recv().unwrap();
        for rejected in
            [reply, service.push(None, bad).map(drop), service.push(Some("group"), bad).map(drop)]
        {
            let failure = fails(rejected, ErrorKind::InvalidArgument);
            assert!(failure.message.contains(" contains "), "{failure:?}");
        }
        for group in [None, Some("group")] {
            assert_eq!(service.push(group, good).unwrap().sent, 1);
            assert_eq!(some(&client, received.len()), received.as_bytes());
        }
        drop(told);
    }
}

/// V6: sent and broadcast messages have their framing. A message that cannot be framed is rejected.
fn send_with_framing_adds_the_marks<A: Api>() {
    let framing = Framing::Prefixed { format: LengthFormat::U8, max: 100 };
    let server = listen::<A>(&[]);
    let (mut on, told) = reporting::<A>();
    let refused = Arc::new(Mutex::new(None));
    let failure = refused.clone();
    on.data = Some(Box::new(move |c, data| {
        *failure.lock().unwrap() = Some(c.send(&[0; 256]));
        c.send(data).unwrap();
    }));
    let options = [Serve::Framing(framing), Serve::QueueLimit(1000)];
    let service = server.serve_events(&options, on).unwrap();
    let mut client = raw(&at::<A>(&server));
    client.write_all(b"\x02hi").unwrap();
    assert_eq!(some(&client, 3), b"\x02hi");
    assert_eq!(service.broadcast(b"all"), (1, 0));
    assert_eq!(some(&client, 4), b"\x03all");
    let failure = fails(refused.lock().unwrap().take().unwrap(), ErrorKind::InvalidArgument);
    assert!(failure.message.contains("256 bytes"), "{failure:?}");
    fails(service.push(None, &[0; 256]), ErrorKind::InvalidArgument);
    fails(service.push(Some("group"), &[0; 256]), ErrorKind::InvalidArgument);
    drop(told);
    // The message exceeds the queue limit: no part of it is sent.
    let raw_server = listen::<A>(&[]);
    let service = raw_server.serve_events(&[Serve::QueueLimit(1000)], echoes::<A>()).unwrap();
    let failure = fails(service.push(None, &[0; 1000]), ErrorKind::TooLong);
    assert!(failure.message.contains("1000"), "{failure:?}");
    service.push(None, &[0; 1000 - 88]).unwrap();
}

/// I3, V2: a peer that has shut down its sending side still receives replies. The connection closes
/// when both sides are shut down.
fn half_closed_peer_receives_replies<A: Api>() {
    const ANSWER: usize = 4 << 20;
    let server = listen::<A>(&[]);
    let (mut on, told) = reporting::<A>();
    on.finished = Some(Box::new(|c| {
        c.send(&vec![7; ANSWER]).unwrap();
        c.shutdown_write();
        c.close();
    }));
    let _service = server.serve_events(&[Serve::QueueLimit(8 << 20)], on).unwrap();
    let client = raw(&at::<A>(&server));
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(all(&client).len(), ANSWER);
    let Close(_, end) = until(&told, closes) else { unreachable!() };
    assert_eq!(end, CloseReason::PeerClosed);
}

/// I3: a close delivers all queued bytes even if unread input remains, and does not wait without
/// limit for a peer that never closes.
fn close_with_unread_input_delivers_queued_bytes<A: Api>() {
    const REPLY: usize = 3 << 20;
    let server = listen::<A>(&[Opt::CloseTimeout(3000)]);
    let (mut on, told) = reporting::<A>();
    on.data = Some(Box::new(|c, _| {
        let _ = c.send(&vec![1; REPLY]);
        c.close();
        fails(c.send(b"more"), ErrorKind::Closed);
        assert!(!c.is_open());
    }));
    let _service = server.serve_events(&[Serve::QueueLimit(4 << 20)], on).unwrap();
    let mut client = raw(&at::<A>(&server));
    // More than one read takes, so that input remains when the connection closes.
    client.write_all(&[0; 300_000]).unwrap();
    assert_eq!(all(&client).len(), REPLY);
    drop(client);
    let Close(_, end) = until(&told, closes) else { unreachable!() };
    assert_eq!(end, CloseReason::Local);
    // This client neither reads nor closes.
    let mut stuck = raw(&at::<A>(&server));
    let (_, took) = timed(|| {
        stuck.write_all(b"x").unwrap();
        until(&told, closes)
    });
    assert!(took > Duration::from_millis(2500) && took < Duration::from_secs(20), "{took:?}");
}

fn abort_of_connection_resets_it<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, told) = reporting::<A>();
    on.data = Some(Box::new(|c, _| {
        c.abort();
        fails(c.send(b"more"), ErrorKind::Closed);
    }));
    let _service = server.serve_events(&[], on).unwrap();
    let mut client = raw(&at::<A>(&server));
    client.write_all(b"x").unwrap();
    let err = client.read(&mut [0; 8]).unwrap_err();
    assert_eq!(err.kind(), std::io::ErrorKind::ConnectionReset);
    let Close(_, end) = until(&told, closes) else { unreachable!() };
    assert_eq!(end, CloseReason::Local);
    // A connection that the peer resets.
    let client = raw(&at::<A>(&server));
    until(&told, |what| matches!(what, Open(_)));
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    let Close(_, end) = until(&told, closes) else { unreachable!() };
    assert_eq!(end, CloseReason::PeerReset);
}

/// V2, V3: any thread sends to any connection, and closes it.
fn send_and_close_from_any_thread_succeed<A: Api>() {
    let server = listen::<A>(&[]);
    let (kept, connections) = channel();
    let kept = Mutex::new(kept);
    let closed = Arc::new(AtomicUsize::new(0));
    let count = closed.clone();
    let on = On::<A> {
        open: Some(Box::new(move |c| kept.lock().unwrap().send(c.clone()).unwrap())),
        close: Some(Box::new(move |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
        })),
        ..On::default()
    };
    let _service = server.serve_events(&[], on).unwrap();
    let clients: Vec<_> = (0..8).map(|_| raw(&at::<A>(&server))).collect();
    let connections: Vec<A::Connection> = connections.iter().take(8).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for connection in &connections {
                    for _ in 0..100 {
                        connection.send(b"0123456789").unwrap();
                    }
                }
            });
        }
    });
    for client in &clients {
        // Each message is delivered whole, whichever thread sent it.
        assert_eq!(some(client, 4000), b"0123456789".repeat(400));
    }
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| connections.iter().for_each(Connection::close));
        }
    });
    for client in &clients {
        assert_eq!(all(client), b"");
    }
    drop(clients);
    eventually("each close callback runs once", || closed.load(Ordering::Relaxed) == 8);
}

/// V7: a callback can close, send, abort, stop, broadcast and set timers, for its own connection
/// and for others.
fn calls_from_inside_callbacks_succeed<A: Api>() {
    let server = listen::<A>(&[]);
    let others = Arc::new(Mutex::new(HashMap::<u64, A::Connection>::new()));
    let service: Arc<Mutex<Option<A::Service>>> = Arc::default();
    let (its, all_of_them) = (service.clone(), others.clone());
    let leaving = others.clone();
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let on = On::<A> {
        open: Some(Box::new({
            let others = others.clone();
            move |c| drop(others.lock().unwrap().insert(c.id(), c.clone()))
        })),
        data: Some(Box::new(move |c, data| match data {
            b"broadcast" => {
                assert_eq!(its.lock().unwrap().as_ref().unwrap().broadcast(b"news"), (2, 0));
            }
            b"close the other" => {
                for other in all_of_them.lock().unwrap().values().filter(|o| o.id() != c.id()) {
                    other.close();
                }
            }
            b"stop" => {
                let service = its.lock().unwrap();
                let service = service.as_ref().unwrap();
                service.stop();
                fails(service.drain(0), ErrorKind::WrongState);
                service.wait_stopped(0).unwrap();
                c.close();
                c.close();
                c.abort();
            }
            other => panic!("{other:?}"),
        })),
        close: Some(Box::new(move |c, end| {
            fails(c.send(b"no more"), ErrorKind::Closed);
            leaving.lock().unwrap().remove(&c.id());
            tell.lock().unwrap().send(end).unwrap();
        })),
        ..On::default()
    };
    *service.lock().unwrap() = Some(server.serve_events(&[], on).unwrap());
    let (mut one, other) = (raw(&at::<A>(&server)), raw(&at::<A>(&server)));
    eventually("both connections are open", || others.lock().unwrap().len() == 2);
    one.write_all(b"broadcast").unwrap();
    assert_eq!((some(&one, 4), some(&other, 4)), (b"news".to_vec(), b"news".to_vec()));
    one.write_all(b"close the other").unwrap();
    assert_eq!(all(&other), b"");
    drop(other);
    assert_eq!(told.recv_timeout(Duration::from_secs(60)).unwrap(), CloseReason::Local);
    one.write_all(b"stop").unwrap();
    assert_eq!(told.recv_timeout(Duration::from_secs(60)).unwrap(), CloseReason::Local);
    let service = service.lock().unwrap().take();
    drop(service);
}

/// E3, V7: a callback that panics has its connection aborted, and the loop continues.
fn panic_in_callback_ends_only_its_connection<A: Api>() {
    if A::NUMBER == 2 {
        return; // a C callback cannot panic
    }
    let server = listen::<A>(&[]);
    let (mut on, told) = reporting::<A>();
    on.data = Some(Box::new(|c, data| {
        assert_ne!(data, b"bad", "the test causes this panic");
        c.send(data).unwrap();
    }));
    let _service = server.serve_events(&[], on).unwrap();
    let (mut one, mut other) = (raw(&at::<A>(&server)), raw(&at::<A>(&server)));
    one.write_all(b"bad").unwrap();
    assert_eq!(one.read(&mut [0; 8]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    other.write_all(b"good").unwrap();
    assert_eq!(some(&other, 4), b"good");
    let Close(_, end) = until(&told, closes) else { unreachable!() };
    assert_eq!(end, CloseReason::Local);
}

/// V3: a broadcast reaches the members of its group only. A connection that left the group or
/// closed is no member.
fn group_broadcast_reaches_members_only<A: Api>() {
    let server = listen::<A>(&[]);
    let on = On::<A> {
        data: Some(Box::new(|c, line| {
            let (verb, group) = line.split_at(1);
            let group = std::str::from_utf8(group).unwrap();
            match verb {
                b"+" => c.join(group).unwrap(),
                b"-" => c.leave(group),
                _ => {}
            }
            c.send(b"ok").unwrap();
        })),
        close: Some(Box::new(|c, _| drop(fails(c.join("late"), ErrorKind::Closed)))),
        ..On::default()
    };
    let options = [Serve::Framing(Framing::Lines { max: 100 })];
    let service = server.serve_events(&options, on).unwrap();
    let mut clients: Vec<_> = (0..3).map(|_| raw(&at::<A>(&server))).collect();
    let mut say = |who: usize, what: &str| {
        clients[who].write_all(format!("{what}\n").as_bytes()).unwrap();
        assert_eq!(some(&clients[who], 3), b"ok\n");
    };
    say(0, "+red");
    say(1, "+red");
    say(1, "+red");
    say(1, "+blue");
    say(2, "-red");
    let push = |group, message: &[u8]| service.push(Some(group), message).unwrap().sent;
    assert_eq!((push("red", b"r"), push("blue", b"b"), push("green", b"g")), (2, 1, 0));
    assert_eq!((some(&clients[0], 2), some(&clients[1], 4)), (b"r\n".to_vec(), b"r\nb\n".to_vec()));
    clients[1].write_all(b"-red\n").unwrap();
    assert_eq!(some(&clients[1], 3), b"ok\n");
    assert_eq!(push("red", b"s"), 1);
    assert_eq!(some(&clients[0], 2), b"s\n");
    drop(clients.remove(0));
    eventually("the connection is closed", || service.connections() == 2);
    assert_eq!(push("red", b"t"), 0);
    assert_eq!(push("late", b"t"), 0);
}

/// A service with one client that reads nothing, after enough sends to fill the kernel's buffers.
pub(super) fn stuck<A: Api>(
    server: &A::Server,
    options: &[Serve],
) -> (A::Service, TcpStream, Receiver<What>) {
    let (on, told) = reporting::<A>();
    let service = server.serve_events(options, on).unwrap();
    let client = raw(&at::<A>(server));
    until(&told, |what| matches!(what, Open(_)));
    (service, client, told)
}

/// V3: each client has a queue limit, with its own close reason. The memory is bounded.
fn slow_client_beyond_queue_limit_is_disconnected<A: Api>() {
    const CAP: usize = 256 << 10;
    let server = listen::<A>(&[]);
    let (service, client, told) = stuck::<A>(&server, &[Serve::QueueLimit(CAP)]);
    let message = [1; 10_000];
    let mut sent = 0;
    let result = loop {
        let result = service.push(None, &message).unwrap();
        let queued = service.stats().queued;
        assert!(usize::try_from(queued).unwrap() <= CAP, "{queued}");
        if result.cut > 0 {
            break result;
        }
        sent += 1;
        assert!(sent < 10_000, "the client is never disconnected");
    };
    assert_eq!(result, Sent { sent: 0, cut: 1, dropped: 0, rejected: 0 });
    let Close(_, end) = until(&told, closes) else { unreachable!() };
    assert_eq!(end, CloseReason::SlowConsumer);
    eventually("the connection is closed", || service.connections() == 0);
    let stats = service.stats();
    assert_eq!(stats.written, stats.sent + stats.dropped, "{stats:?}");
    assert!(stats.dropped_messages > 20 && stats.queued == 0, "{stats:?}");
    assert_eq!(stats.ends, [(CloseReason::SlowConsumer, 1)]);
    drop(client);
}

/// V3: the overflow policy drops whole messages, the oldest first. The client receives the newer
/// ones.
fn slow_client_with_drop_oldest_gets_newest_messages<A: Api>() {
    let server = listen::<A>(&[]);
    let options = [
        Serve::QueueLimit(64 << 10),
        Serve::DropOldest,
        Serve::Framing(Framing::Lines { max: 1000 }),
    ];
    let (service, client, told) = stuck::<A>(&server, &options);
    let mut number = 0;
    let mut dropped = 0;
    while dropped < 1000 {
        let message = format!("{number:0>200}");
        let result = service.push(None, message.as_bytes()).unwrap();
        assert_eq!((result.sent, result.cut), (1, 0));
        dropped += result.dropped;
        number += 1;
        assert!(number < 1_000_000, "no message is dropped");
    }
    let reader = std::io::BufReader::new(&client);
    let mut last = None;
    let mut gaps = 0;
    for line in std::io::BufRead::lines(reader) {
        let line: u64 = line.unwrap().parse().unwrap();
        if let Some(last) = last {
            assert!(line > last, "{line} after {last}");
            gaps += line - last - 1;
        }
        last = Some(line);
        if line == number - 1 {
            break;
        }
    }
    let stats = service.stats();
    assert_eq!(gaps, u64::try_from(stats.dropped_messages).unwrap());
    assert_eq!(stats.written, stats.sent + stats.dropped + stats.queued, "{stats:?}");
    until(&told, |what| matches!(what, What::Writable(_)));
    drop(service);
}

/// V2: the loop does not read from a paused connection. The sender's bytes are delivered after the
/// resume.
fn pause_stops_reading_until_resume<A: Api>() {
    for framing in [Framing::Raw, Framing::Lines { max: 10 }] {
        let server = listen::<A>(&[]);
        let (mut on, told) = reporting::<A>();
        let (kept, connections) = channel();
        let kept = Mutex::new(kept);
        let (tell, lines) = channel();
        let tell = Mutex::new(tell);
        on.data = Some(Box::new(move |c, data| {
            tell.lock().unwrap().send(data.to_vec()).unwrap();
            c.pause();
            kept.lock().unwrap().send(c.clone()).unwrap();
        }));
        let _service = server.serve_events(&[Serve::Framing(framing)], on).unwrap();
        let mut client = raw(&at::<A>(&server));
        client.write_all(b"one\n").unwrap();
        let connection: A::Connection = connections.recv_timeout(Duration::from_secs(60)).unwrap();
        client.write_all(b"two\n").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let expected = |text: &[u8]| match framing {
            Framing::Raw => [text, b"\n"].concat(),
            _ => text.to_vec(),
        };
        assert_eq!(lines.recv().unwrap(), expected(b"one"));
        assert!(lines.recv_timeout(Duration::from_millis(50)).is_err(), "the connection is paused");
        connection.resume();
        assert_eq!(lines.recv_timeout(Duration::from_secs(60)).unwrap(), expected(b"two"));
        // The end of the stream is delivered only after the next resume.
        connections.recv_timeout(Duration::from_secs(60)).unwrap();
        let id = connection.id();
        assert_eq!(told.try_iter().last(), Some(Open(id)));
        connection.resume();
        assert_eq!(next(&told), What::Finished(id));
        assert_eq!(next(&told), Close(id, CloseReason::PeerClosed));
    }
}

/// V10: a function that a callback posts runs, also if another posted function caused the callback.
fn posted_resume_for_each_message_delivers_all<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, told) = reporting::<A>();
    let data = on.data.take().unwrap();
    on.data = Some(Box::new(move |c, line| {
        data(c, line);
        c.pause();
        c.post(Box::new(|c| c.resume())).unwrap();
    }));
    let _service = server.serve_events(&[Serve::Framing(Framing::Lines { max: 10 })], on).unwrap();
    let mut client = raw(&at::<A>(&server));
    client.write_all(b"1\n2\n3\n4\n5\n6\n7\n8\n9\n").unwrap();
    let Open(id) = next(&told) else { panic!("no connection") };
    for number in 1..=9 {
        assert_eq!(next(&told), Data(id, number.to_string().into_bytes()));
    }
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(next(&told), What::Finished(id));
}

/// How a peer resets a connection after it has sent bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum ResetBy {
    /// It closes the socket with unread input.
    Unread,
    Linger,
    /// It sends a FIN before.
    AfterFin,
}

/// A service that sends a request to its peer and pauses, and the connection. The peer has sent
/// 20,000 bytes and has reset the connection.
fn reset_in_pause<A: Api>(
    options: &[Opt<'_, A>],
    by: ResetBy,
    mut on: On<A>,
) -> (A::Server, A::Service, A::Connection) {
    let server = listen::<A>(options);
    let (kept, connections) = channel();
    let kept = Mutex::new(kept);
    on.open = Some(Box::new(move |c| {
        c.pause();
        c.send(b"request").unwrap();
        kept.lock().unwrap().send(c.clone()).unwrap();
    }));
    let service = server.serve_events(&[], on).unwrap();
    let mut peer = raw(&at::<A>(&server));
    let connection: A::Connection = connections.recv_timeout(Duration::from_secs(60)).unwrap();
    // The request has arrived.
    assert_eq!(peer.peek(&mut [0]).unwrap(), 1);
    peer.write_all(&[7; 20_000]).unwrap();
    match by {
        ResetBy::Unread => drop(peer),
        ResetBy::Linger => system::reset(peer),
        ResetBy::AfterFin => {
            peer.shutdown(Shutdown::Write).unwrap();
            system::reset(peer);
        }
    }
    eventually("the loop finds the reset", || {
        connection.close_reason() == Some(CloseReason::PeerReset)
    });
    (server, service, connection)
}

/// I7, K7: bytes that arrived before a reset are delivered after the pause, then the end of the stream
/// if the peer had sent a FIN, and then the reset. During the pause sends fail, and posted functions
/// run.
fn reset_during_pause_is_reported_after_the_received_bytes<A: Api>() {
    needs_bytes_after_reset();
    for by in [ResetBy::Unread, ResetBy::Linger, ResetBy::AfterFin] {
        let (on, told) = reporting::<A>();
        let (_server, _service, connection) = reset_in_pause::<A>(&[], by, on);
        fails(connection.send(b"x"), ErrorKind::Reset);
        fails(connection.send(b"x"), ErrorKind::Reset);
        assert!(told.try_recv().is_err(), "{by:?}: an event during the pause");
        connection.post(Box::new(|c: &A::Connection| c.resume())).unwrap();
        let (mut received, mut finished) = (0, false);
        let reason = loop {
            match next(&told) {
                Data(_, bytes) if !finished => received += bytes.len(),
                What::Finished(_) => finished = true,
                Close(_, reason) => break reason,
                other => panic!("{by:?}: {other:?}"),
            }
        };
        assert_eq!((received, finished), (20_000, by == ResetBy::AfterFin), "{by:?}");
        assert_eq!(reason, CloseReason::PeerReset, "{by:?}");
    }
}

/// K6, K7, V5: a close, an abort, the idle timeout, dead_after and a drain end a paused connection
/// that the peer has reset.
fn reset_during_pause_ends_without_resume<A: Api>() {
    for way in ["close", "abort", "idle timeout", "dead_after", "drain"] {
        let options = match way {
            "idle timeout" => vec![Opt::IdleTimeout(300)],
            "dead_after" => vec![Opt::DeadAfter(2000)],
            _ => vec![],
        };
        let (on, told) = reporting::<A>();
        let on = On { drain: Some(Box::new(|_| {})), ..on };
        let (_server, service, connection) = reset_in_pause::<A>(&options, ResetBy::Unread, on);
        match way {
            "close" => connection.close(),
            "abort" => connection.abort(),
            "drain" => assert_eq!(service.drain(100).unwrap(), (0, 1)),
            _ => {}
        }
        assert_eq!(next(&told), Close(connection.id(), CloseReason::PeerReset), "{way}");
    }
}

/// I7: a send that finds a reset does not discard the received bytes.
fn send_after_reset_keeps_the_received_bytes<A: Api>() {
    needs_bytes_after_reset();
    let server = listen::<A>(&[]);
    let (mut on, told) = reporting::<A>();
    let (go, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    on.open = Some(Box::new(move |c| {
        gate.lock().unwrap().recv().unwrap();
        fails(c.send(b"x"), ErrorKind::Reset);
    }));
    let _service = server.serve_events(&[], on).unwrap();
    let mut peer = raw(&at::<A>(&server));
    peer.write_all(&[7; 20_000]).unwrap();
    system::reset(peer);
    go.send(()).unwrap();
    let mut received = 0;
    loop {
        match next(&told) {
            Data(_, bytes) => received += bytes.len(),
            Close(_, reason) => break assert_eq!(reason, CloseReason::PeerReset),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(received, 20_000);
}

/// V2: a timer expires once and in time, from any thread. A new time replaces the old one.
fn timer_expires_once_in_time<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, told) = reporting::<A>();
    let (kept, connections) = channel();
    let kept = Mutex::new(kept);
    on.open = Some(Box::new(move |c| {
        c.set_timer(100).unwrap();
        kept.lock().unwrap().send(c.clone()).unwrap();
    }));
    let _service = server.serve_events(&[], on).unwrap();
    let start = Instant::now();
    let _client = raw(&at::<A>(&server));
    let connection: A::Connection = connections.recv_timeout(Duration::from_secs(60)).unwrap();
    let id = connection.id();
    assert_eq!(next(&told), What::Timer(id));
    assert!(start.elapsed() >= Duration::from_millis(90), "{:?}", start.elapsed());
    connection.set_timer(60_000).unwrap();
    let start = Instant::now();
    connection.set_timer(50).unwrap();
    assert_eq!(next(&told), What::Timer(id));
    assert!(start.elapsed() >= Duration::from_millis(45), "{:?}", start.elapsed());
    undisturbed(|| {
        while told.try_recv().is_ok() {}
        connection.set_timer(200).unwrap();
        connection.set_timer(INFINITE).unwrap();
        assert!(told.recv_timeout(Duration::from_millis(400)).is_err());
    });
    promptly(Duration::from_millis(150), || {
        timed(|| {
            connection.set_timer(50).unwrap();
            next(&told)
        })
        .1
    });
}

/// K5, V4: heartbeats are sent while no other data is written. A silent peer, or one that never
/// sends, is disconnected with its close reason. A peer that sends at times is not.
fn heartbeats_and_timeouts_end_silent_peers<A: Api>() {
    std::thread::scope(|scope| {
        for case in 0..7 {
            scope.spawn(move || undisturbed(|| heartbeat_or_timeout::<A>(case)));
        }
    });
}

fn heartbeat_or_timeout<A: Api>(case: usize) {
    let beat = || Opt::<A>::Heartbeat(b"PING\n", 200);
    let idle = Some(CloseReason::IdleTimeout);
    let (options, speaks, end) = match case {
        0 => (vec![Opt::FirstByteTimeout(1500), Opt::IdleTimeout(60_000)], false, idle),
        1 => (vec![Opt::FirstByteTimeout(1500)], true, None),
        2 => (vec![Opt::IdleTimeout(1500)], false, idle),
        3 => (vec![beat(), Opt::IdleTimeout(1500)], false, idle),
        4 => (vec![beat(), Opt::IdleTimeout(1500)], true, None),
        5 => {
            let end = CloseReason::HeartbeatTimeout;
            (vec![beat(), Opt::HeartbeatTimeout(1300)], false, Some(end))
        }
        _ => (vec![beat(), Opt::HeartbeatTimeout(1300)], true, None),
    };
    let server = listen::<A>(&options);
    let (on, told) = reporting::<A>();
    let _service = server.serve_events(&[], on).unwrap();
    let mut client = raw(&at::<A>(&server));
    let start = Instant::now();
    let Open(id) = next(&told) else { panic!("no open") };
    if speaks {
        while start.elapsed() < Duration::from_millis(3000) {
            client.write_all(b".").unwrap();
            assert_eq!(next(&told), Data(id, b".".to_vec()), "case {case}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    match end {
        Some(end) => {
            assert_eq!(until(&told, closes), Close(id, end), "case {case}");
            let took = start.elapsed();
            assert!(took >= Duration::from_millis(1400), "case {case}: {took:?}");
        }
        None => assert!(told.try_recv().is_err(), "case {case}"),
    }
    // Windows discards the heartbeats when the reset of case 5 arrives.
    let discards = cfg!(windows) && case == 5;
    if matches!(options[0], Opt::Heartbeat(..)) && !discards {
        assert_eq!(some(&client, 10), b"PING\nPING\n");
    } else if end.is_some() && !discards {
        assert_eq!(all(&client), b"", "the connection is closed gracefully");
    }
}

/// V4: a connection is rejected if the service is full, its address has its maximum, or its network
/// is denied.
fn full_service_or_denied_address_is_rejected<A: Api>() {
    let try_from = |address: &str, server: &A::Server| {
        let local = format!("{address}:0");
        A::connect(&server.endpoint(), &[Opt::Local(&local), Opt::CloseTimeout(0)])
    };
    let from = |address: &str, server: &A::Server| try_from(address, server).unwrap();
    // The reset may arrive before the client has completed its handshake.
    let refused = |address: &str, server: &A::Server| {
        fails(try_from(address, server).and_then(|c| c.read(&mut [0; 1])), ErrorKind::Reset);
    };
    let server = listen::<A>(&[]);
    let options = [Serve::Max(3), Serve::Reject, Serve::PerAddress(2), Serve::Deny("127.0.0.66")];
    let service = server.serve_events(&options, echoes::<A>()).unwrap();
    let served = |client: &A::Client| {
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0; 1]).unwrap();
    };
    refused("127.0.0.66", &server);
    let mut inside: Vec<_> = (0..2).map(|_| from("127.0.0.2", &server)).collect();
    inside.iter().for_each(served);
    refused("127.0.0.2", &server);
    inside.push(from("127.0.0.3", &server));
    inside.iter().for_each(served);
    refused("127.0.0.4", &server);
    let counters = server.stats();
    assert_eq!((counters.rejected, counters.over_address_limit, counters.denied), (1, 1, 1));
    // A closed connection frees its entry.
    inside.remove(0).close().unwrap();
    eventually("the connection is closed", || service.connections() == 2);
    served(&from("127.0.0.2", &server));
}

/// V4: a full server lets clients wait, and accepts them when others close.
fn full_service_with_wait_policy_delays_clients<A: Api>() {
    let server = listen::<A>(&[]);
    let service = server.serve_events(&[Serve::Max(2)], echoes::<A>()).unwrap();
    let mut clients: Vec<_> = (0..6).map(|_| raw(&at::<A>(&server))).collect();
    eventually("two are served", || service.connections() == 2);
    for client in &mut clients {
        client.write_all(b"x").unwrap();
    }
    clients[..2].iter().for_each(|client| assert_eq!(some(client, 1), b"x"));
    assert_eq!(service.connections(), 2);
    drop(clients.drain(..2));
    for client in clients {
        assert_eq!(some(&client, 1), b"x");
    }
    assert_eq!(server.stats().rejected, 0);
}

/// V5: each connection gets the drain callback, may send a last message, and is counted. By default
/// the drain closes it.
fn drain_calls_each_connection_and_closes_it<A: Api>() {
    for by_default in [false, true] {
        let server = listen::<A>(&[]);
        let (mut on, told) = reporting::<A>();
        if by_default {
            on.drain = None;
        } else {
            on.drain = Some(Box::new(|c| {
                c.send(b"bye").unwrap();
                c.close();
            }));
        }
        let service = server.serve_events(&[], on).unwrap();
        let clients: Vec<_> = (0..50).map(|_| raw(&at::<A>(&server))).collect();
        eventually("all connections are open", || service.connections() == 50);
        let drained = std::thread::scope(|scope| {
            let drained = scope.spawn(|| service.drain(60_000).unwrap());
            for client in clients {
                assert_eq!(all(&client), if by_default { &b""[..] } else { b"bye" });
            }
            drained.join().unwrap()
        });
        assert_eq!(drained, (50, 0));
        let ends = told.try_iter().filter(closes).count();
        assert_eq!(ends, 50);
        service.wait_stopped(0).unwrap();
        assert!(TcpStream::connect(server.endpoint()).is_err());
    }
}

/// V5: at the deadline the remaining connections are aborted.
fn drain_past_deadline_aborts_remaining_connections<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, told) = reporting::<A>();
    on.drain = Some(Box::new(|_| {}));
    let service = server.serve_events(&[], on).unwrap();
    let mut client = raw(&at::<A>(&server));
    until(&told, |what| matches!(what, Open(_)));
    let (drained, took) = timed(|| service.drain(200).unwrap());
    assert_eq!(drained, (0, 1));
    assert!(took >= Duration::from_millis(200) && took < Duration::from_secs(20), "{took:?}");
    let err = client.read(&mut [0; 8]).unwrap_err();
    assert_eq!(err.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(closes(&until(&told, closes)));
    eventually("the connection is closed", || service.connections() == 0);
    assert_eq!(service.drain(0).unwrap(), (0, 1));
}

/// V5: a connection that is added during a drain gets the drain callback once, after its open
/// callback.
fn drain_calls_connection_added_during_drain<A: Api>() {
    const LATE: usize = 5;
    let upstream = listen::<A>(&[]);
    for threads in [1, 3] {
        let server = listen::<A>(&[]);
        let (tell, told) = channel();
        let tell = Arc::new(Mutex::new(tell));
        let reporting = |what: fn(u64) -> What| -> OnEvent<A> {
            with(tell.clone(), move |tell: &Arc<Mutex<Sender<What>>>, c: &A::Connection| {
                let what = what(c.id());
                // The first connection, which has no data, stays until the others are closed.
                if matches!(what, What::Drain(_)) && c.data() == 1 {
                    c.close();
                }
                tell.lock().unwrap().send(what).unwrap();
            })
        };
        let to = tell.clone();
        let on = On::<A> {
            open: Some(reporting(Open)),
            drain: Some(reporting(What::Drain)),
            close: Some(Box::new(move |c, end| {
                to.lock().unwrap().send(Close(c.id(), end)).unwrap();
            })),
            ..On::default()
        };
        let service = server.serve_events(&[Serve::Threads(threads)], on).unwrap();
        let first = raw(&at::<A>(&server));
        until(&told, |what| matches!(what, Open(_)));
        std::thread::scope(|scope| {
            let drained = scope.spawn(|| service.drain(60_000).unwrap());
            until(&told, |what| matches!(what, What::Drain(_)));
            let _late: Vec<_> = (0..LATE)
                .map(|_| {
                    let client = A::connect(&upstream.endpoint(), &[]).unwrap();
                    assert!(service.add(client, 1).is_ok());
                    upstream.accept().unwrap()
                })
                .collect();
            let mut calls = HashMap::<u64, Vec<What>>::new();
            while calls.values().filter(|calls| calls.iter().any(closes)).count() < LATE {
                let what = next(&told);
                let (Open(id) | What::Drain(id) | Close(id, _)) = what else { unreachable!() };
                calls.entry(id).or_default().push(what);
            }
            for (id, calls) in calls {
                assert_eq!(calls[..2], [Open(id), What::Drain(id)]);
                assert_eq!(calls.len(), 3, "{calls:?}");
            }
            drop(first);
            assert_eq!(drained.join().unwrap().0, LATE as u32 + 1);
        });
    }
}

/// V7: freeing a service ends each connection with its close callback. Then no callback runs.
fn free_of_service_ends_all_connections<A: Api>() {
    for threads in [1, 3] {
        let server = listen::<A>(&[]);
        let (on, told) = reporting::<A>();
        let service = server.serve_events(&[Serve::Threads(threads)], on).unwrap();
        let clients: Vec<_> = (0..20).map(|_| raw(&at::<A>(&server))).collect();
        eventually("all connections are open", || service.connections() == 20);
        drop(service);
        let told: Vec<_> = told.try_iter().collect();
        assert_eq!(told.iter().filter(|what| closes(what)).count(), 20);
        for mut client in clients {
            assert!(client.read(&mut [0; 1]).is_err());
        }
    }
}

/// V5, T2: a fired token and a closed server end accepting.
fn token_or_close_ends_accepting<A: Api>() {
    let token = A::token();
    let server = A::listen("127.0.0.1:0", &[Opt::Cancel(&token)]).unwrap();
    let service = server.serve_events(&[], echoes::<A>()).unwrap();
    let mut client = raw(&at::<A>(&server));
    client.write_all(b"x").unwrap();
    assert_eq!(some(&client, 1), b"x");
    fails(service.wait_stopped(50), ErrorKind::TimedOut);
    token.fire();
    service.wait_stopped(60_000).unwrap();
    client.write_all(b"y").unwrap();
    assert_eq!(some(&client, 1), b"y", "open connections remain open");
    let server = listen::<A>(&[]);
    let service = server.serve_events(&[], echoes::<A>()).unwrap();
    fails(service.wait_stopped(20), ErrorKind::TimedOut);
    server.close();
    service.wait_stopped(60_000).unwrap();
    fails(server.serve_events(&[], echoes::<A>()), ErrorKind::Closed);
}

/// V2: several loops share the connections. Each connection has one open and one close callback.
fn service_with_several_loops_serves_every_connection<A: Api>() {
    let server = listen::<A>(&[]);
    let threads = Arc::new(Mutex::new(HashMap::<std::thread::ThreadId, usize>::new()));
    let count = threads.clone();
    let (mut on, told) = reporting::<A>();
    on.data = Some(Box::new(move |c, data| {
        *count.lock().unwrap().entry(std::thread::current().id()).or_default() += 1;
        c.send(data).unwrap();
    }));
    let service = server.serve_events(&[Serve::Threads(4)], on).unwrap();
    let mut clients: Vec<_> = (0..40).map(|_| raw(&at::<A>(&server))).collect();
    for client in &mut clients {
        client.write_all(b"x").unwrap();
        assert_eq!(some(client, 1), b"x");
    }
    let shares: Vec<_> = threads.lock().unwrap().values().copied().collect();
    assert_eq!(shares, [10; 4]);
    assert_eq!(service.broadcast(b"all"), (40, 0));
    clients.iter().for_each(|client| assert_eq!(some(client, 3), b"all"));
    drop(clients);
    eventually("all connections are closed", || service.connections() == 0);
    let told: Vec<_> = told.try_iter().collect();
    let opens = told.iter().filter(|what| matches!(what, Open(_))).count();
    assert_eq!((opens, told.iter().filter(|what| closes(what)).count()), (40, 40));
}

/// V2: a connection that the program made itself is served like an accepted one.
fn added_connection_is_served<A: Api>() {
    let upstream = listen::<A>(&[]);
    let server = listen::<A>(&[]);
    let (mut on, told) = reporting::<A>();
    on.open = Some(Box::new(|c| {
        assert_eq!(c.data(), 4711);
        c.send(b"hello\n").unwrap();
    }));
    let service = server.serve_events(&[], on).unwrap();
    let client = A::connect(&upstream.endpoint(), &[]).unwrap();
    let accepted = upstream.accept().unwrap();
    assert!(service.add(client, 4711).is_ok());
    assert_eq!(accepted.read_line(64).unwrap(), "hello");
    accepted.write_all(b"answer").unwrap();
    let Data(id, data) = next(&told) else { panic!("no data") };
    assert_eq!(data, b"answer");
    assert_eq!(service.connections(), 1);
    accepted.shutdown_write().unwrap();
    assert_eq!(until(&told, closes), Close(id, CloseReason::PeerClosed));
    let client = A::connect(&upstream.endpoint(), &[]).unwrap();
    client.close().unwrap();
    let (_, failure) = service.add(client, 1).err().unwrap();
    assert_eq!((failure.status, &*failure.operation), (ErrorKind::Closed.code(), "add"));
    let client = A::connect(&upstream.endpoint(), &[]).unwrap();
    // A service with a thread per connection accepts no added connection.
    let other = listen::<A>(&[]);
    let threads = other.serve(&[], Box::new(|_: &A::Client| {})).unwrap();
    let (_client, failure) = threads.add(client, 1).err().unwrap();
    assert!(failure.is(ErrorKind::WrongState), "{failure:?}");
    fails(threads.push(Some("group"), b"x"), ErrorKind::WrongState);
    fails(threads.connect("127.0.0.1:1", &[], 1), ErrorKind::WrongState);
}

/// V6, E2: a maximum that the length prefix cannot represent is rejected, and the error names the
/// limit.
fn framing_with_max_beyond_the_prefix_is_rejected<A: Api>() {
    use LengthFormat::{U8, U16Be, U16Le, U32Be, U32Le};
    let limits: [(_, usize); 5] = [
        (U8, 255),
        (U16Be, 65_535),
        (U16Le, 65_535),
        (U32Be, 4_294_967_295),
        (U32Le, 4_294_967_295),
    ];
    for (format, most) in limits {
        let server = listen::<A>(&[]);
        let serve = |max| {
            let framing = Framing::Prefixed { format, max };
            server.serve_events(&[Serve::Framing(framing)], On::default())
        };
        let larger = [most.checked_add(1), most.checked_mul(2), Some(usize::MAX)];
        // The numbers of 32 bits have none that is larger.
        for max in larger.into_iter().flatten().filter(|max| *max > most) {
            let failure = fails(serve(max), ErrorKind::InvalidArgument);
            let words = format!("max must be at most {most}, the longest message");
            assert!(failure.message.contains(&words), "{failure:?}");
        }
        drop(serve(most).unwrap());
    }
}

/// V2, V7: a callback starts a connect and does not wait.
fn connect_from_inside_callback_does_not_wait<A: Api>() {
    let upstream = listen::<A>(&[]);
    let to = upstream.endpoint();
    let server = listen::<A>(&[]);
    let service: Arc<Mutex<Option<A::Service>>> = Arc::default();
    let its = service.clone();
    let (mut on, told) = reporting::<A>();
    on.data = Some(Box::new(move |_, _| {
        let service = its.lock().unwrap();
        service.as_ref().unwrap().connect(&to, &[], 7).unwrap();
    }));
    let (tell, data) = channel();
    let tell = Mutex::new(tell);
    on.open = Some(Box::new(move |c| tell.lock().unwrap().send(c.data()).unwrap()));
    *service.lock().unwrap() = Some(server.serve_events(&[], on).unwrap());
    let mut client = raw(&at::<A>(&server));
    client.write_all(b"go").unwrap();
    let accepted = upstream.accept().unwrap();
    let limit = Duration::from_secs(60);
    assert_eq!((data.recv_timeout(limit).unwrap(), data.recv_timeout(limit).unwrap()), (0, 7));
    accepted.close().unwrap();
    assert!(closes(&until(&told, closes)));
    drop(service.lock().unwrap().take());
}

/// C3: a failed connect calls the connect callback with its user value.
fn connect_that_fails_calls_back_with_user_value<A: Api>() {
    let server = listen::<A>(&[]);
    let (on, told) = reporting::<A>();
    let service = server.serve_events(&[], on).unwrap();
    service.connect(&refused_address().to_string(), &[], 3).unwrap();
    assert_eq!(next(&told), What::Failed(ErrorKind::Refused.code(), 3));
    fails(service.connect("nonsense", &[], 3), ErrorKind::InvalidEndpoint);
    drop(service);
    assert!(told.try_recv().is_err());
}

/// E4, C4: a connect of a service that finds no free descriptor fails, to an address and to a name.
/// The service continues, and connects when a descriptor is free.
fn connect_without_free_descriptors_fails_and_the_service_continues<A: Api>() {
    let name = "connect_without_free_descriptors_fails_and_the_service_continues";
    process::in_process(&test_name!(A, name), Duration::from_secs(60), || {
        let upstream = listen::<A>(&[]);
        let server = listen::<A>(&[]);
        let (mut on, told) = reporting::<A>();
        on.data = Some(Box::new(|c: &A::Connection, data| drop(c.send(data))));
        let service = server.serve_events(&[], on).unwrap();
        let mut client = raw(&at::<A>(&server));
        let mut echo = |byte: u8| {
            client.write_all(&[byte]).unwrap();
            let mut answer = [0];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(answer, [byte]);
        };
        echo(1);
        let to = [upstream.endpoint(), format!("localhost:{}", upstream.port())];
        let options = [Opt::Family(keepsock::Family::Ipv4)];
        limits::limit_descriptors(256);
        let mut taken: Vec<_> =
            std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
        for (to, data) in to.iter().zip(1..) {
            let code = match service.connect(to, &options, data) {
                Err(failure) => failure.status,
                Ok(()) => loop {
                    match until(&told, |what| matches!(what, What::Failed(..))) {
                        What::Failed(code, of) if of == data => break code,
                        _ => {}
                    }
                },
            };
            assert_eq!(code, ErrorKind::NoDescriptors.code(), "{to}");
            echo(2);
        }
        taken.truncate(taken.len() / 2);
        for to in &to {
            service.connect(to, &options, 3).unwrap();
            let accepted = upstream.accept().unwrap();
            accepted.write_all(b"x").unwrap();
            accepted.read_exact(&mut [0]).unwrap();
        }
        echo(3);
    });
}

/// E2: an invalid combination of options is rejected, and the error names it.
fn serve_with_invalid_options_is_rejected<A: Api>() {
    let server = listen::<A>(&[]);
    for options in [
        [Serve::Max(0)],
        [Serve::Max((1 << 24) + 1)],
        [Serve::Threads(0)],
        [Serve::Threads(257)],
        [Serve::QueueLimit(88)],
        [Serve::Framing(Framing::Lines { max: 0 })],
        [Serve::Allow("nonsense")],
    ] {
        fails(server.serve_events(&options, echoes::<A>()), ErrorKind::InvalidArgument);
    }
    for options in [
        [Serve::QueueLimit(10)],
        [Serve::DropOldest],
        [Serve::Framing(Framing::Lines { max: 10 })],
        [Serve::Threads(0)],
    ] {
        let handler: Handler<A> = Box::new(|_| {});
        fails(server.serve(&options, handler), ErrorKind::InvalidArgument);
    }
}

/// N1, V2: the counters are consistent, and the dump shows them.
fn service_stats_and_dump_are_consistent<A: Api>() {
    let server = listen::<A>(&[]);
    let service = server.serve_events(&[], echoes::<A>()).unwrap();
    let mut client = raw(&at::<A>(&server));
    client.write_all(b"four").unwrap();
    assert_eq!(some(&client, 4), b"four");
    let gone = raw(&at::<A>(&server));
    eventually("both connections are open", || service.connections() == 2);
    drop(gone);
    eventually("one connection is closed", || service.connections() == 1);
    let stats = service.stats();
    assert_eq!((stats.opened, stats.closed, stats.accepting), (2, 1, true));
    assert_eq!((stats.received, stats.written, stats.sent, stats.queued), (4, 4, 4, 0));
    assert_eq!(stats.ends, [(CloseReason::PeerClosed, 1)]);
    let dump = service.dump();
    for line in [
        format!("endpoint {}", server.endpoint()),
        "connections 1, opened 2, closed 1".to_owned(),
        "close reason: closed by peer, 1 connections".to_owned(),
        format!("tcp {} -> {}, queued 0", server.endpoint(), client.local_addr().unwrap()),
    ] {
        assert!(dump.contains(&line), "{line:?} is not in\n{dump}");
    }
    service.stop();
    assert!(!service.stats().accepting);
    // With a thread per connection.
    let server = listen::<A>(&[]);
    let (begun, begins) = channel();
    let begun = Mutex::new(begun);
    let handler: Handler<A> = Box::new(move |c| {
        begun.lock().unwrap().send(()).unwrap();
        let _ = c.read(&mut [0; 1]);
    });
    let service = server.serve(&[], handler).unwrap();
    let client = raw(&at::<A>(&server));
    begins.recv_timeout(Duration::from_secs(60)).unwrap();
    let stats = service.stats();
    assert_eq!((stats.connections, stats.received, stats.queued), (1, -1, -1));
    assert!(service.dump().contains(&client.local_addr().unwrap().to_string()));
    drop(client);
    eventually("the close is counted", || service.stats().ends == [(CloseReason::PeerClosed, 1)]);
}

/// S1, K1, N1: a connection reports its peer and its kernel statistics, also in the close callback.
fn connection_reports_peer_and_stats<A: Api>() {
    let server = listen::<A>(&[Opt::Keepalive(20_000, 5000, 4)]);
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let kept = Arc::new(Mutex::new(None));
    let keep = kept.clone();
    let said = AtomicBool::new(false);
    let on = On::<A> {
        data: Some(Box::new(move |c, _| {
            assert_eq!(c.keepalive().unwrap(), Some((20_000, 5000, 4)));
            assert_eq!(c.stats().unwrap().close_reason, None);
            assert_eq!(c.stats().unwrap().heartbeats, -1, "not counted");
            assert!(!said.swap(true, Ordering::Relaxed));
            c.set_data(5);
        })),
        close: Some(Box::new(move |c, _| {
            assert_eq!(
                (c.data(), c.close_reason(), c.is_open()),
                (5, Some(CloseReason::PeerClosed), false)
            );
            *keep.lock().unwrap() = Some(c.clone());
            tell.lock().unwrap().send((c.five_tuple().unwrap(), c.name())).unwrap();
        })),
        ..On::default()
    };
    let service = server.serve_events(&[], on).unwrap();
    let mut client = raw(&at::<A>(&server));
    let (from, to) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
    client.write_all(b"x").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let (tuple, name) = told.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(tuple.local, (to.ip().to_string(), to.port()));
    assert_eq!(tuple.remote, (from.ip().to_string(), from.port()));
    assert_eq!(name, format!("tcp {to} -> {from}"));
    eventually("the connection is closed", || service.connections() == 0);
    // The handle reports that the connection is closed.
    let over = kept.lock().unwrap().take().unwrap();
    let kind = if A::NUMBER == 1 { ErrorKind::Closed } else { ErrorKind::WrongState };
    fails(over.send(b"x"), kind);
    over.close();
    over.abort();
    assert!(!over.is_open() && over.queued() == 0);
}

/// V2: a timer that is always due delays neither other connections nor the end of the service.
fn timer_always_due_delays_no_connection<A: Api>() {
    let server = listen::<A>(&[]);
    let on = On::<A> {
        open: Some(Box::new(|c| c.set_timer(0).unwrap())),
        timer: Some(Box::new(|c| c.set_timer(0).unwrap())),
        data: Some(Box::new(|c, data| drop(c.send(data)))),
        ..On::default()
    };
    let service = server.serve_events(&[], on).unwrap();
    let mut clients: Vec<_> = (0..3).map(|_| raw(&at::<A>(&server))).collect();
    for client in &mut clients {
        client.write_all(b"x").unwrap();
        assert_eq!(some(client, 1), b"x");
        assert_ne!(service.connections(), 0);
    }
    drop(service);
}

/// V2: after a half-close, the timer and the queue-empty callbacks still run.
fn half_closed_connection_gets_timer_and_drained_callbacks<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, told) = reporting::<A>();
    on.open = Some(Box::new(|c| {
        assert_ne!(c.id(), 0);
        c.send(&vec![1; 6 << 20]).unwrap();
        c.shutdown_write();
        let failure = fails(c.send(b"late"), ErrorKind::Closed);
        let cause = "closed: shutdown_write was called earlier: write all data before it";
        assert!(failure.message.ends_with(cause), "{failure:?}");
        c.set_timer(50).unwrap();
    }));
    let _service = server.serve_events(&[Serve::QueueLimit(8 << 20)], on).unwrap();
    let client = raw(&at::<A>(&server));
    assert!(matches!(next(&told), What::Timer(_)));
    assert_eq!(all(&client).len(), 6 << 20);
    assert!(matches!(next(&told), What::Writable(_)));
}

/// I3: when both sides are shut down and the program was notified, the connection closes.
fn half_close_by_both_sides_closes_connection<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, told) = reporting::<A>();
    on.finished = Some(Box::new(|c| {
        c.send(b"bye").unwrap();
        c.shutdown_write();
    }));
    let _service = server.serve_events(&[], on).unwrap();
    let client = raw(&at::<A>(&server));
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(all(&client), b"bye");
    let Close(_, end) = until(&told, closes) else { unreachable!() };
    assert_eq!(end, CloseReason::PeerClosed);
}

/// K6: a reset by a peer that had shut down its sending side ends the connection.
fn reset_after_half_close_ends_connection<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, told) = reporting::<A>();
    let (tell, finished) = channel();
    let tell = Mutex::new(tell);
    on.finished = Some(Box::new(move |_| tell.lock().unwrap().send(()).unwrap()));
    let _service = server.serve_events(&[], on).unwrap();
    let client = raw(&at::<A>(&server));
    client.shutdown(Shutdown::Write).unwrap();
    finished.recv_timeout(Duration::from_secs(60)).unwrap();
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    assert!(closes(&until(&told, closes)));
}

/// V4: the idle timeout does not run while the connection is paused.
fn idle_timeout_during_pause_does_not_run<A: Api>() {
    let server = listen::<A>(&[Opt::IdleTimeout(300)]);
    let (mut on, told) = reporting::<A>();
    on.open = Some(Box::new(|c| {
        c.pause();
        c.set_timer(600).unwrap();
    }));
    on.timer = Some(Box::new(|c| c.resume()));
    let _service = server.serve_events(&[], on).unwrap();
    let start = Instant::now();
    let _client = raw(&at::<A>(&server));
    let Close(_, end) = until(&told, closes) else { unreachable!() };
    assert_eq!(end, CloseReason::IdleTimeout);
    assert!(start.elapsed() >= Duration::from_millis(880), "{:?}", start.elapsed());
}

/// V5: a server that is closed while the service is full has stopped.
fn close_of_full_server_stops_service<A: Api>() {
    let server = listen::<A>(&[]);
    let service = server.serve_events(&[Serve::Max(1)], echoes::<A>()).unwrap();
    let mut client = raw(&at::<A>(&server));
    client.write_all(b"x").unwrap();
    assert_eq!(some(&client, 1), b"x");
    let _waits = raw(&at::<A>(&server));
    fails(service.wait_stopped(50), ErrorKind::TimedOut);
    server.close();
    service.wait_stopped(60_000).unwrap();
    assert!(!service.stats().accepting);
}

/// V2: a long callback does not postpone timers that are due after it.
fn timer_after_long_callback_is_not_postponed<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, told) = reporting::<A>();
    let (begun, begins) = channel();
    let begun = Mutex::new(begun);
    let count = AtomicUsize::new(0);
    on.open = Some(Box::new(move |c| {
        if count.fetch_add(1, Ordering::Relaxed) % 2 == 0 {
            c.set_timer(900).unwrap();
        }
        begun.lock().unwrap().send(()).unwrap();
    }));
    on.data = Some(Box::new(|_, _| {
        std::thread::sleep(Duration::from_millis(700)); // the work of the program
    }));
    let _service = server.serve_events(&[], on).unwrap();
    promptly(Duration::from_millis(1150), || {
        let start = Instant::now();
        let (_one, mut other) = (raw(&at::<A>(&server)), raw(&at::<A>(&server)));
        for _ in 0..2 {
            begins.recv_timeout(Duration::from_secs(60)).unwrap();
        }
        other.write_all(b"x").unwrap();
        until(&told, |what| matches!(what, What::Timer(_)));
        start.elapsed()
    });
}

/// V7: after a close, and while paused, no data callback runs, even if bytes are buffered.
fn data_callback_after_close_does_not_run<A: Api>() {
    let server = listen::<A>(&[Opt::CloseTimeout(200)]);
    let (mut on, told) = reporting::<A>();
    let lines = Arc::new(AtomicUsize::new(0));
    let count = lines.clone();
    on.data = Some(Box::new(move |c, _| {
        // A panic would only end the connection.
        if count.fetch_add(1, Ordering::Relaxed) == 0 {
            c.send(b"so its end is waited for").unwrap();
            c.pause();
            c.set_timer(50).unwrap();
        }
    }));
    on.timer = Some(Box::new(|c| {
        c.resume();
        c.pause();
        c.resume();
        c.close();
    }));
    let _service = server.serve_events(&[Serve::Framing(Framing::Lines { max: 10 })], on).unwrap();
    let mut client = raw(&at::<A>(&server));
    client.write_all(b"one\ntwo\nthree\n").unwrap();
    let Close(_, end) = until(&told, closes) else { unreachable!() };
    assert_eq!((end, lines.load(Ordering::Relaxed)), (CloseReason::Local, 1));
}

/// V7: after a close the queue becomes empty without a callback. Before a close it calls back.
fn writable_callback_after_close_does_not_run<A: Api>() {
    // More than the kernel and the peer's receive buffer hold.
    const MUCH: usize = 24 << 20;
    for closed in [false, true] {
        let server = listen::<A>(&[]);
        let (mut on, told) = reporting::<A>();
        let (queued, is_queued) = channel();
        let queued = Mutex::new(queued);
        on.open = Some(Box::new(move |c| {
            c.send(&vec![1; MUCH]).unwrap();
            let waits = c.queued() > 0;
            if closed {
                c.close();
            }
            queued.lock().unwrap().send(waits).unwrap();
        }));
        let service = server.serve_events(&[Serve::QueueLimit(2 * MUCH)], on).unwrap();
        let client = raw(&at::<A>(&server));
        // The client reads nothing before.
        assert!(is_queued.recv_timeout(Duration::from_secs(60)).unwrap());
        if closed {
            assert_eq!(all(&client).len(), MUCH);
            drop(client);
            until(&told, |what| {
                assert!(!matches!(what, What::Writable(_)), "a callback after the close");
                closes(what)
            });
        } else {
            some(&client, MUCH);
            assert!(matches!(next(&told), What::Writable(_)));
        }
        drop(service);
    }
}

/// V2, E2: a connection that is closing has no timer, and setting one is an error.
fn timer_of_closing_connection_is_rejected<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, told) = reporting::<A>();
    let (results, result) = channel();
    let results = Mutex::new(results);
    on.open = Some(Box::new(move |c| {
        c.set_timer(60_000).unwrap();
        c.set_timer(INFINITE).unwrap();
        c.close();
        results.lock().unwrap().send((c.set_timer(1), c.clone())).unwrap();
    }));
    let _service = server.serve_events(&[], on).unwrap();
    let client = raw(&at::<A>(&server));
    let (outcome, conn): (_, A::Connection) = result.recv_timeout(Duration::from_secs(60)).unwrap();
    let failure = fails(outcome, ErrorKind::Closed);
    assert_eq!(&*failure.operation, "timer");
    drop(client);
    until(&told, |what| {
        assert!(!matches!(what, What::Timer(_)));
        closes(what)
    });
    conn.set_timer(1).unwrap_err();
}

/// V4: the idle timeout starts at the first byte, even if the first-byte timeout was longer.
fn idle_timeout_starts_at_first_byte<A: Api>() {
    let server = listen::<A>(&[Opt::FirstByteTimeout(20_000), Opt::IdleTimeout(200)]);
    let (on, told) = reporting::<A>();
    let _service = server.serve_events(&[], on).unwrap();
    let mut client = raw(&at::<A>(&server));
    assert!(matches!(next(&told), Open(_)));
    client.write_all(b"x").unwrap();
    let (Close(_, end), took) = timed(|| until(&told, closes)) else { unreachable!() };
    assert_eq!(end, CloseReason::IdleTimeout);
    assert!(took < Duration::from_secs(15), "{took:?}");
}

/// I3: a close discards all unread input up to the end of the stream, however long it is.
fn close_with_much_unread_input_discards_it<A: Api>() {
    let server = listen::<A>(&[Opt::CloseTimeout(20_000)]);
    let (mut on, told) = reporting::<A>();
    let (kept, connections) = channel();
    let kept = Mutex::new(kept);
    on.open = Some(Box::new(move |c| {
        c.pause();
        kept.lock().unwrap().send(c.clone()).unwrap();
    }));
    let _service = server.serve_events(&[], on).unwrap();
    let mut client = raw(&at::<A>(&server));
    let connection: A::Connection = connections.recv_timeout(Duration::from_secs(60)).unwrap();
    // The test sends all bytes that fit, and closes: the kernel reports no further event.
    client.set_nonblocking(true).unwrap();
    let mut sent = 0;
    while let Ok(n) = client.write(&[0; 64 << 10]) {
        sent += n;
    }
    assert!(sent > 2 << 20, "{sent}");
    client.set_nonblocking(false).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    connection.send(b"enough").unwrap();
    connection.close();
    assert_eq!(all(&client), b"enough");
    let (_, took) = timed(|| until(&told, closes));
    assert!(took < Duration::from_secs(15), "{took:?}");
}

/// V2: a pause or framing change in a callback applies at once, even if more data is buffered.
fn timer_set_in_callback_expires_during_buffered_data<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, told) = reporting::<A>();
    let (begun, begins) = channel();
    let begun = Mutex::new(begun);
    let (goes_on, go_on) = channel();
    let go_on = Mutex::new(go_on);
    let pieces = Arc::new(AtomicUsize::new(0));
    let count = pieces.clone();
    on.data = Some(Box::new(move |c, data| match data {
        b"wait" => {
            begun.lock().unwrap().send(()).unwrap();
            let _ = go_on.lock().unwrap().recv_timeout(Duration::from_secs(60));
        }
        _ => {
            if count.fetch_add(1, Ordering::Relaxed) == 0 {
                c.set_timer(10).unwrap();
            }
        }
    }));
    let _service = server.serve_events(&[], on).unwrap();
    let (mut one, mut other) = (raw(&at::<A>(&server)), raw(&at::<A>(&server)));
    for _ in 0..2 {
        until(&told, |what| matches!(what, Open(_)));
    }
    // All bytes have arrived before the loop reads.
    one.write_all(b"wait").unwrap();
    begins.recv_timeout(Duration::from_secs(60)).unwrap();
    other.write_all(&[7; 100_000]).unwrap();
    goes_on.send(()).unwrap();
    assert!(matches!(next(&told), What::Timer(_)));
    assert!(pieces.load(Ordering::Relaxed) >= 2, "the data came in one piece");
}

/// A callback that blocks at the first message until the test releases it, and reports its data.
struct Gated<A: Api> {
    on: On<A>,
    begins: Receiver<A::Connection>,
    go_on: Sender<()>,
    pieces: Receiver<Vec<u8>>,
}

fn gated<A: Api>() -> Gated<A> {
    let (begun, begins) = channel();
    let (go_on, goes_on) = channel();
    let (tell, pieces) = channel();
    let shared = Mutex::new((begun, goes_on, tell));
    let data: OnData<A> = Box::new(move |c, data| {
        let shared = shared.lock().unwrap();
        shared.2.send(data.to_vec()).unwrap();
        if data.starts_with(b"wait") {
            shared.0.send(c.clone()).unwrap();
            let _ = shared.1.recv_timeout(Duration::from_secs(10));
        }
    });
    Gated { on: On { data: Some(data), ..On::default() }, begins, go_on, pieces }
}

/// Collects data until it has `count` bytes.
fn collect(pieces: &Receiver<Vec<u8>>, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < len {
        let piece = pieces.recv_timeout(Duration::from_secs(60));
        bytes.extend(piece.unwrap_or_else(|_| panic!("only {} bytes", bytes.len())));
    }
    bytes
}

/// I7: a message with descriptors ends a receive early, and the loop reads on.
fn read_at_passed_descriptors_delivers_all_bytes<A: Api>() {
    let dir = TempDir::new();
    let server = A::listen(&dir.endpoint("s"), &[]).unwrap();
    let gated = gated::<A>();
    let _service = server.serve_events(&[], gated.on).unwrap();
    let client = A::connect(&server.endpoint(), &[]).unwrap();
    client.write_all(b"wait").unwrap();
    gated.begins.recv_timeout(Duration::from_secs(60)).unwrap();
    // All bytes have arrived before the loop waits again.
    let fd = client.fd().unwrap();
    assert_eq!(system::send_fds(fd, b"with", &[fd]).unwrap(), 4);
    client.write_all(b"after").unwrap();
    gated.go_on.send(()).unwrap();
    assert_eq!(collect(&gated.pieces, 13), b"waitwithafter");
}

/// I7: urgent data ends a receive early, and the loop reads on. The urgent byte is not delivered.
fn read_at_urgent_data_delivers_all_bytes<A: Api>() {
    let server = listen::<A>(&[]);
    let gated = gated::<A>();
    let _service = server.serve_events(&[], gated.on).unwrap();
    let mut client = raw(&at::<A>(&server));
    client.write_all(b"wait").unwrap();
    gated.begins.recv_timeout(Duration::from_secs(60)).unwrap();
    client.write_all(b"before").unwrap();
    assert_eq!(socket2::SockRef::from(&client).send_out_of_band(b"!").unwrap(), 1);
    client.write_all(b"after").unwrap();
    gated.go_on.send(()).unwrap();
    assert_eq!(collect(&gated.pieces, 15), b"waitbeforeafter");
}

/// K6: an urgent byte that no read returns does not restart the idle timeout.
fn idle_timeout_with_unread_urgent_byte_ends_connection<A: Api>() {
    let dir = TempDir::new();
    let server = A::listen(&dir.endpoint("s"), &[Opt::IdleTimeout(300)]).unwrap();
    let (on, told) = reporting::<A>();
    let _service = server.serve_events(&[], on).unwrap();
    let client = A::connect(&server.endpoint(), &[]).unwrap();
    client.write_all(b"x").unwrap();
    // Linux before 5.15 has no urgent data on Unix sockets.
    let _ = socket2::SockRef::from(&system::borrow(client.fd().unwrap())).send_out_of_band(b"!");
    let (Close(_, end), took) = timed(|| until(&told, closes)) else { unreachable!() };
    assert_eq!(end, CloseReason::IdleTimeout);
    assert!(took < Duration::from_secs(15), "{took:?}");
}

/// K6: a connection that has sent replies closes at its idle timeout, and not a close timeout
/// later.
fn idle_timeout_after_replies_ends_connection_at_once<A: Api>() {
    let server = listen::<A>(&[Opt::IdleTimeout(300), Opt::CloseTimeout(20_000)]);
    let (mut on, told) = reporting::<A>();
    on.data = echoes::<A>().data;
    let _service = server.serve_events(&[], on).unwrap();
    let mut client = raw(&at::<A>(&server));
    client.write_all(b"x").unwrap();
    assert_eq!(some(&client, 1), b"x");
    let (Close(_, end), took) = timed(|| until(&told, closes)) else { unreachable!() };
    assert_eq!(end, CloseReason::IdleTimeout);
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert_eq!(all(&client), b"", "the connection is closed gracefully");
}

/// V5: after drain has returned, no data callback begins, even if a loop has not yet reset all
/// connections.
fn drain_past_deadline_begins_no_data_callback<A: Api>() {
    for framing in [Framing::Raw, Framing::Lines { max: 10 }] {
        let server = listen::<A>(&[]);
        let mut gated = gated::<A>();
        let (tell, closed) = channel();
        let tell = Mutex::new(tell);
        gated.on.drain = Some(Box::new(|_| {}));
        gated.on.close = Some(Box::new(move |_, end| tell.lock().unwrap().send(end).unwrap()));
        let service = server.serve_events(&[Serve::Framing(framing)], gated.on).unwrap();
        let mut clients: Vec<_> = (0..10).map(|_| raw(&at::<A>(&server))).collect();
        eventually("all connections are open", || service.connections() == 10);
        // The loop is in a callback while all others send, and one sends several messages.
        clients[0].write_all(b"wait\none\ntwo\n").unwrap();
        gated.begins.recv_timeout(Duration::from_secs(60)).unwrap();
        clients.iter_mut().for_each(|client| client.write_all(b"late\n").unwrap());
        assert_eq!(service.drain(50).unwrap(), (0, 10));
        gated.go_on.send(()).unwrap();
        for _ in 0..10 {
            closed.recv_timeout(Duration::from_secs(60)).unwrap();
        }
        assert_eq!(gated.pieces.try_iter().count(), 1, "{framing:?}");
    }
}

/// V7: another thread aborts a connection while its callback runs. No data callback follows,
/// although messages are buffered.
/// messages are buffered.
fn abort_from_other_thread_discards_buffered_messages<A: Api>() {
    for end in [A::Connection::abort, A::Connection::close] {
        let server = listen::<A>(&[Opt::CloseTimeout(200)]);
        let mut gated = gated::<A>();
        let (tell, closed) = channel();
        let tell = Mutex::new(tell);
        gated.on.close = Some(Box::new(move |_, end| tell.lock().unwrap().send(end).unwrap()));
        let lines = Serve::Framing(Framing::Lines { max: 10 });
        let _service = server.serve_events(&[lines], gated.on).unwrap();
        let mut client = raw(&at::<A>(&server));
        client.write_all(b"wait\none\ntwo\n").unwrap();
        let connection = gated.begins.recv_timeout(Duration::from_secs(60)).unwrap();
        end(&connection);
        gated.go_on.send(()).unwrap();
        let end = closed.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!((end, gated.pieces.try_iter().count()), (CloseReason::Local, 1));
    }
}

/// L4: another process shuts a shared listener down while the service is full. The service waits
/// without processor time, and reports the failure when it accepts again.
fn full_service_uses_no_cpu_after_foreign_shutdown<A: Api>() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other = socket2::Socket::from(listener.try_clone().unwrap());
    let address = listener.local_addr().unwrap();
    let server = A::adopt_server(listener.into(), &[]).unwrap_or_else(|(_, e)| panic!("{e:?}"));
    let (tell, threads) = channel();
    let tell = Mutex::new(tell);
    let open: OnEvent<A> =
        Box::new(move |_| tell.lock().unwrap().send(system::thread_id()).unwrap());
    let on = On::<A> { open: Some(open), ..On::default() };
    let service = server.serve_events(&[Serve::Max(1)], on).unwrap();
    let client = TcpStream::connect(address).unwrap();
    let thread = threads.recv_timeout(Duration::from_secs(60)).unwrap();
    other.shutdown(Shutdown::Both).unwrap();
    promptly(Duration::from_millis(50), || {
        let before = system::cpu_time_of(thread);
        fails(service.wait_stopped(1000), ErrorKind::TimedOut);
        system::cpu_time_of(thread) - before
    });
    drop(client);
    fails(service.wait_stopped(60_000), ErrorKind::Os);
}

/// V3: joining and leaving groups takes time proportional to their number.
fn join_and_leave_take_linear_time<A: Api>() {
    const GROUPS: usize = 50_000;
    let server = listen::<A>(&[]);
    let (mut on, told) = reporting::<A>();
    on.open = Some(Box::new(|c| {
        for _ in 0..2 {
            (0..GROUPS).for_each(|n| c.join(&n.to_string()).unwrap());
        }
        (0..GROUPS).step_by(2).for_each(|n| c.leave(&n.to_string()));
        c.close();
    }));
    let service = server.serve_events(&[], on).unwrap();
    let _client = raw(&at::<A>(&server));
    assert!(closes(&until(&told, closes)));
    assert_eq!(service.push(Some("1"), b"x").unwrap().sent, 0);
}

/// Sends until the service, which has queued replies, stops reading. Returns the number of bytes.
fn flood(client: &mut TcpStream, message: &[u8], queued: impl Fn() -> usize) -> usize {
    let mut sent = 0;
    let mut last = Instant::now();
    let until = last + Duration::from_secs(30);
    client.set_nonblocking(true).unwrap();
    // The kernel may accept more bytes shortly after it has accepted none.
    while last.elapsed() < Duration::from_millis(300) || queued() == 0 {
        assert!(Instant::now() < until, "the replies to {sent} bytes are not queued");
        match client.write(&message[sent % message.len()..]) {
            Ok(n) => (sent, last) = (sent + n, Instant::now()),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(e) => panic!("after {sent} bytes: {e}"),
        }
        assert!(sent < 256 << 20, "the service never stops reading");
    }
    client.set_nonblocking(false).unwrap();
    sent
}

/// V8: back-pressure slows a client that sends everything before it reads. The client gets all
/// replies, and the send queue is bounded.
fn echo_returns_all_to_client_that_sends_first<A: Api>() {
    let lines = Framing::Lines { max: 1000 };
    for (framing, cap) in [(Framing::Raw, 1 << 20), (lines, 1 << 20), (lines, 64 << 10)] {
        let server = listen::<A>(&[Opt::CloseTimeout(20_000)]);
        let (mut on, told) = reporting::<A>();
        on.data = echoes::<A>().data;
        let options = [Serve::Framing(framing), Serve::QueueLimit(cap)];
        let service = server.serve_events(&options, on).unwrap();
        let mut client = raw(&at::<A>(&server));
        let line = [&[b'x'; 199][..], b"\n"].concat();
        let message = line.repeat(300);
        let queued = || usize::try_from(service.stats().queued).unwrap();
        let mut sent = flood(&mut client, &message, queued);
        // The high-water mark, and the replies of one callback.
        let queued = queued();
        assert!(queued <= cap.min(256 << 10) / 4 + (64 << 10), "{queued} bytes");
        std::thread::scope(|scope| {
            let mut writer = client.try_clone().unwrap();
            let rest = message.len() - sent % message.len();
            let message = &message;
            scope.spawn(move || {
                writer.write_all(&message[message.len() - rest..]).unwrap();
                (0..20).for_each(|_| writer.write_all(message).unwrap());
                writer.shutdown(Shutdown::Write).unwrap();
            });
            sent += rest + 20 * message.len();
            let back = all(&client);
            assert_eq!(back.len(), sent);
            assert!(back.chunks(line.len()).all(|chunk| chunk == line));
        });
        let Close(_, end) = until(&told, closes) else { unreachable!() };
        assert_eq!(end, CloseReason::PeerClosed);
        assert_eq!(service.stats().dropped, 0);
    }
}

/// An echo service, and a client that has sent until the service stopped reading.
fn held<A: Api>(
    options: &[Opt<'_, A>],
    mut on: On<A>,
) -> (A::Server, A::Service, TcpStream, A::Connection) {
    let server = listen::<A>(options);
    let (kept, connections) = channel();
    let kept = Mutex::new(kept);
    let open = on.open.take();
    on.open = Some(Box::new(move |c| {
        open.iter().for_each(|open| open(c));
        kept.lock().unwrap().send(c.clone()).unwrap();
    }));
    let data = on.data.take();
    on.data = Some(Box::new(move |c, bytes| {
        data.iter().for_each(|data| data(c, bytes));
        let _ = c.send(bytes);
    }));
    let service = server.serve_events(&[], on).unwrap();
    let mut client = raw(&at::<A>(&server));
    let connection: A::Connection = connections.recv_timeout(Duration::from_secs(60)).unwrap();
    flood(&mut client, &[7; 64 << 10], || connection.queued());
    (server, service, client, connection)
}

/// K6, V8: unread input behind queued replies does not restart the idle timeout.
fn held_client_that_never_reads_is_idle<A: Api>() {
    let (on, told) = reporting::<A>();
    let (_server, _service, _client, _) = held::<A>(&[Opt::IdleTimeout(3000)], on);
    let (Close(_, end), took) = timed(|| until(&told, closes)) else { unreachable!() };
    assert_eq!(end, CloseReason::IdleTimeout);
    assert!(took < Duration::from_secs(15), "{took:?}");
}

/// I7, K7, V8: a reset is detected while the loop does not read. The bytes that arrived before are
/// delivered.
fn held_client_that_resets_is_noticed<A: Api>() {
    needs_bytes_after_reset();
    let (on, told) = reporting::<A>();
    let (_server, _service, client, connection) = held::<A>(&[], on);
    let unread = connection.stats().unwrap().unread;
    assert!(unread > 0);
    while told.try_recv().is_ok() {}
    system::reset(client);
    let mut received = 0;
    let end = loop {
        match next(&told) {
            Data(_, bytes) => received += bytes.len() as i64,
            Close(_, end) => break end,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(end, CloseReason::PeerReset);
    assert!(received >= unread, "{received} of {unread} bytes");
}

/// I4, K7: a reset after the peer's FIN is the reason. The event loop finds it with the FIN, or later
/// by an event, or a send finds it. The bytes and the end of the stream are delivered before.
fn reset_after_fin_is_the_reason<A: Api>() {
    needs_bytes_after_reset();
    // The code of other systems reads "2" and the FIN in the event of "1". The kernel of Linux then
    // reports the reset by an event only. The receive of other kernels fails.
    let with_fin: &[_] = if cfg!(keepsock_linux) { &["with the FIN"] } else { &[] };
    for way in with_fin.iter().copied().chain(["event", "send"]) {
        let (mut on, told) = reporting::<A>();
        let (kept, connections) = channel();
        let (resume, gate) = channel::<()>();
        let (kept, gate) = (Mutex::new(kept), Mutex::new(gate));
        let data = on.data.take();
        on.data = Some(Box::new(move |c, bytes| {
            data.iter().for_each(|data| data(c, bytes));
            if way == "with the FIN" && bytes == b"1" {
                gate.lock().unwrap().recv().unwrap();
            }
        }));
        let finished = on.finished.take();
        on.finished = Some(Box::new(move |c| {
            if way == "with the FIN" {
                finished.iter().for_each(|finished| finished(c));
            }
            kept.lock().unwrap().send(c.clone()).unwrap();
        }));
        let server = listen::<A>(&[]);
        let _service = server.serve_events(&[], on).unwrap();
        let mut peer = raw(&at::<A>(&server));
        peer.write_all(b"1").unwrap();
        let Open(id) = next(&told) else { unreachable!() };
        assert_eq!(next(&told), Data(id, b"1".to_vec()));
        if way == "with the FIN" {
            peer.write_all(b"2").unwrap();
        }
        peer.shutdown(Shutdown::Write).unwrap();
        if way != "with the FIN" {
            let connection: A::Connection =
                connections.recv_timeout(Duration::from_secs(60)).unwrap();
            if way == "send" {
                drop(peer);
                eventually("a send fails", || connection.send(b"x").is_err());
            } else {
                system::reset(peer);
            }
        } else {
            system::reset(peer);
            resume.send(()).unwrap();
            assert_eq!(next(&told), Data(id, b"2".to_vec()));
            assert_eq!(next(&told), What::Finished(id));
        }
        let Close(_, reason) = until(&told, closes) else { unreachable!() };
        assert_eq!(reason, CloseReason::PeerReset, "{way}");
    }
}

/// I4, V2: a reset that follows the FINs of both sides does not hide the end of the stream. The
/// connection is paused, so the loop finds the reset first. Without the peer's FIN there is no end of
/// stream.
fn reset_after_both_fins_follows_the_end_of_stream<A: Api>() {
    for (tail, has_fin) in [(&b""[..], true), (b"tail", true), (b"", false), (b"tail", false)] {
        let (mut on, told) = reporting::<A>();
        let (kept, paused) = channel();
        let kept = Mutex::new(kept);
        let report = on.data.take().unwrap();
        on.data = Some(Box::new(move |c, bytes| {
            report(c, bytes);
            if bytes == b"x" {
                c.pause();
                c.set_sockopt(Sockopt::SendBuffer, 1 << 20).unwrap();
                // The peer does not read, so these bytes and the FIN are not acknowledged.
                c.send(&[7; 200_000]).unwrap();
                c.shutdown_write();
                assert_eq!(c.queued(), 0);
                kept.lock().unwrap().send(c.clone()).unwrap();
            }
        }));
        let server = listen::<A>(&[]);
        let _service = server.serve_events(&[], on).unwrap();
        let mut peer = raw(&at::<A>(&server));
        peer.write_all(b"x").unwrap();
        let connection: A::Connection = paused.recv_timeout(Duration::from_secs(60)).unwrap();
        eventually("this side has sent its FIN", || {
            connection.stats().unwrap().state == TcpState::FinWait1 as i32
        });
        peer.write_all(tail).unwrap();
        if has_fin {
            peer.shutdown(Shutdown::Write).unwrap();
        }
        // Bytes are unread, so the kernel of the peer sends RST.
        drop(peer);
        eventually("the reset is found", || {
            connection.close_reason() == Some(CloseReason::PeerReset)
        });
        connection.resume();
        let Open(id) = next(&told) else { unreachable!() };
        let mut expected = vec![Data(id, b"x".to_vec())];
        if !tail.is_empty() {
            expected.push(Data(id, tail.to_vec()));
        }
        if has_fin {
            expected.push(What::Finished(id));
        }
        expected.push(Close(id, CloseReason::PeerReset));
        for event in expected {
            assert_eq!(next(&told), event, "{tail:?}, {has_fin}");
        }
    }
}

/// I3, V5, V8: queued replies are delivered before a close, a half-close and a drain.
fn held_connection_delivers_replies_before_close<A: Api>() {
    for way in ["close", "shut down", "drain"] {
        let (on, told) = reporting::<A>();
        let (_server, service, client, connection) = held::<A>(&[Opt::CloseTimeout(20_000)], on);
        let queued = connection.queued();
        assert!(queued > 0, "{way}");
        std::thread::scope(|scope| {
            let drained = match way {
                "close" => {
                    connection.close();
                    None
                }
                "shut down" => {
                    connection.shutdown_write();
                    client.shutdown(Shutdown::Write).unwrap();
                    None
                }
                _ => Some(scope.spawn(|| service.drain(20_000).unwrap())),
            };
            let back = all(&client);
            assert!(back.len() > queued && back.iter().all(|byte| *byte == 7), "{way}");
            client.shutdown(Shutdown::Write).ok();
            if let Some(drained) = drained {
                assert_eq!(drained.join().unwrap(), (1, 0));
            }
        });
        let Close(_, end) = until(&told, closes) else { unreachable!() };
        assert!(matches!(end, CloseReason::Local | CloseReason::PeerClosed), "{way}: {end:?}");
    }
}

/// V8: the pause of the program and back-pressure are independent.
fn held_and_paused_connection_waits_for_resume<A: Api>() {
    let (on, told) = reporting::<A>();
    let (_server, service, client, connection) = held::<A>(&[], on);
    connection.pause();
    let (mut reader, done) = (client.try_clone().unwrap(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut bytes = [0; 64 << 10];
            while reader.read(&mut bytes).is_ok_and(|n| n > 0) {}
            done.store(true, Ordering::Relaxed);
        });
        eventually("the replies are sent", || connection.queued() == 0);
        let received = service.stats().received;
        until(&told, |what| matches!(what, What::Writable(_)));
        while told.try_recv().is_ok() {}
        assert!(told.recv_timeout(Duration::from_millis(100)).is_err(), "the connection is paused");
        assert_eq!(service.stats().received, received);
        connection.resume();
        until(&told, |what| matches!(what, Data(..)));
        client.shutdown(Shutdown::Write).unwrap();
    });
    assert!(done.into_inner());
    assert!(closes(&until(&told, closes)));
}

/// V3, V8: data that a timer sends is not a reply: the queue limit applies.
fn timer_send_beyond_limit_disconnects<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, told) = reporting::<A>();
    on.open = Some(Box::new(|c| c.set_timer(1).unwrap()));
    on.timer = Some(Box::new(|c| {
        let piece = [1; 100_000];
        for _ in 0..1000 {
            if c.send(&piece).is_err() {
                return;
            }
        }
        panic!("no limit applies");
    }));
    let _service = server.serve_events(&[], on).unwrap();
    let _client = raw(&at::<A>(&server));
    let Close(_, end) = until(&told, closes) else { unreachable!() };
    assert_eq!(end, CloseReason::SlowConsumer);
}

/// K5: a callback that takes longer than all timeouts ends no connection. Each peer gets another
/// heartbeat and the full time.
fn liveness_after_a_slow_callback_ends_nothing<A: Api>() {
    undisturbed(one_slow_callback::<A>);
}

fn one_slow_callback<A: Api>() {
    let options = [Opt::Heartbeat(b"?", 200), Opt::HeartbeatTimeout(1500), Opt::IdleTimeout(1500)];
    let server = listen::<A>(&options);
    let (mut on, told) = reporting::<A>();
    on.data = Some(Box::new(|_, data| {
        if data.contains(&b'S') {
            std::thread::sleep(Duration::from_millis(4000));
        }
    }));
    let service = server.serve_events(&[], on).unwrap();
    let clients: Vec<_> = (0..5).map(|_| raw(&at::<A>(&server))).collect();
    (&clients[0]).write_all(b"S").unwrap();
    std::thread::scope(|scope| {
        for client in &clients {
            scope.spawn(move || {
                let mut client = client;
                // Longer than the callback and the timeouts after it.
                for _ in 0..12 {
                    client.read_exact(&mut [0]).unwrap();
                    client.write_all(b"!").unwrap();
                }
            });
        }
    });
    assert_eq!(service.connections(), 5);
    assert!(told.try_iter().all(|what| matches!(what, Open(_))));
}

/// K5, K6: the callbacks of one client take most of the loop's time, each at least a quarter of the
/// timeouts. A silent peer is disconnected nevertheless, and a peer that answers is not.
fn timeouts_apply_while_callbacks_are_slow<A: Api>() {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let options = [Opt::Heartbeat(b"?", 200), Opt::HeartbeatTimeout(1600)];
            undisturbed(|| slow_callbacks::<A>(&options, CloseReason::HeartbeatTimeout));
        });
        let options = [Opt::Heartbeat(b"?", 200), Opt::IdleTimeout(1600)];
        undisturbed(|| slow_callbacks::<A>(&options, CloseReason::IdleTimeout));
    });
}

fn slow_callbacks<A: Api>(options: &[Opt<'_, A>], expected: CloseReason) {
    let server = listen::<A>(options);
    let (mut on, told) = reporting::<A>();
    on.data = Some(Box::new(|_, data| {
        if data.contains(&b'S') {
            std::thread::sleep(Duration::from_millis(500));
        }
    }));
    let service = server.serve_events(&[], on).unwrap();
    let slow = raw(&at::<A>(&server));
    let answers = raw(&at::<A>(&server));
    let _mute = raw(&at::<A>(&server));
    let ended = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _end = support::OnDrop(|| {
            ended.store(true, Ordering::Relaxed);
            let _ = answers.shutdown(Shutdown::Both);
        });
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                (&slow).write_all(b"S").unwrap();
                std::thread::sleep(Duration::from_millis(600));
            }
        });
        scope.spawn(|| {
            while (&answers).read(&mut [0]).is_ok_and(|n| n > 0) {
                let _ = (&answers).write(b"!");
            }
        });
        let Close(_, end) = until(&told, closes) else { unreachable!() };
        assert_eq!(end, expected);
        std::thread::sleep(Duration::from_millis(3000));
        assert!(told.try_iter().all(|what| !closes(&what)), "a healthy peer was disconnected");
    });
    drop(service);
}

/// K8: the liveness options of a connect apply to its connection, and those of the server do not.
fn liveness_of_a_connect_is_its_own<A: Api>() {
    let server = listen::<A>(&[Opt::Heartbeat(b"SERVER", 50)]);
    let (on, told) = reporting::<A>();
    let service = server.serve_events(&[], on).unwrap();
    let upstream = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = upstream.local_addr().unwrap().to_string();
    // A connect without liveness options.
    service.connect(&to, &[], 1).unwrap();
    let (plain, _) = upstream.accept().unwrap();
    let accepted = raw(&at::<A>(&server));
    assert_eq!(some(&accepted, 24), b"SERVERSERVERSERVERSERVER");
    plain.set_nonblocking(true).unwrap();
    assert_eq!((&plain).read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    // A connect with other options than the server's.
    service.connect(&to, &[Opt::Heartbeat(b"U", 50), Opt::IdleTimeout(1000)], 1).unwrap();
    let (own, _) = upstream.accept().unwrap();
    let Close(_, end) = until(&told, closes) else { unreachable!() };
    assert_eq!(end, CloseReason::IdleTimeout);
    let got = all(&own);
    assert!(got.len() > 1 && got.iter().all(|byte| *byte == b'U'), "{got:?}");
    assert_eq!(some(&accepted, 6), b"SERVER");
}

/// K8: an added client keeps its own liveness options.
fn liveness_of_an_added_client_is_its_own<A: Api>() {
    needs_bytes_after_reset();
    let server = listen::<A>(&[Opt::IdleTimeout(100)]);
    let (on, told) = reporting::<A>();
    let service = server.serve_events(&[], on).unwrap();
    let (client, peer) = support::with_raw_peer::<A>(&[
        Opt::Heartbeat(b"A", 50),
        Opt::HeartbeatTimeout(500),
        Opt::CloseTimeout(0),
    ]);
    let (Close(_, end), took) = timed(|| {
        assert!(service.add(client, 1).is_ok());
        until(&told, closes)
    }) else {
        unreachable!()
    };
    assert_eq!(end, CloseReason::HeartbeatTimeout);
    assert!(took >= Duration::from_millis(500), "the server's limit: {took:?}");
    let mut got = Vec::new();
    let _ = (&peer).read_to_end(&mut got);
    assert!(got.len() > 2 && got.iter().all(|byte| *byte == b'A'), "{got:?}");
}

/// K8, I3: connects and added clients keep their own close timeout.
fn close_timeout_of_a_connect_or_an_added_client_is_its_own<A: Api>() {
    let server = listen::<A>(&[Opt::CloseTimeout(60_000)]);
    let (mut on, told) = reporting::<A>();
    on.open = Some(Box::new(|c| {
        c.send(b"bye").unwrap();
        c.close();
    }));
    let service = server.serve_events(&[], on).unwrap();
    let upstream = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = upstream.local_addr().unwrap().to_string();
    let own = [Opt::CloseTimeout(100)];
    let connect = || service.connect(&to, &own, 1).unwrap();
    let add = || assert!(service.add(A::connect(&to, &own).unwrap(), 1).is_ok());
    for make in [&connect as &dyn Fn(), &add] {
        make();
        let (stays, _) = upstream.accept().unwrap();
        assert!(matches!(until(&told, closes), Close(_, CloseReason::Local)));
        assert_eq!(some(&stays, 3), b"bye");
    }
}

/// Callbacks that send data every 20 ms, whatever they receive.
fn sending<A: Api>() -> (On<A>, Receiver<What>) {
    let (mut on, told) = reporting::<A>();
    on.open = Some(Box::new(|c| c.set_timer(20).unwrap()));
    on.timer = Some(Box::new(|c| {
        let _ = c.send(b".");
        c.set_timer(20).unwrap();
    }));
    (on, told)
}

/// K6: a client that reads is not idle, unless the option counts received bytes only.
fn idle_timeout_of_reader_counts_sent_bytes<A: Api>() {
    for receive_only in [false, true] {
        undisturbed(|| {
            let mut options = vec![Opt::IdleTimeout(1000)];
            if receive_only {
                options.push(Opt::IdleReceiveOnly(true));
            }
            let server = listen::<A>(&options);
            let (on, told) = sending::<A>();
            let _service = server.serve_events(&[], on).unwrap();
            let client = raw(&at::<A>(&server));
            if receive_only {
                assert!(matches!(until(&told, closes), Close(_, CloseReason::IdleTimeout)));
            } else {
                // For at least two seconds.
                some(&client, 100);
                assert!(told.try_iter().next().is_none(), "the connection was closed");
            }
        });
    }
}

/// K6: the open callback sends once, and all bytes are in the kernel. The client reads slowly, and
/// then sends a byte, so that the send is older than the last receive.
fn idle_timeout_of_slow_reader_counts_acknowledgments_of_one_send<A: Api>() {
    undisturbed(one_send_to_a_slow_reader::<A>);
}

fn one_send_to_a_slow_reader<A: Api>() {
    let server = listen::<A>(&[Opt::IdleTimeout(1500)]);
    let (mut on, told) = reporting::<A>();
    on.open = Some(Box::new(|c| c.send(&[b'x'; 256 << 10]).unwrap()));
    let _service = server.serve_events(&[], on).unwrap();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let to: std::net::SocketAddr = at::<A>(&server).0.parse().unwrap();
    socket.connect(&to.into()).unwrap();
    (&socket).read_exact(&mut [0]).unwrap();
    (&socket).write_all(b"x").unwrap();
    for piece in 1..32 {
        (&socket).read_exact(&mut [0; 8 << 10]).unwrap_or_else(|e| panic!("piece {piece}: {e}"));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(
        told.try_iter().all(|what| !closes(&what)),
        "the connection was closed while the client read"
    );
    let Close(_, end) = until(&told, closes) else { unreachable!() };
    assert_eq!(end, CloseReason::IdleTimeout);
}

/// K6, V4, K7: a peer that has shut down its sending side is idle like any other, whatever the
/// program does then. A peer that reads is not idle.
fn idle_timeout_ends_half_closed_connection<A: Api>() {
    const LARGE: &[u8] = &[b'x'; 8 << 20];
    let idle = || vec![Opt::IdleTimeout(1000)];
    for options in [
        idle(),
        vec![Opt::IdleTimeout(1000), Opt::IdleReceiveOnly(true)],
        vec![Opt::FirstByteTimeout(1000)],
    ] {
        let receive_only = options.len() == 2;
        let speaks = !options.iter().any(|option| matches!(option, Opt::FirstByteTimeout(_)));
        for answer in ["nothing", "much", "much and the end"] {
            let server = listen::<A>(&options);
            let (mut on, told) = reporting::<A>();
            on.finished = Some(Box::new(move |c| {
                if answer != "nothing" {
                    c.send(LARGE).unwrap();
                }
                if answer == "much and the end" {
                    c.shutdown_write();
                }
            }));
            let _service = server.serve_events(&[Serve::QueueLimit(LARGE.len() * 2)], on).unwrap();
            let mut client = raw(&at::<A>(&server));
            if speaks {
                client.write_all(b"GET").unwrap();
            }
            client.shutdown(Shutdown::Write).unwrap();
            let (Close(_, end), took) = timed(|| until(&told, closes)) else { unreachable!() };
            assert_eq!(end, CloseReason::IdleTimeout, "{answer}, receive only: {receive_only}");
            assert!(took < Duration::from_secs(20), "{answer}: {took:?}");
        }
    }
    undisturbed(|| {
        let server = listen::<A>(&idle());
        let (mut on, told) = reporting::<A>();
        on.finished = Some(Box::new(|c| c.set_timer(20).unwrap()));
        on.timer = Some(Box::new(|c| {
            c.send(b"x").unwrap();
            c.set_timer(20).unwrap();
        }));
        let _service = server.serve_events(&[], on).unwrap();
        let client = raw(&at::<A>(&server));
        client.shutdown(Shutdown::Write).unwrap();
        // Longer than the timeout.
        some(&client, 100);
        assert!(told.try_iter().all(|what| !closes(&what)), "the connection was closed");
    });
}

/// K5: a service that sends all the time also sends heartbeats, and detects a peer whose program
/// does not answer. A peer that answers stays connected.
fn heartbeat_timeout_while_sending_is_kept<A: Api>() {
    undisturbed(send_between_heartbeats::<A>);
}

fn send_between_heartbeats<A: Api>() {
    for answers in [false, true] {
        let server = listen::<A>(&[Opt::Heartbeat(b"?", 100), Opt::HeartbeatTimeout(1500)]);
        let (on, told) = sending::<A>();
        let _service = server.serve_events(&[], on).unwrap();
        let mut client = raw(&at::<A>(&server));
        let mut asked = 0;
        let mut byte = [0];
        // Longer than the timeout, and not much longer where the timeout ends the connection.
        let most = if answers { 30 } else { 300 };
        while asked < most && client.read(&mut byte).is_ok_and(|n| n == 1) {
            asked += usize::from(byte == *b"?");
            if answers && byte == *b"?" {
                client.write_all(b"!").unwrap();
            }
        }
        if answers {
            assert!(
                told.try_iter().all(|what| matches!(what, Data(..))),
                "the connection was closed"
            );
        } else {
            assert!((1..most).contains(&asked), "{asked}");
            assert!(matches!(until(&told, closes), Close(_, CloseReason::HeartbeatTimeout)));
        }
    }
}

/// V2: with several loops, a blocked callback delays neither accepting nor new clients.
fn accept_with_waiting_callback_serves_new_clients<A: Api>() {
    let server = listen::<A>(&[]);
    let (begun, begins) = channel();
    let (go_on, goes_on) = channel::<()>();
    let shared = Mutex::new(begun);
    let goes_on = Mutex::new(goes_on);
    let on = On::<A> {
        data: Some(Box::new(move |c, data| {
            if data == b"wait" {
                shared.lock().unwrap().send(()).unwrap();
                let _ = goes_on.lock().unwrap().recv_timeout(Duration::from_secs(120));
            }
            let _ = c.send(data);
        })),
        ..On::default()
    };
    let service = server.serve_events(&[Serve::Threads(2)], on).unwrap();
    let mut first = raw(&at::<A>(&server));
    first.write_all(b"wait").unwrap();
    begins.recv_timeout(Duration::from_secs(60)).unwrap();
    let start = Instant::now();
    let mut clients = Vec::new();
    let mut in_a_row = 0;
    while in_a_row < 10 {
        assert!(start.elapsed() < Duration::from_secs(60), "new clients are not served");
        let mut client = raw(&at::<A>(&server));
        client.write_all(b"x").unwrap();
        // A client that arrived right after the callback began may wait for it.
        client.set_read_timeout(Some(Duration::from_millis(1000))).unwrap();
        let served = client.read(&mut [0; 1]).is_ok();
        in_a_row = if served { in_a_row + 1 } else { 0 };
        clients.push(client);
        let all = u32::try_from(clients.len() + 1).unwrap();
        eventually("all clients are accepted", || service.connections() == all);
    }
    go_on.send(()).unwrap();
    assert_eq!(some(&first, 4), b"wait");
}

/// I7, V2, V6: the end of the stream is delivered after the last buffered message, even if other
/// threads pause and resume the connection in the meantime.
fn end_of_stream_during_pause_and_resume_follows_all_messages<A: Api>() {
    const MESSAGES: usize = 3000;
    let format = LengthFormat::U8;
    for framing in [Framing::Lines { max: 10 }, Framing::Prefixed { format, max: 10 }] {
        let message: &[u8] = match framing {
            Framing::Lines { .. } => b"some\n",
            _ => b"\x04some",
        };
        for _ in 0..5 {
            let server = listen::<A>(&[]);
            let (mut on, told) = reporting::<A>();
            let (kept, connections) = channel();
            let kept = Mutex::new(kept);
            on.open = Some(Box::new(move |c| kept.lock().unwrap().send(c.clone()).unwrap()));
            let (data, count) = (on.data.take().unwrap(), AtomicUsize::new(0));
            on.data = Some(Box::new(move |c, message| {
                // The end of the stream arrives while messages are buffered.
                if count.fetch_add(1, Ordering::Relaxed) % 50 == 0 {
                    std::thread::sleep(Duration::from_micros(1));
                }
                data(c, message);
            }));
            let _service = server.serve_events(&[Serve::Framing(framing)], on).unwrap();
            let mut client = raw(&at::<A>(&server));
            let connection: A::Connection =
                connections.recv_timeout(Duration::from_secs(60)).unwrap();
            let (id, done) = (connection.id(), AtomicBool::new(false));
            let received = std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        connection.pause();
                        (0..200).for_each(|_| std::hint::spin_loop());
                        connection.resume();
                    }
                });
                for _ in 0..MESSAGES / 100 {
                    client.write_all(&message.repeat(100)).unwrap();
                }
                client.shutdown(Shutdown::Write).unwrap();
                let mut received = 0;
                let end = loop {
                    match told.recv_timeout(Duration::from_secs(60)) {
                        Ok(Data(_, data)) if data == b"some" => received += 1,
                        other => break other,
                    }
                };
                done.store(true, Ordering::Relaxed);
                (received, end)
            });
            assert_eq!(received, (MESSAGES, Ok(What::Finished(id))), "{framing:?}");
            assert_eq!(next(&told), Close(id, CloseReason::PeerClosed));
        }
    }
}

/// I3, V5: during a drain, a connection with queued bytes has time until the drain's deadline.
fn drain_with_queued_bytes_outlasts_the_close_timeout<A: Api>() {
    for close_timeout in [0, 100] {
        let (on, told) = reporting::<A>();
        let (_server, service, client, connection) =
            held::<A>(&[Opt::CloseTimeout(close_timeout)], on);
        let queued = connection.queued();
        assert!(queued > 0);
        std::thread::scope(|scope| {
            let drained = scope.spawn(|| service.drain(20_000).unwrap());
            until(&told, |what| matches!(what, What::Drain(_)));
            assert!(told.recv_timeout(Duration::from_millis(500)).is_err(), "it waits");
            let back = all(&client);
            assert!(back.len() > queued && back.iter().all(|byte| *byte == 7));
            client.shutdown(Shutdown::Write).ok();
            assert_eq!(drained.join().unwrap(), (1, 0));
        });
    }
}

/// V5: a connection that is reset before the drain's deadline counts as aborted.
fn drain_counts_reset_connection_as_aborted<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, told) = reporting::<A>();
    on.drain = Some(Box::new(|c| c.abort()));
    let service = server.serve_events(&[], on).unwrap();
    let _client = raw(&at::<A>(&server));
    until(&told, |what| matches!(what, Open(_)));
    assert_eq!(service.drain(60_000).unwrap(), (0, 1));
}

/// V8: a reply is queued whole, even if it alone exceeds the queue limit. Other messages are not.
fn reply_larger_than_the_queue_limit_is_delivered<A: Api>() {
    const LEN: usize = 8 << 20;
    let server = listen::<A>(&[]);
    let (mut on, _told) = reporting::<A>();
    let (sent, results) = channel();
    let sent = Mutex::new(sent);
    on.data = Some(Box::new(move |c, _| {
        let status = c.send(&vec![7; LEN]).map_err(|failure| failure.status);
        sent.lock().unwrap().send((c.clone(), status)).unwrap();
    }));
    let _service = server.serve_events(&[Serve::QueueLimit(10_000)], on).unwrap();
    let mut client = raw(&at::<A>(&server));
    client.write_all(b"x").unwrap();
    let (connection, status): (A::Connection, _) =
        results.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(status, Ok(()));
    let failure = fails(connection.send(&vec![7; LEN]), ErrorKind::TooLong);
    let limit = "the message has 8388608 bytes, and at most 9912 fit into the queue_limit of 10000 \
                 bytes, because each message counts 88 bytes more than its length";
    assert!(failure.message.contains(limit), "{failure:?}");
    fails(connection.send(&[7; 9913]), ErrorKind::TooLong);
    assert!(some(&client, LEN).iter().all(|byte| *byte == 7));
    fails(connection.send(&vec![7; LEN]), ErrorKind::TooLong);
}

/// V4: a full service does not connect to a peer.
fn connect_of_a_full_service_fails_at_once<A: Api>() {
    let peer = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listen::<A>(&[]);
    let (on, told) = reporting::<A>();
    let service = server.serve_events(&[Serve::Max(1)], on).unwrap();
    let _client = raw(&at::<A>(&server));
    until(&told, |what| matches!(what, Open(_)));
    let address = peer.local_addr().unwrap().to_string();
    let failure = fails(service.connect(&address, &[], 3), ErrorKind::WrongState);
    assert!(
        failure
            .message
            .contains("the service has 1 connections, as many as max_connections permits"),
        "{failure:?}"
    );
    peer.set_nonblocking(true).unwrap();
    assert!(peer.accept().is_err());
    drop(service);
    assert!(!told.try_iter().any(|what| matches!(what, What::Failed(..))));
}

/// E1: the error of a connect that the service rejects or ends has the endpoint of the peer, not that
/// of the listener. The same holds for a reconnect, and for a connection that is added.
fn connect_that_the_service_ends_names_the_peer<A: Api>() {
    let full = FullQueue::new();
    let (peer, refused) = (full.endpoint(), refused_address().to_string());
    let dir = TempDir::new();
    let server = A::listen(&dir.endpoint("s"), &[]).unwrap();
    let (mut on, told) = reporting::<A>();
    let (failed, failures) = channel();
    let failed = Mutex::new(failed);
    on.connect_failed = Some(Box::new(move |failure, _| {
        failed.lock().unwrap().send(failure).unwrap();
    }));
    let service = server.serve_events(&[Serve::Max(1)], on).unwrap();
    let again = |endpoint: &str| A::reconnect(endpoint, &[]).unwrap();
    let named = |failure: &Failure, operation: &str, endpoint: &str| {
        let names = (&*failure.operation, &*failure.endpoint);
        assert_eq!(names, (operation, endpoint), "{failure:?}");
    };
    let reported = || {
        let mut failures: Vec<Failure> =
            (0..2).map(|_| failures.recv_timeout(Duration::from_secs(60)).unwrap()).collect();
        failures.sort_by_key(|failure| failure.operation.to_string());
        failures
    };

    // A pending connect that the full service cannot add, and a full service.
    let listener = A::listen("127.0.0.1:0", &[]).unwrap();
    let (one, other) = (listener.endpoint(), listener.endpoint());
    service.connect(&one, &[], 1).unwrap();
    until(&told, |what| matches!(what, Open(_)));
    let failure = fails(service.connect(&other, &[], 2), ErrorKind::WrongState);
    named(&failure, "connect", &other);
    let client = A::connect(&listener.endpoint(), &[]).unwrap();
    let tuple = client.five_tuple();
    let (_, failure) = service.add(client, 3).err().unwrap();
    assert!(failure.is(ErrorKind::WrongState), "{failure:?}");
    named(&failure, "add", &tuple.text);
    drop(listener);
    until(&told, closes);
    eventually("its place is free", || service.connections() == 0);

    // The end of accepting ends the reconnects, and the end of the service ends the connects.
    service.connect(&peer, &[], 4).unwrap();
    service.reconnect(again(&refused), 5).map_err(|(_, failure)| failure).unwrap();
    service.drain(0).unwrap();
    let failures = reported();
    assert!(failures.iter().all(|failure| failure.is(ErrorKind::Closed)), "{failures:?}");
    named(&failures[0], "connect", &peer);
    named(&failures[1], "reconnect", &refused);

    named(&fails(service.connect(&peer, &[], 6), ErrorKind::Closed), "connect", &peer);
    let (_, failure) = service.reconnect(again(&peer), 7).err().unwrap();
    assert!(failure.is(ErrorKind::Closed), "{failure:?}");
    named(&failure, "reconnect", &peer);
}

/// V5: a drain fails the pending connects when it ends.
fn drain_ends_pending_connects<A: Api>() {
    for limit in [0, 1000] {
        let full = FullQueue::new();
        let server = listen::<A>(&[]);
        let (on, told) = reporting::<A>();
        let service = server.serve_events(&[], on).unwrap();
        for data in 1..=3 {
            service.connect(&full.endpoint(), &[], data).unwrap();
        }
        service.drain(limit).unwrap();
        // The callbacks have run before the drain returned.
        let mut failed: Vec<_> = told.try_iter().collect();
        failed.sort_by_key(|what| format!("{what:?}"));
        let expected = [1, 2, 3].map(|data| What::Failed(ErrorKind::Closed.code(), data));
        assert_eq!(failed, expected);
        fails(service.connect(&full.endpoint(), &[], 4), ErrorKind::Closed);
    }
}

/// V2: with two loops, a client is served at once although a callback of one loop has just begun to
/// block.
fn new_client_goes_to_a_loop_that_is_not_in_a_callback<A: Api>() {
    let server = listen::<A>(&[]);
    let (mut on, _told) = reporting::<A>();
    let (begin, begins) = channel();
    let (end, ends) = channel::<()>();
    let (begin, ends) = (Mutex::new(begin), Mutex::new(ends));
    on.open = Some(Box::new(|c| c.send(b"hi").unwrap()));
    on.data = Some(Box::new(move |_, _| {
        begin.lock().unwrap().send(()).unwrap();
        let _ = ends.lock().unwrap().recv_timeout(Duration::from_secs(60));
    }));
    let _service = server.serve_events(&[Serve::Threads(2)], on).unwrap();
    let mut waiting = raw(&at::<A>(&server));
    some(&waiting, 2);
    waiting.write_all(b"x").unwrap();
    begins.recv_timeout(Duration::from_secs(60)).unwrap();
    // The callback has run long enough to count as blocked.
    std::thread::sleep(Duration::from_millis(60));
    let (clients, took) = timed(|| {
        let clients: Vec<_> = (0..6).map(|_| raw(&at::<A>(&server))).collect();
        clients.iter().for_each(|client| drop(some(client, 2)));
        clients
    });
    assert!(took < Duration::from_secs(15), "{took:?}");
    end.send(()).unwrap();
    drop(clients);
}

/// V2: a loop whose server socket is closed before the loop begins waits for events without processor
/// time, although another process has the listener: a registration with epoll(7) then outlives a close.
/// A duplicate in this process has the same effect.
fn listener_closed_at_the_start_does_not_wake_its_loop<A: Api>() {
    let test = test_name!(A, "listener_closed_at_the_start_does_not_wake_its_loop");
    process::in_process(&test, Duration::from_secs(30), || {
        system::use_one_processor();
        let (mut services, mut copies) = (Vec::new(), Vec::new());
        for _ in 0..10 {
            let server = listen::<A>(&[]);
            copies.push(system::duplicate(server.fd().unwrap()));
            let (on, _) = reporting::<A>();
            services.push(server.serve_events(&[], on).unwrap());
            server.close();
        }
        for service in &services {
            service.wait_stopped(10_000).unwrap();
        }
        let used = || -> Duration {
            let threads = std::fs::read_dir("/proc/self/task").unwrap();
            let threads = threads.map(|thread| thread.unwrap().file_name());
            threads.map(|id| system::cpu_time_of(id.to_str().unwrap().parse().unwrap())).sum()
        };
        let before = used();
        std::thread::sleep(Duration::from_secs(1));
        let used = used() - before;
        assert!(used < Duration::from_millis(100), "{used:?}");
        drop(services);
    });
}
