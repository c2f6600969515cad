//! A peer that is not the library: a raw socket that writes requests, and checks each byte that it
//! receives.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::ledgers::{Count, End, Frame, Ledger, Ledgers, Message, kind};
use crate::machine;

/// Later than any delay of a busy machine.
pub const HANG: Duration = Duration::from_secs(40);

#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
    /// SOCK_SEQPACKET.
    Packets(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    EndOfStream,
    Reset,
}

/// The sources of pushed messages: each has its own numbers.
pub const SOURCES: usize = 4;

pub struct Peer<'r> {
    ledgers: &'r Ledgers,
    pub ledger: &'r Ledger,
    pub id: u32,
    socket: Socket,
    frame: Frame,
    lossy: bool,
    out: Vec<u8>,
    written: usize,
    input: Vec<u8>,
    pub queued: u32,
    /// The number of the next message from the service.
    next: u32,
    /// The next number of each source of pushed messages.
    pushed: [u32; SOURCES],
    /// Replies to the messages of this peer.
    pub replies: u32,
    pub beats: u32,
    /// Whether heartbeats are answered.
    pub answers: bool,
    pub seen: Option<Seen>,
}

/// Connects from an address of its own, so that ports that are in TIME_WAIT do not run out. Waits
/// while descriptors are exhausted.
fn dial(ledgers: &Ledgers, to: &Target, from: [u8; 4]) -> Socket {
    let until = Instant::now() + HANG;
    loop {
        let connected = match to {
            Target::Tcp(to) => Socket::new(Domain::IPV4, Type::STREAM, None).and_then(|socket| {
                machine::bind_without_port(socket.as_raw_fd());
                socket.bind(&SocketAddr::from((from, 0)).into())?;
                socket.set_recv_buffer_size(16 << 10)?;
                socket.connect(&(*to).into())?;
                socket.set_tcp_nodelay(true)?;
                Ok(socket)
            }),
            Target::Unix(path) => Socket::new(Domain::UNIX, Type::STREAM, None)
                .and_then(|socket| socket.connect(&SockAddr::unix(path)?).map(|()| socket)),
            Target::Packets(path) => Socket::new(Domain::UNIX, Type::SEQPACKET, None)
                .and_then(|socket| socket.connect(&SockAddr::unix(path)?).map(|()| socket)),
        };
        match connected {
            Ok(socket) => {
                ledgers.add(Count::dialed, 1);
                machine::CONNECTIONS.fetch_add(1, Relaxed);
                return socket;
            }
            Err(e) if matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                ledgers.add(Count::no_descriptor, 1);
            }
            // The service rejected the client before connect(2) returned.
            Err(e) if e.kind() == ErrorKind::ConnectionReset => {
                ledgers.add(Count::dialed, 1);
            }
            Err(e) if e.kind() == ErrorKind::AddrNotAvailable => {}
            Err(e) => panic!("connect to {to:?}: {e}"),
        }
        assert!(Instant::now() < until, "no connection to {to:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl<'r> Peer<'r> {
    pub fn connect(
        ledgers: &'r Ledgers,
        to: &Target,
        frame: Frame,
        lossy: bool,
        from: [u8; 4],
    ) -> Self {
        let socket = dial(ledgers, to, from);
        let id = ledgers.open();
        Peer::new(ledgers, socket, frame, lossy, id, id)
    }

    /// A peer whose messages have another number than its ledger.
    pub fn new(
        ledgers: &'r Ledgers,
        socket: Socket,
        frame: Frame,
        lossy: bool,
        ledger: u32,
        id: u32,
    ) -> Self {
        socket.set_nonblocking(true).unwrap();
        machine::OPEN.fetch_add(1, Relaxed);
        Peer {
            ledgers,
            ledger: ledgers.ledger(ledger).unwrap(),
            id,
            socket,
            frame,
            lossy,
            out: Vec::new(),
            written: 0,
            input: Vec::new(),
            queued: 0,
            next: 0,
            pushed: [0; SOURCES],
            replies: 0,
            beats: 0,
            answers: true,
            seen: None,
        }
    }

    /// Queues a message. The next step writes it.
    pub fn queue(&mut self, kind: u8, arg: u8, filler: usize) {
        let message = Message { id: self.id, seq: self.queued, ack: 0, kind, arg };
        message.frame(self.frame, &mut self.out, filler);
        self.queued += 1;
        self.ledger.up_sent.store(self.queued, Relaxed);
    }

    pub fn queue_bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    pub fn flush(&mut self) {
        while self.written < self.out.len() {
            let rest = &self.out[self.written..];
            let (done, wrote) = if self.frame == Frame::Packet {
                let Some((start, end)) = self.frame.split(rest) else { return };
                (end, self.socket.send_with_flags(&rest[start..end], libc::MSG_NOSIGNAL))
            } else {
                (0, self.socket.write(rest))
            };
            match wrote {
                Ok(n) => {
                    self.ledgers.add(Count::bytes_up, n as u64);
                    self.written += if done > 0 { done } else { n };
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                // The read that follows reports it.
                Err(_) => break,
            }
        }
        self.out.clear();
        self.written = 0;
    }

    pub fn is_flushed(&self) -> bool {
        self.out.is_empty()
    }

    /// Writes and reads what is possible, and waits for it at most for `limit`.
    pub fn step(&mut self, limit: Duration) {
        self.flush();
        if self.seen.is_some() {
            return;
        }
        let want = if self.out.is_empty() { libc::POLLIN } else { libc::POLLIN | libc::POLLOUT };
        if machine::wait(self.socket.as_raw_fd(), want, limit) & !libc::POLLOUT != 0 {
            self.receive();
        }
        self.flush();
    }

    fn receive(&mut self) {
        let mut buf = [0; 64 << 10];
        loop {
            match self.socket.read(&mut buf) {
                Ok(0) => {
                    if !self.input.is_empty() && self.frame != Frame::Packet {
                        // Only a reset may split a message.
                        self.ledgers.wrong(format!("connection {}: half a message", self.id));
                    }
                    self.seen = Some(Seen::EndOfStream);
                    return;
                }
                Ok(n) => {
                    self.ledgers.add(Count::bytes_down, n as u64);
                    if self.frame == Frame::Packet {
                        self.message(&buf[..n]);
                        continue;
                    }
                    self.input.extend_from_slice(&buf[..n]);
                    let input = std::mem::take(&mut self.input);
                    let mut at = 0;
                    while let Some((start, end)) = self.frame.split(&input[at..]) {
                        self.message(&input[at + start..at + end]);
                        at += end;
                    }
                    self.input = input;
                    self.input.drain(..at);
                    if n < buf.len() {
                        return;
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.seen = Some(Seen::Reset);
                    return;
                }
            }
        }
    }

    fn message(&mut self, bytes: &[u8]) {
        let Some(message) = Message::parse(bytes) else {
            self.ledgers.wrong(format!("connection {}: a damaged message", self.id));
            return;
        };
        machine::MESSAGES.fetch_add(1, Relaxed);
        match message.kind {
            kind::PUSH => {
                let next = &mut self.pushed[usize::from(message.arg) % SOURCES];
                if message.seq < *next {
                    let text = format!("connection {}: push {} again", self.id, message.seq);
                    self.ledgers.wrong(text);
                }
                *next = message.seq + 1;
                self.ledgers.add(Count::pushes_got, 1);
            }
            kind::BEAT => {
                self.beats += 1;
                self.ledgers.add(Count::beats_got, 1);
                if self.answers {
                    self.queue(kind::QUIET, 0, 0);
                }
            }
            _ => {
                let expected = self.next;
                let follows =
                    if self.lossy { message.seq >= expected } else { message.seq == expected };
                if !follows || message.id != self.id {
                    self.ledgers.wrong(format!(
                        "connection {}: {message:?} instead of number {expected}",
                        self.id
                    ));
                }
                self.next = message.seq + 1;
                self.ledger.down_got.fetch_add(1, Relaxed);
                self.ledger.up_acked.store(message.ack, Relaxed);
                if message.kind != kind::POSTED && message.kind != kind::BYE {
                    self.replies += 1;
                    machine::MESSAGES.fetch_add(1, Relaxed);
                }
            }
        }
    }

    /// Steps until the condition holds or the connection ends. Returns whether it holds.
    pub fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> bool {
        let until = Instant::now() + HANG;
        while !holds(self) && self.seen.is_none() {
            if Instant::now() > until || self.ledgers.is_wrong() {
                self.ledgers.wrong(format!(
                    "connection {}: no {what}; {} messages written, {} replies, {} bytes queued",
                    self.id,
                    self.queued,
                    self.replies,
                    self.out.len() - self.written,
                ));
                return false;
            }
            self.step(Duration::from_millis(200));
        }
        holds(self)
    }

    /// Waits until the service has received and acknowledged all messages of this peer.
    pub fn replied(&mut self) -> bool {
        let acked = |p: &Self| p.ledger.up_acked.load(Relaxed) >= p.queued && p.is_flushed();
        if !self.lossy {
            return self.until("reply", acked);
        }
        // The service may drop the last reply, so the peer repeats its request.
        for _ in 0..HANG.as_secs() {
            let until = Instant::now() + Duration::from_secs(1);
            if self.until("reply", |p| acked(p) || Instant::now() > until) && acked(self) {
                return true;
            }
            if self.seen.is_some() {
                return false;
            }
            self.queue(kind::ECHO, 0, 0);
        }
        self.until("reply", acked)
    }

    /// One message and its reply: the latency.
    pub fn ping(&mut self, filler: usize) -> bool {
        let since = Instant::now();
        self.queue(kind::ECHO, 0, filler);
        let there = self.replied();
        if there {
            machine::LATENCIES.note(since);
        }
        there
    }

    pub fn finish_writing(&mut self) {
        self.until("room", Peer::is_flushed);
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Reads to the end. Returns whether it is the end of the stream.
    pub fn read_to_end(&mut self) -> bool {
        self.until("end", |p| p.seen.is_some());
        self.seen == Some(Seen::EndOfStream)
    }

    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    pub fn permit(&self, reasons: &[keepsock::CloseReason]) {
        let bits = reasons.iter().fold(0, |bits, r| bits | 1 << (*r as u16));
        self.ledger.permitted.store(bits, Relaxed);
    }

    /// Closes the socket.
    pub fn end(self, end: End) {
        self.ledger.end.store(end as u8, Relaxed);
    }

    /// Closes the socket with RST.
    pub fn reset(self) {
        let _ = self.socket.set_linger(Some(Duration::ZERO));
        self.ledgers.add(Count::resets, 1);
        self.end(End::Torn);
    }

    /// Half-closes, reads to the end, and closes.
    pub fn close(mut self) {
        if !self.read_after_fin() {
            self.ledgers.wrong(format!("connection {}: reset by the service", self.id));
        }
        self.end(End::Orderly);
    }

    /// Does the same with a connection that the service may have reset.
    pub fn close_if_open(mut self) {
        let ended = self.read_after_fin();
        self.end(if ended { End::Unsure } else { End::Torn });
    }

    fn read_after_fin(&mut self) -> bool {
        self.answers = false;
        self.finish_writing();
        self.read_to_end()
    }
}

impl Drop for Peer<'_> {
    fn drop(&mut self) {
        machine::OPEN.fetch_sub(1, Relaxed);
    }
}
