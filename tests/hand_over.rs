//! Listening sockets that several processes have: handed over, inherited (L7).

#![cfg(target_os = "linux")]
// Clippy's leave for tests is for test functions, not for what they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
mod lab;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use common::{
    Api, Client, Connection, DatagramService, Datagrams, Handed, INFINITE, Inherited, On, Opt,
    Outcome, Serve, Server, Service, TRANSPORTS, TempDir, Token, Transport, fails, name,
    while_waiting,
};
use keepsock::ErrorKind;
use lab::{Helper, tell, told};

both_apis!(
    a_close_here_is_none_elsewhere,
    serving_that_ends_here_goes_on_elsewhere,
    who_comes_late_goes_on_waiting,
    datagrams_go_on_elsewhere,
    serving_datagrams_goes_on_elsewhere,
    a_sender_when_serving_ends,
    a_service_finishes,
    nobody_is_between_accepted_and_served,
    a_successor_takes_over,
    a_successor_takes_datagrams_over,
    a_replaced_program_is_found,
    a_successor_that_fails_changes_nothing,
    a_successor_that_the_system_refuses,
    a_successor_whose_end_is_not_on_the_channel,
    a_hand_over_ends_in_time,
    one_hand_over_at_a_time,
    options_are_set_by_who_is_ready,
    coalescing_is_set_by_who_is_ready,
    what_nobody_took_ends,
    a_path_is_that_file,
    port_0_is_what_was_asked_for,
    what_cannot_be_handed_over,
    a_new_process_is_as_new,
    whatever_numbers_descriptors_have,
    a_handler_runs_in_its_own_process,
    what_was_inherited,
    a_name_for_sockets_of_both_kinds,
    what_is_bound_to_an_endpoint,
    datagrams_that_are_bound_to_an_endpoint,
    garbage_in_the_environment,
    a_note_for_another_process,
    started_by_systemd,
    a_successor_that_cannot_be_ended,
);

/// Without being woken they would wait for ever.
const PROMPT: Duration = Duration::from_secs(5);

/// It still listens: connections are made, and taken by `listener`.
#[track_caller]
fn still_accepts(listener: &TcpListener) {
    let address = listener.local_addr().unwrap();
    let client = TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap();
    common::eventually("it is accepted", || match listener.accept() {
        Ok((_, from)) => from == client.local_addr().unwrap(),
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => false,
        Err(e) => panic!("{e}"),
    });
}

/// Each way to come to a server whose socket others have, too.
fn shared<A: Api>() -> Vec<(A::Server, TcpListener)> {
    let original = TcpListener::bind("127.0.0.1:0").unwrap();
    let adopted = A::adopt_server(original.try_clone().unwrap().into(), &[]);
    let made = A::listen("127.0.0.1:0", &[Opt::HandOver(true)]).unwrap();
    let several = A::listen_all(&["127.0.0.1:0", "127.0.0.1:0"], &[Opt::HandOver(true)]).unwrap();
    let others = [&made, &several].map(|server| common::system::duplicate(server.fd().unwrap()));
    let [first, second] = others.map(TcpListener::from);
    vec![(adopted.map_err(|e| e.1).unwrap(), original), (made, first), (several, second)]
}

/// L7: a close wakes the accepts of this process, and ends nothing for others.
fn a_close_here_is_none_elsewhere<A: Api>() {
    for token in [false, true] {
        for (server, original) in shared::<A>() {
            let token = token.then(A::token);
            server.set_cancel(token.as_ref());
            let (outcomes, took) = while_waiting(
                || {
                    thread::scope(|scope| {
                        // Of several that wait one polls: each is woken.
                        let others = [(); 2].map(|()| scope.spawn(|| server.accept().err()));
                        let mine = server.accept().err();
                        others
                            .map(|other| other.join().unwrap())
                            .into_iter()
                            .chain([mine])
                            .collect::<Vec<_>>()
                    })
                },
                || server.close(),
            );
            for outcome in outcomes {
                assert!(outcome.unwrap().is(ErrorKind::Closed));
            }
            assert!(took < PROMPT, "{took:?}");
            still_accepts(&original);
            drop(server);
            still_accepts(&original);
        }
        // Dropped and given up, without a close before.
        for (server, original) in shared::<A>() {
            drop(server);
            still_accepts(&original);
        }
        for (server, original) in shared::<A>() {
            drop(server.release());
            still_accepts(&original);
        }
    }
}

/// L7, N3: all ways of serving, and of ending that.
fn serving_that_ends_here_goes_on_elsewhere<A: Api>() {
    type End<A> = fn(<A as Api>::Service);
    let ends: [(&str, End<A>); 3] = [
        ("stop", |service| {
            service.stop();
            service.wait(5000).unwrap();
        }),
        ("drain", |service| {
            service.drain(5000).unwrap();
        }),
        ("drop", |service| drop(service)),
    ];
    for (name, end) in ends {
        for by in ["threads", "pool", "events"] {
            for (server, original) in shared::<A>() {
                let address = original.local_addr().unwrap();
                let served = Arc::new(AtomicU32::new(0));
                let count = served.clone();
                let service = match by {
                    "events" => {
                        let open = Box::new(move |_: &A::Connection| {
                            count.fetch_add(1, Ordering::SeqCst);
                        });
                        server.serve_events(&[], On { open: Some(open), ..On::default() })
                    }
                    _ => {
                        let pool = [Serve::Threads(3)];
                        let options = if by == "pool" { &pool[..] } else { &[] };
                        server.serve(
                            options,
                            Box::new(move |_| {
                                count.fetch_add(1, Ordering::SeqCst);
                            }),
                        )
                    }
                };
                let service = service.unwrap();
                for n in 1..=3 {
                    let _client = TcpStream::connect(address).unwrap();
                    common::eventually("it is served", || served.load(Ordering::SeqCst) == n);
                }
                let ((), took) = common::timed(|| end(service));
                assert!(took < PROMPT, "{name} of {by}: {took:?}");
                fails(server.accept(), ErrorKind::Closed);
                still_accepts(&original);
            }
        }
    }
}

/// L7: a connection that another process took is not waited for in the kernel, where nothing
/// but the next connection would end that.
fn who_comes_late_goes_on_waiting<A: Api>() {
    for (server, original) in shared::<A>() {
        assert!(common::system::is_nonblocking(server.fd().unwrap()));
        let address = original.local_addr().unwrap();
        let other = A::adopt_server(original.into(), &[]).map_err(|e| e.1).unwrap();
        let taken = AtomicU32::new(0);
        thread::scope(|scope| {
            let both = [&server, &other].map(|server| {
                let taken = &taken;
                scope.spawn(move || {
                    loop {
                        let outcome: Outcome<A::Client> = server.accept();
                        match outcome {
                            Ok(_) => taken.fetch_add(1, Ordering::SeqCst),
                            Err(failure) => return failure,
                        };
                    }
                })
            });
            // Each connection wakes both, and one of them is late.
            for n in 1..=200 {
                let _client = TcpStream::connect(address).unwrap();
                common::eventually("it is accepted", || taken.load(Ordering::SeqCst) == n);
            }
            server.close();
            other.close();
            for ended in both {
                assert!(ended.join().unwrap().is(ErrorKind::Closed));
            }
        });
    }
}

/// L7: the same of a UDP socket: shutdown(2) would have the others receive nothing any more.
fn datagrams_go_on_elsewhere<A: Api>() {
    let original = UdpSocket::bind("127.0.0.1:0").unwrap();
    let adopted = A::adopt_datagram(original.try_clone().unwrap().into(), &[]);
    let made = A::bind("127.0.0.1:0", &[Opt::HandOver(true)]).unwrap();
    let other = UdpSocket::from(common::system::duplicate(made.fd().unwrap()));
    for (socket, other) in [(adopted.map_err(|e| e.1).unwrap(), original), (made, other)] {
        let (outcome, took) = while_waiting(|| socket.recv(8), || socket.close());
        assert!(outcome.unwrap_err().is(ErrorKind::Closed));
        assert!(took < PROMPT, "{took:?}");
        drop(socket);
        other.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        other.send_to(b"x", other.local_addr().unwrap()).unwrap();
        assert_eq!(other.recv(&mut [0; 8]).unwrap(), 1);
    }
}

/// L7: serving one ends here, as a close does, and goes on elsewhere; and who sends meanwhile, and
/// has to wait for that, goes on.
fn serving_datagrams_goes_on_elsewhere<A: Api>() {
    let dir = TempDir::new();
    for endpoint in ["127.0.0.1:0".to_owned(), dir.endpoint("s")] {
        let options = [Opt::HandOver(true), Opt::ReadTimeout(5000)];
        let socket = A::bind(&endpoint, &options).unwrap();
        let other = common::system::duplicate(socket.fd().unwrap());
        let other = A::adopt_datagram(other, &options[1..]).map_err(|e| e.1).unwrap();
        let service = socket.serve(2, Box::new(|reply, got| reply(&got.bytes).unwrap())).unwrap();
        let client = A::connect_datagram(&socket.endpoint(), &options[1..]).unwrap();
        client.send(b"x").unwrap();
        assert_eq!(client.recv(8).unwrap().bytes, b"x");
        service.stop();
        service.wait(5000).unwrap();
        fails(socket.recv(8), ErrorKind::Closed);
        client.send(b"y").unwrap();
        let (got, info) = other.recv_info(8).unwrap();
        assert_eq!(got.bytes, b"y");
        other.reply(&info, b"z").unwrap();
        assert_eq!(client.recv(8).unwrap().bytes, b"z");
        // Only a Unix socket's queue is ever full here.
        if endpoint.starts_with("unix:") {
            let to = client.endpoint();
            socket.set_nonblocking(true).unwrap();
            while socket.send_to_endpoint(b"full", &to).is_ok() {}
            socket.set_nonblocking(false).unwrap();
            let send = || socket.send_to_endpoint(b"last", &to);
            while_waiting(send, || drop(client.recv(8).unwrap())).0.unwrap();
        }
    }
}

