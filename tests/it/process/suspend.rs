//! K5, C1, I1: a process that is stopped for longer than its timeouts (SIGSTOP, suspend). No call fails, and
//! no connection ends, before the library has looked at the socket.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use crate::support::process::{self, Helper, next_command, report};
use crate::support::timing::undisturbed;
use crate::support::{
    Api, Client, Connection, Datagrams, FullQueue, On, Opt, PendingConnect, Server, Service,
    while_waiting,
};

both_apis![
    calls_of_a_stopped_process_return_received_bytes,
    services_of_a_stopped_process_deliver_received_bytes,
    timers_of_a_stopped_process_expire_once,
];

/// The timeouts of the stopped process.
const TIMEOUT: i64 = 4_000;
/// The time for which it is stopped.
const STOPPED: Duration = Duration::from_millis(5_500);

/// Stops a process, lets `meanwhile` act, and continues the process after its timeouts.
fn suspend(helper: &Helper, meanwhile: impl FnOnce()) {
    helper.stop();
    meanwhile();
    thread::sleep(STOPPED);
    helper.resume();
}

/// Runs each scenario at the same time as the others.
fn each(scenarios: &[&str], run: impl Fn(&str) + Sync) {
    thread::scope(|scope| {
        for scenario in scenarios {
            scope.spawn(|| undisturbed(|| run(scenario)));
        }
    });
}

