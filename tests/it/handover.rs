//! Listening sockets of several processes: handover and socket activation (L7).

use crate::support::os::unix::net::{UnixListener, UnixStream};
use crate::support::os::{AsRawFd, OwnedFd};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::support;
#[cfg(all(feature = "datagram", feature = "serve"))]
use crate::support::DatagramService;
#[cfg(feature = "datagram")]
use crate::support::Datagrams;
use crate::support::process::{Helper, next_command, report};
use crate::support::timing::assert_within;
use crate::support::{
    Activation, Api, Client, Handed, INFINITE, Opt, Outcome, Server, TRANSPORTS, TempDir, Token,
    Transport, fails, while_waiting,
};
#[cfg(feature = "serve")]
use crate::support::{Connection, On, Serve, Service};
use crate::support::{limits, process, watch};
use keepsock::ErrorKind;

both_apis![
    close_of_shared_listener_keeps_other_processes,
    accept_behind_another_process_waits_again,
    handover_without_process_reports_too_many_processes,
    handover_detects_exit_despite_open_channel,
    unix_path_without_file_creates_new_listener,
    port_0_matches_only_requested_port_0,
    handover_keeps_order_for_any_descriptor_numbers,
    signal_between_fork_and_exec_runs_no_handler,
    activation_by_endpoint_adopts_or_creates_listener,
    activation_with_invalid_variables_fails,
    activation_without_passed_descriptor_adopts_nothing,
    handover_note_of_other_process_is_ignored,
    handover_note_of_another_file_keeps_the_file,
    handover_note_hostile_is_ignored_or_an_error,
    descriptors_beyond_the_promised_ones_stay_unchanged,
    ready_with_hostile_channel_returns_in_time,
    #[cfg(feature = "serve")] {
        serve_that_stops_here_continues_in_other_process,
        wait_lets_connected_clients_finish,
        stop_of_accepting_loses_no_connection,
        handover_with_clients_refuses_no_connection,
        handover_of_replaced_program_starts_the_new_file,
        handover_after_setproctitle_passes_the_arguments,
        handover_to_failing_successor_keeps_predecessor,
        handover_to_hanging_successor_times_out,
        activation_by_systemd_serves_and_hands_over,
        handover_to_unkillable_successor_times_out,
    }
    #[cfg(feature = "datagram")] {
        close_of_shared_datagram_socket_keeps_other_processes,
        udp_gro_of_successor_applies_when_ready,
        socket_that_successor_did_not_adopt_is_closed,
        handover_of_unsupported_socket_is_rejected,
        successor_inherits_only_passed_descriptors,
        activation_with_one_name_finds_each_kind,
        activation_by_endpoint_adopts_or_creates_datagram_socket,
        activation_with_connection_returns_client,
    }
    #[cfg(all(feature = "datagram", feature = "serve"))] {
        serve_datagram_that_stops_here_continues_in_other_process,
        send_during_stop_of_service_waits_without_polling,
        handover_of_datagram_socket_loses_no_datagram,
        handover_during_handover_is_rejected,
    }
    #[cfg(feature = "diag")] {
        options_of_successor_apply_when_ready,
    }
    #[cfg(all(feature = "datagram", feature = "diag"))] {
        activation_finds_sockets_by_name,
    }
];

/// Unless a close wakes the accepts, they wait without limit.
const PROMPT: Duration = Duration::from_secs(30);

/// The socket still listens: connections are established, and `listener` accepts them.
#[track_caller]
fn still_accepts(listener: &TcpListener) {
    let address = listener.local_addr().unwrap();
    let client = TcpStream::connect_timeout(&address, Duration::from_secs(30)).unwrap();
    support::eventually("the connection is accepted", || match listener.accept() {
        Ok((_, from)) => from == client.local_addr().unwrap(),
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => false,
        Err(e) => panic!("{e}"),
    });
}

/// Each kind of listener whose socket other processes share.
fn shared<A: Api>() -> Vec<(A::Server, TcpListener)> {
    let original = TcpListener::bind("127.0.0.1:0").unwrap();
    let adopted = A::adopt_server(original.try_clone().unwrap().into(), &[]);
    let made = A::listen("127.0.0.1:0", &[Opt::Handover(true)]).unwrap();
    let several = A::listen_all(&["127.0.0.1:0", "127.0.0.1:0"], &[Opt::Handover(true)]).unwrap();
    let others = [&made, &several].map(|server| support::system::duplicate(server.fd().unwrap()));
    let [first, second] = others.map(TcpListener::from);
    vec![(adopted.map_err(|e| e.1).unwrap(), original), (made, first), (several, second)]
}