/// T6, V7: who waits to send when serving ends waits on, and does not ask again and again.
fn a_sender_when_serving_ends<A: Api>() {
    let dir = TempDir::new();
    let peer = A::bind(&dir.endpoint("peer"), &[]).unwrap();
    let plain = std::os::unix::net::UnixDatagram::bind(dir.path("own")).unwrap();
    plain.connect(dir.path("peer")).unwrap();
    let socket = A::adopt_datagram(plain.into(), &[]).map_err(|e| e.1).unwrap();
    let service = socket.serve(1, Box::new(|_, _| ())).unwrap();
    socket.set_nonblocking(true).unwrap();
    while socket.send(b"full").is_ok() {}
    socket.set_nonblocking(false).unwrap();
    socket.set_write_timeout(1000).unwrap();
    let send = || {
        let before = common::system::thread_cpu_time();
        (socket.send(b"last"), common::system::thread_cpu_time() - before)
    };
    let ((outcome, used), _) = while_waiting(send, || service.stop());
    fails(outcome, ErrorKind::TimedOut);
    assert!(used < Duration::from_millis(200), "{used:?} of the processor");
    drop(peer);
}

/// A service by threads, in a pool, or by events, whose connections get what they send back.
fn echoes<A: Api>(server: &A::Server, by: &str) -> A::Service {
    if by == "events" {
        let data = Box::new(|connection: &A::Connection, data: &[u8]| {
            let _ = connection.send(data);
        });
        return server.serve_events(&[], On { data: Some(data), ..On::default() }).unwrap();
    }
    let pool = [Serve::Threads(3)];
    let options = if by == "pool" { &pool[..] } else { &[] };
    let handler = |client: &A::Client| {
        let mut buf = [0; 64];
        while let Ok(n @ 1..) = client.read(&mut buf) {
            let _ = client.write_all(&buf[..n]);
        }
    };
    server.serve(options, Box::new(handler)).unwrap()
}

/// L7, N3: who is connected is not told, and has what time it needs; who stays longer is drained.
fn a_service_finishes<A: Api>() {
    for by in ["threads", "pool", "events"] {
        let server = A::listen("127.0.0.1:0", &[]).unwrap();
        let service = echoes::<A>(&server, by);
        let client = A::connect(&server.endpoint(), &[Opt::ReadTimeout(5000)]).unwrap();
        let echo = || {
            client.write_all(b"hello\n").unwrap();
            assert_eq!(client.read_line(64).unwrap(), "hello");
        };
        echo();
        let (left, took) = common::timed(|| service.finish(50).unwrap());
        assert_eq!(left, 1);
        assert!(took >= Duration::from_millis(50), "{took:?}");
        fails(server.accept(), ErrorKind::Closed);
        echo();
        thread::scope(|scope| {
            let waits = scope.spawn(|| service.finish(20_000).unwrap());
            echo();
            client.close().unwrap();
            let (left, took) = common::timed(|| waits.join().unwrap());
            assert_eq!(left, 0);
            assert!(took < PROMPT, "{took:?}");
        });
        assert_eq!(service.drain(5000).unwrap().1, 0);
        // With nobody there it waits for nothing.
        let (left, took) = common::timed(|| service.finish(20_000).unwrap());
        assert!(left == 0 && took < PROMPT, "{took:?}");
    }
}

/// L7: a connection that was accepted the moment before accepting ended is served, and one that
/// was not is still there for whoever has the listener, too.
fn nobody_is_between_accepted_and_served<A: Api>() {
    let greets = |server: &A::Server, by: &str| {
        if by == "events" {
            let open = Box::new(|connection: &A::Connection| {
                let _ = connection.send(b"x");
                connection.close();
            });
            return server.serve_events(&[], On { open: Some(open), ..On::default() }).unwrap();
        }
        let handler = |client: &A::Client| drop(client.write_all(b"x"));
        server.serve(&[], Box::new(handler)).unwrap()
    };
    for (by, drains) in [("threads", true), ("events", true), ("threads", false), ("events", false)]
    {
        for _ in 0..150 {
            let original = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = original.local_addr().unwrap();
            let server = A::adopt_server(original.try_clone().unwrap().into(), &[]);
            let service = greets(&server.map_err(|e| e.1).unwrap(), by);
            let mut client = TcpStream::connect(address).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            thread::scope(|scope| {
                let ends = scope.spawn(|| match drains {
                    true => service.drain(5000).unwrap().1,
                    false => service.finish(5000).unwrap(),
                });
                common::eventually("accepting has ended", || service.wait(0).is_ok());
                let others = std::sync::Mutex::new(None);
                common::eventually("it has a server", || {
                    let mut others = others.lock().unwrap();
                    *others = others.take().or_else(|| original.accept().ok());
                    others.is_some() || common::system::becomes_readable(client.as_raw_fd(), 0)
                });
                if let Some((mut accepted, _)) = others.into_inner().unwrap() {
                    accepted.write_all(b"x").unwrap();
                }
                let greeting = client.read(&mut [0; 8]);
                assert_eq!(greeting.expect("it is not reset"), 1, "{by}, drains: {drains}");
                drop(client);
                assert_eq!(ends.join().unwrap(), 0);
            });
        }
    }
}

// ---- processes ---------------------------------------------------------------------------------

/// Where a part is to listen.
const ENDPOINT: &str = "KEEPSOCK_TEST_ENDPOINT";
/// How it is to serve: by threads or by events.
const BY: &str = "KEEPSOCK_TEST_BY";

/// A server, and each of its successors: answers each client with the number of its process, and
/// hands over when it is told to.
fn serves<A: Api>() {
    let me = std::process::id();
    let mut inherited = A::take_inherited().unwrap();
    let count = inherited.names().len();
    let server = inherited.listen(&std::env::var(ENDPOINT).unwrap(), &[]).unwrap();
    let handler = move |client: &A::Client| {
        // One that stays says something first; the others have ended their side.
        while client.read_line(64).is_ok() {
            client.write_all(format!("{me}\n").as_bytes()).unwrap();
        }
        let _ = client.write_all(format!("{me}\n").as_bytes());
    };
    let by_events = std::env::var(BY).is_ok_and(|by| by == "events");
    let service = match by_events {
        false => server.serve(&[], Box::new(handler)).unwrap(),
        true => {
            let answer = move |connection: &A::Connection| {
                let _ = connection.send(me.to_string().as_bytes());
            };
            let lines = Serve::Framing(keepsock::Framing::Lines { max: 64 });
            let on = On {
                data: Some(Box::new(move |connection: &A::Connection, _: &[u8]| {
                    answer(connection)
                })),
                finished: Some(Box::new(move |connection: &A::Connection| {
                    answer(connection);
                    connection.close();
                })),
                drain: Some(Box::new(move |connection: &A::Connection| {
                    answer(connection);
                    connection.close();
                })),
                ..On::default()
            };
            server.serve_events(&[lines], on).unwrap()
        }
    };
    tell(&format!("{me} serves on {}, {count} inherited", server.endpoint()));
    inherited.ready().unwrap();
    if told().is_some() {
        let pid = A::hand_over(None, &[("main", Handed::Server(&server))], 20_000, None).unwrap();
        service.finish(100).unwrap();
        assert_eq!(service.drain(10_000).unwrap().1, 0, "none is cut");
        drop((service, server));
        tell(&format!("{me} has handed over to {pid}"));
        // The harness must not end what is its successor's, too.
        std::process::exit(0);
    }
}

fn connect(endpoint: &str) -> std::io::Result<Box<dyn Stream>> {
    Ok(match endpoint.strip_prefix("unix:") {
        Some(path) => Box::new(UnixStream::connect(path)?),
        None => Box::new(TcpStream::connect(endpoint)?),
    })
}

trait Stream: Read + Write {
    fn end(&self);
}

impl Stream for TcpStream {
    fn end(&self) {
        self.shutdown(std::net::Shutdown::Write).unwrap();
    }
}

impl Stream for UnixStream {
    fn end(&self) {
        self.shutdown(std::net::Shutdown::Write).unwrap();
    }
}

/// Who answers.
fn who_serves(endpoint: &str) -> std::io::Result<u32> {
    let mut stream = connect(endpoint)?;
    stream.end();
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    Ok(reply.trim_end().parse().unwrap())
}

fn line(stream: &mut dyn Stream) -> u32 {
    stream.write_all(b"who?\n").unwrap();
    let mut reply = Vec::new();
    while !reply.ends_with(b"\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        reply.extend(byte);
    }
    String::from_utf8(reply).unwrap().trim_end().parse().unwrap()
}

/// What [`serves`] says when it begins: its process and endpoint, and how many it inherited.
fn begun(helper: &Helper) -> (u32, String, u32) {
    let said = helper.hear();
    let (pid, rest) = said.split_once(" serves on ").expect(&said);
    let (endpoint, rest) = rest.split_once(", ").expect(&said);
    let count = rest.strip_suffix(" inherited").expect(&said);
    (pid.parse().unwrap(), endpoint.to_owned(), count.parse().unwrap())
}

