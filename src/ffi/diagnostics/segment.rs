//! `keepsock_segment`.

use std::ffi::c_char;
use std::time::UNIX_EPOCH;

use crate::Segment;
use crate::ffi::{fill_text, versioned};

/// keepsock_segment.flags: the sender has sent all of its data.
pub const KEEPSOCK_TCP_FIN: u8 = 0x01;
/// keepsock_segment.flags: seq is the sender's initial sequence number.
pub const KEEPSOCK_TCP_SYN: u8 = 0x02;
/// keepsock_segment.flags: the sender resets the connection.
pub const KEEPSOCK_TCP_RST: u8 = 0x04;
/// keepsock_segment.flags: the receiver delivers the data to its program immediately.
pub const KEEPSOCK_TCP_PSH: u8 = 0x08;
/// keepsock_segment.flags: ack is valid.
pub const KEEPSOCK_TCP_ACK: u8 = 0x10;
/// keepsock_segment.flags: urgent is valid.
pub const KEEPSOCK_TCP_URG: u8 = 0x20;
/// keepsock_segment.flags: congestion was marked. In a SYN: the sender supports ECN.
pub const KEEPSOCK_TCP_ECE: u8 = 0x40;
/// keepsock_segment.flags: the sender has reduced its window. In a SYN: it supports ECN.
pub const KEEPSOCK_TCP_CWR: u8 = 0x80;

/// One TCP segment with its IP header (RFC 9293, RFC 791, RFC 8200).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct keepsock_segment {
    /// The time of the capture in nanoseconds since 1970. -1: unknown, for a SYN that the kernel saved
    /// and for packets in the first moments of a capture.
    pub captured_at_ns: i64,
    /// The sequence number. In a SYN: the sender's initial sequence number.
    pub seq: u32,
    /// The acknowledgment number, valid with KEEPSOCK_TCP_ACK.
    pub ack: u32,
    /// The number of data bytes.
    pub payload_len: u32,
    /// The sender's timestamp (RFC 7323), with has_timestamps.
    pub timestamp: u32,
    /// The peer's last timestamp, with has_timestamps; 0 in a SYN.
    pub timestamp_echo: u32,
    /// For a packet of a handshake: how often it was retransmitted, because no answer arrived in
    /// time. 0 for the third packet.
    pub retransmissions: u32,
    /// For a packet of a handshake: the keepsock_tcp_state of the side that connected, after the
    /// packet has arrived. It is derived from the packets; before the first packet it is CLOSED. 0 for
    /// other segments.
    pub client_state: i32,
    /// The TCP state of the side that listened. Before the first packet it is LISTEN.
    pub server_state: i32,
    /// The window as in the header, not scaled.
    pub window: u16,
    /// The urgent pointer, valid with KEEPSOCK_TCP_URG.
    pub urgent: u16,
    /// The maximum segment size that the sender accepts; 0: not announced.
    pub mss: u16,
    /// The sender's port, in host byte order.
    pub source_port: u16,
    /// The receiver's port, in host byte order.
    pub destination_port: u16,
    /// The shift of the sender's windows in bits; -1: no window scaling.
    pub window_scale: i16,
    /// A combination of KEEPSOCK_TCP_SYN and the other flags.
    pub flags: u8,
    /// 4 or 6.
    pub ip_version: u8,
    /// The remaining TTL (IPv4) or hop limit (IPv6).
    pub ttl: u8,
    /// The TOS byte (IPv4) or traffic class (IPv6): DSCP, and ECN in the lowest two bits.
    pub traffic_class: u8,
    /// Whether routers must not fragment it: DF of IPv4, always true for IPv6.
    pub dont_fragment: bool,
    /// Whether the sender supports selective acknowledgments (RFC 2018).
    pub sack_permitted: bool,
    /// Whether the segment has timestamps.
    pub has_timestamps: bool,
    /// The number of bytes of options.
    pub options_len: u8,
    /// The TCP options as in the header, including padding.
    pub options: [u8; 40],
    /// The sender's address without port.
    pub source_address: [c_char; 48],
    /// The receiver's address without port.
    pub destination_address: [c_char; 48],
    /// The packet as "tcpdump -n -S -t" prints it: "IP 127.0.0.1.40000 > 127.0.0.1.80:
    /// Flags [S], seq 1, win 65495, options [mss 65495,sackOK,TS val 1 ecr 0,nop,wscale 7],
    /// length 0".
    pub line: [c_char; 516],
}

versioned!(keepsock_segment: 712);

impl From<&Segment> for keepsock_segment {
    fn from(segment: &Segment) -> keepsock_segment {
        let since = segment.captured.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let (value, echo) = segment.timestamps().unwrap_or((0, 0));
        let mut made = keepsock_segment {
            captured_at_ns: since.map_or(-1, |t| i64::try_from(t.as_nanos()).unwrap_or(-1)),
            seq: segment.seq,
            ack: segment.ack,
            payload_len: segment.payload_len,
            timestamp: value,
            timestamp_echo: echo,
            retransmissions: 0,
            client_state: 0,
            server_state: 0,
            window: segment.window,
            urgent: segment.urgent,
            mss: segment.mss().unwrap_or(0),
            source_port: segment.source.port(),
            destination_port: segment.destination.port(),
            window_scale: segment.window_scale().map_or(-1, i16::from),
            flags: segment.flags.bits(),
            ip_version: if segment.source.is_ipv4() { 4 } else { 6 },
            ttl: segment.ttl,
            traffic_class: segment.traffic_class,
            dont_fragment: segment.dont_fragment,
            sack_permitted: segment.sack_permitted(),
            has_timestamps: segment.timestamps().is_some(),
            options_len: 0,
            options: [0; 40],
            source_address: [0; 48],
            destination_address: [0; 48],
            line: [0; 516],
        };
        for (slot, byte) in made.options.iter_mut().zip(segment.option_bytes()) {
            *slot = *byte;
            made.options_len += 1;
        }
        fill_text(&mut made.source_address, &segment.source.ip().to_string());
        fill_text(&mut made.destination_address, &segment.destination.ip().to_string());
        fill_text(&mut made.line, &segment.to_string());
        made
    }
}