/// L7: a close wakes the accepts of this process, and does not affect other processes.
fn close_of_shared_listener_keeps_other_processes<A: Api>() {
    for token in [false, true] {
        for (server, original) in shared::<A>() {
            let token = token.then(A::token);
            server.set_cancel(token.as_ref()).unwrap();
            let (outcomes, took) = while_waiting(
                || {
                    thread::scope(|scope| {
                        // Only one of several waiting threads polls. The close wakes each of them.
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
        // Listeners that are dropped or released without a close.
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

/// L7, N3: a service of each serving mode stops in one process while another process continues.
#[cfg(feature = "serve")]
fn serve_that_stops_here_continues_in_other_process<A: Api>() {
    type End<A> = fn(<A as Api>::Service);
    let ends: [(&str, End<A>); 3] = [
        ("stop", |service| {
            service.stop();
            service.wait_stopped(30_000).unwrap();
        }),
        ("drain", |service| {
            service.drain(30_000).unwrap();
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
                    support::eventually("the connection is served", || {
                        served.load(Ordering::SeqCst) == n
                    });
                }
                let ((), took) = support::timed(|| end(service));
                assert!(took < PROMPT, "{name} of {by}: {took:?}");
                fails(server.accept(), ErrorKind::Closed);
                still_accepts(&original);
            }
        }
    }
}

/// L7: an accept whose connection another process accepted first does not block in the kernel,
/// where only the next connection would wake it.
fn accept_behind_another_process_waits_again<A: Api>() {
    for (server, original) in shared::<A>() {
        assert!(support::system::is_nonblocking(server.fd().unwrap()));
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
            // Each connection wakes both processes, and one of them comes second.
            for n in 1..=200 {
                let _client = TcpStream::connect(address).unwrap();
                support::eventually("the connection is accepted", || {
                    taken.load(Ordering::SeqCst) == n
                });
            }
            server.close();
            other.close();
            for ended in both {
                assert!(ended.join().unwrap().is(ErrorKind::Closed));
            }
        });
    }
}

/// L7: a close does not shut down a shared UDP socket, because shutdown(2) would end the receives
/// of the other processes.
#[cfg(feature = "datagram")]
fn close_of_shared_datagram_socket_keeps_other_processes<A: Api>() {
    let original = UdpSocket::bind("127.0.0.1:0").unwrap();
    let adopted = A::Datagram::adopt(original.try_clone().unwrap().into(), &[]);
    let made = A::Datagram::bind("127.0.0.1:0", &[Opt::Handover(true)]).unwrap();
    let other = UdpSocket::from(support::system::duplicate(made.fd().unwrap()));
    for (socket, other) in [(adopted.map_err(|e| e.1).unwrap(), original), (made, other)] {
        let (outcome, took) = while_waiting(|| socket.recv(8), || socket.close());
        assert!(outcome.unwrap_err().is(ErrorKind::Closed));
        assert!(took < PROMPT, "{took:?}");
        drop(socket);
        other.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        other.send_to(b"x", other.local_addr().unwrap()).unwrap();
        assert_eq!(other.recv(&mut [0; 8]).unwrap(), 1);
    }
}

/// L7: a datagram service ends in one process and continues in another. A sender that waits for the
/// full socket continues.
#[cfg(all(feature = "datagram", feature = "serve"))]
fn serve_datagram_that_stops_here_continues_in_other_process<A: Api>() {
    let dir = TempDir::new();
    for endpoint in ["127.0.0.1:0".to_owned(), dir.endpoint("s")] {
        let options = [Opt::Handover(true), Opt::ReadTimeout(30_000)];
        let socket = A::Datagram::bind(&endpoint, &options).unwrap();
        let other = support::system::duplicate(socket.fd().unwrap());
        let other = A::Datagram::adopt(other, &options[1..]).map_err(|e| e.1).unwrap();
        let service = socket.serve(2, Box::new(|reply, got| reply(&got.bytes).unwrap())).unwrap();
        let client = A::Datagram::connect(&socket.endpoint(), &options[1..]).unwrap();
        client.send(b"x").unwrap();
        assert_eq!(client.recv(8).unwrap().bytes, b"x");
        service.stop();
        service.wait(30_000).unwrap();
        fails(socket.recv(8), ErrorKind::Closed);
        client.send(b"y").unwrap();
        let (got, info) = other.recv_info(8).unwrap();
        assert_eq!(got.bytes, b"y");
        other.reply(&info, b"z").unwrap();
        assert_eq!(client.recv(8).unwrap().bytes, b"z");
        // Only the queue of a Unix socket becomes full in this test.
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

/// V7: a sender that waits when serving ends keeps waiting, without repeated polling.
#[cfg(all(feature = "datagram", feature = "serve"))]
fn send_during_stop_of_service_waits_without_polling<A: Api>() {
    // The processor time of the sender.
    assert_within(Duration::from_millis(200), || {
        let dir = TempDir::new();
        let peer = A::Datagram::bind(&dir.endpoint("peer"), &[]).unwrap();
        let plain = crate::support::os::unix::net::UnixDatagram::bind(dir.path("own")).unwrap();
        plain.connect(dir.path("peer")).unwrap();
        let socket = A::Datagram::adopt(plain.into(), &[]).map_err(|e| e.1).unwrap();
        let service = socket.serve(1, Box::new(|_, _| ())).unwrap();
        socket.set_nonblocking(true).unwrap();
        while socket.send(b"full").is_ok() {}
        socket.set_nonblocking(false).unwrap();
        socket.set_write_timeout(1000).unwrap();
        let send = || {
            let before = support::system::thread_cpu_time();
            (socket.send(b"last"), support::system::thread_cpu_time() - before)
        };
        let ((outcome, used), _) = while_waiting(send, || service.stop());
        fails(outcome, ErrorKind::TimedOut);
        drop(peer);
        used
    });
}

/// An echo service with a thread per connection, with a pool, or with an event loop.
#[cfg(feature = "serve")]
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

/// L7, N3: a wait for the end of the service does not notify connected clients and lets them finish. A drain aborts
/// the connections that remain.
#[cfg(feature = "serve")]
fn wait_lets_connected_clients_finish<A: Api>() {
    for by in ["threads", "pool", "events"] {
        let server = A::listen("127.0.0.1:0", &[]).unwrap();
        let service = echoes::<A>(&server, by);
        let client = A::connect(&server.endpoint(), &[Opt::ReadTimeout(30_000)]).unwrap();
        let echo = || {
            client.write_all(b"hello\n").unwrap();
            assert_eq!(client.read_line(64).unwrap(), "hello");
        };
        echo();
        let (left, took) = support::timed(|| service.stop_and_wait(50).unwrap());
        assert_eq!(left, 1);
        assert!(took >= Duration::from_millis(50), "{took:?}");
        fails(server.accept(), ErrorKind::Closed);
        echo();
        thread::scope(|scope| {
            let waits = scope.spawn(|| service.stop_and_wait(60_000).unwrap());
            echo();
            client.close().unwrap();
            let (left, took) = support::timed(|| waits.join().unwrap());
            assert_eq!(left, 0);
            assert!(took < PROMPT, "{took:?}");
        });
        assert_eq!(service.drain(30_000).unwrap().1, 0);
        // Without a connection the call returns at once.
        let (left, took) = support::timed(|| service.stop_and_wait(60_000).unwrap());
        assert!(left == 0 && took < PROMPT, "{took:?}");
    }
}

/// L7: a connection that was accepted just before accepting ended is served. Each later connection
/// is still available to the holder of the listener.
#[cfg(feature = "serve")]
fn stop_of_accepting_loses_no_connection<A: Api>() {
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
            client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            thread::scope(|scope| {
                let ends = scope.spawn(|| match drains {
                    true => service.drain(30_000).unwrap().1,
                    false => service.stop_and_wait(30_000).unwrap(),
                });
                support::eventually("accepting has ended", || service.wait_stopped(0).is_ok());
                let others = std::sync::Mutex::new(None);
                support::eventually("the connection has a server", || {
                    let mut others = others.lock().unwrap();
                    *others = others.take().or_else(|| original.accept().ok());
                    others.is_some() || support::system::becomes_readable(client.as_raw_fd(), 0)
                });
                if let Some((mut accepted, _)) = others.into_inner().unwrap() {
                    accepted.write_all(b"x").unwrap();
                }
                let greeting = client.read(&mut [0; 8]);
                assert_eq!(
                    greeting.expect("the connection is not reset"),
                    1,
                    "{by}, drains: {drains}"
                );
                drop(client);
                assert_eq!(ends.join().unwrap(), 0);
            });
        }
    }
}

// ---- processes ---------------------------------------------------------------------------------

/// The variable with the endpoints to listen on.
const ENDPOINT: &str = "KEEPSOCK_TEST_ENDPOINT";
/// The variable with the serving mode: threads or events.
const BY: &str = "KEEPSOCK_TEST_BY";
/// The variable that makes the process overwrite its arguments before the handover.
const TITLE: &str = "KEEPSOCK_TEST_TITLE";

/// A server, and each of its successors. It answers each client with its process ID, and starts a
/// handover when the test requests one.
#[cfg(feature = "serve")]
fn serves<A: Api>() {
    let me = std::process::id();
    let mut inherited = A::Activation::from_env().unwrap();
    let count = inherited.names().len();
    let server = inherited.listen(&std::env::var(ENDPOINT).unwrap(), &[]).unwrap();
    let handler = move |client: &A::Client| {
        // A client that stays sends a byte first. The others have closed their side.
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
    report(&format!("{me} serves on {}, {count} inherited", server.endpoint()));
    inherited.ready().unwrap();
    if next_command().is_some() {
        if std::env::var(TITLE).is_ok() {
            support::system::set_title(b"app: serving");
        }
        let pid = A::Activation::handover(None, &[("main", Handed::Server(&server))], 20_000, None)
            .unwrap();
        service.stop_and_wait(100).unwrap();
        assert_eq!(service.drain(60_000).unwrap().1, 0, "no connection is aborted");
        drop((service, server));
        report(&format!("{me} has handed over to {pid}"));
        // The harness must not kill the descriptor holders of the successor.
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

/// Returns the process ID of the server that answers.
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

/// Reads the first line of [`serves`]: its process ID, its endpoint, and the number of inherited
/// sockets.
#[cfg(feature = "serve")]
fn begun(helper: &Helper) -> (u32, String, u32) {
    let said = helper.next_line();
    let (pid, rest) = said.split_once(" serves on ").expect(&said);
    let (endpoint, rest) = rest.split_once(", ").expect(&said);
    let count = rest.strip_suffix(" inherited").expect(&said);
    (pid.parse().unwrap(), endpoint.to_owned(), count.parse().unwrap())
}

/// L7: three handovers while clients connect and one client stays. No connection is refused or
/// aborted.
#[cfg(feature = "serve")]
fn handover_with_clients_refuses_no_connection<A: Api>() {
    if process::lasting_role().is_some() {
        return serves::<A>();
    }
    let test = test_name!(A, "handover_with_clients_refuses_no_connection");
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
            let ends = support::OnDrop(|| stop.store(true, Ordering::SeqCst));
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Ordering::SeqCst) {
                        who_serves(&endpoint).expect("no connection is refused or aborted");
                        served.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            for _ in 0..3 {
                let mut stays = connect(&endpoint).unwrap();
                // Either process may accept it: the predecessor has not been notified yet.
                assert_eq!(line(&mut *stays), pid);
                helper.send_line("hand over");
                let (next, there, count) = begun(&helper);
                assert_eq!((there.as_str(), count), (endpoint.as_str(), 1));
                // The predecessor serves each accepted connection to its end.
                let mut rest = String::new();
                stays.read_to_string(&mut rest).unwrap();
                assert_eq!(rest, format!("{pid}\n"));
                drop(stays);
                assert_eq!(helper.next_line(), format!("{pid} has handed over to {next}"));
                assert!(path.as_deref().is_none_or(Path::exists), "the file is removed");
                let before = served.load(Ordering::SeqCst);
                support::eventually("clients are still served", || {
                    served.load(Ordering::SeqCst) > before + 9
                });
                assert_eq!(who_serves(&endpoint).unwrap(), next);
                pid = next;
            }
            drop(ends);
        });
        // The server ends at the end of its input. The last server removes the file.
        drop(helper);
        support::eventually("no process listens", || connect(&endpoint).is_err());
        support::eventually("the file is removed", || path.as_deref().is_none_or(|p| !p.exists()));
    }
}

/// A datagram server, and each of its successors, as in [`serves`].
#[cfg(all(feature = "datagram", feature = "serve"))]
fn serves_datagrams<A: Api>() {
    let me = std::process::id();
    let mut inherited = A::Activation::from_env().unwrap();
    let endpoint = std::env::var(ENDPOINT).unwrap();
    let socket = inherited.bind(&endpoint, &[]).unwrap();
    let answer = me.to_string();
    let service = socket.serve(2, Box::new(move |reply, _| reply(answer.as_bytes()).unwrap()));
    let service = service.unwrap();
    report(&format!("{me} serves on {}, 0 inherited", socket.endpoint()));
    inherited.ready().unwrap();
    if next_command().is_some() {
        let main = [("main", Handed::Datagram(&socket))];
        let pid = A::Activation::handover(None, &main, 20_000, None).unwrap();
        service.stop();
        service.wait(60_000).unwrap();
        drop((service, socket));
        report(&format!("{me} has handed over to {pid}"));
        std::process::exit(0);
    }
}

/// L7: the predecessor or the successor answers each datagram. The file of a Unix socket remains
/// until the last server ends.
#[cfg(all(feature = "datagram", feature = "serve"))]
fn handover_of_datagram_socket_loses_no_datagram<A: Api>() {
    if process::lasting_role().is_some() {
        return serves_datagrams::<A>();
    }
    let test = test_name!(A, "handover_of_datagram_socket_loses_no_datagram");
    let dir = TempDir::new();
    let path = dir.path("s");
    for endpoint in ["127.0.0.1:0".to_owned(), dir.endpoint("s")] {
        let variable = format!("{ENDPOINT}={endpoint}");
        let mut helper = Helper::start_by(&["env", &variable], &test, "s");
        let (mut pid, endpoint, _) = begun(&helper);
        let client = A::Datagram::connect(&endpoint, &[Opt::ReadTimeout(60_000)]).unwrap();
        let ask = || -> u32 {
            client.send(b"who?").unwrap();
            String::from_utf8(client.recv(16).unwrap().bytes).unwrap().parse().unwrap()
        };
        assert_eq!(ask(), pid);
        for _ in 0..3 {
            // Until the predecessor ends, both processes may answer.
            let (over, asked) = (AtomicBool::new(false), AtomicU32::new(0));
            let next = thread::scope(|scope| {
                let ends = support::OnDrop(|| over.store(true, Ordering::SeqCst));
                let asks = scope.spawn(|| {
                    let mut by = BTreeSet::new();
                    while !over.load(Ordering::SeqCst) {
                        by.insert(ask());
                        asked.fetch_add(1, Ordering::SeqCst);
                    }
                    by
                });
                let before = asked.load(Ordering::SeqCst);
                support::eventually("it asks", || asked.load(Ordering::SeqCst) > before);
                helper.send_line("hand over");
                let (next, ..) = begun(&helper);
                assert_eq!(helper.next_line(), format!("{pid} has handed over to {next}"));
                drop(ends);
                assert!(asks.join().unwrap().iter().all(|by| [pid, next].contains(by)));
                next
            });
            assert_eq!(ask(), next);
            assert_eq!(path.exists(), endpoint.starts_with("unix:"));
            pid = next;
        }
        drop((helper, client));
        support::eventually("the file is removed", || !path.exists());
    }
}

/// L7: a program whose file was replaced by a newer one is started by its name.
#[cfg(feature = "serve")]
fn handover_of_replaced_program_starts_the_new_file<A: Api>() {
    if process::lasting_role().is_some() {
        return serves::<A>();
    }
    let test = test_name!(A, "handover_of_replaced_program_starts_the_new_file");
    let dir = TempDir::new();
    let program = dir.path("program");
    let copy = || {
        // Another process writes: a program that a test has just forked could hold this process's
        // descriptor, and the new file would then be busy (ETXTBSY in execve(2)).
        let copied = dir.path("new");
        let mut cp = Command::new("cp");
        cp.arg(std::env::current_exe().unwrap()).arg(&copied);
        assert!(process::start(&mut cp).unwrap().wait().unwrap().success());
        std::fs::rename(copied, &program).unwrap();
    };
    copy();
    // The string that replaces the name of the program.
    let script = format!("shift; exec {} \"$@\"", program.display());
    let endpoint = format!("{ENDPOINT}=127.0.0.1:0");
    let words = ["env", &endpoint, "sh", "-c", &script, "sh"];
    let mut helper = Helper::start_by(&words, &test, "s");
    let (pid, endpoint, _) = begun(&helper);
    copy();
    let file = |pid| std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert!(file(pid).to_str().unwrap().ends_with(" (deleted)"));
    helper.send_line("hand over");
    let (next, ..) = begun(&helper);
    assert_eq!(file(next), program);
    helper.next_line();
    assert_eq!(who_serves(&endpoint).unwrap(), next);
}

/// L7: a program that has overwritten its arguments starts its successor with the original ones.
#[cfg(feature = "serve")]
fn handover_after_setproctitle_passes_the_arguments<A: Api>() {
    if process::lasting_role().is_some() {
        return serves::<A>();
    }
    // The standard library keeps only pointers to the arguments, which setproctitle overwrites.
    if !cfg!(target_env = "gnu") {
        support::skip("this C library passes no arguments to the functions of .init_array");
    }
    let test = test_name!(A, "handover_after_setproctitle_passes_the_arguments");
    let variables = [format!("{ENDPOINT}=127.0.0.1:0"), format!("{TITLE}=1")];
    let words = ["env", &variables[0], &variables[1]];
    let mut helper = Helper::start_by(&words, &test, "s");
    let arguments = |pid: u32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    let (pid, ..) = begun(&helper);
    let original = arguments(pid);
    helper.send_line("hand over");
    let (next, ..) = begun(&helper);
    assert_ne!(pid, next);
    assert_eq!(arguments(next), original);
    helper.next_line();
}

/// Returns whether a process no longer exists, or was waited for.
fn is_gone(pid: &str) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

/// L7: if the successor fails, the error names its exit, no process is left, and the predecessor
/// accepts as before.
#[cfg(feature = "serve")]
fn handover_to_failing_successor_keeps_predecessor<A: Api>() {
    let test = test_name!(A, "handover_to_failing_successor_keeps_predecessor");
    match process::lasting_role().as_deref() {
        // Adopts the listener, closes it, and exits with success.
        Some("gives up") => {
            let mut inherited = A::Activation::from_env().unwrap();
            let server = inherited.server("s", &[]).unwrap();
            server.close();
            drop((server, inherited));
            std::process::exit(5);
        }
        // Never reports that it is ready, but continues to run.
        Some(_) => {
            drop(A::Activation::from_env().unwrap());
            thread::sleep(Duration::from_secs(60));
        }
        None => {}
    }
    process::in_process(&test, Duration::from_secs(25), || fails_and_goes_on::<A>(&test));
}

/// Starts this test again as a successor, in a part.
pub(super) fn successor(test: &str, role: &str, variables: &[&str]) -> Vec<String> {
    let program = std::env::current_exe().unwrap();
    let role = format!("{}={role}", process::ROLE);
    let mut words = vec!["env", &role];
    words.extend(variables);
    // The output of its harness must not reach the output of this process.
    words.extend(["sh", "-c", "exec \"$@\" > /dev/null", "sh"]);
    words.extend([program.to_str().unwrap(), "--exact", test, "--nocapture"]);
    words.into_iter().map(str::to_owned).collect()
}

/// Starts a handover to that successor.
pub(super) fn succeeded<A: Api>(argv: &[String], given: &[(&str, Handed<'_, A>)]) -> Outcome<i64> {
    let argv: Vec<_> = argv.iter().map(String::as_str).collect();
    hand_over::<A>(&argv, given, 20_000, None)
}

/// Starts a handover in a process that other tests use.
fn hand_over<A: Api>(
    argv: &[&str],
    given: &[(&str, Handed<'_, A>)],
    ms: i64,
    token: Option<&A::Token>,
) -> Outcome<i64> {
    let _alone = process::starts();
    A::Activation::handover(Some(argv), given, ms, token)
}

/// Listener options that apply to accepted connections.
fn listener_options(fd: i32) -> Vec<Option<i32>> {
    const TCP_RTO_MAX_MS: i32 = 44;
    let tcp = |name| support::system::try_option(fd, libc::IPPROTO_TCP, name);
    vec![
        Some(i32::from(support::system::keepalive(fd).0)),
        tcp(libc::TCP_NODELAY),
        tcp(libc::TCP_USER_TIMEOUT),
        tcp(TCP_RTO_MAX_MS),
        Some(i32::from(tcp(libc::TCP_FASTOPEN) != Some(0))),
        tcp(libc::TCP_SAVE_SYN),
        Some(support::system::backlog(fd)),
    ]
}

/// L7: the options of the successor replace all options of its predecessor when the successor is
/// ready. Until then the listener is unchanged, because the predecessor still uses it.
#[cfg(feature = "diag")]
fn options_of_successor_apply_when_ready<A: Api>() {
    // A disabled option is disabled, although the predecessor had enabled it.
    let others = [Opt::NoKeepalive, Opt::Nodelay(false), Opt::Backlog(3)];
    if let Some(role) = process::lasting_role() {
        let mut inherited = A::Activation::from_env().unwrap();
        let endpoint = std::env::var(ENDPOINT).unwrap();
        let server = inherited.listen(&endpoint, &others).unwrap();
        let named = inherited.server("named", &others).unwrap();
        if role == "ready" {
            // Closed and freed listeners need no options.
            inherited.server("closed", &others).unwrap().close();
            drop(inherited.server("freed", &others).unwrap());
            inherited.ready().unwrap();
        }
        drop((server, named));
        std::process::exit(3);
    }
    let test = test_name!(A, "options_of_successor_apply_when_ready");
    let own = [
        Opt::Handover(true),
        Opt::DeadAfter(16_000),
        Opt::FailOnStall(true),
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
        let nodelay = support::system::option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY);
        (support::system::keepalive(fd).0, nodelay != 0)
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
    // The options equal those of a new listener. The kernel has its own defaults.
    let made = A::listen("127.0.0.1:0", &others).unwrap();
    let made = listener_options(made.fd().unwrap());
    assert_ne!(made, before[0]);
    assert_eq!(options(), [made.clone(), made.clone()]);
    assert_eq!(accepted(), (false, false));
    // Any other adoption sets the options at once.
    let server = A::listen("127.0.0.1:0", &own).unwrap();
    let taken = support::system::duplicate(server.fd().unwrap());
    let taken = A::adopt_server(taken, &others).map_err(|e| e.1).unwrap();
    assert_eq!(listener_options(taken.fd().unwrap()), made);
    let again = support::system::duplicate(server.fd().unwrap());
    let again = A::adopt_server(again, &own[1..]).map_err(|e| e.1).unwrap();
    assert_eq!(listener_options(again.fd().unwrap()), before[0]);
}

/// L7, D3: a successor with udp_gro receives coalesced datagrams when it is ready. Until then, and
/// if it fails, its predecessor without udp_gro receives them singly.
#[cfg(feature = "datagram")]
fn udp_gro_of_successor_applies_when_ready<A: Api>() {
    let sends = |endpoint: &str| {
        let client = A::Datagram::connect(endpoint, &[]).unwrap();
        let all: Vec<_> = (0..5).map(|n| [n; 10]).collect();
        let batch: Vec<_> = all.iter().map(|bytes| (bytes.as_slice(), None)).collect();
        assert_eq!(client.send_batch(&batch).unwrap(), 5);
    };
    let receives = |socket: &A::Datagram| {
        for n in 0..5 {
            assert_eq!(socket.recv(64).unwrap().bytes, [n; 10]);
        }
    };
    if let Some(role) = process::lasting_role() {
        let options = [Opt::UdpGro(true), Opt::ReadTimeout(30_000)];
        let mut inherited = A::Activation::from_env().unwrap();
        let named = inherited.datagram("named", &options).unwrap();
        let bound = inherited.bind(&std::env::var(ENDPOINT).unwrap(), &options).unwrap();
        // Closed, freed and released sockets need no change.
        inherited.datagram("closed", &options).unwrap().close();
        drop(inherited.datagram("freed", &options).unwrap());
        let released = inherited.datagram("released", &options).unwrap().release().unwrap();
        let both = [&named, &bound];
        for socket in both {
            assert!(!support::system::coalesces(socket.fd().unwrap()));
            sends(&socket.endpoint());
            receives(socket);
        }
        if role == "ready" {
            inherited.ready().unwrap();
            for socket in both {
                assert!(support::system::coalesces(socket.fd().unwrap()));
                sends(&socket.endpoint());
                receives(socket);
            }
            assert!(!support::system::coalesces(released.as_raw_fd()));
        }
        std::process::exit(3);
    }
    let test = test_name!(A, "udp_gro_of_successor_applies_when_ready");
    let own = [Opt::Handover(true), Opt::ReadTimeout(30_000)];
    let sockets = [(); 5].map(|()| A::Datagram::bind("127.0.0.1:0", &own).unwrap());
    let names = ["named", "bound", "closed", "freed", "released"];
    let given: Vec<_> = names.into_iter().zip(sockets.iter().map(Handed::Datagram)).collect();
    let variable = format!("{ENDPOINT}={}", sockets[1].endpoint());
    let fails_as = successor(&test, "fails", &[&variable]);
    let failure = fails(succeeded::<A>(&fails_as, &given), ErrorKind::EndOfStream);
    assert!(failure.message.ends_with("exit status: 3"), "{failure:?}");
    for socket in &sockets {
        assert!(!support::system::coalesces(socket.fd().unwrap()));
        sends(&socket.endpoint());
        receives(socket);
    }
    succeeded::<A>(&successor(&test, "ready", &[&variable]), &given).unwrap();
    let has = sockets.each_ref().map(|socket| support::system::coalesces(socket.fd().unwrap()));
    assert_eq!(has, [true, true, false, false, false]);
    // No other process receives from the socket of a service manager.
    let alone = A::Datagram::bind("127.0.0.1:0", &[]).unwrap().release().unwrap();
    let alone = A::Datagram::adopt(alone, &[Opt::UdpGro(true)]).map_err(|e| e.1).unwrap();
    assert!(support::system::coalesces(alone.fd().unwrap()));
}

/// L7: a socket that the successor did not adopt, or closed before it was ready, is closed. No
/// listener without a process that accepts remains, and no file.
#[cfg(feature = "datagram")]
fn socket_that_successor_did_not_adopt_is_closed<A: Api>() {
    if process::lasting_role().is_some() {
        let mut inherited = A::Activation::from_env().unwrap();
        let server = inherited.server("closed", &[]).unwrap();
        server.close();
        assert!(inherited.server("freed", &[]).is_ok());
        assert_eq!(inherited.names(), ["left", "left", "left", "datagram"]);
        inherited.ready().unwrap();
        loop {
            thread::sleep(Duration::from_secs(60));
        }
    }
    let test = test_name!(A, "socket_that_successor_did_not_adopt_is_closed");
    let dir = TempDir::new();
    let options = [Opt::Handover(true)];
    let unix = |name| A::listen(&dir.endpoint(name), &options).unwrap();
    let [closed, freed] = ["closed", "freed"].map(unix);
    let left = ["127.0.0.1:0", "127.0.0.1:0", &dir.endpoint("left")];
    let left = A::listen_all(&left, &options).unwrap();
    let datagram = A::Datagram::bind(&dir.endpoint("datagram"), &options).unwrap();
    let given = [
        ("closed", Handed::Server(&closed)),
        ("freed", Handed::Server(&freed)),
        ("left", Handed::Server(&left)),
        ("datagram", Handed::Datagram(&datagram)),
    ];
    let endpoints = left.endpoints();
    let pid = succeeded::<A>(&successor(&test, "s", &[]), &given).unwrap();
    let _ends = support::OnDrop(|| support::system::end(pid));
    drop((closed, freed, left, datagram));
    for endpoint in endpoints {
        support::eventually("no process listens", || connect(&endpoint).is_err());
    }
    for name in ["closed", "freed", "left", "datagram"] {
        support::eventually("the file is removed", || !dir.path(name).exists());
    }
}

/// L7: a path identifies a socket only while its file exists. No client reaches a removed file, so
/// the successor creates a new listener.
fn unix_path_without_file_creates_new_listener<A: Api>() {
    if let Some(role) = process::lasting_role() {
        let endpoint = std::env::var(ENDPOINT).unwrap();
        let mut inherited = A::Activation::from_env().unwrap();
        if role == "in use" {
            fails(inherited.listen(&endpoint, &[]), ErrorKind::AddressInUse);
            assert_eq!(inherited.names().len(), 1);
            std::process::exit(3);
        }
        let server = inherited.listen(&endpoint, &[]).unwrap();
        inherited.ready().unwrap();
        report("ready");
        server.accept().unwrap().write_all(b"x").unwrap();
        drop(server);
        std::process::exit(0);
    }
    let test = test_name!(A, "unix_path_without_file_creates_new_listener");
    let dir = TempDir::new();
    let endpoint = dir.endpoint("s");
    let variable = format!("{ENDPOINT}={endpoint}");
    let is_served = || {
        let mut client = connect(&endpoint).unwrap();
        client.read_exact(&mut [0]).unwrap();
    };
    // From a predecessor, and from a service manager, which passes no information about a file.
    let server = A::listen(&endpoint, &[Opt::Handover(true)]).unwrap();
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
    support::eventually("the file is removed", || !dir.path("s").exists());
    let listener = UnixListener::bind(dir.path("s")).unwrap();
    std::fs::remove_file(dir.path("s")).unwrap();
    let variables = [(ENDPOINT, endpoint.as_str())];
    let helper = Helper::start_activated(&test, "s", vec![listener.into()], &variables);
    assert_eq!(helper.next_line(), "ready");
    is_served();
}

/// L7: port 0 matches only the listener that was requested with port 0.
fn port_0_matches_only_requested_port_0<A: Api>() {
    // The test uses its own address, where no other test binds the free port.
    let any_port = A::own_address(78) + ":0";
    if process::lasting_role().is_some() {
        let mut inherited = A::Activation::from_env().unwrap();
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
    let test = test_name!(A, "port_0_matches_only_requested_port_0");
    let endpoint = format!("{}:{}", A::own_address(78), support::own_port());
    let fixed = A::listen(&endpoint, &[Opt::Handover(true)]).unwrap();
    let any = A::listen(&any_port, &[Opt::Handover(true)]).unwrap();
    let given = [("fixed", Handed::Server(&fixed)), ("any", Handed::Server(&any))];
    let variable = format!("{ENDPOINT}={}", any.endpoint());
    succeeded::<A>(&successor(&test, "s", &[&variable]), &given).unwrap();
}

#[cfg(feature = "serve")]
fn fails_and_goes_on<A: Api>(test: &str) {
    let again = |role: &str| successor(test, role, &[]);
    let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    let (ended, malformed) = (ErrorKind::EndOfStream, ErrorKind::Malformed);
    let cases = [
        (words(&["true"]), 20_000, ended, "exit status: 0"),
        (words(&["sh", "-c", "exit 3"]), INFINITE, ended, "exit status: 3"),
        (words(&["/bin/sh", "-c", "kill -9 $$"]), 20_000, ended, "signal: 9"),
        (words(&["sleep", "60"]), 100, ErrorKind::TimedOut, "was not ready within 100"),
        (words(&["sh", "-c", "printf 2 >&5; exec sleep 60"]), 20_000, malformed, "other bytes"),
        (words(&["sh", "-c", "printf 11 >&5; exec sleep 60"]), 20_000, malformed, "was killed"),
        (again("gives up"), 20_000, ended, "exit status: 5"),
        (again("goes on"), 20_000, ended, "before it was ready, and was killed: signal: 9"),
        (words(&["/nowhere/to/be/found"]), 20_000, ErrorKind::NotFound, "/nowhere"),
        (words(&["no-such-program-anywhere"]), 20_000, ErrorKind::NotFound, "no-such-program"),
        (words(&["/etc/passwd"]), 20_000, ErrorKind::PermissionDenied, "/etc/passwd"),
    ];
    let dir = TempDir::new();
    let server = A::listen_all(&["127.0.0.1:0", &dir.endpoint("s")], &[Opt::Handover(true)]);
    let server = server.unwrap();
    let descriptors = watch::count_descriptors();
    for (argv, limit, kind, what) in cases {
        let argv: Vec<_> = argv.iter().map(String::as_str).collect();
        let outcome =
            A::Activation::handover(Some(&argv), &[("s", Handed::Server(&server))], limit, None);
        let failure = fails(outcome, kind);
        assert_eq!(&*failure.operation, "hand over");
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
            support::eventually("the successor has begun", || begun.exists());
            token.fire();
        });
        let given = [("s", Handed::Server(&server))];
        let argv = argv.each_ref().map(String::as_str);
        fails(
            A::Activation::handover(Some(&argv), &given, INFINITE, Some(token)),
            ErrorKind::Cancelled,
        );
    });
    drop(token);
    // The closer may still close an accepted connection.
    support::eventually("all descriptors are closed", || watch::count_descriptors() == descriptors);
    // The predecessor still owns the file.
    assert!(dir.path("s").exists());
    drop(server);
    assert!(!dir.path("s").exists());
}

/// L7, E1: a failed fork reports a lack of processes, as a failed thread reports a lack of threads,
/// and not a call that would block.
fn handover_without_process_reports_too_many_processes<A: Api>() {
    let call = match process::role().as_deref() {
        Some("fork") => support::system::FORK,
        Some(_) => libc::SYS_execve,
        None => {
            let test = test_name!(A, "handover_without_process_reports_too_many_processes");
            for role in ["fork", "execve"] {
                assert_eq!(Helper::start(&test, role).next_line(), "done");
            }
            return;
        }
    };
    let server = A::listen("127.0.0.1:0", &[Opt::Handover(true)]).unwrap();
    limits::forbid(call, None, libc::EAGAIN);
    let given = [("s", Handed::Server(&server))];
    let failure =
        fails(A::Activation::handover(Some(&["true"]), &given, 20_000, None), ErrorKind::NoMemory);
    assert_eq!(failure.os_error, libc::EAGAIN);
    assert!(failure.message.contains("true cannot be started"), "{failure:?}");
    report("done");
}

/// A program that reports its start through a file and never becomes ready.
fn never_ready(first: &str, file: &Path) -> [String; 3] {
    let script = format!("{first}; : > '{}'; exec sleep 60", file.display());
    ["sh", "-c", &script].map(str::to_owned)
}

/// L7: the handover fails when the successor exits, even if a program that the successor started
/// still has its descriptors.
fn handover_detects_exit_despite_open_channel<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[Opt::Handover(true)]).unwrap();
    let given = [("s", Handed::Server(&server))];
    let argv = ["sh", "-c", "sleep 30 >&2 & exit 3"];
    let (outcome, took) = support::timed(|| hand_over::<A>(&argv, &given, INFINITE, None));
    let failure = fails(outcome, ErrorKind::EndOfStream);
    assert!(failure.message.ends_with("exit status: 3"), "{failure:?}");
    assert!(took < PROMPT, "{took:?}");
    // The successor has reported that it is ready and has exited. The handover succeeds.
    let argv = ["sh", "-c", "sleep 30 >&2 & printf 1 >&4"];
    hand_over::<A>(&argv, &given, 20_000, None).unwrap();
}

/// L7, C1: timeout and token apply during the whole handover: while the program does not start, and
/// while a program that is not ready does not exit.
#[cfg(feature = "serve")]
fn handover_to_hanging_successor_times_out<A: Api>() {
    // A child that does not start holds the descriptors of all other tests of the process.
    let test = test_name!(A, "handover_to_hanging_successor_times_out");
    process::in_process(&test, Duration::from_secs(25), ends_in_time::<A>);
}

#[cfg(feature = "serve")]
fn ends_in_time<A: Api>() {
    let dir = TempDir::new();
    // Without the limit the call would take a second.
    let soon = Duration::from_millis(900);
    let server = A::listen("127.0.0.1:0", &[Opt::Handover(true)]).unwrap();
    let given = [("s", Handed::Server(&server))];
    let limited = |argv: &[&str], kind| {
        let mut last = None;
        assert_within(soon, || {
            let (outcome, took) =
                support::timed(|| A::Activation::handover(Some(argv), &given, 200, None));
            // On a busy machine the successor may not get so far in time.
            let is_expected = outcome.as_ref().is_err_and(|failure| failure.is(kind));
            last = Some(outcome);
            if is_expected { took } else { Duration::MAX }
        });
        fails(last.unwrap(), kind)
    };
    let cancelled = |argv: &[&str], has_begun: &dyn Fn() -> bool| {
        let token = A::token();
        let cancel = || {
            thread::scope(|scope| {
                let waits = scope
                    .spawn(|| A::Activation::handover(Some(argv), &given, 60_000, Some(&token)));
                support::eventually("the successor has begun", has_begun);
                let (outcome, took) = support::timed(|| {
                    token.fire();
                    waits.join().unwrap()
                });
                fails(outcome, ErrorKind::Cancelled);
                token.reset();
                took
            })
        };
        assert_within(soon, cancel);
    };
    // The successor closes its end of the channel and continues to run.
    let closed = dir.path("closed");
    let argv = never_ready("exec 4>&-", &closed);
    let argv = argv.each_ref().map(String::as_str);
    let failure = limited(&argv, ErrorKind::EndOfStream);
    assert!(
        failure.message.contains("before it was ready, and was killed: signal: 9"),
        "{failure:?}"
    );
    let _ = std::fs::remove_file(&closed);
    cancelled(&argv, &|| closed.exists());
    // execve(2) waits for the holder of a lease on the file, which is this process.
    let program = dir.path("program");
    std::fs::copy("/bin/true", &program).unwrap();
    let leased = || {
        let file = File::open(&program).unwrap();
        support::system::lease(&file);
        file
    };
    let file = leased();
    let argv = [program.to_str().unwrap()];
    let failure = limited(&argv, ErrorKind::TimedOut);
    assert!(failure.message.contains("was not ready within "), "{failure:?}");
    if let Some((_, rest)) = failure.message.split_once("process ") {
        assert!(is_gone(rest.split(',').next().unwrap()), "{failure:?}");
    }
    drop(file);
    let file = leased();
    cancelled(&argv, &|| support::system::waits_for_lease(&file));
    drop(file);
    fails(A::Activation::handover(Some(&argv), &given, 20_000, None), ErrorKind::EndOfStream);
}

/// L7: a second handover during the first is rejected, because the file of a Unix socket cannot
/// have two owners. A listener that is closed during the handover has its file removed if no
/// successor starts.
#[cfg(all(feature = "datagram", feature = "serve"))]
fn handover_during_handover_is_rejected<A: Api>() {
    let dir = TempDir::new();
    let options = [Opt::Handover(true)];
    let server = A::listen(&dir.endpoint("s"), &options).unwrap();
    let socket = A::Datagram::bind(&dir.endpoint("d"), &options).unwrap();
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
        let _alone = process::starts();
        thread::scope(|scope| {
            let first =
                scope.spawn(|| A::Activation::handover(Some(&argv), &given, 20_000, Some(&token)));
            support::eventually("it has begun", || begun.exists());
            what();
            token.fire();
            fails(first.join().unwrap(), ErrorKind::Cancelled);
        });
        std::fs::remove_file(&begun).unwrap();
    };
    let refused = |given: &[(&str, Handed<'_, A>)]| {
        let failure = fails(
            A::Activation::handover(Some(&["true"]), given, 20_000, None),
            ErrorKind::WrongState,
        );
        assert!(
            failure.message.contains("another handover of the socket is in progress"),
            "{failure:?}"
        );
        failure
    };
    meanwhile(&|| {
        for one in &given {
            refused(std::slice::from_ref(one));
        }
        assert_eq!(refused(&given[2..]).endpoint, inet.endpoint());
    });
    // The same socket twice in one handover is also rejected.
    refused(&[("a", Handed::Server(&server)), ("b", Handed::Server(&server))]);
    fails(hand_over::<A>(&["true"], &given, 20_000, None), ErrorKind::EndOfStream);
    let files = || ["s", "d"].map(|name| dir.path(name).exists());
    assert_eq!(files(), [true, true]);
    meanwhile(&|| {
        server.close();
        socket.close();
        assert_eq!(files(), [true, true], "the successor owns the file");
    });
    assert_eq!(files(), [false, false]);
}

/// L7: a socket of an unsupported kind, or without the option handover, is rejected.
#[cfg(feature = "datagram")]
fn handover_of_unsupported_socket_is_rejected<A: Api>() {
    let refused = |name: &str, what: Handed<'_, A>, kind| {
        fails(hand_over::<A>(&["true"], &[(name, what)], 60_000, None), kind)
    };
    let plain = A::listen("127.0.0.1:0", &[]).unwrap();
    let failure = refused("s", Handed::Server(&plain), ErrorKind::WrongState);
    assert!(failure.message.contains("created without the option handover"), "{failure:?}");
    assert_eq!(failure.endpoint, plain.endpoint());
    let socket = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
    refused("s", Handed::Datagram(&socket), ErrorKind::WrongState);
    let server = A::listen("127.0.0.1:0", &[Opt::Handover(true)]).unwrap();
    for name in ["", "a:b", "a\nb", "\u{e9}", &"x".repeat(256)] {
        refused(name, Handed::Server(&server), ErrorKind::InvalidArgument);
    }
    refused(&"x".repeat(255), Handed::Server(&server), ErrorKind::EndOfStream);
    server.close();
    refused("s", Handed::Server(&server), ErrorKind::Closed);
    fails(hand_over::<A>(&["true"], &[], 1000, None), ErrorKind::InvalidArgument);
    // No process is started without a socket.
    let server = A::listen("127.0.0.1:0", &[Opt::Handover(true)]).unwrap();
    let dir = TempDir::new();
    let started = dir.path("started").display().to_string();
    let words = ["touch", started.as_str()];
    let given = [("s", Handed::Server(&server))];
    fails(hand_over::<A>(&words, &given, 0, None), ErrorKind::InvalidArgument);
    let token = A::token();
    token.fire();
    fails(hand_over::<A>(&words, &given, 1000, Some(&token)), ErrorKind::Cancelled);
    assert!(!dir.path("started").exists());
    let options = [Opt::Handover(true)];
    fails(A::connect(&plain.endpoint(), &options), ErrorKind::InvalidArgument);
}

/// L7: a successor has only what sd_listen_fds(3) promises. It has the passed descriptors, no
/// blocked signals, and the default action for SIGPIPE.
#[cfg(feature = "datagram")]
fn successor_inherits_only_passed_descriptors<A: Api>() {
    if process::role().is_none() {
        let test = test_name!(A, "successor_inherits_only_passed_descriptors");
        // The variables name a process that has had its descriptors before.
        let words = ["env", "LISTEN_PIDFDID=1", "WATCHDOG_PID=1", "WATCHDOG_USEC=1"];
        return assert_eq!(Helper::start_by(&words, &test, "s").next_line(), "done");
    }
    let server = A::listen_all(&["127.0.0.1:0", "127.0.0.1:0"], &[Opt::Handover(true)]).unwrap();
    let socket = A::Datagram::bind("127.0.0.1:0", &[Opt::Handover(true)]).unwrap();
    let handed = [("a b", Handed::Server(&server)), ("dns", Handed::Datagram(&socket))];
    // Each deviation has its own exit status.
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
    assert!(!support::system::block_signal(libc::SIGUSR1, true));
    let failure =
        fails(A::Activation::handover(Some(&argv), &handed, 20_000, None), ErrorKind::EndOfStream);
    assert!(failure.message.ends_with("exit status: 42"), "{failure:?}");
    report("done");
}

/// L7: the descriptors are passed in order, even if they have each other's numbers in this process,
/// or if the numbers of the standard streams are free, so that new descriptors lie below.
fn handover_keeps_order_for_any_descriptor_numbers<A: Api>() {
    if process::role().is_none() {
        let test = test_name!(A, "handover_keeps_order_for_any_descriptor_numbers");
        return assert_eq!(Helper::start(&test, "s").next_line(), "done");
    }
    let script = r#"
        [ "$(readlink /proc/$$/fd/3)" = "$1" ] || exit 10
        [ "$(readlink /proc/$$/fd/4)" = "$2" ] || exit 11
        case $(readlink /proc/$$/fd/5) in socket:*) ;; *) exit 12 ;; esac
        exit 42"#;
    let hands_over = |descriptors: [OwnedFd; 2]| {
        let numbers = descriptors.each_ref().map(AsRawFd::as_raw_fd);
        // The other descriptors of a server have higher numbers.
        let below: Vec<_> = (0..50).map(|_| File::open("/dev/null").unwrap()).collect();
        let adopt = |fd| A::adopt_server(fd, &[]).map_err(|e| e.1).unwrap();
        let servers = descriptors.map(adopt);
        drop(below);
        let link = |number| std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap();
        let [first, second] = numbers.map(|number| link(number).display().to_string());
        let argv = ["sh", "-c", script, "sh", &first, &second];
        let given = [("a", Handed::Server(&servers[0])), ("b", Handed::Server(&servers[1]))];
        (numbers, A::Activation::handover(Some(&argv), &given, 20_000, None))
    };
    let is_right = |outcome| {
        let failure = fails(outcome, ErrorKind::EndOfStream);
        assert!(failure.message.ends_with("exit status: 42"), "{failure:?}");
    };
    support::system::close_numbers(3, 40);
    let listeners = || [(); 2].map(|()| OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap()));
    let [third, fourth] = listeners();
    let (numbers, outcome) = hands_over([fourth, third]);
    assert_eq!(numbers, [4, 3]);
    is_right(outcome);
    let high = listeners().map(process::lift);
    let (_, outcome) = support::system::without_streams(|| hands_over(high));
    is_right(outcome);
    report("done");
}

