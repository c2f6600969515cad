//! Event-driven serving under load, through both APIs: all functions concurrently (V2, V3, V7),
//! hostile clients (V4, V6), a drain of many connections (V5), and clients of other programs.
//! tests/netns/scale.rs tests ten thousand clients.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use crate::support::process::Program;
use crate::support::*;
use crate::support::{limits, process, stress};
use keepsock::{CloseReason, Framing};
use socket2::{Domain, Socket, Type};

both_apis![
    service_under_stress_keeps_its_invariants,
    service_survives_hostile_clients,
    drain_of_a_thousand_counts_each_connection,
    service_serves_clients_of_other_programs,
];

/// A client of the standard library with its own loopback address.
fn connect(to: SocketAddr, from: [u8; 4]) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    // A rejected client may already have its error.
    let _ = socket.connect(&to.into());
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

fn dotted(ip: [u8; 4]) -> String {
    std::net::Ipv4Addr::from(ip).to_string()
}

/// V2, V3, V5, V7: four threads and the callbacks use all functions concurrently, with one loop and
/// with three. The invariants hold.
fn service_under_stress_keeps_its_invariants<A: Api>() {
    process::in_process(
        &test_name!(A, "service_under_stress_keeps_its_invariants"),
        Duration::from_secs(25),
        || {
            // In a second on a busy machine: 31 connections with ThreadSanitizer, 15 under qemu-user.
            let is_slow = cfg!(keepsock_tsan) || system::is_emulated();
            let time = Duration::from_secs(if is_slow { 5 } else { 1 });
            for loops in [1, 3] {
                let came = stress::run::<A>(loops, time);
                println!("{} connections, {} messages", came.connections, came.messages);
                println!("{:?}", came.stats);
                assert!(came.connections > 50, "{}", came.connections);
            }
        },
    );
}

/// The results of the connections from one address.
#[derive(Debug, Default, Clone)]
struct Fate {
    now: usize,
    most: usize,
    ends: Vec<CloseReason>,
}

