//! Finds handshakes among segments. It does no I/O.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::{Handshake, Segment, TcpFlags};

/// The place at which a packet was captured: the interface, and whether the packet was outgoing. A
/// packet may pass several interfaces of a host. A retransmission passes the same ones.
pub(crate) type Vantage = (u32, bool);

/// The maximum number of connections. The oldest one is dropped.
const MAX_FLOWS: usize = 1024;
/// The maximum number of SYNs with different sequence numbers for one pair of addresses, and of
/// SYN+ACKs for one SYN.
const MAX_ATTEMPTS: usize = 8;

/// The addresses of a connection as packets have them, without the zone of socket addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Flow {
    client: (IpAddr, u16),
    server: (IpAddr, u16),
}

impl Flow {
    fn new(client: SocketAddr, server: SocketAddr) -> Flow {
        let plain = |a: SocketAddr| (a.ip(), a.port());
        Flow { client: plain(client), server: plain(server) }
    }
}

/// A packet, and how often it was captured at each place.
#[derive(Debug)]
struct Seen {
    first: Segment,
    copies: Vec<(Vantage, u32)>,
}

impl Seen {
    fn new(first: Segment, from: Vantage) -> Seen {
        Seen { first, copies: vec![(from, 1)] }
    }

    fn again(&mut self, from: Vantage) {
        match self.copies.iter_mut().find(|(vantage, _)| *vantage == from) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => self.copies.push((from, 1)),
        }
    }

    /// The number of times that the packet was sent. Each place captures the same copies, unless
    /// some were lost, so the largest number counts.
    fn sent(&self) -> u32 {
        self.copies.iter().map(|(_, count)| *count).max().unwrap_or(0)
    }
}

/// One SYN and the packets that followed.
#[derive(Debug)]
struct Attempt {
    /// Increases with each SYN.
    number: u64,
    syn: Seen,
    /// The SYN+ACKs. There are several if the server does not remember the first one, for example
    /// with SYN cookies.
    answers: Vec<Seen>,
    /// The index of the acknowledged SYN+ACK, and the ACK.
    end: Option<(usize, Segment)>,
    /// The attempt failed: the peer sent a RST, or an ACK that belongs to an older connection.
    refused: Option<Refused>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    Reset,
    /// The server already has a connection with these addresses (RFC 5961).
    Challenged,
}

impl Attempt {
    fn is_over(&self) -> bool {
        self.end.is_some() || self.refused.is_some()
    }

    fn handshake(&self) -> Option<Handshake> {
        let (index, ack) = self.end.as_ref()?;
        let answer = self.answers.get(*index)?;
        Some(Handshake {
            syn: self.syn.first.clone(),
            syn_ack: answer.first.clone(),
            ack: ack.clone(),
            syn_retransmissions: self.syn.sent().saturating_sub(1),
            syn_ack_retransmissions: answer.sent().saturating_sub(1),
        })
    }
}

/// Whether `seq` is `from` or at most `more` after `from`. Sequence numbers wrap around.
fn is_within(seq: u32, from: u32, more: u32) -> bool {
    seq.wrapping_sub(from) <= more
}

/// The result of [`Matcher::find`].
#[derive(Debug, Default)]
pub(crate) struct Match {
    /// The latest complete handshake.
    pub(crate) complete: Option<Handshake>,
    /// Whether a later handshake may still complete.
    pub(crate) more_to_come: bool,
    /// The captured packets of the latest handshake.
    pub(crate) partial: Partial,
}

/// The captured packets of an incomplete handshake, in words.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Partial {
    syns: u32,
    answers: u32,
    refused: bool,
}

impl fmt::Display for Partial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = |n: u32| if n > 1 { format!(" ({n} times)") } else { String::new() };
        if self.syns == 0 {
            return f.write_str("no packet of the handshake was captured");
        }
        write!(f, "captured: SYN{}", times(self.syns))?;
        if self.answers > 0 {
            write!(f, ", SYN+ACK{}", times(self.answers))?;
        }
        if self.refused {
            f.write_str(", RST")?;
        }
        Ok(())
    }
}

/// Finds the handshakes of any number of connections. The segments must be added in the order in
/// which they were captured. The memory use is bounded.
#[derive(Debug, Default)]
pub(crate) struct Matcher {
    flows: HashMap<Flow, Vec<Attempt>>,
    /// The keys of `flows`. The oldest key is first.
    order: VecDeque<Flow>,
    syns: u64,
}

impl Matcher {
    pub(crate) fn put(&mut self, segment: Segment, from: Vantage) {
        let flags = segment.flags;
        let forth = Flow::new(segment.source, segment.destination);
        let back = Flow::new(segment.destination, segment.source);
        if flags.contains(TcpFlags::RST) {
            self.reset(forth, back, &segment);
        } else if flags.contains(TcpFlags::SYN | TcpFlags::ACK) {
            self.answered(back, segment, from);
        } else if flags.contains(TcpFlags::SYN) {
            self.begun(forth, segment, from);
        } else if flags.contains(TcpFlags::ACK) {
            self.challenged(back);
            self.acknowledged(forth, segment);
        }
    }

