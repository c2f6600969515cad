use super::*;
use std::net::IpAddr;

/// A deterministic pseudo-random number generator (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

/// A packet under construction. Unset fields are zero.
#[derive(Clone)]
struct Packet {
    source: SocketAddr,
    destination: SocketAddr,
    flags: u8,
    seq: u32,
    ack: u32,
    options: Vec<u8>,
    data: usize,
    /// The options of IPv4, or the extension headers of IPv6 and the number of the first one.
    extra: (u8, Vec<u8>),
}

const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

impl Packet {
    fn new(source: &str, destination: &str, flags: u8, seq: u32, ack: u32) -> Packet {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        let (options, data, extra) = (Vec::new(), 0, (6, Vec::new()));
        Packet { source, destination, flags, seq, ack, options, data, extra }
    }

    fn options(mut self, options: &[u8]) -> Packet {
        self.options = options.to_vec();
        self
    }

    fn data(mut self, data: usize) -> Packet {
        self.data = data;
        self
    }

    fn tcp(&self) -> Vec<u8> {
        let mut tcp = Vec::new();
        tcp.extend(self.source.port().to_be_bytes());
        tcp.extend(self.destination.port().to_be_bytes());
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend(self.ack.to_be_bytes());
        assert_eq!(self.options.len() % 4, 0);
        tcp.push(((20 + self.options.len()) / 4 * 16) as u8);
        tcp.push(self.flags);
        tcp.extend(1000u16.to_be_bytes());
        tcp.extend([0, 0, 0, 7]); // checksum, urgent pointer
        tcp.extend(&self.options);
        tcp.extend(std::iter::repeat_n(b'x', self.data));
        tcp
    }

    fn bytes(&self) -> Vec<u8> {
        let tcp = self.tcp();
        let mut packet = Vec::new();
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = 20 + self.extra.1.len();
                packet.extend([0x40 + (header / 4) as u8, 0xba]);
                packet.extend(((header + tcp.len()) as u16).to_be_bytes());
                packet.extend([1, 2, 0x40, 0, 63, 6, 0, 0]);
                packet.extend(source.octets());
                packet.extend(destination.octets());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                packet.extend([0x6b, 0xa1, 2, 3]);
                packet.extend(((self.extra.1.len() + tcp.len()) as u16).to_be_bytes());
                packet.extend([self.extra.0, 63]);
                packet.extend(source.octets());
                packet.extend(destination.octets());
            }
            _ => panic!("the addresses have different families"),
        }
        packet.extend(&self.extra.1);
        packet.extend(tcp);
        packet
    }

    fn segment(&self) -> Segment {
        Segment::parse(&self.bytes()).unwrap()
    }
}

const A: &str = "10.0.0.1:40000";
const B: &str = "10.0.0.2:80";
const A6: &str = "[2001:db8:1111:2222:3333:4444:5555:6666]:40000";
const B6: &str = "[2001:db8:1111:2222:3333:4444:5555:7777]:8080";

/// The options that Linux sends: mss 65495, sackOK, TS, nop, wscale 7.
const LINUX: [u8; 20] = [2, 4, 0xff, 0xd7, 4, 2, 8, 10, 0, 0, 0, 5, 0, 0, 0, 0, 1, 3, 3, 7];

fn syn(j: u32) -> Packet {
    Packet::new(A, B, SYN, j, 0)
}

fn syn_ack(k: u32, j: u32) -> Packet {
    Packet::new(B, A, SYN | ACK, k, j.wrapping_add(1))
}

fn ack(j: u32, k: u32) -> Packet {
    Packet::new(A, B, ACK, j.wrapping_add(1), k.wrapping_add(1))
}

fn both(one: &str, other: &str) -> FiveTuple {
    FiveTuple::tcp(one.parse().unwrap(), other.parse().unwrap())
}

fn find(packets: &[Packet]) -> Option<Handshake> {
    let segments = || packets.iter().map(Packet::segment);
    let found = Handshake::among(segments(), &both(A, B));
    assert_eq!(found, Handshake::among(segments(), &both(B, A)), "from either side");
    found
}

/// The initial sequence numbers and the retransmission counts of the handshake.
fn numbers(packets: &[Packet]) -> Option<(u32, u32, u32, u32)> {
    let h = find(packets)?;
    Some((h.syn.seq, h.syn_ack.seq, h.syn_retransmissions, h.syn_ack_retransmissions))
}