/// L7: a signal between fork and execve does not run a handler of this program in the child.
fn signal_between_fork_and_exec_runs_no_handler<A: Api>() {
    if process::role().is_none() {
        let test = test_name!(A, "signal_between_fork_and_exec_runs_no_handler");
        return assert_eq!(Helper::start(&test, "s").next_line(), "done");
    }
    let server = A::listen("127.0.0.1:0", &[Opt::Handover(true)]).unwrap();
    let given = [("s", Handed::Server(&server))];
    let elsewhere = support::system::handled_elsewhere(|| {
        for _ in 0..30 {
            fails(
                A::Activation::handover(Some(&["true"]), &given, 20_000, None),
                ErrorKind::EndOfStream,
            );
        }
    });
    assert!(!elsewhere, "a child has handled a signal");
    report("done");
}

// ---- activation -----------------------------------------------------------------------------------

/// L7: inherited sockets of all kinds are found by name. A socket of another kind is reported and
/// remains.
#[cfg(all(feature = "datagram", feature = "diag"))]
fn activation_finds_sockets_by_name<A: Api>() {
    if process::role().is_some() {
        inherits::<A>();
        return report("done");
    }
    let dir = TempDir::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let unix = UnixListener::bind(dir.path("s")).unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (reader, _writer) = support::system::pipe();
    let descriptors: Vec<OwnedFd> = vec![
        listener.try_clone().unwrap().into(),
        udp.into(),
        unix.try_clone().unwrap().into(),
        connected.into(),
        File::open("/etc/passwd").unwrap().into(),
        reader,
        UdpSocket::bind("127.0.0.1:0").unwrap().into(),
    ];
    let test = test_name!(A, "activation_finds_sockets_by_name");
    let names = "http:dns:http:odd:file:pipe:mixed";
    let helper = Helper::start_activated(&test, "p", descriptors, &[("LISTEN_FDNAMES", names)]);
    assert_eq!(helper.next_line(), "done");
    // The sockets of the activating process remain open.
    still_accepts(&listener);
    assert!(dir.path("s").exists(), "the activated process does not own the file");
}