/// L7: from one process to the next, three times, while clients come and one stays. No client is
/// refused, none is cut.
fn a_successor_takes_over<A: Api>() {
    if lab::lasting_role().is_some() {
        return serves::<A>();
    }
    let test = name::<A>("a_successor_takes_over");
    for (transport, by) in [
        (Transport::Tcp, "threads"),
        (Transport::Unix, "threads"),
        (Transport::Tcp, "events"),
        (Transport::Unix, "events"),
    ] {
        let dir = TempDir::new();
        let (endpoint, path) = match transport {
            Transport::Tcp => ("127.0.0.1:0".to_owned(), None),
            Transport::Unix => (dir.endpoint("s"), Some(dir.path("s"))),
        };
        let variables = [format!("{ENDPOINT}={endpoint}"), format!("{BY}={by}")];
        let mut helper = Helper::start_by(&["env", &variables[0], &variables[1]], &test, "s");
        let (mut pid, endpoint, count) = begun(&helper);
        assert_eq!(count, 0);
        let stop = AtomicBool::new(false);
        let served = AtomicU32::new(0);
        thread::scope(|scope| {
            let ends = common::OnDrop(|| stop.store(true, Ordering::SeqCst));
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Ordering::SeqCst) {
                        who_serves(&endpoint).expect("nobody is refused or cut");
                        served.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            for _ in 0..3 {
                let mut stays = connect(&endpoint).unwrap();
                // Whichever of the two has it: the old one, before it is told to go.
                assert_eq!(line(&mut *stays), pid);
                helper.tell("hand over");
                let (next, there, count) = begun(&helper);
                assert_eq!((there.as_str(), count), (endpoint.as_str(), 1));
                // A connection that the old one has it serves to its end.
                let mut rest = String::new();
                stays.read_to_string(&mut rest).unwrap();
                assert_eq!(rest, format!("{pid}\n"));
                drop(stays);
                assert_eq!(helper.hear(), format!("{pid} has handed over to {next}"));
                assert!(path.as_deref().is_none_or(Path::exists), "the file is gone");
                let before = served.load(Ordering::SeqCst);
                common::eventually("clients go on", || served.load(Ordering::SeqCst) > before + 9);
                assert_eq!(who_serves(&endpoint).unwrap(), next);
                pid = next;
            }
            drop(ends);
        });
        // It ends with its input: the last one removes the file.
        drop(helper);
        common::eventually("nobody listens any more", || connect(&endpoint).is_err());
        common::eventually("the file is gone", || path.as_deref().is_none_or(|p| !p.exists()));
    }
}

/// A server of datagrams, and each of its successors, likewise.
fn serves_datagrams<A: Api>() {
    let me = std::process::id();
    let mut inherited = A::take_inherited().unwrap();
    let endpoint = std::env::var(ENDPOINT).unwrap();
    let socket = inherited.bind(&endpoint, &[]).unwrap();
    let answer = me.to_string();
    let service = socket.serve(2, Box::new(move |reply, _| reply(answer.as_bytes()).unwrap()));
    let service = service.unwrap();
    tell(&format!("{me} serves on {}, 0 inherited", socket.endpoint()));
    inherited.ready().unwrap();
    if told().is_some() {
        let main = [("main", Handed::Datagram(&socket))];
        let pid = A::hand_over(None, &main, 20_000, None).unwrap();
        service.stop();
        service.wait(10_000).unwrap();
        drop((service, socket));
        tell(&format!("{me} has handed over to {pid}"));
        std::process::exit(0);
    }
}

/// L7: datagrams are answered by the one or the other, and none is left without an answer; the file
/// of a Unix socket stays until the last one goes.
fn a_successor_takes_datagrams_over<A: Api>() {
    if lab::lasting_role().is_some() {
        return serves_datagrams::<A>();
    }
    let test = name::<A>("a_successor_takes_datagrams_over");
    let dir = TempDir::new();
    let path = dir.path("s");
    for endpoint in ["127.0.0.1:0".to_owned(), dir.endpoint("s")] {
        let variable = format!("{ENDPOINT}={endpoint}");
        let mut helper = Helper::start_by(&["env", &variable], &test, "s");
        let (mut pid, endpoint, _) = begun(&helper);
        let client = A::connect_datagram(&endpoint, &[Opt::ReadTimeout(10_000)]).unwrap();
        let ask = || -> u32 {
            client.send(b"who?").unwrap();
            String::from_utf8(client.recv(16).unwrap().bytes).unwrap().parse().unwrap()
        };
        assert_eq!(ask(), pid);
        for _ in 0..3 {
            // Until the old one is gone, both may answer.
            let (over, asked) = (AtomicBool::new(false), AtomicU32::new(0));
            let next = thread::scope(|scope| {
                let ends = common::OnDrop(|| over.store(true, Ordering::SeqCst));
                let asks = scope.spawn(|| {
                    let mut by = BTreeSet::new();
                    while !over.load(Ordering::SeqCst) {
                        by.insert(ask());
                        asked.fetch_add(1, Ordering::SeqCst);
                    }
                    by
                });
                let before = asked.load(Ordering::SeqCst);
                common::eventually("it asks", || asked.load(Ordering::SeqCst) > before);
                helper.tell("hand over");
                let (next, ..) = begun(&helper);
                assert_eq!(helper.hear(), format!("{pid} has handed over to {next}"));
                drop(ends);
                assert!(asks.join().unwrap().iter().all(|by| [pid, next].contains(by)));
                next
            });
            assert_eq!(ask(), next);
            assert_eq!(path.exists(), endpoint.starts_with("unix:"));
            pid = next;
        }
        drop((helper, client));
        common::eventually("the file is gone", || !path.exists());
    }
}

/// L7: a program that was replaced by a newer one is started by its name.
fn a_replaced_program_is_found<A: Api>() {
    if lab::lasting_role().is_some() {
        return serves::<A>();
    }
    let test = name::<A>("a_replaced_program_is_found");
    let dir = TempDir::new();
    let program = dir.path("program");
    let copy = || {
        let copied = dir.path("new");
        std::fs::copy(std::env::current_exe().unwrap(), &copied).unwrap();
        std::fs::rename(copied, &program).unwrap();
    };
    copy();
    // In place of the program's name that follows.
    let script = format!("shift; exec {} \"$@\"", program.display());
    let endpoint = format!("{ENDPOINT}=127.0.0.1:0");
    let words = ["env", &endpoint, "sh", "-c", &script, "sh"];
    let mut helper = Helper::start_by(&words, &test, "s");
    let (pid, endpoint, _) = begun(&helper);
    copy();
    let file = |pid| std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert!(file(pid).to_str().unwrap().ends_with(" (deleted)"));
    helper.tell("hand over");
    let (next, ..) = begun(&helper);
    assert_eq!(file(next), program);
    helper.hear();
    assert_eq!(who_serves(&endpoint).unwrap(), next);
}

/// Not there any more, or not a process that was not waited for.
fn is_gone(pid: &str) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

/// L7: whatever becomes of the successor, its end is told, it is not left behind, and the old one
/// accepts as before.
fn a_successor_that_fails_changes_nothing<A: Api>() {
    let test = name::<A>("a_successor_that_fails_changes_nothing");
    match lab::lasting_role().as_deref() {
        // Has the listener, closes it again in order, and ends well.
        Some("gives up") => {
            let mut inherited = A::take_inherited().unwrap();
            let server = inherited.server("s", &[]).unwrap();
            server.close();
            drop((server, inherited));
            std::process::exit(5);
        }
        // Is never ready, though it goes on.
        Some(_) => {
            drop(A::take_inherited().unwrap());
            thread::sleep(Duration::from_secs(60));
        }
        None => {}
    }
    lab::in_process(&test, Duration::from_secs(25), || fails_and_goes_on::<A>(&test));
}

/// This test once more, as a successor, in a part.
fn successor(test: &str, role: &str, variables: &[&str]) -> Vec<String> {
    let program = std::env::current_exe().unwrap();
    let role = format!("KEEPSOCK_LAB_ROLE={role}");
    let mut words = vec!["env", &role];
    words.extend(variables);
    // What its harness says is not for this one's output.
    words.extend(["sh", "-c", "exec \"$@\" > /dev/null", "sh"]);
    words.extend([program.to_str().unwrap(), "--exact", test, "--nocapture"]);
    words.into_iter().map(str::to_owned).collect()
}