// ---- parsing -------------------------------------------------------------------------------

/// N2: every field, IPv4 and IPv6, and the line that tcpdump prints.
#[test]
fn parse_of_both_families_reads_every_field() {
    for (from, to, line) in [
        (
            A,
            B,
            "IP 10.0.0.1.40000 > 10.0.0.2.80: Flags [S.], seq 4294967295, ack 9, win 1000, \
                options [mss 65495,sackOK,TS val 5 ecr 0,nop,wscale 7], length 0",
        ),
        (
            A6,
            B6,
            "IP6 2001:db8:1111:2222:3333:4444:5555:6666.40000 > \
                  2001:db8:1111:2222:3333:4444:5555:7777.8080: Flags [S.], seq 4294967295, \
                  ack 9, win 1000, options [mss 65495,sackOK,TS val 5 ecr 0,nop,wscale 7], length 0",
        ),
    ] {
        let segment = Packet::new(from, to, SYN | ACK, u32::MAX, 9).options(&LINUX).segment();
        assert_eq!(
            (segment.source, segment.destination),
            (from.parse().unwrap(), to.parse().unwrap())
        );
        assert_eq!((segment.ttl, segment.dont_fragment, segment.traffic_class), (63, true, 0xba));
        assert_eq!(
            (segment.seq, segment.ack, segment.window, segment.urgent),
            (u32::MAX, 9, 1000, 7)
        );
        assert_eq!(segment.flags, TcpFlags::SYN | TcpFlags::ACK);
        assert_eq!((segment.payload_len, segment.captured), (0, None));
        assert_eq!((segment.mss(), segment.window_scale()), (Some(65495), Some(7)));
        assert_eq!((segment.timestamps(), segment.sack_permitted()), (Some((5, 0)), true));
        assert_eq!(segment.option_bytes(), LINUX);
        assert_eq!(segment.to_string(), line);
    }
    let plain = syn(1).segment();
    assert_eq!((plain.mss(), plain.window_scale(), plain.timestamps()), (None, None, None));
    assert!(!plain.sack_permitted());
    assert!(plain.to_string().ends_with("Flags [S], seq 1, win 1000, length 0"), "{plain}");
}

/// N3: sequence numbers print as in `tcpdump -S`: a range for data, none for an ACK without data.
#[test]
fn segment_prints_as_in_tcpdump() {
    let line = |packet: Packet| {
        let line = packet.segment().to_string();
        line.split_once(": ").unwrap().1.to_owned()
    };
    assert_eq!(line(ack(1, 2)), "Flags [.], ack 3, win 1000, length 0");
    let data = Packet::new(A, B, ACK | 8, 5, 2).data(10);
    assert_eq!(line(data), "Flags [P.], seq 5:15, ack 2, win 1000, length 10");
    let last = Packet::new(A, B, ACK | 1, 5, 2);
    assert_eq!(line(last), "Flags [F.], seq 5, ack 2, win 1000, length 0");
    assert_eq!(line(Packet::new(A, B, RST, 5, 2)), "Flags [R], seq 5, win 1000, length 0");
    let all = Packet::new(A, B, 0xff, 5, 2);
    assert_eq!(line(all), "Flags [FSRP.UEW], seq 5, ack 2, win 1000, urg 7, length 0");
    assert_eq!(line(Packet::new(A, B, 0, 5, 2)), "Flags [none], win 1000, length 0");
    let wraps = Packet::new(A, B, ACK, u32::MAX, 2).data(2);
    assert_eq!(line(wraps), "Flags [.], seq 4294967295:1, ack 2, win 1000, length 2");
}