#[cfg(all(feature = "datagram", feature = "diag"))]
fn inherits<A: Api>() {
    let mut inherited = A::Activation::from_env().unwrap();
    let all = ["http", "dns", "http", "odd", "mixed"];
    assert_eq!(inherited.names(), all);
    for fd in 3..10 {
        // A descriptor that is not a socket does not belong to keepsock.
        assert_eq!(support::system::is_cloexec(fd), fd != 7 && fd != 8);
    }
    assert!(A::Activation::from_env().unwrap().names().is_empty(), "a second time");
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
    // Options that one socket cannot have: none of the sockets is lost.
    fails(inherited.server("http", &[Opt::SaveSyn(true)]), ErrorKind::InvalidArgument);
    fails(inherited.server("http", &[Opt::FastOpen(true)]), ErrorKind::InvalidArgument);
    fails(inherited.datagram("dns", &[Opt::Nodelay(false)]), ErrorKind::InvalidArgument);
    assert_eq!(inherited.names(), all);
    let server = inherited.server("http", &[Opt::NoKeepalive]).unwrap();
    assert_eq!(inherited.names(), ["dns", "odd", "mixed"]);
    let endpoints = server.endpoints();
    assert_eq!(endpoints.len(), 2);
    // There is no predecessor that owns these options.
    assert!(!support::system::keepalive(server.fd().unwrap()).0);
    // The first connection is the passed connection, which is also served.
    server.accept().unwrap();
    for endpoint in &endpoints {
        let client = A::connect(endpoint, &[Opt::CloseTimeout(0)]).unwrap();
        let accepted = server.accept().unwrap();
        client.write_all(b"hello\n").unwrap();
        assert_eq!(accepted.read_line(64).unwrap(), "hello");
    }
    let dns = inherited.datagram("dns", &[Opt::ReadTimeout(30_000)]).unwrap();
    let client = A::Datagram::connect(&dns.endpoint(), &[]).unwrap();
    client.send(b"question").unwrap();
    assert_eq!(dns.recv(64).unwrap().bytes, b"question");
    // No process reads the notification.
    let mixed = support::system::is_open(9);
    inherited.ready().unwrap();
    assert!(inherited.names().is_empty());
    assert!(mixed && !support::system::is_open(9), "the socket that no call adopted is closed");
    assert!((6..9).all(support::system::is_open), "a connection, a file, a pipe");
    drop(inherited);
    drop(server);
}