/// Hands over to that.
fn succeeded<A: Api>(argv: &[String], given: &[(&str, Handed<'_, A>)]) -> Outcome<i64> {
    let argv: Vec<_> = argv.iter().map(String::as_str).collect();
    A::hand_over(Some(&argv), given, 20_000, None)
}

/// What a listener has for its connections.
fn listener_options(fd: i32) -> Vec<Option<i32>> {
    const TCP_RTO_MAX_MS: i32 = 44;
    let tcp = |name| common::system::try_option(fd, libc::IPPROTO_TCP, name);
    vec![
        Some(i32::from(common::system::keepalive(fd).0)),
        tcp(libc::TCP_NODELAY),
        tcp(libc::TCP_USER_TIMEOUT),
        tcp(TCP_RTO_MAX_MS),
        Some(i32::from(tcp(libc::TCP_FASTOPEN) != Some(0))),
        tcp(libc::TCP_SAVE_SYN),
        Some(common::system::backlog(fd)),
    ]
}

/// L7: a successor's options hold when it is ready, all of them: what its predecessor had, and it has
/// not, is gone. Before, nothing of the listener changes, which the predecessor goes on with.
fn options_are_set_by_who_is_ready<A: Api>() {
    // What is off is off, though it was on.
    let others = [Opt::NoKeepalive, Opt::Nodelay(false), Opt::Backlog(3)];
    if let Some(role) = lab::lasting_role() {
        let mut inherited = A::take_inherited().unwrap();
        let endpoint = std::env::var(ENDPOINT).unwrap();
        let server = inherited.listen(&endpoint, &others).unwrap();
        let named = inherited.server("named", &others).unwrap();
        if role == "ready" {
            // Closed and freed ones need no options.
            inherited.server("closed", &others).unwrap().close();
            drop(inherited.server("freed", &others).unwrap());
            inherited.ready().unwrap();
        }
        drop((server, named));
        std::process::exit(3);
    }
    let test = name::<A>("options_are_set_by_who_is_ready");
    let own = [
        Opt::HandOver(true),
        Opt::DeadAfter(16_000),
        Opt::EndStalled(true),
        Opt::FastOpen(true),
        Opt::SaveSyn(true),
        Opt::Backlog(7),
    ];
    let servers = [(); 4].map(|()| A::listen("127.0.0.1:0", &own).unwrap());
    let names = ["main", "named", "closed", "freed"];
    let given: Vec<_> = names.into_iter().zip(servers.iter().map(Handed::Server)).collect();
    let variable = format!("{ENDPOINT}={}", servers[0].endpoint());
    let options = || [0, 1].map(|i| listener_options(servers[i].fd().unwrap()));
    let accepted = || {
        let _client = A::connect(&servers[0].endpoint(), &[]).unwrap();
        let accepted = servers[0].accept().unwrap();
        let fd = accepted.fd().unwrap();
        let nodelay = common::system::option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY);
        (common::system::keepalive(fd).0, nodelay != 0)
    };
    let before = options();
    assert_eq!(accepted(), (true, true));
    let failure = fails(
        succeeded::<A>(&successor(&test, "fails", &[&variable]), &given),
        ErrorKind::EndOfStream,
    );
    assert!(failure.message.ends_with("exit status: 3"), "{failure:?}");
    assert_eq!(options(), before);
    assert_eq!(accepted(), (true, true));
    succeeded::<A>(&successor(&test, "ready", &[&variable]), &given).unwrap();
    // As one that was made with them; the kernel has defaults of its own.
    let made = A::listen("127.0.0.1:0", &others).unwrap();
    let made = listener_options(made.fd().unwrap());
    assert_ne!(made, before[0]);
    assert_eq!(options(), [made.clone(), made.clone()]);
    assert_eq!(accepted(), (false, false));
    // Whoever else takes it over sets it at once.
    let server = A::listen("127.0.0.1:0", &own).unwrap();
    let taken = common::system::duplicate(server.fd().unwrap());
    let taken = A::adopt_server(taken, &others).map_err(|e| e.1).unwrap();
    assert_eq!(listener_options(taken.fd().unwrap()), made);
    let again = common::system::duplicate(server.fd().unwrap());
    let again = A::adopt_server(again, &own[1..]).map_err(|e| e.1).unwrap();
    assert_eq!(listener_options(again.fd().unwrap()), before[0]);
}

/// L7, D3: a successor that asks for datagrams as one gets them so when it is ready; until then, and
/// if it fails, its predecessor, which has not asked, receives each for itself.
fn coalescing_is_set_by_who_is_ready<A: Api>() {
    let sends = |endpoint: &str| {
        let client = A::connect_datagram(endpoint, &[]).unwrap();
        let all: Vec<_> = (0..5).map(|n| [n; 10]).collect();
        let batch: Vec<_> = all.iter().map(|bytes| (bytes.as_slice(), None)).collect();
        assert_eq!(client.send_batch(&batch).unwrap(), 5);
    };
    let receives = |socket: &A::Datagram| {
        for n in 0..5 {
            assert_eq!(socket.recv(64).unwrap().bytes, [n; 10]);
        }
    };
    if let Some(role) = lab::lasting_role() {
        let options = [Opt::Coalescing(true), Opt::ReadTimeout(5000)];
        let mut inherited = A::take_inherited().unwrap();
        let named = inherited.datagram("named", &options).unwrap();
        let bound = inherited.bind(&std::env::var(ENDPOINT).unwrap(), &options).unwrap();
        // Closed, freed and released ones need nothing.
        inherited.datagram("closed", &options).unwrap().close();
        drop(inherited.datagram("freed", &options).unwrap());
        let released = inherited.datagram("released", &options).unwrap().release().unwrap();
        let both = [&named, &bound];
        for socket in both {
            assert!(!common::system::coalesces(socket.fd().unwrap()));
            sends(&socket.endpoint());
            receives(socket);
        }
        if role == "ready" {
            inherited.ready().unwrap();
            for socket in both {
                assert!(common::system::coalesces(socket.fd().unwrap()));
                sends(&socket.endpoint());
                receives(socket);
            }
            assert!(!common::system::coalesces(released.as_raw_fd()));
        }
        std::process::exit(3);
    }
    let test = name::<A>("coalescing_is_set_by_who_is_ready");
    let own = [Opt::HandOver(true), Opt::ReadTimeout(5000)];
    let sockets = [(); 5].map(|()| A::bind("127.0.0.1:0", &own).unwrap());
    let names = ["named", "bound", "closed", "freed", "released"];
    let given: Vec<_> = names.into_iter().zip(sockets.iter().map(Handed::Datagram)).collect();
    let variable = format!("{ENDPOINT}={}", sockets[1].endpoint());
    let fails_as = successor(&test, "fails", &[&variable]);
    let failure = fails(succeeded::<A>(&fails_as, &given), ErrorKind::EndOfStream);
    assert!(failure.message.ends_with("exit status: 3"), "{failure:?}");
    for socket in &sockets {
        assert!(!common::system::coalesces(socket.fd().unwrap()));
        sends(&socket.endpoint());
        receives(socket);
    }
    succeeded::<A>(&successor(&test, "ready", &[&variable]), &given).unwrap();
    let has = sockets.each_ref().map(|socket| common::system::coalesces(socket.fd().unwrap()));
    assert_eq!(has, [true, true, false, false, false]);
    // Of a service manager's socket nobody else receives.
    let alone = A::bind("127.0.0.1:0", &[]).unwrap().release().unwrap();
    let alone = A::adopt_datagram(alone, &[Opt::Coalescing(true)]).map_err(|e| e.1).unwrap();
    assert!(common::system::coalesces(alone.fd().unwrap()));
}

/// L7: what the successor did not take, or has closed again before it was ready, ends with that:
/// nobody connects to a listener that nobody accepts from, and no file is left.
fn what_nobody_took_ends<A: Api>() {
    if lab::lasting_role().is_some() {
        let mut inherited = A::take_inherited().unwrap();
        let server = inherited.server("closed", &[]).unwrap();
        server.close();
        assert!(inherited.server("freed", &[]).is_ok());
        assert_eq!(inherited.names(), ["left", "left", "left", "datagram"]);
        inherited.ready().unwrap();
        loop {
            thread::sleep(Duration::from_secs(60));
        }
    }
    let test = name::<A>("what_nobody_took_ends");
    let dir = TempDir::new();
    let options = [Opt::HandOver(true)];
    let unix = |name| A::listen(&dir.endpoint(name), &options).unwrap();
    let [closed, freed] = ["closed", "freed"].map(unix);
    let left = ["127.0.0.1:0", "127.0.0.1:0", &dir.endpoint("left")];
    let left = A::listen_all(&left, &options).unwrap();
    let datagram = A::bind(&dir.endpoint("datagram"), &options).unwrap();
    let given = [
        ("closed", Handed::Server(&closed)),
        ("freed", Handed::Server(&freed)),
        ("left", Handed::Server(&left)),
        ("datagram", Handed::Datagram(&datagram)),
    ];
    let endpoints = left.endpoints();
    let pid = succeeded::<A>(&successor(&test, "s", &[]), &given).unwrap();
    let _ends = common::OnDrop(|| common::system::end(pid));
    drop((closed, freed, left, datagram));
    for endpoint in endpoints {
        common::eventually("nobody listens any more", || connect(&endpoint).is_err());
    }
    for name in ["closed", "freed", "left", "datagram"] {
        common::eventually("the file is gone", || !dir.path(name).exists());
    }
}

/// L7: a path is that of the socket only while its file is there. Who was removed is not connected
/// to by anybody, so the successor listens anew.
fn a_path_is_that_file<A: Api>() {
    if let Some(role) = lab::lasting_role() {
        let endpoint = std::env::var(ENDPOINT).unwrap();
        let mut inherited = A::take_inherited().unwrap();
        if role == "in use" {
            fails(inherited.listen(&endpoint, &[]), ErrorKind::AddressInUse);
            assert_eq!(inherited.names().len(), 1);
            std::process::exit(3);
        }
        let server = inherited.listen(&endpoint, &[]).unwrap();
        inherited.ready().unwrap();
        tell("ready");
        server.accept().unwrap().write_all(b"x").unwrap();
        drop(server);
        std::process::exit(0);
    }
    let test = name::<A>("a_path_is_that_file");
    let dir = TempDir::new();
    let endpoint = dir.endpoint("s");
    let variable = format!("{ENDPOINT}={endpoint}");
    let is_served = || {
        let mut client = connect(&endpoint).unwrap();
        client.read_exact(&mut [0]).unwrap();
    };
    // From a predecessor, and from a service manager, which tells nothing of a file.
    let server = A::listen(&endpoint, &[Opt::HandOver(true)]).unwrap();
    let given = [("s", Handed::Server(&server))];
    let moved = dir.path("moved");
    std::fs::rename(dir.path("s"), &moved).unwrap();
    let other = UnixListener::bind(dir.path("s")).unwrap();
    let failure = succeeded::<A>(&successor(&test, "in use", &[&variable]), &given);
    let failure = fails(failure, ErrorKind::EndOfStream);
    assert!(failure.message.ends_with("exit status: 3"), "{failure:?}");
    drop(other);
    std::fs::remove_file(dir.path("s")).unwrap();
    succeeded::<A>(&successor(&test, "s", &[&variable]), &given).unwrap();
    is_served();
    common::eventually("the file is gone", || !dir.path("s").exists());
    let listener = UnixListener::bind(dir.path("s")).unwrap();
    std::fs::remove_file(dir.path("s")).unwrap();
    let variables = [(ENDPOINT, endpoint.as_str())];
    let helper = Helper::start_activated(&test, "s", vec![listener.into()], &variables);
    assert_eq!(helper.hear(), "ready");
    is_served();
}

/// L7: port 0 is the listener that was asked for with port 0, and no other.
fn port_0_is_what_was_asked_for<A: Api>() {
    // On an address of its own: nobody else has the port that is free for a moment.
    let any_port = A::own_address(78) + ":0";
    if lab::lasting_role().is_some() {
        let mut inherited = A::take_inherited().unwrap();
        assert_eq!(inherited.names(), ["fixed", "any"]);
        let any = inherited.listen(&any_port, &[]).unwrap();
        assert_eq!(any.endpoint(), std::env::var(ENDPOINT).unwrap());
        assert_eq!(inherited.names(), ["fixed"]);
        let another = inherited.listen(&any_port, &[]).unwrap();
        assert_eq!(inherited.names(), ["fixed"]);
        inherited.ready().unwrap();
        drop(another);
        std::process::exit(0);
    }
    let test = name::<A>("port_0_is_what_was_asked_for");
    let free = A::listen(&any_port, &[]).unwrap();
    let endpoint = free.endpoint();
    drop(free);
    let fixed = A::listen(&endpoint, &[Opt::HandOver(true)]).unwrap();
    let any = A::listen(&any_port, &[Opt::HandOver(true)]).unwrap();
    let given = [("fixed", Handed::Server(&fixed)), ("any", Handed::Server(&any))];
    let variable = format!("{ENDPOINT}={}", any.endpoint());
    succeeded::<A>(&successor(&test, "s", &[&variable]), &given).unwrap();
}

fn fails_and_goes_on<A: Api>(test: &str) {
    let again = |role: &str| successor(test, role, &[]);
    let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    let ended = ErrorKind::EndOfStream;
    let cases = [
        (words(&["true"]), 20_000, ended, "exit status: 0"),
        (words(&["sh", "-c", "exit 3"]), INFINITE, ended, "exit status: 3"),
        (words(&["/bin/sh", "-c", "kill -9 $$"]), 20_000, ended, "signal: 9"),
        (words(&["sleep", "60"]), 100, ErrorKind::TimedOut, "was not ready within 100"),
        (again("gives up"), 20_000, ended, "exit status: 5"),
        (again("goes on"), 20_000, ended, "will not be ready, and was ended: signal: 9"),
        (words(&["/nowhere/to/be/found"]), 20_000, ErrorKind::NotFound, "/nowhere"),
        (words(&["no-such-program-anywhere"]), 20_000, ErrorKind::NotFound, "no-such-program"),
        (words(&["/etc/passwd"]), 20_000, ErrorKind::PermissionDenied, "/etc/passwd"),
    ];
    let dir = TempDir::new();
    let server = A::listen_all(&["127.0.0.1:0", &dir.endpoint("s")], &[Opt::HandOver(true)]);
    let server = server.unwrap();
    let descriptors = lab::count_descriptors();
    for (argv, limit, kind, what) in cases {
        let argv: Vec<_> = argv.iter().map(String::as_str).collect();
        let outcome = A::hand_over(Some(&argv), &[("s", Handed::Server(&server))], limit, None);
        let failure = fails(outcome, kind);
        assert_eq!(failure.operation, "hand over");
        assert!(failure.message.contains(what), "{failure:?}");
        if let Some((_, rest)) = failure.message.split_once("process ") {
            assert!(is_gone(rest.split(',').next().unwrap()), "{failure:?}");
        }
        for endpoint in server.endpoints() {
            let client = connect(&endpoint).unwrap();
            server.accept().unwrap();
            drop(client);
        }
    }
    let token = A::token();
    thread::scope(|scope| {
        let token = &token;
        let begun = dir.path("begun");
        let argv = never_ready(":", &begun);
        scope.spawn(move || {
            common::eventually("it has begun", || begun.exists());
            token.fire();
        });
        let given = [("s", Handed::Server(&server))];
        let argv = argv.each_ref().map(String::as_str);
        fails(A::hand_over(Some(&argv), &given, INFINITE, Some(token)), ErrorKind::Cancelled);
    });
    drop(token);
    assert_eq!(lab::count_descriptors(), descriptors);
    // It is still this one's to remove.
    assert!(dir.path("s").exists());
    drop(server);
    assert!(!dir.path("s").exists());
}

/// L7, E1: no more processes is told as no more threads is: not as a call that would wait.
fn a_successor_that_the_system_refuses<A: Api>() {
    let call = match lab::role().as_deref() {
        Some("fork") => libc::SYS_clone,
        Some(_) => libc::SYS_execve,
        None => {
            let test = name::<A>("a_successor_that_the_system_refuses");
            for role in ["fork", "execve"] {
                assert_eq!(Helper::start(&test, role).hear(), "done");
            }
            return;
        }
    };
    let server = A::listen("127.0.0.1:0", &[Opt::HandOver(true)]).unwrap();
    lab::forbid(call, None, libc::EAGAIN);
    let given = [("s", Handed::Server(&server))];
    let failure = fails(A::hand_over(Some(&["true"]), &given, 20_000, None), ErrorKind::NoMemory);
    assert_eq!(failure.os_error, libc::EAGAIN);
    assert!(failure.message.contains("true cannot be started"), "{failure:?}");
    tell("done");
}

/// A program that says, by a file, that it has come so far, and is never ready.
fn never_ready(first: &str, file: &Path) -> [String; 3] {
    let script = format!("{first}; : > '{}'; exec sleep 60", file.display());
    ["sh", "-c", &script].map(str::to_owned)
}

/// L7: the end of the successor counts, though a program that it has started has its descriptors.
fn a_successor_whose_end_is_not_on_the_channel<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[Opt::HandOver(true)]).unwrap();
    let given = [("s", Handed::Server(&server))];
    let argv = ["sh", "-c", "sleep 8 & exit 3"];
    let (outcome, took) = common::timed(|| A::hand_over(Some(&argv), &given, INFINITE, None));
    let failure = fails(outcome, ErrorKind::EndOfStream);
    assert!(failure.message.ends_with("exit status: 3"), "{failure:?}");
    assert!(took < PROMPT, "{took:?}");
    // It has said that it is ready, and ended: that is its own affair.
    let argv = ["sh", "-c", "sleep 8 & printf 1 >&4"];
    A::hand_over(Some(&argv), &given, 20_000, None).unwrap();
}