/// N2: options keep the order of the header. A malformed option ends the list.
#[test]
fn parse_of_options_keeps_their_order() {
    let options = |bytes: &[u8]| {
        let mut padded = bytes.to_vec();
        padded.resize(bytes.len().next_multiple_of(4), 0);
        let segment = syn(1).options(&padded).segment();
        assert_eq!(segment.option_bytes(), padded);
        segment.options.iter().map(TcpOption::to_string).collect::<Vec<_>>()
    };
    assert_eq!(options(&[1, 4, 2, 1]), ["nop", "sackOK", "nop"]);
    assert_eq!(options(&[2, 4, 5, 180, 0, 9, 9, 9]), ["mss 1460", "eol"]);
    assert_eq!(options(&[5, 10, 0, 0, 0, 1, 0, 0, 0, 3, 1, 1]), ["sack 1 {1:3}", "nop", "nop"]);
    assert_eq!(options(&[34, 2, 1, 1]), ["tfo cookiereq", "nop", "nop"]);
    assert_eq!(options(&[34, 6, 1, 2, 3, 0xff, 1, 1]), ["tfo cookie 010203ff", "nop", "nop"]);
    assert_eq!(options(&[200, 2, 201, 3, 0xab, 1, 1, 1])[..2], ["unknown-200", "unknown-201 0xab"]);
    // A length that the kind does not permit.
    assert_eq!(options(&[2, 3, 5, 1]), ["unknown-2 0x05", "nop"]);
    assert_eq!(options(&[5, 6, 0, 0, 0, 1, 1, 1])[..1], ["unknown-5 0x00000001"]);
    // A length below 2, and a length beyond the end.
    assert_eq!(options(&[1, 3, 1, 1]), ["nop"]);
    assert_eq!(options(&[1, 2, 0, 1]), ["nop"]);
    assert_eq!(options(&[1, 1, 1, 8]), ["nop", "nop", "nop"]);
    assert_eq!(options(&[1, 1, 8, 10]), ["nop", "nop"]);
}