/// L7: systemd gives all sockets of a unit one name, whatever their kinds.
#[cfg(feature = "datagram")]
fn activation_with_one_name_finds_each_kind<A: Api>() {
    if process::role().is_some() {
        let mut inherited = A::Activation::from_env().unwrap();
        fails(inherited.server("odd", &[]), ErrorKind::WrongState);
        let failure = fails(inherited.datagram("file", &[]), ErrorKind::WrongState);
        assert!(failure.message.contains("descriptor 7, "), "{failure:?}");
        let udp = inherited.datagram("dns", &[Opt::ReadTimeout(30_000)]).unwrap();
        assert_eq!(inherited.names(), ["dns", "dns", "odd"]);
        let server = inherited.server("dns", &[]).unwrap();
        assert_eq!(inherited.names(), ["dns", "odd"]);
        assert_eq!(server.endpoints(), [format!("127.0.0.1:{}", server.port())]);
        // Only a datagram socket is left, which a server cannot use.
        let failure = fails(inherited.server("dns", &[]), ErrorKind::WrongState);
        assert!(failure.message.ends_with("named \"dns\", is a UDP socket"), "{failure:?}");
        let other = inherited.datagram("dns", &[]).unwrap();
        assert_ne!(udp.port(), other.port());
        A::Datagram::connect(&udp.endpoint(), &[]).unwrap().send(b"question").unwrap();
        assert_eq!(udp.recv(64).unwrap().bytes, b"question");
        return report("done");
    }
    let listener = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
    let udp = || OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
    let file = || OwnedFd::from(File::open("/etc/passwd").unwrap());
    let descriptors = vec![listener(), udp(), udp(), listener(), file(), file()];
    let test = test_name!(A, "activation_with_one_name_finds_each_kind");
    let names = [("LISTEN_FDNAMES", "dns:dns:dns:odd:file:odd")];
    let helper = Helper::start_activated(&test, "p", descriptors, &names);
    assert_eq!(helper.next_line(), "done");
}