/// L7, C1: limit and token hold from the first moment to the last: while the program does not
/// begin, and while one that will not be ready does not end.
fn a_hand_over_ends_in_time<A: Api>() {
    // A child that does not begin has the descriptors of all other tests of its process.
    let test = name::<A>("a_hand_over_ends_in_time");
    lab::in_process(&test, Duration::from_secs(25), ends_in_time::<A>);
}

fn ends_in_time<A: Api>() {
    let dir = TempDir::new();
    // It would be a second.
    let soon = Duration::from_millis(900);
    let server = A::listen("127.0.0.1:0", &[Opt::HandOver(true)]).unwrap();
    let given = [("s", Handed::Server(&server))];
    let limited = |argv: &[&str]| {
        let (outcome, took) = common::timed(|| A::hand_over(Some(argv), &given, 200, None));
        assert!(took < soon, "{took:?}");
        outcome
    };
    let cancelled = |argv: &[&str], has_begun: &dyn Fn() -> bool| {
        let token = A::token();
        thread::scope(|scope| {
            let waits = scope.spawn(|| A::hand_over(Some(argv), &given, 20_000, Some(&token)));
            common::eventually("it has begun", has_begun);
            let (outcome, took) = common::timed(|| {
                token.fire();
                waits.join().unwrap()
            });
            assert!(took < soon, "{took:?}");
            fails(outcome, ErrorKind::Cancelled);
        });
    };
    // It closes its end of the channel and goes on.
    let closed = dir.path("closed");
    let argv = never_ready("exec 4>&-", &closed);
    let argv = argv.each_ref().map(String::as_str);
    let failure = fails(limited(&argv), ErrorKind::EndOfStream);
    assert!(failure.message.contains("will not be ready, and was ended: signal: 9"), "{failure:?}");
    std::fs::remove_file(&closed).unwrap();
    cancelled(&argv, &|| closed.exists());
    // execve(2) waits for the holder of a lease on the file, which is this process.
    let program = dir.path("program");
    std::fs::copy("/bin/true", &program).unwrap();
    let leased = || {
        let file = File::open(&program).unwrap();
        common::system::lease(&file);
        file
    };
    let file = leased();
    let argv = [program.to_str().unwrap()];
    let failure = fails(limited(&argv), ErrorKind::TimedOut);
    assert!(failure.message.contains("was not ready within 200"), "{failure:?}");
    if let Some((_, rest)) = failure.message.split_once("process ") {
        assert!(is_gone(rest.split(',').next().unwrap()), "{failure:?}");
    }
    drop(file);
    let file = leased();
    cancelled(&argv, &|| common::system::waits_for_lease(&file));
    drop(file);
    fails(A::hand_over(Some(&argv), &given, 20_000, None), ErrorKind::EndOfStream);
}

