//! Listening sockets that several processes have: handed over, inherited (L7).

#![cfg(all(unix, feature = "capi"))]
// Clippy's leave for tests is for test functions, not for what they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use common::{Api, Client, On, Opt, Outcome, Serve, Server, Service, fails, while_waiting};
use keepsock::ErrorKind;

both_apis!(
    a_close_here_is_none_elsewhere,
    serving_that_ends_here_goes_on_elsewhere,
    who_comes_late_goes_on_waiting,
);

const PROMPT: Duration = Duration::from_millis(500);

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
    let ends: [(&str, fn(A::Service)); 3] = [
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
        let address = original.local_addr().unwrap();
        server.set_accept_timeout(300).unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let outcome: Outcome<A::Client> = server.accept();
                outcome.map(|client| client.name()).err()
            });
            // Both are woken by each connection; whoever is later must not block.
            let mut clients = Vec::new();
            let mut taken = 0;
            while !waiting.is_finished() {
                clients.push(TcpStream::connect(address).unwrap());
                while let Ok(accepted) = original.accept() {
                    drop(accepted);
                    taken += 1;
                }
                thread::sleep(Duration::from_millis(1));
            }
            // Of many connections it gets one sooner or later, or none in its time.
            let outcome = waiting.join().unwrap();
            assert!(outcome.is_none_or(|e| e.is(ErrorKind::TimedOut)), "{taken}");
        });
        // With nobody there it comes back when its time is over.
        server.set_accept_timeout(20).unwrap();
        while original.accept().is_ok() {}
        fails(server.accept(), ErrorKind::TimedOut);
    }
}