/// L7: one call serves each kind of start: it adopts the inherited socket with the endpoint, or
/// creates one.
fn activation_by_endpoint_adopts_or_creates_listener<A: Api>() {
    if process::role().is_some() {
        let port = |name: &str| std::env::var(name).unwrap();
        let (any, one, path) = (port("ANY"), port("ONE"), port("FILE"));
        let mut inherited = A::Activation::from_env().unwrap();
        assert_eq!(inherited.names(), ["unknown"; 7]);
        // The system chose the port of the last TCP listener, but the environment does not say so.
        let zero = port("ZERO");
        let server = inherited.listen("127.0.0.2:0", &[]).unwrap();
        assert_ne!(server.port().to_string(), zero);
        // Another socket of that name would be created, and this one would have no owner.
        let packets = [Opt::Seqpacket(true)];
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
        // The same call created it, with a mode. Now the mode is applied.
        let _third = takes(&file, &[Opt::UnixMode(0o600)], &file);
        let _fourth = takes(&abstract_, &[], &abstract_);
        let only = std::env::var("ONLY6").unwrap();
        let _fifth = takes(&format!("[::]:{only}"), &[], &format!("[::]:{only}"));
        let zero = format!("127.0.0.2:{zero}");
        let _sixth = takes(&zero, &[], &zero);
        // A UDP socket has this port: a new TCP socket is created, which can also be handed over.
        let udp = port("UDP");
        let server = inherited.listen(&format!("{}:{udp}", A::own_address(75)), &[]).unwrap();
        assert_eq!(inherited.names().len(), 1);
        assert!(support::system::is_nonblocking(server.fd().unwrap()));
        let given = [("s", Handed::Server(&server))];
        fails(
            A::Activation::handover(Some(&["true"]), &given, 30_000, None),
            ErrorKind::EndOfStream,
        );
        // Two sockets with the same port and different addresses.
        fails(inherited.listen("127.0.0.1:nonsense-service", &[]), ErrorKind::NotFound);
        return report("done");
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
    // A port without a TCP socket.
    let udp = UdpSocket::bind((A::own_address(75), support::own_port())).unwrap();
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
        let address =
            crate::support::os::unix::net::SocketAddr::from_abstract_name(&unique).unwrap();
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
    let test = test_name!(A, "activation_by_endpoint_adopts_or_creates_listener");
    let helper = Helper::start_activated(&test, "p", descriptors, &variables);
    assert_eq!(helper.next_line(), "done");
}

/// L7: one call adopts or creates datagram sockets by endpoint.
#[cfg(feature = "datagram")]
fn activation_by_endpoint_adopts_or_creates_datagram_socket<A: Api>() {
    if process::role().is_some() {
        let port = |name: &str| std::env::var(name).unwrap();
        let abstract_ = port("NAME");
        let (any, one, tcp, path) = (port("ANY"), port("ONE"), port("TCP"), port("FILE"));
        let mut inherited = A::Activation::from_env().unwrap();
        let mut left = inherited.names().len();
        let mut takes = |endpoint: &str, options: &[Opt<'_, A>], as_: &str| {
            let socket = inherited.bind(endpoint, options).unwrap();
            assert_eq!(socket.endpoint(), as_);
            left -= 1;
            assert_eq!(inherited.names().len(), left, "{endpoint}");
            let to = endpoint.replace('*', "127.0.0.1");
            A::Datagram::connect(&to, options).unwrap().send(b"x").unwrap();
            socket.set_read_timeout(30_000).unwrap();
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
        // Options for streams only, a port of another kind of socket, and a port that no variable
        // names.
        fails(inherited.bind("127.0.0.2:0", &[Opt::Nodelay(false)]), ErrorKind::InvalidArgument);
        assert_eq!(inherited.names().len(), 3);
        let made = inherited.bind(&format!("{}:{tcp}", A::own_address(76)), &[]).unwrap();
        let zero = inherited.bind("127.0.0.2:0", &[]).unwrap();
        assert_ne!(zero.port().to_string(), port("ZERO"));
        // A connected socket receives from one peer only: the port is not free.
        let connected = format!("127.0.0.1:{}", port("CONNECTED"));
        fails(inherited.bind(&connected, &[]), ErrorKind::AddressInUse);
        assert_eq!(inherited.names().len(), 3);
        // The socket can be handed over.
        let given = [("s", Handed::Datagram(&made))];
        fails(
            A::Activation::handover(Some(&["true"]), &given, 30_000, None),
            ErrorKind::EndOfStream,
        );
        fails(
            inherited.bind(&format!("127.0.0.2:{}", port("ZERO")), &[Opt::Nodelay(false)]),
            ErrorKind::InvalidArgument,
        );
        assert_eq!(inherited.names().len(), 3, "a socket that cannot be adopted remains");
        return report("done");
    }
    let dir = TempDir::new();
    let udp = |address: &str| UdpSocket::bind(address).unwrap();
    let any = A::Datagram::bind("*:0", &[]).unwrap().release().unwrap();
    let any = UdpSocket::from(any);
    let (one, zero, connected) = (udp("127.0.0.1:0"), udp("127.0.0.2:0"), udp("127.0.0.1:0"));
    connected.connect(one.local_addr().unwrap()).unwrap();
    // A port without a UDP socket.
    let tcp = TcpListener::bind((A::own_address(76), support::own_port())).unwrap();
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
    let unix = |endpoint: &str| A::Datagram::bind(endpoint, &[]).unwrap().release().unwrap();
    let descriptors: Vec<OwnedFd> = vec![
        tcp.into(),
        connected.into(),
        one.into(),
        any.into(),
        unix(&dir.endpoint("s")),
        unix(&abstract_),
        zero.into(),
    ];
    let test = test_name!(A, "activation_by_endpoint_adopts_or_creates_datagram_socket");
    let helper = Helper::start_activated(&test, "p", descriptors, &variables);
    assert_eq!(helper.next_line(), "done");
}

/// L7: variables for another process, or with invalid values, are rejected.
fn activation_with_invalid_variables_fails<A: Api>() {
    if let Some(role) = process::role() {
        if role == "mine" {
            let own = support::system::pidfd_inode().unwrap().to_string();
            support::system::set_variable("LISTEN_PIDFDID", &own);
            assert_eq!(A::Activation::from_env().unwrap().names(), ["unknown"]);
            return report("mine");
        }
        let outcome = A::Activation::from_env();
        if role == "others" {
            assert!(outcome.unwrap().names().is_empty());
            return report("none");
        }
        let failure = fails(outcome, ErrorKind::InvalidArgument);
        assert_eq!(&*failure.operation, "inherit");
        // The second call returns the same error, because the first adopted nothing.
        assert!(fails(A::Activation::from_env(), ErrorKind::InvalidArgument) == failure);
        return report(&failure.message);
    }
    let test = test_name!(A, "activation_with_invalid_variables_fails");
    let listener = || vec![OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap())];
    for (variables, words) in [
        (&[("LISTEN_FDS", "many")][..], "LISTEN_FDS: \"many\" is not a number"),
        (&[("LISTEN_FDS", "-1")], "LISTEN_FDS: \"-1\""),
        (&[("LISTEN_FDNAMES", "a:b")], "LISTEN_FDNAMES does not have 1 names"),
        (&[("LISTEN_FDS", "40")], "but descriptor "),
        (&[("KEEPSOCK_HANDOVER", "?")], "KEEPSOCK_HANDOVER"),
    ] {
        let helper = Helper::start_activated(&test, "p", listener(), variables);
        let said = helper.next_line();
        assert!(said.starts_with("inherit: ") && said.contains(words), "{said}");
    }
    let pid = std::process::id().to_string();
    let words = ["env", &format!("LISTEN_PID={pid}"), "LISTEN_FDS=1"];
    assert_eq!(Helper::start_by(&words, &test, "others").next_line(), "none");
    // Before Linux 6.9 a process has no pidfd inode number.
    if support::system::pidfd_inode().is_some() {
        let variables = [("LISTEN_PIDFDID", "1")];
        let helper = Helper::start_activated(&test, "others", listener(), &variables);
        assert_eq!(helper.next_line(), "none");
        let helper = Helper::start_activated(&test, "mine", listener(), &variables);
        assert_eq!(helper.next_line(), "mine");
    }
}

/// L7: a descriptor that was not passed is neither adopted nor closed, whatever the variables
/// contain.
fn activation_without_passed_descriptor_adopts_nothing<A: Api>() {
    use crate::support::system::{is_cloexec, is_open, set_cloexec};
    if let Some(role) = process::role() {
        match role.as_str() {
            // A program has such descriptors after it opens files, and after it executes itself
            // again.
            "own" => set_cloexec(3),
            "cleared" => A::Activation::clear_env(),
            _ => {}
        }
        let before = is_open(3).then(|| is_cloexec(3));
        let mut inherited = A::Activation::from_env().unwrap();
        assert!(inherited.names().is_empty(), "{:?}", inherited.names());
        if role == "file" {
            let failure = fails(inherited.server("unknown", &[]), ErrorKind::WrongState);
            assert!(failure.message.ends_with("is a file"), "{failure:?}");
            fails(inherited.client("unknown", &[]), ErrorKind::WrongState);
        } else {
            fails(inherited.server("unknown", &[]), ErrorKind::NotFound);
            assert!(A::Activation::from_env().unwrap().names().is_empty());
        }
        let server = inherited.listen("127.0.0.1:0", &[]).unwrap();
        inherited.ready().unwrap();
        drop(inherited);
        if before.is_some() {
            assert_eq!(is_open(3).then(|| is_cloexec(3)), before);
        }
        drop(server);
        let cleared =
            keepsock::Activation::variables().iter().all(|v| std::env::var_os(v).is_none());
        assert_eq!(cleared, role == "cleared");
        return report("done");
    }
    let test = test_name!(A, "activation_without_passed_descriptor_adopts_nothing");
    let listener = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
    let file = || OwnedFd::from(File::open("/etc/passwd").unwrap());
    for (role, descriptors) in [
        ("none", vec![]),
        ("own", vec![listener()]),
        ("file", vec![file()]),
        ("cleared", vec![listener()]),
    ] {
        let count = [("LISTEN_FDS", "1")];
        let helper = Helper::start_activated(&test, role, descriptors, &count);
        assert_eq!(helper.next_line(), "done", "{role}");
    }
}

/// L7: a connection that systemd passes with Accept=yes becomes a client, and is closed once.
#[cfg(feature = "datagram")]
fn activation_with_connection_returns_client<A: Api>() {
    use crate::support::system::{is_open, owned};
    let hello = |client: &A::Client| {
        client.write_all(b"hello\n").unwrap();
        assert_eq!(client.read_line(64).unwrap(), "hello");
    };
    if let Some(role) = process::role() {
        let mut inherited = A::Activation::from_env().unwrap();
        assert_eq!(inherited.names(), ["connection"]);
        let failure = fails(inherited.server("connection", &[]), ErrorKind::WrongState);
        assert!(failure.message.ends_with("is a connected TCP socket"), "{failure:?}");
        fails(inherited.datagram("connection", &[]), ErrorKind::WrongState);
        fails(inherited.client("other", &[]), ErrorKind::NotFound);
        let options = [Opt::CloseTimeout(0), Opt::ReadTimeout(30_000)];
        match role.as_str() {
            "taken" => {
                let wrong = [Opt::UdpGro(true)];
                fails(inherited.client("connection", &wrong), ErrorKind::InvalidArgument);
                assert_eq!(inherited.names(), ["connection"]);
                let client = inherited.client("connection", &options).unwrap();
                assert!(inherited.names().is_empty());
                hello(&client);
                inherited.ready().unwrap();
                drop(inherited);
                hello(&client);
                drop(client);
                assert!(!is_open(3));
            }
            "by number" => {
                let client = A::adopt_client(owned(3), &options).unwrap();
                hello(&client);
                inherited.ready().unwrap();
                drop(inherited);
                hello(&client);
                drop(client);
                assert!(!is_open(3));
            }
            _ => {
                drop(owned(3));
                // The lowest free number.
                let file = File::open("/etc/passwd").unwrap();
                assert_eq!(file.as_raw_fd(), 3);
                fails(inherited.client("connection", &options), ErrorKind::WrongState);
                drop(inherited);
                assert!(is_open(3));
            }
        }
        return report("done");
    }
    let test = test_name!(A, "activation_with_connection_returns_client");
    for role in ["taken", "by number", "replaced"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let passed = listener.accept().unwrap().0;
        let names = [("LISTEN_FDNAMES", "connection")];
        let helper = Helper::start_activated(&test, role, vec![passed.into()], &names);
        let echo = thread::spawn(move || {
            let mut buf = [0; 64];
            while let Ok(n @ 1..) = peer.read(&mut buf) {
                peer.write_all(&buf[..n]).unwrap();
            }
        });
        assert_eq!(helper.next_line(), "done", "{role}");
        drop(helper);
        echo.join().unwrap();
    }
}

/// L7: a stale handover note names a descriptor number that now has another socket, which does not
/// belong to keepsock.
fn handover_note_of_other_process_is_ignored<A: Api>() {
    if process::role().is_some() {
        let mut inherited = A::Activation::from_env().unwrap();
        assert_eq!(inherited.names(), ["unknown"]);
        inherited.ready().unwrap();
        drop(inherited);
        assert!(support::system::is_open(4) && !support::system::is_cloexec(4));
        return report("done");
    }
    let test = test_name!(A, "handover_note_of_other_process_is_ignored");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut mine, theirs) = UnixStream::pair().unwrap();
    let variables = [("LISTEN_FDS", "1"), ("KEEPSOCK_HANDOVER", "4=1:2")];
    let descriptors = vec![listener.into(), theirs.into()];
    let helper = Helper::start_activated(&test, "s", descriptors, &variables);
    assert_eq!(helper.next_line(), "done");
    drop(helper);
    mine.set_read_timeout(Some(PROMPT)).unwrap();
    assert_eq!(mine.read(&mut [0]).unwrap(), 0, "the foreign socket received nothing");
}