    fn attempts(&mut self, flow: Flow) -> &mut [Attempt] {
        self.flows.get_mut(&flow).map_or(&mut [], Vec::as_mut_slice)
    }

    fn begun(&mut self, flow: Flow, segment: Segment, from: Vantage) {
        if let Some(same) =
            self.attempts(flow).iter_mut().rev().find(|a| a.syn.first.seq == segment.seq)
        {
            same.syn.again(from);
            if same.end.is_none() {
                same.refused = None;
            }
            return;
        }
        if !self.flows.contains_key(&flow) {
            if self.order.len() >= MAX_FLOWS {
                if let Some(oldest) = self.order.pop_front() {
                    self.flows.remove(&oldest);
                }
            }
            self.order.push_back(flow);
        }
        self.syns += 1;
        let attempt = Attempt {
            number: self.syns,
            syn: Seen::new(segment, from),
            answers: Vec::new(),
            end: None,
            refused: None,
        };
        let attempts = self.flows.entry(flow).or_default();
        if attempts.len() >= MAX_ATTEMPTS {
            attempts.remove(0);
        }
        attempts.push(attempt);
    }

    fn answered(&mut self, flow: Flow, segment: Segment, from: Vantage) {
        // With TCP Fast Open (RFC 7413), none, some or all of the SYN's data is acknowledged.
        let answers = |a: &Attempt| {
            let syn = &a.syn.first;
            is_within(segment.ack, syn.seq.wrapping_add(1), syn.payload_len)
        };
        let Some(attempt) = self.attempts(flow).iter_mut().rev().find(|a| answers(a)) else {
            return;
        };
        let answers = &mut attempt.answers;
        if let Some(same) = answers.iter_mut().find(|seen| seen.first.seq == segment.seq) {
            same.again(from);
        } else if answers.len() < MAX_ATTEMPTS {
            answers.push(Seen::new(segment, from));
        }
    }

    fn acknowledged(&mut self, flow: Flow, segment: Segment) {
        for attempt in self.attempts(flow).iter_mut().rev() {
            let syn = &attempt.syn.first;
            // If the SYN carries data, the client may continue at any position within the data.
            // The server may have sent data before this ACK. The ACK is later than the SYN+ACK if it
            // is in the half of the sequence space that follows.
            let early = syn.payload_len;
            let more = if early > 0 { u32::MAX / 2 } else { 0 };
            let ends = |answer: &Seen| {
                is_within(segment.seq, syn.seq.wrapping_add(1), early)
                    && is_within(segment.ack, answer.first.end(), more)
            };
            let Some(index) = attempt.answers.iter().position(ends) else {
                continue;
            };
            if attempt.end.is_none() {
                attempt.end = Some((index, segment));
            }
            return;
        }
    }

    /// The server has not answered the SYN, and has acknowledged data of an existing connection.
    fn challenged(&mut self, flow: Flow) {
        if let Some(latest) = self.attempts(flow).last_mut() {
            if latest.answers.is_empty() && latest.refused.is_none() {
                latest.refused = Some(Refused::Challenged);
            }
        }
    }

    fn reset(&mut self, forth: Flow, back: Flow, segment: &Segment) {
        // The client rejects the SYN+ACK.
        let declines = |a: &Attempt| {
            is_within(segment.seq, a.syn.first.seq, a.syn.first.payload_len.saturating_add(1))
        };
        // The server rejects the SYN: no process listens on the port.
        let refuses = |a: &Attempt| {
            let syn = &a.syn.first;
            segment.flags.contains(TcpFlags::ACK)
                && is_within(segment.ack, syn.seq.wrapping_add(1), syn.payload_len)
        };
        let declined = self.attempts(forth).iter_mut().rev().find(|a| declines(a));
        declined.into_iter().for_each(Attempt::reset);
        let refused = self.attempts(back).iter_mut().rev().find(|a| refuses(a));
        refused.into_iter().for_each(Attempt::reset);
    }

    /// The number of connections and of SYNs in memory.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.flows.len(), self.flows.values().map(Vec::len).sum())
    }

    /// Finds the handshake between two addresses. Either address may be the client.
    pub(crate) fn find(&self, one: SocketAddr, other: SocketAddr) -> Match {
        let both = [Flow::new(one, other), Flow::new(other, one)];
        let mut attempts: Vec<_> =
            both.iter().filter_map(|flow| self.flows.get(flow)).flatten().collect();
        attempts.sort_by_key(|attempt| attempt.number);
        let Some(latest) = attempts.last() else {
            return Match::default();
        };
        Match {
            complete: attempts.iter().rev().find_map(|attempt| attempt.handshake()),
            more_to_come: !latest.is_over(),
            partial: Partial {
                syns: latest.syn.sent(),
                answers: latest.answers.iter().map(Seen::sent).sum(),
                refused: latest.refused == Some(Refused::Reset),
            },
        }
    }
}

impl Attempt {
    fn reset(&mut self) {
        if self.end.is_none() {
            self.refused = Some(Refused::Reset);
        }
    }
}