/// L7: of two at once the second is refused: the file of a Unix socket cannot have two owners. What
/// is closed meanwhile has its file removed if there is no successor.
fn one_hand_over_at_a_time<A: Api>() {
    let dir = TempDir::new();
    let options = [Opt::HandOver(true)];
    let server = A::listen(&dir.endpoint("s"), &options).unwrap();
    let socket = A::bind(&dir.endpoint("d"), &options).unwrap();
    let inet = A::listen("127.0.0.1:0", &options).unwrap();
    let given = [
        ("s", Handed::Server(&server)),
        ("d", Handed::Datagram(&socket)),
        ("i", Handed::Server(&inet)),
    ];
    let begun = dir.path("begun");
    let argv = never_ready(":", &begun);
    let argv = argv.each_ref().map(String::as_str);
    let meanwhile = |what: &dyn Fn()| {
        let token = A::token();
        thread::scope(|scope| {
            let first = scope.spawn(|| A::hand_over(Some(&argv), &given, 20_000, Some(&token)));
            common::eventually("it has begun", || begun.exists());
            what();
            token.fire();
            fails(first.join().unwrap(), ErrorKind::Cancelled);
        });
        std::fs::remove_file(&begun).unwrap();
    };
    let refused = |given: &[(&str, Handed<'_, A>)]| {
        let failure =
            fails(A::hand_over(Some(&["true"]), given, 20_000, None), ErrorKind::WrongState);
        assert!(failure.message.contains("it is being handed over already"), "{failure:?}");
        failure
    };
    meanwhile(&|| {
        for one in &given {
            refused(std::slice::from_ref(one));
        }
        assert_eq!(refused(&given[2..]).endpoint, inet.endpoint());
    });
    // Twice in one is no better.
    refused(&[("a", Handed::Server(&server)), ("b", Handed::Server(&server))]);
    fails(A::hand_over(Some(&["true"]), &given, 20_000, None), ErrorKind::EndOfStream);
    let files = || ["s", "d"].map(|name| dir.path(name).exists());
    assert_eq!(files(), [true, true]);
    meanwhile(&|| {
        server.close();
        socket.close();
        assert_eq!(files(), [true, true], "the successor would have it");
    });
    assert_eq!(files(), [false, false]);
}

/// L7: what has no successor by its nature, and what was not prepared for one.
fn what_cannot_be_handed_over<A: Api>() {
    let refused = |name: &str, what: Handed<'_, A>, kind| {
        fails(A::hand_over(Some(&["true"]), &[(name, what)], 1000, None), kind)
    };
    let plain = A::listen("127.0.0.1:0", &[]).unwrap();
    let failure = refused("s", Handed::Server(&plain), ErrorKind::WrongState);
    assert!(failure.message.contains("made without hand_over"), "{failure:?}");
    assert_eq!(failure.endpoint, plain.endpoint());
    let socket = A::bind("127.0.0.1:0", &[]).unwrap();
    refused("s", Handed::Datagram(&socket), ErrorKind::WrongState);
    let server = A::listen("127.0.0.1:0", &[Opt::HandOver(true)]).unwrap();
    for name in ["", "a:b", "a\nb", "\u{e9}", &"x".repeat(256)] {
        refused(name, Handed::Server(&server), ErrorKind::InvalidArgument);
    }
    refused(&"x".repeat(255), Handed::Server(&server), ErrorKind::EndOfStream);
    server.close();
    refused("s", Handed::Server(&server), ErrorKind::Closed);
    fails(A::hand_over(Some(&["true"]), &[], 1000, None), ErrorKind::InvalidArgument);
    // Nobody is started for nothing.
    let server = A::listen("127.0.0.1:0", &[Opt::HandOver(true)]).unwrap();
    let dir = TempDir::new();
    let started = dir.path("started").display().to_string();
    let words = ["touch", started.as_str()];
    let given = [("s", Handed::Server(&server))];
    fails(A::hand_over(Some(&words), &given, 0, None), ErrorKind::InvalidArgument);
    let token = A::token();
    token.fire();
    fails(A::hand_over(Some(&words), &given, 1000, Some(&token)), ErrorKind::Cancelled);
    assert!(!dir.path("started").exists());
    let options = [Opt::HandOver(true)];
    fails(A::connect(&plain.endpoint(), &options), ErrorKind::InvalidArgument);
}

/// L7: a successor has what sd_listen_fds(3) promises, and nothing else of this process's: its
/// descriptors are these, no signal is blocked, SIGPIPE ends it.
fn a_new_process_is_as_new<A: Api>() {
    if lab::role().is_none() {
        let test = name::<A>("a_new_process_is_as_new");
        // They name a process that has long had its descriptors.
        let words = ["env", "LISTEN_PIDFDID=1", "WATCHDOG_PID=1", "WATCHDOG_USEC=1"];
        return assert_eq!(Helper::start_by(&words, &test, "s").hear(), "done");
    }
    let server = A::listen_all(&["127.0.0.1:0", "127.0.0.1:0"], &[Opt::HandOver(true)]).unwrap();
    let socket = A::bind("127.0.0.1:0", &[Opt::HandOver(true)]).unwrap();
    let handed = [("a b", Handed::Server(&server)), ("dns", Handed::Datagram(&socket))];
    // Each thing that is not as promised has a status of its own.
    let script = r#"
        [ "$LISTEN_PID" = $$ ] || exit 10
        [ "$LISTEN_FDS" = 3 ] || exit 11
        [ "$LISTEN_FDNAMES" = "a b:a b:dns" ] || exit 12
        [ "$2" = "one  two" ] || exit 13
        for fd in 3 4 5 6; do
            case $(readlink /proc/$$/fd/$fd) in socket:*) ;; *) exit 14 ;; esac
        done
        for fd in /proc/$$/fd/*; do
            # The shell has its script in one that is its own.
            case $fd in */[0-6]) ;; *) case $(readlink "$fd") in socket:*|anon*) exit 15 ;; esac ;; esac
        done
        [ "$(sed -n 's/^SigBlk:[^0-9a-f]*//p' /proc/$$/status)" = 0000000000000000 ] || exit 16
        ignored=$(sed -n 's/^SigIgn:[^0-9a-f]*//p' /proc/$$/status)
        [ $((0x$ignored & 0x1000)) = 0 ] || exit 17
        [ "$HOME" = "$1" ] || exit 18
        [ "$LISTEN_PIDFDID,$WATCHDOG_PID,$WATCHDOG_USEC" = ,,1 ] || exit 19
        exit 42"#;
    let home = std::env::var("HOME").unwrap_or_default();
    let argv = ["sh", "-c", script, "sh", &home, "one  two"];
    assert!(!common::system::block_signal(libc::SIGUSR1, true));
    let failure = fails(A::hand_over(Some(&argv), &handed, 20_000, None), ErrorKind::EndOfStream);
    assert!(failure.message.ends_with("exit status: 42"), "{failure:?}");
    tell("done");
}

/// L7: they come in their order, though they have each other's numbers here, or those of the
/// standard streams are free, so that all that is made meanwhile lies below.
fn whatever_numbers_descriptors_have<A: Api>() {
    if lab::role().is_none() {
        let test = name::<A>("whatever_numbers_descriptors_have");
        return assert_eq!(Helper::start(&test, "s").hear(), "done");
    }
    let script = r#"
        [ "$(readlink /proc/$$/fd/3)" = "$1" ] || exit 10
        [ "$(readlink /proc/$$/fd/4)" = "$2" ] || exit 11
        case $(readlink /proc/$$/fd/5) in socket:*) ;; *) exit 12 ;; esac
        exit 42"#;
    let hands_over = |descriptors: [OwnedFd; 2]| {
        let numbers = descriptors.each_ref().map(AsRawFd::as_raw_fd);
        // What else a server has lies above.
        let below: Vec<_> = (0..50).map(|_| File::open("/dev/null").unwrap()).collect();
        let adopt = |fd| A::adopt_server(fd, &[]).map_err(|e| e.1).unwrap();
        let servers = descriptors.map(adopt);
        drop(below);
        let link = |number| std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap();
        let [first, second] = numbers.map(|number| link(number).display().to_string());
        let argv = ["sh", "-c", script, "sh", &first, &second];
        let given = [("a", Handed::Server(&servers[0])), ("b", Handed::Server(&servers[1]))];
        (numbers, A::hand_over(Some(&argv), &given, 20_000, None))
    };
    let is_right = |outcome| {
        let failure = fails(outcome, ErrorKind::EndOfStream);
        assert!(failure.message.ends_with("exit status: 42"), "{failure:?}");
    };
    common::system::close_numbers(3, 40);
    let listeners = || [(); 2].map(|()| OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap()));
    let [third, fourth] = listeners();
    let (numbers, outcome) = hands_over([fourth, third]);
    assert_eq!(numbers, [4, 3]);
    is_right(outcome);
    let high = listeners().map(lab::lift);
    let (_, outcome) = common::system::without_streams(|| hands_over(high));
    is_right(outcome);
    tell("done");
}

/// L7: a signal that comes in the moment between fork and execve is not handled by the program that
/// is about to go, whose memory looks like this one's.
fn a_handler_runs_in_its_own_process<A: Api>() {
    if lab::role().is_none() {
        let test = name::<A>("a_handler_runs_in_its_own_process");
        return assert_eq!(Helper::start(&test, "s").hear(), "done");
    }
    let server = A::listen("127.0.0.1:0", &[Opt::HandOver(true)]).unwrap();
    let given = [("s", Handed::Server(&server))];
    let elsewhere = common::system::handled_elsewhere(|| {
        for _ in 0..30 {
            fails(A::hand_over(Some(&["true"]), &given, 20_000, None), ErrorKind::EndOfStream);
        }
    });
    assert!(!elsewhere, "a child has handled a signal");
    tell("done");
}

// ---- inherited -----------------------------------------------------------------------------------

/// L7: sockets of all kinds by their names; what is of another kind is told, and stays.
fn what_was_inherited<A: Api>() {
    if lab::role().is_some() {
        inherits::<A>();
        return tell("done");
    }
    let dir = TempDir::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let unix = UnixListener::bind(dir.path("s")).unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (reader, _writer) = common::system::pipe();
    let descriptors: Vec<OwnedFd> = vec![
        listener.try_clone().unwrap().into(),
        udp.into(),
        unix.try_clone().unwrap().into(),
        connected.into(),
        File::open("/etc/passwd").unwrap().into(),
        reader,
        UdpSocket::bind("127.0.0.1:0").unwrap().into(),
    ];
    let test = name::<A>("what_was_inherited");
    let names = "http:dns:http:odd:file:pipe:mixed";
    let helper = Helper::start_activated(&test, "p", descriptors, &[("LISTEN_FDNAMES", names)]);
    assert_eq!(helper.hear(), "done");
    // Those whom it was activated by go on.
    still_accepts(&listener);
    assert!(dir.path("s").exists(), "the file is not the activated process's");
}