/// Waits in a call with a timeout, and reports its result.
fn wait_in_a_call<A: Api>(call: &str) {
    let to = next_command().unwrap();
    let token = A::token();
    let timeouts = [
        Opt::ReadTimeout(TIMEOUT),
        Opt::ConnectTimeout(TIMEOUT),
        Opt::CloseTimeout(0),
        Opt::Cancel(&token),
    ];
    // Without a token the kernel has the timeout.
    let plain = &timeouts[..3];
    let waits = || report("waits");
    let client = |options: &[Opt<'_, A>]| A::connect(&to, options).unwrap();
    let result = match call {
        "read" => {
            let client = client(plain);
            while_waiting(|| client.read(&mut [0; 8]).map(|n| n.to_string()), waits).0
        }
        "read_line" => {
            let client = client(plain);
            while_waiting(|| client.read_line(8), waits).0
        }
        "read with a token" => {
            let client = client(&timeouts);
            while_waiting(|| client.read(&mut [0; 8]).map(|n| n.to_string()), waits).0
        }
        "wait_hangup" => {
            let client = client(plain);
            while_waiting(|| client.wait_hangup(TIMEOUT).map(|end| format!("{end:?}")), waits).0
        }
        "connect" => while_waiting(|| A::connect(&to, plain).map(|_| "connected".into()), waits).0,
        "pending connect" => {
            let connect = || A::start(&to, plain)?.wait().map(|_| "connected".into());
            while_waiting(connect, waits).0
        }
        "accept" => {
            let server = A::listen("127.0.0.1:0", plain).unwrap();
            server.set_accept_timeout(TIMEOUT).unwrap();
            report(&server.endpoint());
            while_waiting(|| server.accept().map(|_| "accepted".into()), waits).0
        }
        "recv" => {
            let socket = A::Datagram::bind("127.0.0.1:0", &[Opt::ReadTimeout(TIMEOUT)]).unwrap();
            let (ip, port, ..) = socket.five_tuple().local;
            report(&format!("{ip}:{port}"));
            while_waiting(|| socket.recv(8).map(|got| got.bytes.len().to_string()), waits).0
        }
        call => panic!("{call}"),
    };
    report(&result.unwrap_or_else(|failure| format!("{failure:?}")));
}

/// C1, I1: the timeout of a call expires while the process is stopped. The call returns the bytes, the
/// datagram or the connection that the kernel has received in that time.
fn calls_of_a_stopped_process_return_received_bytes<A: Api>() {
    if let Some(call) = process::role() {
        return wait_in_a_call::<A>(&call);
    }
    let test = test_name!(A, "calls_of_a_stopped_process_return_received_bytes");
    let run = |call: &str| {
        let mut helper = Helper::start(&test, call);
        let expected = match call {
            "connect" | "pending connect" => {
                let queue = FullQueue::new();
                helper.send_line(&queue.endpoint());
                assert_eq!(helper.next_line(), "waits");
                // The kernel sends its SYN again, and completes the handshake.
                suspend(&helper, || queue.make_room());
                assert_eq!(helper.next_line(), "connected", "{call}");
                return;
            }
            "accept" | "recv" => {
                helper.send_line("");
                let to = helper.next_line();
                assert_eq!(helper.next_line(), "waits");
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                let mut peer = None;
                suspend(&helper, || match call {
                    "accept" => peer = Some(TcpStream::connect(&to).unwrap()),
                    _ => assert_eq!(socket.send_to(b"x", &to).unwrap(), 1),
                });
                let expected = if call == "accept" { "accepted" } else { "1" };
                assert_eq!(helper.next_line(), expected, "{call}");
                return;
            }
            "read_line" => "line",
            "wait_hangup" => "PeerClosed",
            _ => "1",
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        helper.send_line(&listener.local_addr().unwrap().to_string());
        let (mut peer, _) = listener.accept().unwrap();
        assert_eq!(helper.next_line(), "waits");
        suspend(&helper, || match call {
            "read_line" => peer.write_all(b"line\n").unwrap(),
            "wait_hangup" => peer.shutdown(Shutdown::Both).unwrap(),
            _ => peer.write_all(b"x").unwrap(),
        });
        assert_eq!(helper.next_line(), expected, "{call}");
    };
    let calls = [
        "read",
        "read_line",
        "read with a token",
        "wait_hangup",
        "connect",
        "pending connect",
        "accept",
        "recv",
    ];
    each(&calls, run);
}

/// Serves connections, drains at the next command, and reports the close reasons and the result.
fn serve<A: Api>(scenario: &str) {
    let (way, what) = scenario.split_once(", ").unwrap();
    let drains = what == "drain";
    // The deadline of a drain ends the close, and not the close timeout.
    let mut options = vec![Opt::CloseTimeout(if drains { 60_000 } else { TIMEOUT })];
    match what {
        "first byte" => options.push(Opt::FirstByteTimeout(TIMEOUT)),
        "idle" => options.push(Opt::IdleTimeout(TIMEOUT)),
        _ => {}
    }
    let server = A::listen("127.0.0.1:0", &options).unwrap();
    let service = match way {
        "threads" => server.serve(
            &[],
            Box::new(move |client| {
                if !drains {
                    report("accepted");
                }
                let mut buf = [0; 8];
                loop {
                    match client.read(&mut buf) {
                        Ok(0) => break,
                        Ok(n) => client.write_all(&buf[..n]).unwrap(),
                        Err(failure) => return report(&format!("{failure:?}")),
                    }
                }
            }),
        ),
        _ => {
            let on = On::<A> {
                open: Some(Box::new(move |_| {
                    if !drains {
                        report("accepted");
                    }
                })),
                data: Some(Box::new(|c, data| c.send(data).unwrap())),
                close: Some(Box::new(move |_, reason| {
                    if !drains {
                        report(&format!("closed: {reason:?}"));
                    }
                })),
                ..On::default()
            };
            server.serve_events(&[], on)
        }
    };
    let service = service.unwrap();
    report(&server.endpoint());
    if drains {
        next_command().unwrap();
        let ((completed, reset), _) =
            while_waiting(|| service.drain(TIMEOUT).unwrap(), || report("waits"));
        return report(&format!("{completed} completed, {reset} reset"));
    }
    while next_command().is_some() {}
}

/// K5, K6, V4, V5: the timeout of a service expires while the process is stopped. The service delivers the
/// bytes that have arrived in that time, and a connection whose peer has closed counts as completed.
fn services_of_a_stopped_process_deliver_received_bytes<A: Api>() {
    if let Some(scenario) = process::role() {
        return serve::<A>(&scenario);
    }
    let test = test_name!(A, "services_of_a_stopped_process_deliver_received_bytes");
    let run = |scenario: &str| {
        let mut helper = Helper::start(&test, scenario);
        let mut peer = TcpStream::connect(helper.next_line()).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut to = peer.try_clone().unwrap();
        let mut echo = || peer.read_exact(&mut [0]).unwrap_or_else(|e| panic!("{scenario}: {e}"));
        if !scenario.ends_with("drain") {
            assert_eq!(helper.next_line(), "accepted");
            suspend(&helper, || to.write_all(b"x").unwrap());
            return echo();
        }
        // A connection with written data, whose close waits for the peer.
        to.write_all(b"x").unwrap();
        echo();
        helper.send_line("drain");
        assert_eq!(helper.next_line(), "waits");
        let mut fin = [0];
        assert_eq!(to.read(&mut fin).unwrap(), 0, "the service has closed its side");
        suspend(&helper, || to.shutdown(Shutdown::Both).unwrap());
        assert_eq!(helper.next_line(), "1 completed, 0 reset", "{scenario}");
    };
    let scenarios = [
        "events, first byte",
        "events, idle",
        "events, drain",
        "threads, first byte",
        "threads, idle",
    ];
    each(&scenarios, run);
}

/// The calls of the timers, one line each.
fn run_timers<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[Opt::CloseTimeout(0)]).unwrap();
    let on = On::<A> {
        open: Some(Box::new(|c| c.set_timer(TIMEOUT).unwrap())),
        timer: Some(Box::new(|_| report("timer of the connection"))),
        data: Some(Box::new(|c, data| c.send(data).unwrap())),
        ..On::default()
    };
    let service = server.serve_events(&[], on).unwrap();
    service.add_timer(TIMEOUT, 0, Box::new(|_| report("timer of the service"))).unwrap();
    report(&server.endpoint());
    while next_command().is_some() {
        report("no further call");
    }
}

/// V2, V10: a timer that expires while the process is stopped calls its function once, afterwards. The
/// connection stays open.
fn timers_of_a_stopped_process_expire_once<A: Api>() {
    if process::role().is_some() {
        return run_timers::<A>();
    }
    let test = test_name!(A, "timers_of_a_stopped_process_expire_once");
    undisturbed(|| {
        let mut helper = Helper::start(&test, "timers");
        let mut peer = TcpStream::connect(helper.next_line()).unwrap();
        let mut echo = || {
            peer.write_all(b"x").unwrap();
            peer.read_exact(&mut [0]).unwrap();
        };
        echo();
        suspend(&helper, || ());
        let mut lines = [helper.next_line(), helper.next_line()];
        lines.sort();
        assert_eq!(lines, ["timer of the connection", "timer of the service"]);
        echo();
        helper.send_line("report");
        assert_eq!(helper.next_line(), "no further call");
    });
}