/// L7: a successor removes the file of its own socket only. A note that names another file, such as
/// another server's socket, removes nothing.
fn handover_note_of_another_file_keeps_the_file<A: Api>() {
    use std::os::unix::fs::MetadataExt;
    if process::role().is_some() {
        let mut inherited = A::Activation::from_env().unwrap();
        let server = inherited.server("unknown", &[]).unwrap();
        inherited.ready().unwrap();
        drop((server, inherited));
        return report("done");
    }
    let test = test_name!(A, "handover_note_of_another_file_keeps_the_file");
    let dir = TempDir::new();
    std::fs::write(dir.path("file"), "text").unwrap();
    let _other = UnixListener::bind(dir.path("other")).unwrap();
    std::fs::create_dir(dir.path("inner")).unwrap();
    let _same_name = UnixListener::bind(dir.path("inner").join("own")).unwrap();
    for (name, is_removed) in
        [("file", false), ("other", false), ("inner/own", false), ("own", true)]
    {
        let own = UnixListener::bind(dir.path("own")).unwrap();
        let (_mine, theirs) = UnixStream::pair().unwrap();
        let channel = std::fs::metadata(format!("/proc/self/fd/{}", theirs.as_raw_fd())).unwrap();
        let path = dir.path(name);
        let file = std::fs::metadata(&path).unwrap();
        let note = format!(
            "4={}:{},0={}:{}:{}",
            channel.dev(),
            channel.ino(),
            file.dev(),
            file.ino(),
            path.display()
        );
        let variables = [("LISTEN_FDS", "1"), ("KEEPSOCK_HANDOVER", &note)];
        let descriptors: Vec<OwnedFd> = vec![own.into(), theirs.into()];
        let helper = Helper::start_activated(&test, "s", descriptors, &variables);
        assert_eq!(helper.next_line(), "done");
        drop(helper);
        assert_eq!(path.exists(), !is_removed, "{name}");
        let _ = std::fs::remove_file(dir.path("own"));
    }
}