fn inherits<A: Api>() {
    let mut inherited = A::take_inherited().unwrap();
    let all = ["http", "dns", "http", "odd", "file", "pipe", "mixed"];
    assert_eq!(inherited.names(), all);
    for fd in 3..10 {
        assert!(common::system::is_cloexec(fd));
    }
    assert!(A::take_inherited().unwrap().names().is_empty(), "a second time");
    let wrong = ErrorKind::WrongState;
    for (name, number, what) in [
        ("dns", 4, "a UDP socket"),
        ("odd", 6, "a connected TCP socket"),
        ("file", 7, "a file"),
        ("pipe", 8, "a pipe"),
    ] {
        let failure = fails(inherited.server(name, &[]), wrong);
        let words = format!("descriptor {number}, named {name:?}, is {what}");
        assert!(failure.message.ends_with(&words), "{failure:?}");
    }
    let failure = fails(inherited.datagram("http", &[]), wrong);
    assert!(failure.message.ends_with("descriptor 3, named \"http\", is a listening TCP socket"));
    fails(inherited.datagram("file", &[]), wrong);
    let failure = fails(inherited.server("none", &[]), ErrorKind::NotFound);
    assert!(failure.message.contains("\"none\"") && failure.message.contains("\"http\""));
    // Options that one of them cannot have: none is lost.
    fails(inherited.server("http", &[Opt::SaveSyn(true)]), ErrorKind::InvalidArgument);
    fails(inherited.server("http", &[Opt::FastOpen(true)]), ErrorKind::InvalidArgument);
    fails(inherited.datagram("dns", &[Opt::Nodelay(false)]), ErrorKind::InvalidArgument);
    assert_eq!(inherited.names(), all);
    let server = inherited.server("http", &[Opt::NoKeepalive]).unwrap();
    assert_eq!(inherited.names(), ["dns", "odd", "file", "pipe", "mixed"]);
    let endpoints = server.endpoints();
    assert_eq!(endpoints.len(), 2);
    // There is no predecessor whose they are.
    assert!(!common::system::keepalive(server.fd().unwrap()).0);
    // The first connection is the one that was handed over, too.
    server.accept().unwrap();
    for endpoint in &endpoints {
        let client = A::connect(endpoint, &[Opt::CloseTimeout(0)]).unwrap();
        let accepted = server.accept().unwrap();
        client.write_all(b"hello\n").unwrap();
        assert_eq!(accepted.read_line(64).unwrap(), "hello");
    }
    let dns = inherited.datagram("dns", &[Opt::ReadTimeout(5000)]).unwrap();
    let client = A::connect_datagram(&dns.endpoint(), &[]).unwrap();
    client.send(b"question").unwrap();
    assert_eq!(dns.recv(64).unwrap().bytes, b"question");
    // Nobody is there to be told.
    let odd = common::system::is_open(6);
    inherited.ready().unwrap();
    assert!(inherited.names().is_empty());
    assert!(odd && !common::system::is_open(6), "what nobody took is closed");
    drop(inherited);
    drop(server);
}

/// L7: systemd gives all sockets of a unit one name, whatever they are.
fn a_name_for_sockets_of_both_kinds<A: Api>() {
    if lab::role().is_some() {
        let mut inherited = A::take_inherited().unwrap();
        fails(inherited.server("odd", &[]), ErrorKind::WrongState);
        let failure = fails(inherited.datagram("file", &[]), ErrorKind::WrongState);
        assert!(failure.message.contains("descriptor 7, "), "{failure:?}");
        let udp = inherited.datagram("dns", &[Opt::ReadTimeout(5000)]).unwrap();
        assert_eq!(inherited.names(), ["dns", "dns", "odd", "file", "odd"]);
        let server = inherited.server("dns", &[]).unwrap();
        assert_eq!(inherited.names(), ["dns", "odd", "file", "odd"]);
        assert_eq!(server.endpoints(), [format!("127.0.0.1:{}", server.port())]);
        // Only one for datagrams is left, which is none for a server.
        let failure = fails(inherited.server("dns", &[]), ErrorKind::WrongState);
        assert!(failure.message.ends_with("named \"dns\", is a UDP socket"), "{failure:?}");
        let other = inherited.datagram("dns", &[]).unwrap();
        assert_ne!(udp.port(), other.port());
        A::connect_datagram(&udp.endpoint(), &[]).unwrap().send(b"question").unwrap();
        assert_eq!(udp.recv(64).unwrap().bytes, b"question");
        return tell("done");
    }
    let listener = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
    let udp = || OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
    let file = || OwnedFd::from(File::open("/etc/passwd").unwrap());
    let descriptors = vec![listener(), udp(), udp(), listener(), file(), file()];
    let test = name::<A>("a_name_for_sockets_of_both_kinds");
    let names = [("LISTEN_FDNAMES", "dns:dns:dns:odd:file:odd")];
    let helper = Helper::start_activated(&test, "p", descriptors, &names);
    assert_eq!(helper.hear(), "done");
}

/// L7: one line for all ways to be started: what is inherited by its address, or made.
fn what_is_bound_to_an_endpoint<A: Api>() {
    if lab::role().is_some() {
        let port = |name: &str| std::env::var(name).unwrap();
        let (any, one, path) = (port("ANY"), port("ONE"), port("FILE"));
        let mut inherited = A::take_inherited().unwrap();
        assert_eq!(inherited.names(), ["unknown"; 7]);
        // The last TCP listener is on a port that the system chose, but nobody says so.
        let zero = port("ZERO");
        let server = inherited.listen("127.0.0.2:0", &[]).unwrap();
        assert_ne!(server.port().to_string(), zero);
        // Another one of that name would be made, and this one be nobody's.
        let packets = [Opt::Sequenced(true)];
        let abstract_ = format!("unix:@{}", port("NAME"));
        fails(inherited.listen(&abstract_, &packets), ErrorKind::WrongState);
        let mut left = 7;
        let mut takes = |endpoint: &str, options: &[Opt<'_, A>], as_: &str| {
            let server = inherited.listen(endpoint, options).unwrap();
            assert_eq!(server.endpoint(), as_);
            left -= 1;
            assert_eq!(inherited.names().len(), left, "{endpoint}");
            let _client = A::connect(&endpoint.replace('*', "localhost"), &[]);
            server
        };
        let everywhere = format!("*:{any}");
        let _first = takes(&everywhere, &[], &everywhere);
        let local = format!("127.0.0.1:{one}");
        let _second =
            takes(&format!("localhost:{one}"), &[Opt::Family(keepsock::Family::Ipv4)], &local);
        let file = format!("unix:{path}");
        // The same line made it, and with a mode; now it has that.
        let _third = takes(&file, &[Opt::UnixMode(0o600)], &file);
        let _fourth = takes(&abstract_, &[], &abstract_);
        let only = std::env::var("ONLY6").unwrap();
        let _fifth = takes(&format!("[::]:{only}"), &[], &format!("[::]:{only}"));
        let zero = format!("127.0.0.2:{zero}");
        let _sixth = takes(&zero, &[], &zero);
        // A UDP socket has this port: a TCP socket is made, which can be handed over, too.
        let udp = port("UDP");
        let server = inherited.listen(&format!("127.0.0.3:{udp}"), &[]).unwrap();
        assert_eq!(inherited.names().len(), 1);
        assert!(common::system::is_nonblocking(server.fd().unwrap()));
        let given = [("s", Handed::Server(&server))];
        fails(A::hand_over(Some(&["true"]), &given, 5000, None), ErrorKind::EndOfStream);
        // Two that have the same port and not the same address.
        fails(inherited.listen("127.0.0.1:nonsense-service", &[]), ErrorKind::NotFound);
        return tell("done");
    }
    let dir = TempDir::new();
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port().to_string();
    let wildcard = |only| {
        use socket2::{Domain, Socket, Type};
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        socket.set_only_v6(only).unwrap();
        let any = std::net::SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 0));
        socket.bind(&any.into()).unwrap();
        socket.listen(16).unwrap();
        TcpListener::from(socket)
    };
    let (any, only) = (wildcard(false), wildcard(true));
    let one = TcpListener::bind("127.0.0.1:0").unwrap();
    let zero = TcpListener::bind("127.0.0.2:0").unwrap();
    let unix = UnixListener::bind(dir.path("s")).unwrap();
    // A port that no TCP socket has.
    let probe = TcpListener::bind("127.0.0.3:0").unwrap();
    let udp = UdpSocket::bind(probe.local_addr().unwrap()).unwrap();
    drop(probe);
    let unique = format!("keepsock-inherited-{}-{}", A::NUMBER, std::process::id());
    let variables = [
        ("NAME", unique.clone()),
        ("ANY", port(&any)),
        ("ONE", port(&one)),
        ("ONLY6", port(&only)),
        ("ZERO", port(&zero)),
        ("UDP", udp.local_addr().unwrap().port().to_string()),
        ("FILE", dir.path("s").display().to_string()),
    ];
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let abstract_ = {
        use std::os::linux::net::SocketAddrExt;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&unique).unwrap();
        UnixListener::bind_addr(&address).unwrap()
    };
    let descriptors: Vec<OwnedFd> = vec![
        udp.into(),
        only.into(),
        one.into(),
        any.into(),
        unix.into(),
        abstract_.into(),
        zero.into(),
    ];
    let test = name::<A>("what_is_bound_to_an_endpoint");
    let helper = Helper::start_activated(&test, "p", descriptors, &variables);
    assert_eq!(helper.hear(), "done");
}