/// N2: the options of IPv4 and the extension headers of IPv6 are skipped.
#[test]
fn parse_skips_ip_options_and_extension_headers() {
    let mut packet = syn(7).options(&LINUX).data(3);
    packet.extra.1 = vec![1; 40];
    let segment = packet.segment();
    assert_eq!((segment.seq, segment.payload_len, segment.mss()), (7, 3, Some(65495)));

    let mut packet = Packet::new(A6, B6, SYN, 7, 0).options(&LINUX).data(3);
    let mut extensions = vec![43u8, 1];
    extensions.extend([0; 14]); // hop-by-hop, 16 bytes
    extensions.extend([51, 0, 0, 0, 0, 0, 0, 0]); // routing
    extensions.extend([60, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // authentication, 12 bytes
    extensions.extend([44, 0, 0, 0, 0, 0, 0, 0]); // destination
    extensions.extend([6, 0, 0, 1, 0, 0, 0, 0]); // fragment, the first
    packet.extra = (0, extensions);
    let segment = packet.segment();
    assert_eq!((segment.seq, segment.payload_len, segment.mss()), (7, 3, Some(65495)));
    // A later fragment.
    let at = packet.extra.1.len() - 5;
    packet.extra.1[at] = 8;
    assert!(Segment::parse(&packet.bytes()).is_none());
}

/// N2: a packet with truncated data is parsed. A truncated header and another protocol are not.
#[test]
fn parse_of_incomplete_header_returns_none() {
    let packet = syn(7).options(&LINUX).data(100);
    let bytes = packet.bytes();
    for len in 0..bytes.len() {
        let parsed = Segment::parse(&bytes[..len]);
        assert_eq!(parsed.is_some(), len >= 60, "{len} bytes");
        assert!(parsed.is_none_or(|s| s == packet.segment()), "{len} bytes");
    }
    let with = |at: usize, value: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        Segment::parse(&bytes)
    };
    assert!(with(9, 17).is_none(), "UDP");
    assert!(with(0, 0x55).is_none(), "IP version 5");
    assert!(with(0, 0x44).is_none(), "an IP header of 16 bytes");
    assert!(with(7, 1).is_none(), "a later fragment");
    assert!(with(6, 0x20).is_some_and(|s| !s.dont_fragment), "a first fragment");
    assert!(with(32, 0x40).is_none(), "a TCP header of 16 bytes");
    assert!(with(3, 50).is_none(), "an IP packet that ends inside TCP's header");
    // Larger than 64 KiB (BIG TCP): the length is that of the packet.
    assert_eq!(with(3, 0).unwrap().payload_len, 100);
}

/// N2: the parser does not panic on any bytes, neither on noise nor on damaged packets.
#[test]
fn parse_of_any_bytes_never_panics() {
    let mut dice = Dice(1);
    let mut parsed = 0;
    let rounds = if cfg!(miri) { 200 } else { 200_000 };
    for round in 0..rounds {
        let mut bytes = if round % 2 == 0 {
            let n = dice.below(120);
            dice.bytes(n)
        } else {
            let six = dice.below(2) == 0;
            let (from, to) = if six { (A6, B6) } else { (A, B) };
            let options = dice.below(11) * 4;
            let flags = dice.next() as u8;
            let mut packet = Packet::new(from, to, flags, dice.next() as u32, 1);
            packet.options = dice.bytes(options);
            packet.bytes()
        };
        if !bytes.is_empty() {
            for _ in 0..dice.below(4) {
                let at = dice.below(bytes.len());
                bytes[at] = dice.next() as u8;
            }
            let len = dice.below(bytes.len() + 1);
            if dice.below(3) == 0 {
                bytes.truncate(len);
            }
        }
        let Some(segment) = Segment::parse(&bytes) else {
            continue;
        };
        parsed += 1;
        let line = segment.to_string();
        assert!(line.len() < 500, "{} bytes: {line}", line.len());
        assert!(segment.options.len() <= 40 && segment.option_bytes().len() <= 40);
        let mut matcher = Matcher::default();
        let (one, other) = (segment.source, segment.destination);
        matcher.put(segment.clone(), (1, true));
        matcher.put(segment, (1, true));
        let found = matcher.find(one, other);
        assert!(found.complete.is_none());
        assert!(!found.partial.to_string().is_empty());
    }
    assert!(parsed > rounds / 4, "only {parsed} were segments");
}

// ---- matching ------------------------------------------------------------------------------

/// N3: a handshake has three packets. Two packets are not a handshake.
#[test]
fn find_with_three_packets_returns_the_handshake() {
    let all = [syn(100), syn_ack(900, 100), ack(100, 900)];
    let found = find(&all).unwrap();
    assert_eq!((found.client(), found.server()), (A.parse().unwrap(), B.parse().unwrap()));
    assert_eq!(found.syn, all[0].segment());
    assert_eq!(found.syn_ack, all[1].segment());
    assert_eq!(found.ack, all[2].segment());
    assert_eq!((found.syn_retransmissions, found.syn_ack_retransmissions), (0, 0));
    for missing in 0..3 {
        let mut some = all.to_vec();
        some.remove(missing);
        assert!(find(&some).is_none(), "without packet {missing}");
    }
    for (a, b) in [(0, 1), (1, 2), (0, 2)] {
        let mut mixed = all.to_vec();
        mixed.swap(a, b);
        assert!(find(&mixed).is_none(), "packets {a} and {b} swapped");
    }
    assert!(Handshake::among(all.iter().map(Packet::segment), &both(A, "10.0.0.2:81")).is_none());
}

/// N3: packets whose numbers do not match are not a handshake.
#[test]
fn find_with_wrong_numbers_returns_none() {
    assert!(find(&[syn(100), syn_ack(900, 101), ack(100, 900)]).is_none());
    assert!(find(&[syn(100), syn_ack(900, 99), ack(100, 900)]).is_none());
    assert!(find(&[syn(100), syn_ack(900, 100), ack(101, 900)]).is_none());
    assert!(find(&[syn(100), syn_ack(900, 100), ack(100, 901)]).is_none());
    assert!(find(&[syn(100), syn_ack(900, 100), ack(100, 899)]).is_none());
    // A RST is not an ACK.
    let mut reset = ack(100, 900);
    reset.flags |= RST;
    assert!(find(&[syn(100), syn_ack(900, 100), reset]).is_none());
}

/// N3: sequence numbers wrap around.
#[test]
fn find_of_wrapping_numbers_returns_the_handshake() {
    for (j, k) in [(u32::MAX, 5), (5, u32::MAX), (u32::MAX, u32::MAX), (u32::MAX - 1, 0)] {
        let all = [syn(j), syn_ack(k, j), ack(j, k)];
        assert_eq!(numbers(&all), Some((j, k, 0, 0)));
        assert!(
            find(&all).unwrap().diagram().contains(&format!("ack=k+1 ({})", k.wrapping_add(1)))
        );
    }
}

/// N3: retransmissions are counted, and the first copy is returned.
#[test]
fn find_with_retransmissions_counts_them() {
    let again = |ts: u8| {
        let mut options = LINUX;
        options[11] = ts;
        syn(100).options(&options)
    };
    let all = [again(1), again(2), again(3), syn_ack(900, 100), syn_ack(900, 100), ack(100, 900)];
    assert_eq!(numbers(&all), Some((100, 900, 2, 1)));
    assert_eq!(find(&all).unwrap().syn.timestamps(), Some((1, 0)));
    // A copy of the SYN that arrives after the SYN+ACK, and the ACK of the second SYN+ACK.
    let late = [syn(100), syn_ack(900, 100), syn(100), syn_ack(900, 100), ack(100, 900)];
    assert_eq!(numbers(&late), Some((100, 900, 1, 1)));
    let both_acked = [syn(100), syn_ack(900, 100), ack(100, 900), syn_ack(900, 100), ack(100, 900)];
    assert_eq!(numbers(&both_acked), Some((100, 900, 0, 1)));
}

/// N3: a packet that passes several interfaces was sent once. A retransmission passes all of them
/// again, or only the first one if it was lost after that.
#[test]
fn find_with_copies_on_several_interfaces_counts_one_packet() {
    const NEAR: (u32, bool) = (2, false);
    const BRIDGE: (u32, bool) = (3, false);
    const FAR: (u32, bool) = (3, true);
    let all = [NEAR, BRIDGE, FAR];
    let mut matcher = Matcher::default();
    let mut put = |packet: Packet, from: &[(u32, bool)]| {
        from.iter().for_each(|from| matcher.put(packet.segment(), *from));
    };
    put(syn(100), &all[..1]);
    put(syn(100), &all);
    put(syn_ack(900, 100), &all);
    put(ack(100, 900), &all);
    let found = matcher.find(A.parse().unwrap(), B.parse().unwrap()).complete.unwrap();
    assert_eq!((found.syn_retransmissions, found.syn_ack_retransmissions), (1, 0));
}

/// N3: if a port is reused, the latest complete handshake is returned.
#[test]
fn find_of_reused_port_returns_the_latest_handshake() {
    let first = [syn(100), syn_ack(900, 100), ack(100, 900)];
    let second = [syn(5000), syn_ack(7000, 5000), ack(5000, 7000)];
    let mut all = first.to_vec();
    for (i, packet) in second.iter().enumerate() {
        assert_eq!(numbers(&all), Some((100, 900, 0, 0)), "{i} packets of the second");
        let mut matcher = Matcher::default();
        all.iter().for_each(|p| matcher.put(p.segment(), (0, false)));
        let found = matcher.find(A.parse().unwrap(), B.parse().unwrap());
        assert_eq!(found.more_to_come, i > 0, "{i} packets of the second");
        all.push(packet.clone());
    }
    assert_eq!(numbers(&all), Some((5000, 7000, 0, 0)));
    // A connection in the other direction with the same addresses.
    let turned = |p: &Packet| {
        let mut p = p.clone();
        (p.source, p.destination) = (p.destination, p.source);
        p.seq = p.seq.wrapping_add(77);
        p.ack = if p.flags & ACK == 0 { 0 } else { p.ack.wrapping_add(77) };
        p
    };
    all.extend(first.iter().map(turned));
    let found = find(&all).unwrap();
    assert_eq!((found.syn.seq, found.client()), (177, B.parse().unwrap()));
}

/// N3: an old SYN that arrives late (RFC 9293 figure 8) does not hide the new one.
#[test]
fn find_with_old_duplicate_syn_returns_the_new_handshake() {
    let all = [
        syn(100),
        syn(90),
        syn_ack(300, 90),
        Packet::new(A, B, RST, 91, 0),
        syn_ack(400, 100),
        ack(100, 400),
    ];
    assert_eq!(numbers(&all), Some((100, 400, 0, 0)));
}

/// N3: a server without memory, as with SYN cookies, may answer twice with different numbers. The
/// ACK selects the answer.
#[test]
fn find_with_different_answers_returns_the_acknowledged_one() {
    let all = [syn(100), syn_ack(900, 100), syn_ack(950, 100), ack(100, 950)];
    assert_eq!(numbers(&all), Some((100, 950, 0, 0)));
    let all = [syn(100), syn_ack(900, 100), syn_ack(950, 100), ack(100, 900)];
    assert_eq!(numbers(&all), Some((100, 900, 0, 0)));
}

/// N3: the third packet may carry data. With TCP Fast Open (RFC 7413) the SYN carries data, which
/// may be acknowledged or not, and data of the server may arrive before the third packet.
#[test]
fn find_with_data_in_the_handshake_returns_it() {
    let all = [syn(100), syn_ack(900, 100), ack(100, 900).data(50)];
    let found = find(&all).unwrap();
    assert_eq!(found.ack.payload_len, 50);
    assert!(found.diagram().contains("| with 50 bytes of data "));

    let fast = |acked: u32, seq: u32, server_sent: u32| {
        let third = Packet::new(A, B, ACK, seq, 901 + server_sent);
        [syn(100).data(1000), Packet::new(B, A, SYN | ACK, 900, acked), third]
    };
    assert_eq!(numbers(&fast(1101, 1101, 0)), Some((100, 900, 0, 0)), "taken");
    assert_eq!(numbers(&fast(101, 101, 0)), Some((100, 900, 0, 0)), "not taken");
    assert_eq!(numbers(&fast(1101, 1101, 5000)), Some((100, 900, 0, 0)), "answered at once");
    assert_eq!(numbers(&fast(1102, 1102, 0)), None, "more than was sent");
    assert_eq!(numbers(&fast(100, 101, 0)), None, "less than the SYN");
    let diagram = find(&fast(1101, 1101, 0)).unwrap().diagram();
    assert!(diagram.contains("ack=j+1001 (1101)"), "{diagram}");
}

/// N3: without a handshake, the result lists the captured packets: a refused connection differs from
/// an unanswered one.
#[test]
fn find_of_incomplete_handshake_lists_the_packets() {
    let report = |packets: &[Packet]| {
        let mut matcher = Matcher::default();
        packets.iter().for_each(|p| matcher.put(p.segment(), (0, false)));
        let found = matcher.find(A.parse().unwrap(), B.parse().unwrap());
        (found.partial.to_string(), found.more_to_come)
    };
    let refusal = Packet::new(B, A, RST | ACK, 0, 101);
    assert_eq!(report(&[]), ("no packet of the handshake was captured".to_owned(), false));
    assert_eq!(report(&[syn(100)]), ("captured: SYN".to_owned(), true));
    assert_eq!(report(&[syn(100), syn(100)]), ("captured: SYN (2 times)".to_owned(), true));
    assert_eq!(report(&[syn(100), refusal.clone()]), ("captured: SYN, RST".to_owned(), false));
    let answered = [syn(100), syn_ack(900, 100), syn_ack(900, 100)];
    assert_eq!(report(&answered), ("captured: SYN, SYN+ACK (2 times)".to_owned(), true));
    let again = [syn(100), refusal.clone(), syn(100)];
    assert_eq!(report(&again), ("captured: SYN (2 times)".to_owned(), true));
    // The client rejects the SYN+ACK.
    let declined = [syn(100), syn_ack(900, 100), Packet::new(A, B, RST, 101, 0)];
    assert_eq!(report(&declined), ("captured: SYN, SYN+ACK, RST".to_owned(), false));
    // The server already has the connection (RFC 5961): it answers the SYN with an ACK.
    let challenged = [syn(100), Packet::new(B, A, ACK, 5, 6)];
    assert_eq!(report(&challenged), ("captured: SYN".to_owned(), false));
    // A reset that belongs to another connection, and one whose acknowledgment is not valid.
    for (flags, ack) in [(RST | ACK, 777), (RST, 101)] {
        let other = [syn(100), Packet::new(B, A, flags, 0, ack)];
        assert_eq!(report(&other), ("captured: SYN".to_owned(), true), "{flags} {ack}");
    }
    // After an answer, or after a reset, an ACK of the server does not end the handshake.
    let server_ack = Packet::new(B, A, ACK, 901, 101);
    let answered = [syn(100), syn_ack(900, 100), server_ack.clone()];
    assert_eq!(report(&answered), ("captured: SYN, SYN+ACK".to_owned(), true));
    let after_reset = [syn(100), refusal, server_ack];
    assert_eq!(report(&after_reset), ("captured: SYN, RST".to_owned(), false));
    // A reset of the connection does not remove its handshake.
    let all = [syn(100), syn_ack(900, 100), ack(100, 900), Packet::new(A, B, RST, 101, 0)];
    assert_eq!(numbers(&all), Some((100, 900, 0, 0)));
}

/// N3: packets of other connections and retransmissions do not change the handshake that is found.
#[test]
fn find_among_mixed_connections_returns_each_handshake() {
    let mut dice = Dice(2);
    for _ in 0..300 {
        let count = 1 + dice.below(20);
        let mut expected = Vec::new();
        let mut streams: Vec<Vec<Packet>> = Vec::new();
        for i in 0..count {
            let client = format!("10.0.0.{}:{}", 10 + i % 3, 40_000 + i / 3);
            let (j, k) = (dice.next() as u32, dice.next() as u32);
            let copies = (dice.below(3), dice.below(3));
            let mut stream = Vec::new();
            let forth = |flags, seq, ack| Packet::new(&client, B, flags, seq, ack);
            stream.extend(vec![forth(SYN, j, 0); copies.0 + 1]);
            let answer = Packet::new(B, &client, SYN | ACK, k, j.wrapping_add(1));
            stream.extend(vec![answer; copies.1 + 1]);
            let data = dice.below(2) * 100;
            stream.push(forth(ACK, j.wrapping_add(1), k.wrapping_add(1)).data(data));
            // More segments of the same connection follow.
            for _ in 0..dice.below(5) {
                let seq = j.wrapping_add(101 + dice.below(1000) as u32);
                stream.push(forth(ACK, seq, k.wrapping_add(1)).data(10));
                stream.push(Packet::new(B, &client, ACK, k.wrapping_add(1), seq));
            }
            expected.push((client, (j, k, copies.0 as u32, copies.1 as u32)));
            streams.push(stream);
        }
        let mut matcher = Matcher::default();
        streams.iter_mut().for_each(|stream| stream.reverse());
        while streams.iter().any(|stream| !stream.is_empty()) {
            let i = dice.below(count);
            if let Some(packet) = streams[i].pop() {
                matcher.put(packet.segment(), (1, false));
            }
        }
        for (client, numbers) in expected {
            let found = matcher.find(B.parse().unwrap(), client.parse().unwrap());
            assert!(!found.more_to_come);
            let h = found.complete.unwrap();
            let counts = (h.syn_retransmissions, h.syn_ack_retransmissions);
            assert_eq!((h.syn.seq, h.syn_ack.seq, counts.0, counts.1), numbers);
        }
    }
}

/// N3: the memory of the matcher is bounded for any input.
#[test]
fn put_of_many_packets_keeps_memory_bounded() {
    let mut matcher = Matcher::default();
    for i in 0..20_000u32 {
        let client = format!("10.{}.{}.1:{}", i >> 14, (i >> 7) & 127, 1000 + (i & 127));
        matcher.put(Packet::new(&client, B, SYN, i, 0).segment(), (1, false));
        matcher.put(syn(i).segment(), (1, false));
        matcher.put(syn_ack(i, 5).segment(), (1, false));
    }
    let (flows, attempts) = matcher.size();
    // The flow in use has eight attempts, and each of the others has one.
    assert_eq!((flows, attempts), (1024, 1023 + 8));
    // Eight answers of each attempt are kept.
    let answers: Vec<_> = (0..9).map(|i| syn_ack(1000 * i, 100)).collect();
    let with_ack = |of: u32| [&[syn(100)], &answers[..], &[ack(100, 1000 * of)]].concat();
    assert_eq!(numbers(&with_ack(7)).map(|found| found.1), Some(7000));
    assert_eq!(numbers(&with_ack(8)), None);
    // The flow in use is still known, and its latest attempt is kept.
    matcher.put(syn(7).segment(), (1, false));
    matcher.put(syn_ack(8, 7).segment(), (1, false));
    matcher.put(ack(7, 8).segment(), (1, false));
    let found = matcher.find(A.parse().unwrap(), B.parse().unwrap()).complete.unwrap();
    assert_eq!(found.syn.seq, 7);
}

/// N3: a link-local address has a zone in the five-tuple and no zone in a packet. A mapped address
/// is IPv4 in a packet.
#[test]
fn among_with_socket_addresses_matches_packet_addresses() {
    let (one, other) = ("[fe80::1]:40000", "[fe80::2]:80");
    let three = [
        Packet::new(one, other, SYN, 1, 0),
        Packet::new(other, one, SYN | ACK, 2, 2),
        Packet::new(one, other, ACK, 2, 3),
    ];
    let of = both("[fe80::1%3]:40000", "[fe80::2%3]:80");
    assert!(Handshake::among(three.iter().map(Packet::segment), &of).is_some());
    let three = [syn(1), syn_ack(2, 1), ack(1, 2)];
    let of = both("[::ffff:10.0.0.1]:40000", "[::ffff:10.0.0.2]:80");
    assert!(Handshake::among(three.iter().map(Packet::segment), &of).is_some());
}

// ---- printing ------------------------------------------------------------------------------

/// N3, S5: the states of both sides after each packet (RFC 9293 section 3.5, figure 6).
#[test]
fn steps_return_states_of_both_sides() {
    let found = find(&[syn(100), syn_ack(300, 100), ack(100, 300)]).unwrap();
    let states = found.steps().map(|s| format!("{} {} {}", s.segment.flags, s.client, s.server));
    assert_eq!(
        states,
        ["S SYN-SENT SYN-RECEIVED", "S. ESTABLISHED SYN-RECEIVED", ". ESTABLISHED ESTABLISHED"]
    );
    assert_eq!(found.lines(), found.steps().map(|step| step.segment.to_string()));
}

/// N3: the exact text of a diagram.
#[test]
fn diagram_of_retransmitted_syn_is_exact() {
    let mut again = LINUX;
    again[11] = 9;
    let all = [
        syn(3_735_928_559).options(&LINUX),
        syn(3_735_928_559).options(&again),
        syn_ack(20, 3_735_928_559).options(&LINUX),
        ack(3_735_928_559, 20),
    ];
    let expected = "\
client 10.0.0.1:40000                                       server 10.0.0.2:80
      CLOSED |                                                  | LISTEN
             |                                                  |
             | SYN seq=j (3735928559)                           |
             | win=1000 mss=65495 wscale=7 sackOK TS            |
             | sent 2 times                                     |
    SYN-SENT |------------------------------------------------->| SYN-RECEIVED
             |                                                  |
             | SYN, ACK seq=k (20) ack=j+1 (3735928560)         |
             | win=1000 mss=65495 wscale=7 sackOK TS            |
 ESTABLISHED |<-------------------------------------------------| SYN-RECEIVED
             |                                                  |
             | ACK seq=j+1 (3735928560) ack=k+1 (21)            |
 ESTABLISHED |------------------------------------------------->| ESTABLISHED

j = 3735928559, k = 20: the initial sequence numbers";
    assert_eq!(find(&all).unwrap().diagram(), expected);
}

/// N3: a diagram has at most 80 columns, and its lines are aligned.
#[test]
fn diagram_of_long_addresses_fits_80_columns() {
    let longest = "[1111:2222:3333:4444:5555:6666:7777:8888]:65535";
    let longer = "[1111:2222:3333:4444:5555:6666:7777:9999]:65535";
    for (from, to) in
        [(A, B), (A6, B6), (longest, longer), ("[::1]:1", "[::1]:2"), (longest, "[::1]:2")]
    {
        for (j, k, early) in
            [(1, 2, 0), (u32::MAX - 1, u32::MAX - 1, 0), (3_000_000_000, 3_000_000_000, 9999)]
        {
            let (after, end) = (j.wrapping_add(1 + early), k.wrapping_add(1));
            let three = [
                Packet::new(from, to, SYN, j, 0).options(&LINUX).data(early as usize),
                Packet::new(to, from, SYN | ACK, k, after).options(&LINUX),
                Packet::new(from, to, ACK, after, end.wrapping_add(early)).data(65_000),
            ];
            let found =
                Handshake::among(three.iter().map(Packet::segment), &both(from, to)).unwrap();
            let diagram = found.diagram();
            for line in diagram.lines() {
                assert!(line.len() <= 80, "{}: {line}", line.len());
                assert_eq!(line.trim_end(), line, "spaces at the end");
                if let Some(at) = line.find('|') {
                    assert_eq!((at, line.rfind('|')), (13, Some(64)), "{diagram}");
                }
            }
        }
    }
}

/// N2: flags as a set, as the byte of the header, and as text.
#[test]
fn flags_are_a_set() {
    let syn_ack = TcpFlags::SYN | TcpFlags::ACK;
    assert_eq!((syn_ack.bits(), (syn_ack | TcpFlags::ACK).bits()), (0x12, 0x12));
    assert!(syn_ack.contains(TcpFlags::SYN) && !syn_ack.contains(TcpFlags::FIN));
    assert_eq!(format!("{syn_ack} {syn_ack:?}"), "S. [S.]");
}