/// V4, V6: hostile clients attack concurrently. A separate limit stops each of them, and ordinary
/// clients are not affected.
///
/// A client that occasionally sends a byte is not idle, and the library has no limit for it. A
/// message without an end takes as long as its bytes allow, up to the framing's `max`. The program
/// can set a timer for this, and restart it after each complete message.
fn service_survives_hostile_clients<A: Api>() {
    const IDLE: i64 = 3000;
    const UNFINISHED: i64 = 7000;
    const SHARE: u32 = 20;
    let ip = |last: u8| [127, 8, A::NUMBER, last];
    let [slow, silent, endless, many, resetting] = [1, 2, 3, 4, 5].map(ip);
    let fates = Arc::new(Mutex::new(HashMap::<String, Fate>::new()));
    let (coming, leaving) = (fates.clone(), fates.clone());
    let on = On::<A> {
        open: Some(Box::new(move |c| {
            let _ = c.set_timer(UNFINISHED);
            let mut fates = coming.lock().unwrap();
            let fate = fates.entry(c.five_tuple().unwrap().remote.0).or_default();
            fate.now += 1;
            fate.most = fate.most.max(fate.now);
        })),
        data: Some(Box::new(|c, line| {
            let _ = c.set_timer(UNFINISHED);
            let _ = c.send(line);
        })),
        timer: Some(Box::new(A::Connection::close)),
        close: Some(Box::new(move |c, end| {
            let mut fates = leaving.lock().unwrap();
            let fate = fates.get_mut(&c.five_tuple().unwrap().remote.0).unwrap();
            fate.now -= 1;
            fate.ends.push(end);
        })),
        ..On::default()
    };
    let limits = [Opt::FirstByteTimeout(5000), Opt::IdleTimeout(IDLE)];
    let server = A::listen("127.0.0.1:0", &limits).unwrap();
    let options = [Serve::PerAddress(SHARE), Serve::Framing(Framing::Lines { max: 4096 })];
    let service = server.serve_events(&options, on).unwrap();
    let to: SocketAddr = server.endpoint().parse().unwrap();
    let stop = AtomicBool::new(false);

    std::thread::scope(|scope| {
        let (stop, fates) = (&stop, &fates);
        let ordinary: Vec<_> = (0..4)
            .map(|number| {
                scope.spawn(move || {
                    let mut client = BufReader::new(connect(to, ip(100 + number)));
                    let (mut worst, mut echoes) = (Duration::ZERO, 0);
                    while !stop.load(Ordering::Relaxed) {
                        let asked = Instant::now();
                        let line = format!("{echoes} of {number}\n");
                        client.get_mut().write_all(line.as_bytes()).unwrap();
                        let mut answer = String::new();
                        client.read_line(&mut answer).unwrap();
                        assert_eq!(answer, line);
                        worst = worst.max(asked.elapsed());
                        echoes += 1;
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    (worst, echoes)
                })
            })
            .collect();

        // A failure of this client also ends the others.
        let stop_all = OnDrop(|| stop.store(true, Ordering::Relaxed));
        let hostile = [
            // An occasional byte of a line that never ends.
            scope.spawn(move || {
                let client = connect(to, slow);
                client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
                let start = Instant::now();
                while matches!((&client).read(&mut [0; 8]), Err(e) if is_timeout(&e)) {
                    let _ = (&client).write(b"x");
                }
                let lived = start.elapsed();
                let least = Duration::from_millis(2 * IDLE as u64);
                assert!(lived > least, "the idle timeout ended the connection: {lived:?}");
                assert!(lived < Duration::from_secs(30), "{lived:?}");
            }),
            scope.spawn(move || {
                let client = connect(to, silent);
                assert_eq!(
                    (&client).read(&mut [0; 8]).unwrap(),
                    0,
                    "the connection is closed gracefully"
                );
            }),
            // A line of 1 GB.
            scope.spawn(move || {
                let mut client = connect(to, endless);
                let part = vec![b'x'; 1 << 20];
                let sent = (0..1000).take_while(|_| client.write_all(&part).is_ok()).count();
                assert!(sent < 100, "{sent} MB were accepted");
            }),
            scope.spawn(move || {
                let clients: Vec<_> = (0..500).map(|_| connect(to, many)).collect();
                clients.iter().for_each(|mut client| drop(client.write_all(b"here\n")));
                for mut client in clients {
                    let _ = client.read_to_end(&mut Vec::new());
                }
            }),
            scope.spawn(move || {
                for number in 1..=100 {
                    let mut client = connect(to, resetting);
                    let _ = client.write_all(b"hello\n");
                    system::reset(client);
                    // A loop that is late would have more connections than the address may have.
                    eventually("the reset is found", || {
                        let fates = fates.lock().unwrap();
                        let fate = fates.get(&dotted(resetting));
                        fate.is_some_and(|fate| fate.ends.len() == number)
                    });
                }
            }),
        ];
        for client in hostile {
            client.join().unwrap();
        }
        drop(stop_all);
        for client in ordinary {
            let (worst, echoes) = client.join().unwrap();
            println!("{echoes} echoes, the worst after {worst:?}");
            assert!(echoes > 100, "{echoes}");
            assert!(worst < Duration::from_secs(10), "{worst:?}");
        }
    });
    eventually("all connections are closed", || service.connections() == 0);

    let fates = fates.lock().unwrap();
    let fate = |ip: [u8; 4]| fates.get(&dotted(ip)).cloned().unwrap_or_default();
    assert_eq!(fate(slow).ends, [CloseReason::Local], "the program's timer");
    assert_eq!(fate(silent).ends, [CloseReason::IdleTimeout], "the first-byte timeout");
    assert_eq!(fate(endless).ends, [CloseReason::MessageTooLong], "the maximum of the framing");
    let crowd = fate(many);
    assert_eq!(crowd.most, SHARE as usize, "{crowd:?}");
    assert_eq!(crowd.ends.len() as u64 + server.stats().over_address_limit, 500);
    assert_eq!(fate(resetting).ends, [CloseReason::PeerReset; 100]);
    for number in 0..4 {
        assert_eq!(fate(ip(100 + number)).ends, [CloseReason::PeerClosed], "an ordinary client");
    }
}

fn is_timeout(e: &std::io::Error) -> bool {
    matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

/// V5: each of a thousand clients gets the drain callback. The result counts the connections
/// that closed and that were aborted at the deadline.
fn drain_of_a_thousand_counts_each_connection<A: Api>() {
    const CLIENTS: usize = 1000;
    const LIMIT: Duration = Duration::from_secs(6);
    process::in_process(
        &test_name!(A, "drain_of_a_thousand_counts_each_connection"),
        Duration::from_secs(25),
        || {
            limits::need_descriptors(2 * CLIENTS as u64 + 100);
            for staying in [0, 50] {
                let (tell, told) = mpsc::channel();
                let tell = Mutex::new(tell);
                let on = On::<A> {
                    data: Some(Box::new(|c, word| {
                        c.set_data(if word == b"stay" { 2 } else { 1 });
                        c.send(word).unwrap();
                    })),
                    drain: Some(Box::new(move |c| {
                        tell.lock().unwrap().send(c.id()).unwrap();
                        c.send(b"bye!").unwrap();
                        if c.data() == 1 {
                            c.close();
                        }
                    })),
                    ..On::default()
                };
                let server = A::listen("127.0.0.1:0", &[]).unwrap();
                let service = server.serve_events(&[Serve::Threads(2)], on).unwrap();
                let to: SocketAddr = server.endpoint().parse().unwrap();
                let clients: Vec<_> = (0..CLIENTS)
                    .map(|number| {
                        let mut client = connect(to, [127, 9, A::NUMBER, 1]);
                        client.write_all(if number < staying { b"stay" } else { b"idle" }).unwrap();
                        client.read_exact(&mut [0; 4]).unwrap();
                        client
                    })
                    .collect();
                let start = Instant::now();
                // Only connections that stay need the whole time.
                let limit = if staying == 0 { 10 * LIMIT } else { LIMIT };
                let limit = i64::try_from(limit.as_millis()).unwrap();
                let drained = std::thread::scope(|scope| {
                    let drained = scope.spawn(|| (service.drain(limit).unwrap(), start.elapsed()));
                    // Clients that leave come last, so that each leaves after its drain callback.
                    let mut left = clients;
                    for mut client in left.split_off(staying) {
                        let mut said = Vec::new();
                        client.read_to_end(&mut said).unwrap();
                        assert_eq!(said, b"bye!");
                    }
                    for mut client in left {
                        client.read_exact(&mut [0; 4]).unwrap();
                        let err = client.read(&mut [0; 4]).unwrap_err();
                        assert_eq!(err.kind(), std::io::ErrorKind::ConnectionReset);
                    }
                    drained.join().unwrap()
                });
                let ((finished, cut), took) = drained;
                println!("{finished} finished, {cut} cut, after {took:?}");
                assert_eq!((finished as usize, cut as usize), (CLIENTS - staying, staying));
                if staying == 0 {
                    assert!(took < 5 * LIMIT, "{took:?}");
                } else {
                    assert!(took >= LIMIT && took < 5 * LIMIT, "{took:?}");
                }
                let mut ids: Vec<u64> = told.try_iter().collect();
                ids.sort_unstable();
                ids.dedup();
                assert_eq!(ids.len(), CLIENTS, "each has one drain callback");
                eventually("all connections are closed", || service.connections() == 0);
            }
        },
    );
}

/// A program that connects, sends a line and prints its input. Its standard input stays open,
/// because some programs exit at its end. `None`: the program is not installed.
fn client(command: &mut Command, says: &str) -> Option<Program> {
    match Program::spawn(command.stderr(Stdio::null())) {
        Ok(mut program) => {
            program.send_line(says);
            Some(program)
        }
        Err(e) => {
            println!(
                "service_serves_clients_of_other_programs: skipped in part: {:?}: {e}",
                command.get_program()
            );
            None
        }
    }
}

/// V2, V3, V6: concurrent clients of other programs each get their echo and the broadcast.
fn service_serves_clients_of_other_programs<A: Api>() {
    const PYTHON: &str = "
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
s.sendall(sys.stdin.readline().encode())
for line in s.makefile():
    print(line, end='', flush=True)
";
    const NODE: &str = "
const [host, port] = process.argv.slice(-2);
const s = require('net').connect(Number(port), host);
process.stdin.pipe(s);
s.pipe(process.stdout);
";
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let on = On::<A> { data: Some(Box::new(|c, line| drop(c.send(line)))), ..On::default() };
    let options = [Serve::Framing(Framing::Lines { max: 1000 })];
    let service = server.serve_events(&options, on).unwrap();
    let (host, port) = ("127.0.0.1", server.port().to_string());
    let socat = format!("TCP:{host}:{port}");
    let programs: [(&str, &[&str]); 4] = [
        ("nc", &[host, &port]),
        ("socat", &["-", &socat]),
        ("python3", &["-c", PYTHON, host, &port]),
        ("node", &["-e", NODE, host, &port]),
    ];
    let running: Vec<_> = programs
        .iter()
        .filter_map(|(name, words)| {
            let says = format!("hello from {name}");
            Some((client(Command::new(name).args(*words), &says)?, says))
        })
        .collect();
    for (program, says) in &running {
        assert_eq!(program.next_line(), *says);
    }
    let all = u32::try_from(running.len()).unwrap();
    assert_eq!(service.broadcast(b"news for all"), (all, 0));
    for (program, says) in &running {
        assert_eq!(program.next_line(), "news for all", "{says}");
    }
    drop(running);
    eventually("all connections are closed", || service.connections() == 0);
}
