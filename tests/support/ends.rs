//! The calls on a connection that has ended, and the results that are expected from them.

use keepsock::{CloseReason, ErrorKind, Framing, LengthFormat};

use super::os::AsRawFd;
use super::{Api, Client, INFINITE, Outcome, fails, system};

const SHORT: Framing = Framing::Prefixed { format: LengthFormat::U8, max: 8 };

/// A call on a connection.
pub struct Call<A: Api> {
    pub name: &'static str,
    pub call: fn(&A::Client) -> Outcome<()>,
}

/// Each call that reads. `on_unix`: with those for Unix sockets only.
pub fn reads<A: Api>(on_unix: bool) -> Vec<Call<A>> {
    let mut calls: Vec<Call<A>> = vec![
        Call { name: "read", call: |c| c.read(&mut [0; 8]).map(drop) },
        Call { name: "read_slices", call: |c| c.read_slices(&mut [&mut [0; 8]]).map(drop) },
        Call { name: "read_exact", call: |c| c.read_exact(&mut [0; 8]) },
        Call { name: "read_until", call: |c| c.read_until(b';', 8).map(drop) },
        Call { name: "read_line", call: |c| c.read_line(8).map(drop) },
        Call { name: "read_message", call: |c| c.read_message(&SHORT).map(drop) },
    ];
    if on_unix {
        calls.push(Call { name: "read_fds", call: |c| c.read_fds(8, 1).map(drop) });
    }
    calls
}

/// Each call that writes. `on_unix`: with those for Unix sockets only.
pub fn writes<A: Api>(on_unix: bool) -> Vec<Call<A>> {
    let mut calls: Vec<Call<A>> = vec![
        Call { name: "write", call: |c| c.write(b"bye").map(drop) },
        Call { name: "write_all", call: |c| c.write_all(b"bye") },
        Call { name: "write_slices", call: |c| c.write_slices(&[b"b", b"ye"]) },
        Call { name: "write_message", call: |c| c.write_message(&SHORT, b"bye") },
        Call {
            name: "send_file",
            call: |c| {
                let file = system::blank_file(3);
                c.send_file(file.as_raw_fd(), 0, 3).map(drop)
            },
        },
    ];
    if on_unix {
        calls.push(Call {
            name: "write_fds",
            call: |c| {
                let file = system::blank_file(0);
                c.write_fds(b"bye", &[file.as_raw_fd()]).map(drop)
            },
        });
    }
    calls
}

/// The results of the calls on a connection that a limit has ended.
#[derive(Debug, Clone, Copy)]
pub struct End {
    pub kind: ErrorKind,
    pub reason: CloseReason,
    /// The program may write a last message.
    pub last_message: bool,
}

pub const IDLE: End =
    End { kind: ErrorKind::IdleTimeout, reason: CloseReason::IdleTimeout, last_message: true };
pub const UNANSWERED: End = End {
    kind: ErrorKind::HeartbeatTimeout,
    reason: CloseReason::HeartbeatTimeout,
    last_message: false,
};
pub const DEAD: End = End { kind: ErrorKind::Dead, reason: CloseReason::Dead, last_message: false };

/// Checks that each call reports the end, except shutdown_write and close.
pub fn assert_ended<A: Api>(scene: &str, client: &A::Client, end: End, on_unix: bool) {
    let expect = |name: &str, outcome: Outcome<()>, succeeds: bool| match outcome {
        Ok(()) => assert!(succeeds, "{scene}, {name}: succeeded after {end:?}"),
        Err(failure) => {
            assert!(!succeeds && failure.is(end.kind), "{scene}, {name}: {failure:?}");
        }
    };
    for Call { name, call } in reads::<A>(on_unix) {
        expect(name, call(client), false);
    }
    for Call { name, call } in writes::<A>(on_unix) {
        expect(name, call(client), end.last_message);
    }
    expect("check_liveness", client.check_liveness().map(drop), false);
    for limit in [0, INFINITE] {
        assert_eq!(client.wait_hangup(limit).unwrap(), end.reason, "{scene}, wait_hangup");
    }
    assert_eq!(client.close_reason(), Some(end.reason), "{scene}");
}

/// Checks the calls that end the connection: shutdown_write and close. Data was written before.
pub fn assert_closes<A: Api>(client: &A::Client, end: End) {
    if end.last_message {
        client.shutdown_write().unwrap();
        client.close().unwrap();
    } else {
        fails(client.shutdown_write(), end.kind);
        fails(client.write_all(b"x"), end.kind);
        fails(client.close(), end.kind);
    }
    client.close().unwrap();
    assert_eq!(client.close_reason(), Some(end.reason));
}