/// Starts this process with a listener, a socket for which the note may be, and the note. `{3}` and `{4}`
/// are the identities of both.
fn started_with_note(test: &str, channel: OwnedFd, note: &str) -> Helper {
    let listener = OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
    let note = note.replace("{3}", &identity(&listener)).replace("{4}", &identity(&channel));
    let variables = [("LISTEN_FDS", "1"), ("KEEPSOCK_HANDOVER", &note)];
    Helper::start_activated(test, "s", vec![listener, channel], &variables)
}

/// The identity of a descriptor, as a note has it.
fn identity(fd: &OwnedFd) -> String {
    use std::os::unix::fs::MetadataExt;
    let file = std::fs::metadata(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
    format!("{}:{}", file.dev(), file.ino())
}

/// L7: a note that is truncated, too long or wrong is an error that names the variable, or belongs to
/// another process. The socket that is not the channel stays open and receives nothing.
fn handover_note_hostile_is_ignored_or_an_error<A: Api>() {
    if process::role().is_some() {
        match A::Activation::from_env() {
            Ok(mut inherited) => {
                assert_eq!(inherited.names(), ["unknown"]);
                let is_channel = support::system::is_cloexec(4);
                inherited.ready().unwrap();
                drop(inherited);
                assert_eq!(support::system::is_open(4), !is_channel);
                report(if is_channel { "channel" } else { "ignored" });
            }
            Err(failure) => {
                assert!(failure.is(ErrorKind::InvalidArgument), "{failure:?}");
                assert!(failure.message.contains("KEEPSOCK_HANDOVER: "), "{failure:?}");
                assert!(!support::system::is_cloexec(3) && !support::system::is_cloexec(4));
                report("error");
            }
        }
        return;
    }
    let test = test_name!(A, "handover_note_hostile_is_ignored_or_an_error");
    let long = ",0=any".repeat(20_000);
    let file = ",7=1:2:/a".repeat(10_000);
    for (note, expected) in [
        ("", "error"),
        ("?", "error"),
        ("4", "error"),
        ("4=", "error"),
        ("4={4}x", "error"),
        ("4={4},", "error"),
        ("4={4},0", "error"),
        ("4={4},0=1:2", "error"),
        ("4={4},0=1:2:%4", "error"),
        ("4={4},x=any", "error"),
        ("4={4},-1=any", "error"),
        ("4={4},99999999999999999999=any", "error"),
        ("-4={4}", "error"),
        ("4294967300={4}", "error"),
        // Another descriptor: a passed socket, and one that was not passed.
        ("3={3}", "ignored"),
        ("3={4}", "ignored"),
        ("5={4}", "ignored"),
        ("4={4}1", "ignored"),
        ("4={4}", "channel"),
        // A socket that was not passed, and a file whose name contains a null byte.
        ("4={4},1=any,4294967295=1:2:/a,0=1:2:/a%00b", "channel"),
        (&format!("4={{4}}{long}"), "channel"),
        (&format!("4={{4}}{file}"), "channel"),
    ] {
        let (mut mine, theirs) = UnixStream::pair().unwrap();
        let helper = started_with_note(&test, theirs.into(), note);
        assert_eq!(helper.next_line(), expected, "{:.60}", note);
        assert!(helper.end().success());
        mine.set_read_timeout(Some(PROMPT)).unwrap();
        let received = mine.read(&mut [0]).unwrap();
        assert_eq!(received, usize::from(expected == "channel"), "{:.60}", note);
    }
}

/// L7: a service manager that passes more descriptors than it promises keeps them: they are neither
/// adopted, closed, nor made close-on-exec.
fn descriptors_beyond_the_promised_ones_stay_unchanged<A: Api>() {
    use crate::support::system::{is_cloexec, is_open};
    if process::role().is_some() {
        let mut inherited = A::Activation::from_env().unwrap();
        assert_eq!(inherited.names(), ["unknown"]);
        fails(inherited.client("unknown", &[]), ErrorKind::WrongState);
        inherited.ready().unwrap();
        drop(inherited);
        assert!(!is_open(3));
        for fd in 4..8 {
            assert!(is_open(fd) && !is_cloexec(fd), "{fd}");
        }
        return report("done");
    }
    let test = test_name!(A, "descriptors_beyond_the_promised_ones_stay_unchanged");
    let listener = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (_mine, theirs) = UnixStream::pair().unwrap();
    let file = File::open("/etc/passwd").unwrap();
    let all = vec![listener(), listener(), datagrams.into(), theirs.into(), file.into()];
    let helper = Helper::start_activated(&test, "s", all, &[("LISTEN_FDS", "1")]);
    assert_eq!(helper.next_line(), "done");
}

/// L7: a predecessor whose channel is full, closed or of another kind does not block its successor. A
/// predecessor that was not notified may continue, so the successor does not serve.
fn ready_with_hostile_channel_returns_in_time<A: Api>() {
    if process::role().is_some() {
        let mut inherited = A::Activation::from_env().unwrap();
        match inherited.ready() {
            Ok(()) => report("ready"),
            Err(failure) => {
                assert!(failure.is(ErrorKind::Os), "{failure:?}");
                // The sockets are still there: the program may report the error and exit.
                assert_eq!(inherited.names(), ["unknown"]);
                report(&failure.message);
            }
        }
        return;
    }
    let test = test_name!(A, "ready_with_hostile_channel_returns_in_time");
    let (mine, full) = UnixStream::pair().unwrap();
    full.set_nonblocking(true).unwrap();
    while (&full).write(&[0; 4096]).is_ok() {}
    full.set_nonblocking(false).unwrap();
    let (gone, reset) = UnixStream::pair().unwrap();
    drop(gone);
    let (_reader, pipe) = support::system::pipe();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let unconnected = UdpSocket::bind("127.0.0.1:0").unwrap();
    let not_a_socket = support::system_text(libc::ENOTSOCK);
    let cases: [(OwnedFd, &str); 6] = [
        (full.into(), "the predecessor does not read the channel"),
        (reset.into(), "ready"),
        (pipe, &not_a_socket),
        (File::open("/etc/passwd").unwrap().into(), &not_a_socket),
        (listener.into(), "ready"),
        (unconnected.into(), "Destination address required"),
    ];
    for (channel, expected) in cases {
        let helper = started_with_note(&test, channel, "4={4}");
        let said = helper.next_line();
        assert!(said.contains(expected), "{said:?}, expected {expected:?}");
    }
    drop(mine);
}

/// L7: systemd-socket-activate starts the server.
#[cfg(feature = "serve")]
fn activation_by_systemd_serves_and_hands_over<A: Api>() {
    if process::lasting_role().is_some() {
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
    let test = test_name!(A, "activation_by_systemd_serves_and_hands_over");
    for transport in TRANSPORTS {
        let dir = TempDir::new();
        let endpoint = match transport {
            Transport::Tcp => format!("{}:{}", A::own_address(79), support::own_port()),
            Transport::Unix => dir.endpoint("s"),
        };
        let role = format!("--setenv={}=s", process::ROLE);
        let setting = format!("--setenv={ENDPOINT}={endpoint}");
        let address = endpoint.strip_prefix("unix:").unwrap_or(&endpoint);
        let mut words = vec!["systemd-socket-activate", &role, &setting, "--fdname=web"];
        // It passes no other variables on. An emulator of processors finds its libraries by this one.
        if std::env::var_os("QEMU_LD_PREFIX").is_some() {
            words.push("--setenv=QEMU_LD_PREFIX");
        }
        words.extend(["-l", address]);
        let mut helper = Helper::start_by(&words, &test, "s");
        // The first client starts the server.
        support::eventually("it listens", || connect(&endpoint).is_ok());
        let (pid, there, count) = begun(&helper);
        assert_eq!((there.as_str(), count), (endpoint.as_str(), 1));
        assert_eq!(who_serves(&endpoint).unwrap(), pid);
        // A second handover, requested by the test.
        helper.send_line("hand over");
        let (next, _, count) = begun(&helper);
        assert_eq!((helper.next_line(), count), (format!("{pid} has handed over to {next}"), 1));
        assert_eq!(who_serves(&endpoint).unwrap(), next);
        drop(helper);
        support::eventually("no process listens", || connect(&endpoint).is_err());
        if transport == Transport::Unix {
            assert!(dir.path("s").exists(), "the service manager owns the file");
        }
    }
}

/// L7, I1: the timeout applies even if the successor runs as another user and cannot be killed by
/// this process.
#[cfg(feature = "serve")]
fn handover_to_unkillable_successor_times_out<A: Api>() {
    if process::role().is_none() {
        let test = test_name!(A, "handover_to_unkillable_successor_times_out");
        assert_eq!(Helper::start(&test, "s").next_line(), "done");
        return;
    }
    let server = A::listen("127.0.0.1:0", &[Opt::Handover(true)]).unwrap();
    limits::forbid(libc::SYS_kill, None, libc::EPERM);
    let given = [("s", Handed::Server(&server))];
    support::promptly(Duration::from_secs(3), || {
        let begun = std::time::Instant::now();
        let outcome = A::Activation::handover(Some(&["sleep", "10"]), &given, 100, None);
        let failure = fails(outcome, ErrorKind::TimedOut);
        assert!(failure.message.contains("continues, because "), "{}", failure.message);
        begun.elapsed()
    });
    // The successor continues to run.
    let client = connect(&server.endpoint()).unwrap();
    server.accept().unwrap();
    drop(client);
    report("done");
}
