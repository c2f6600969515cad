//! TCP segments and handshakes.

use std::net::SocketAddr;

use super::{Input, check_printable};
use crate::diag::handshake::{Matcher, Segment, TcpFlags};

/// The largest number of connections, and of attempts of each, in the memory of a matcher.
const FLOWS: usize = 1024;
const ATTEMPTS: usize = 8;

/// Any bytes are a segment or none. A handshake consists of the three packets that belong
/// together. The memory of the matcher is limited.
pub fn segment(data: &[u8]) {
    if let Some(segment) = Segment::parse(data) {
        check(&segment);
    }
    let mut input = Input::new(data);
    let mut matcher = Matcher::default();
    // A template, so that most packets differ in the fields that matter.
    let mut packet = template(input.byte() % 2 == 0);
    while !input.is_empty() {
        let op = input.byte();
        match op % 8 {
            // Any change.
            0 => {
                let at = input.below(packet.len());
                packet[at] = input.byte();
            }
            1 => {
                let len = input.below(60);
                packet.truncate(len.max(40));
                let options = input.part();
                packet.extend_from_slice(&options[..options.len().min(40)]);
            }
            _ => {
                let mut now = packet.clone();
                fill(&mut now, &mut input);
                if let Some(segment) = Segment::parse(&now) {
                    check(&segment);
                    matcher.put(segment, (u32::from(op / 128), op & 64 > 0));
                }
            }
        }
        let (flows, attempts) = matcher.size();
        assert!(flows <= FLOWS && attempts <= flows * ATTEMPTS, "{flows} {attempts}");
    }
    for client in 0..2 {
        for server in 0..2 {
            let [client, server] = [end(client), end(server + 2)];
            find(&matcher, client, server);
            find(&matcher, server, client);
        }
    }
}

fn template(v4: bool) -> Vec<u8> {
    let mut packet = if v4 {
        vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]
    } else {
        let mut header = vec![0x60, 0, 0, 0, 0, 20, 6, 64];
        header.extend([0; 32]);
        header
    };
    packet.extend([0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 1, 0, 0, 0, 0, 0]);
    packet
}

fn end(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n / 2], u16::from(n)))
}

/// Sets addresses, ports, numbers and flags of an IPv4 packet to values that often match.
fn fill(packet: &mut [u8], input: &mut Input) {
    let choice = input.byte();
    let Some(header) = packet.get_mut(..40).filter(|header| header[0] == 0x45) else {
        return;
    };
    let (from, to) = (choice & 1, 2 + ((choice >> 1) & 1));
    let (from, to) = if choice & 4 > 0 { (to, from) } else { (from, to) };
    header[12..16].copy_from_slice(&[10, 0, 0, from / 2]);
    header[16..20].copy_from_slice(&[10, 0, 0, to / 2]);
    header[20..24].copy_from_slice(&[0, from, 0, to]);
    let number = |n: u8| u32::MAX.wrapping_add(u32::from(n % 5)).to_be_bytes();
    header[24..28].copy_from_slice(&number(input.byte()));
    header[28..32].copy_from_slice(&number(input.byte()));
    header[33] = [0x02, 0x12, 0x10, 0x04, 0x14, 0x11, 0x18, 0xff][usize::from(choice >> 3) % 8];
    header[3] = 40 + [0, 0, 1, 5][usize::from(choice >> 6)];
}

fn check(segment: &Segment) {
    check_printable(&segment.to_string());
    assert!(segment.option_bytes().len() <= 40, "{segment}");
    // The options of a segment are those of its bytes.
    let _ = (segment.mss(), segment.window_scale(), segment.timestamps());
    assert!(segment.options.len() <= segment.option_bytes().len());
    assert_eq!(segment.sack_permitted(), segment.to_string().contains("sackOK"));
}

fn find(matcher: &Matcher, one: SocketAddr, other: SocketAddr) {
    let found = matcher.find(one, other);
    check_printable(&found.partial.to_string());
    let Some(handshake) = found.complete else {
        return;
    };
    let (syn, syn_ack, ack) = (&handshake.syn, &handshake.syn_ack, &handshake.ack);
    let has = |segment: &Segment, flags| segment.flags.contains(flags);
    assert!(has(syn, TcpFlags::SYN) && !has(syn, TcpFlags::ACK));
    assert!(has(syn_ack, TcpFlags::SYN | TcpFlags::ACK));
    assert!(has(ack, TcpFlags::ACK) && !has(ack, TcpFlags::SYN));
    for segment in [syn, syn_ack, ack] {
        assert!(!has(segment, TcpFlags::RST));
    }
    for (segment, from, to) in [
        (syn, syn.source, syn.destination),
        (syn_ack, syn.destination, syn.source),
        (ack, syn.source, syn.destination),
    ] {
        assert_eq!((segment.source, segment.destination), (from, to));
    }
    let answered = syn_ack.ack.wrapping_sub(syn.seq.wrapping_add(1));
    assert!(answered <= syn.payload_len, "the SYN+ACK does not acknowledge the SYN");
    handshake.lines().iter().for_each(|line| check_printable(line));
    handshake.diagram().lines().for_each(check_printable);
    assert_eq!(handshake.steps().len(), 3);
}
