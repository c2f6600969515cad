//! Finds handshakes among segments. No I/O: segments are put in, handshakes come out.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::{Handshake, Segment, TcpFlags};

/// Where a packet was seen: the interface, and whether it was on its way out. One packet may
/// pass several on its way through a host; one that is sent again passes the same ones.
pub(crate) type Vantage = (u32, bool);

/// How many connections are kept, the oldest of which goes; and how many SYNs with numbers of
/// their own on one pair of addresses, and answers to one SYN.
const MOST_FLOWS: usize = 1024;
const MOST_ATTEMPTS: usize = 8;

/// Addresses as they stand in packets: without the zone that sockets have. The side that
/// sent the SYN is first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Flow {
    client: (IpAddr, u16),
    server: (IpAddr, u16),
}

impl Flow {
    fn new(client: SocketAddr, server: SocketAddr) -> Flow {
        let plain = |a: SocketAddr| (a.ip().to_canonical(), a.port());
        Flow { client: plain(client), server: plain(server) }
    }
}

/// A packet, and how often it was seen from where.
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

    /// How often it was sent: what one place saw, for others saw the same.
    fn sent(&self) -> u32 {
        self.copies.iter().map(|(_, count)| *count).max().unwrap_or(0)
    }
}

/// What came of one SYN. Its number grows from SYN to SYN.
#[derive(Debug)]
struct Attempt {
    number: u64,
    syn: Seen,
    /// More than one if the server forgot the first, as it does with SYN cookies.
    answers: Vec<Seen>,
    /// The index of the answer that was acknowledged, and by what.
    end: Option<(usize, Segment)>,
    /// A reset, or an answer that belongs to an older connection.
    refused: Option<Refused>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    Reset,
    /// RFC 5961: the server has that connection already.
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

/// Whether `seq` is `from` or at most `more` after it, in numbers that wrap around.
fn is_within(seq: u32, from: u32, more: u32) -> bool {
    seq.wrapping_sub(from) <= more
}

/// The part that was found of a handshake.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The latest that is complete.
    pub(crate) complete: Option<Handshake>,
    /// Whether there is a later one that may still be completed.
    pub(crate) more_to_come: bool,
    /// Of the latest.
    pub(crate) partial: Partial,
}

/// What was seen of a handshake, in words.
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
            return f.write_str("none of its packets was seen");
        }
        write!(f, "seen: SYN{}", times(self.syns))?;
        if self.answers > 0 {
            write!(f, ", SYN+ACK{}", times(self.answers))?;
        }
        if self.refused {
            f.write_str(", RST")?;
        }
        Ok(())
    }
}

/// Takes the segments of any number of connections in the order in which they were seen.
/// What it keeps is bounded.
#[derive(Debug, Default)]
pub(crate) struct Matcher {
    flows: HashMap<Flow, Vec<Attempt>>,
    /// The keys of `flows`, the oldest first.
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
            if self.order.len() >= MOST_FLOWS {
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
        if attempts.len() >= MOST_ATTEMPTS {
            attempts.remove(0);
        }
        attempts.push(attempt);
    }

    fn answered(&mut self, flow: Flow, segment: Segment, from: Vantage) {
        // TCP Fast Open (RFC 7413): none, some or all of the SYN's data may be acknowledged.
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
        } else if answers.len() < MOST_ATTEMPTS {
            answers.push(Seen::new(segment, from));
        }
    }

    fn acknowledged(&mut self, flow: Flow, segment: Segment) {
        for attempt in self.attempts(flow).iter_mut().rev() {
            let syn = &attempt.syn.first;
            // With data in its SYN the client may be anywhere within them, and the server may
            // have sent data before this ACK came: half the numbers there are is after.
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

    /// The server has acknowledged something of a connection that it has, instead of
    /// answering the SYN.
    fn challenged(&mut self, flow: Flow) {
        if let Some(latest) = self.attempts(flow).last_mut() {
            if latest.answers.is_empty() && latest.refused.is_none() {
                latest.refused = Some(Refused::Challenged);
            }
        }
    }

    fn reset(&mut self, forth: Flow, back: Flow, segment: &Segment) {
        // From the client: it does not want the answer that it got.
        let declines = |a: &Attempt| {
            is_within(segment.seq, a.syn.first.seq, a.syn.first.payload_len.saturating_add(1))
        };
        // From the server: nobody listens there.
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

    /// How many pairs of addresses, and how many SYNs, are remembered.
    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        (self.flows.len(), self.flows.values().map(Vec::len).sum())
    }

    /// The handshake between these addresses, whichever of them sent the SYN.
    pub(crate) fn find(&self, one: SocketAddr, other: SocketAddr) -> Found {
        let both = [Flow::new(one, other), Flow::new(other, one)];
        let mut attempts: Vec<_> =
            both.iter().filter_map(|flow| self.flows.get(flow)).flatten().collect();
        attempts.sort_by_key(|attempt| attempt.number);
        let Some(latest) = attempts.last() else {
            return Found::default();
        };
        Found {
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