/// L7: the same of datagram sockets.
fn datagrams_that_are_bound_to_an_endpoint<A: Api>() {
    if lab::role().is_some() {
        let port = |name: &str| std::env::var(name).unwrap();
        let abstract_ = port("NAME");
        let (any, one, tcp, path) = (port("ANY"), port("ONE"), port("TCP"), port("FILE"));
        let mut inherited = A::take_inherited().unwrap();
        let mut left = inherited.names().len();
        let mut takes = |endpoint: &str, options: &[Opt<'_, A>], as_: &str| {
            let socket = inherited.bind(endpoint, options).unwrap();
            assert_eq!(socket.endpoint(), as_);
            left -= 1;
            assert_eq!(inherited.names().len(), left, "{endpoint}");
            let to = endpoint.replace('*', "127.0.0.1");
            A::connect_datagram(&to, &[]).unwrap().send(b"x").unwrap();
            socket.set_read_timeout(5000).unwrap();
            assert_eq!(socket.recv(8).unwrap().bytes, b"x");
            socket
        };
        let ipv4 = Opt::Family(keepsock::Family::Ipv4);
        let everywhere = format!("*:{any}");
        let _any = takes(&everywhere, &[Opt::ReadTimeout(50)], &everywhere);
        let _one = takes(&format!("localhost:{one}"), &[ipv4], &format!("127.0.0.1:{one}"));
        let file = format!("unix:{path}");
        let _file = takes(&file, &[], &file);
        let _abstract = takes(&abstract_, &[], &abstract_);
        // What streams have, a port that another kind of socket has, and one that nobody tells of.
        fails(inherited.bind("127.0.0.2:0", &[Opt::Nodelay(false)]), ErrorKind::InvalidArgument);
        assert_eq!(inherited.names().len(), 3);
        let made = inherited.bind(&format!("127.0.0.3:{tcp}"), &[]).unwrap();
        let zero = inherited.bind("127.0.0.2:0", &[]).unwrap();
        assert_ne!(zero.port().to_string(), port("ZERO"));
        // One that is connected hears one peer only: the port is not free.
        let connected = format!("127.0.0.1:{}", port("CONNECTED"));
        fails(inherited.bind(&connected, &[]), ErrorKind::AddressInUse);
        assert_eq!(inherited.names().len(), 3);
        // It can be handed over, too.
        let given = [("s", Handed::Datagram(&made))];
        fails(A::hand_over(Some(&["true"]), &given, 5000, None), ErrorKind::EndOfStream);
        fails(
            inherited.bind(&format!("127.0.0.2:{}", port("ZERO")), &[Opt::Nodelay(false)]),
            ErrorKind::InvalidArgument,
        );
        assert_eq!(inherited.names().len(), 3, "what cannot be taken stays");
        return tell("done");
    }
    let dir = TempDir::new();
    let udp = |address: &str| UdpSocket::bind(address).unwrap();
    let any = A::bind("*:0", &[]).unwrap().release().unwrap();
    let any = UdpSocket::from(any);
    let (one, zero, connected) = (udp("127.0.0.1:0"), udp("127.0.0.2:0"), udp("127.0.0.1:0"));
    connected.connect(one.local_addr().unwrap()).unwrap();
    // A port that no UDP socket has.
    let probe = udp("127.0.0.3:0");
    let tcp = TcpListener::bind(probe.local_addr().unwrap()).unwrap();
    drop(probe);
    let port = |socket: &UdpSocket| socket.local_addr().unwrap().port().to_string();
    let abstract_ = format!("unix:@keepsock-datagrams-{}-{}", A::NUMBER, std::process::id());
    let variables = [
        ("NAME", abstract_.clone()),
        ("ANY", port(&any)),
        ("ONE", port(&one)),
        ("ZERO", port(&zero)),
        ("CONNECTED", port(&connected)),
        ("TCP", tcp.local_addr().unwrap().port().to_string()),
        ("FILE", dir.path("s").display().to_string()),
    ];
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let unix = |endpoint: &str| A::bind(endpoint, &[]).unwrap().release().unwrap();
    let descriptors: Vec<OwnedFd> = vec![
        tcp.into(),
        connected.into(),
        one.into(),
        any.into(),
        unix(&dir.endpoint("s")),
        unix(&abstract_),
        zero.into(),
    ];
    let test = name::<A>("datagrams_that_are_bound_to_an_endpoint");
    let helper = Helper::start_activated(&test, "p", descriptors, &variables);
    assert_eq!(helper.hear(), "done");
}

/// L7: variables that nobody has written for this process, or that hold what they cannot.
fn garbage_in_the_environment<A: Api>() {
    if let Some(role) = lab::role() {
        if role == "mine" {
            let own = common::system::pidfd_inode().unwrap().to_string();
            common::system::set_variable("LISTEN_PIDFDID", &own);
            assert_eq!(A::take_inherited().unwrap().names(), ["unknown"]);
            return tell("mine");
        }
        let outcome = A::take_inherited();
        if role == "others" {
            assert!(outcome.unwrap().names().is_empty());
            return tell("none");
        }
        let failure = fails(outcome, ErrorKind::InvalidArgument);
        assert_eq!(failure.operation, "inherit");
        // The same the second time, for nothing was taken.
        assert!(fails(A::take_inherited(), ErrorKind::InvalidArgument) == failure);
        return tell(&failure.message);
    }
    let test = name::<A>("garbage_in_the_environment");
    let listener = || vec![OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap())];
    for (variables, words) in [
        (&[("LISTEN_FDS", "many")][..], "LISTEN_FDS is \"many\", which is not a number"),
        (&[("LISTEN_FDS", "-1")], "LISTEN_FDS is \"-1\""),
        (&[("LISTEN_FDNAMES", "a:b")], "LISTEN_FDNAMES has not 1 names"),
        (&[("LISTEN_FDS", "40")], "but descriptor "),
        (&[("KEEPSOCK_HAND_OVER", "?")], "KEEPSOCK_HAND_OVER"),
    ] {
        let helper = Helper::start_activated(&test, "p", listener(), variables);
        let said = helper.hear();
        assert!(said.starts_with("inherit: ") && said.contains(words), "{said}");
    }
    let pid = std::process::id().to_string();
    let words = ["env", &format!("LISTEN_PID={pid}"), "LISTEN_FDS=1"];
    assert_eq!(Helper::start_by(&words, &test, "others").hear(), "none");
    // Before Linux 6.9 a process has nothing of the kind.
    if common::system::pidfd_inode().is_some() {
        let variables = [("LISTEN_PIDFDID", "1")];
        let helper = Helper::start_activated(&test, "others", listener(), &variables);
        assert_eq!(helper.hear(), "none");
        let helper = Helper::start_activated(&test, "mine", listener(), &variables);
        assert_eq!(helper.hear(), "mine");
    }
}

/// L7: a note that was left behind tells of a number that has another socket now, which is none of
/// keepsock's.
fn a_note_for_another_process<A: Api>() {
    if lab::role().is_some() {
        let mut inherited = A::take_inherited().unwrap();
        assert_eq!(inherited.names(), ["unknown"]);
        inherited.ready().unwrap();
        drop(inherited);
        assert!(common::system::is_open(4) && !common::system::is_cloexec(4));
        return tell("done");
    }
    let test = name::<A>("a_note_for_another_process");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut mine, theirs) = UnixStream::pair().unwrap();
    let variables = [("LISTEN_FDS", "1"), ("KEEPSOCK_HAND_OVER", "4=1:2")];
    let descriptors = vec![listener.into(), theirs.into()];
    let helper = Helper::start_activated(&test, "s", descriptors, &variables);
    assert_eq!(helper.hear(), "done");
    drop(helper);
    mine.set_read_timeout(Some(PROMPT)).unwrap();
    assert_eq!(mine.read(&mut [0]).unwrap(), 0, "nothing was said to it");
}

/// L7: with the program that systemd has for trying it out.
fn started_by_systemd<A: Api>() {
    if lab::lasting_role().is_some() {
        return serves::<A>();
    }
    let there = Command::new("systemd-socket-activate").arg("--version").output();
    if there.is_err() {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "skipped: no systemd-socket-activate"
        );
        return println!("skipped: systemd-socket-activate is not installed");
    }
    let test = name::<A>("started_by_systemd");
    for transport in TRANSPORTS {
        let dir = TempDir::new();
        let endpoint = match transport {
            Transport::Tcp => {
                let free = TcpListener::bind(A::own_address(79) + ":0").unwrap();
                free.local_addr().unwrap().to_string()
            }
            Transport::Unix => dir.endpoint("s"),
        };
        let setting = format!("--setenv={ENDPOINT}={endpoint}");
        let address = endpoint.strip_prefix("unix:").unwrap_or(&endpoint);
        let words = [
            "systemd-socket-activate",
            "--setenv=KEEPSOCK_LAB_ROLE=s",
            &setting,
            "--fdname=web",
            "-l",
            address,
        ];
        let mut helper = Helper::start_by(&words, &test, "s");
        // It starts the server when somebody has come.
        common::eventually("it listens", || connect(&endpoint).is_ok());
        let (pid, there, count) = begun(&helper);
        assert_eq!((there.as_str(), count), (endpoint.as_str(), 1));
        assert_eq!(who_serves(&endpoint).unwrap(), pid);
        // Once more, by hand.
        helper.tell("hand over");
        let (next, _, count) = begun(&helper);
        assert_eq!((helper.hear(), count), (format!("{pid} has handed over to {next}"), 1));
        assert_eq!(who_serves(&endpoint).unwrap(), next);
        drop(helper);
        common::eventually("nobody listens any more", || connect(&endpoint).is_err());
        if transport == Transport::Unix {
            assert!(dir.path("s").exists(), "the file is the service manager's");
        }
    }
}

/// L7, I1: a limit is kept though the successor is another user's process by now, whom this one may
/// not kill.
fn a_successor_that_cannot_be_ended<A: Api>() {
    if lab::role().is_none() {
        let test = name::<A>("a_successor_that_cannot_be_ended");
        assert_eq!(Helper::start(&test, "s").hear(), "done");
        return;
    }
    let server = A::listen("127.0.0.1:0", &[Opt::HandOver(true)]).unwrap();
    lab::forbid(libc::SYS_kill, None, libc::EPERM);
    let given = [("s", Handed::Server(&server))];
    common::promptly(Duration::from_secs(3), || {
        let begun = std::time::Instant::now();
        let outcome = A::hand_over(Some(&["sleep", "10"]), &given, 100, None);
        let failure = fails(outcome, ErrorKind::TimedOut);
        assert!(failure.message.contains("goes on: "), "{}", failure.message);
        begun.elapsed()
    });
    // It goes on here.
    let client = connect(&server.endpoint()).unwrap();
    server.accept().unwrap();
    drop(client);
    tell("done");
}
