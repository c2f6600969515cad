//! SYNs and handshakes through both APIs.

use keepsock::{Capture, FiveTuple, Segment};

use super::{Api, Failure, Outcome, RustApi};

/// A segment in the form of either API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seg {
    /// Address and port.
    pub source: (String, u16),
    pub destination: (String, u16),
    pub ip_version: u8,
    pub ttl: u8,
    pub traffic_class: u8,
    pub dont_fragment: bool,
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
    pub urgent: u16,
    pub mss: Option<u16>,
    pub window_scale: Option<u8>,
    pub timestamps: Option<(u32, u32)>,
    pub sack_permitted: bool,
    pub options: Vec<u8>,
    pub payload_len: u32,
    /// Since 1970. -1: not known.
    pub captured_at_ns: i64,
    pub line: String,
}

/// A handshake in the form of either API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shake {
    pub packets: [Seg; 3],
    /// The states of client and server, after each packet.
    pub states: [(String, String); 3],
    /// The options of the SYN, and of the SYN-ACK.
    pub retransmissions: (u32, u32),
    pub diagram: String,
}

/// The handshake functions of an [`Api`].
pub trait Handshakes: Api {
    type Capture: Send + Sync;

    fn syn(client: &Self::Client) -> Outcome<Seg>;
    fn capture(port: u16) -> Outcome<Self::Capture>;
    fn handshake(capture: &Self::Capture, client: &Self::Client, ms: i64) -> Outcome<Shake>;
    fn handshake_between(
        capture: &Self::Capture,
        one: &str,
        other: &str,
        ms: i64,
    ) -> Outcome<Shake>;
}

impl From<&Segment> for Seg {
    fn from(s: &Segment) -> Seg {
        let since = s.captured.and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
        Seg {
            source: (s.source.ip().to_string(), s.source.port()),
            destination: (s.destination.ip().to_string(), s.destination.port()),
            ip_version: if s.source.is_ipv4() { 4 } else { 6 },
            ttl: s.ttl,
            traffic_class: s.traffic_class,
            dont_fragment: s.dont_fragment,
            flags: s.flags.bits(),
            seq: s.seq,
            ack: s.ack,
            window: s.window,
            urgent: s.urgent,
            mss: s.mss(),
            window_scale: s.window_scale(),
            timestamps: s.timestamps(),
            sack_permitted: s.sack_permitted(),
            options: s.option_bytes().to_vec(),
            payload_len: s.payload_len,
            captured_at_ns: since.map_or(-1, |t| i64::try_from(t.as_nanos()).unwrap()),
            line: s.to_string(),
        }
    }
}

fn limit(ms: i64) -> Option<std::time::Duration> {
    u64::try_from(ms).ok().map(std::time::Duration::from_millis)
}

impl RustApi {
    fn find(capture: &Capture, of: &FiveTuple, ms: i64) -> Outcome<Shake> {
        let found = capture.handshake(of, limit(ms))?;
        let steps = found.steps();
        Ok(Shake {
            packets: steps.map(|step| step.segment.into()),
            states: steps.map(|step| (step.client.to_string(), step.server.to_string())),
            retransmissions: (found.syn_retransmissions, found.syn_ack_retransmissions),
            diagram: found.diagram(),
        })
    }
}

impl Handshakes for RustApi {
    type Capture = Capture;

    fn syn(client: &Self::Client) -> Outcome<Seg> {
        Ok(client.saved_syn()?.into())
    }

    fn capture(port: u16) -> Outcome<Capture> {
        Ok(Capture::on_port(port)?)
    }

    fn handshake(capture: &Capture, client: &Self::Client, ms: i64) -> Outcome<Shake> {
        RustApi::find(capture, &client.five_tuple(), ms)
    }

    fn handshake_between(capture: &Capture, one: &str, other: &str, ms: i64) -> Outcome<Shake> {
        let of = FiveTuple::tcp(one.parse().unwrap(), other.parse().unwrap());
        RustApi::find(capture, &of, ms)
    }
}

/// Whether this process may capture. Otherwise the failure names the missing capability. In CI it
/// may.
pub fn may_capture(failure: Option<&Failure>) -> bool {
    let Some(failure) = failure else {
        return true;
    };
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{failure:?}");
    println!("skipped: {failure:?}");
    false
}

#[cfg(feature = "capi")]
mod c {
    #![allow(unsafe_code, clippy::undocumented_unsafe_blocks)]

    use std::ptr::null_mut;

    use keepsock::ffi::*;

    use super::super::capi::{CApi, CClient, call, field, set_field, text};
    use super::{FiveTuple, Handshakes, Outcome, Seg, Shake};

    pub struct CCapture(*mut keepsock_capture);

    // The header: any number of threads may wait for handshakes concurrently.
    unsafe impl Send for CCapture {}
    unsafe impl Sync for CCapture {}

    impl Drop for CCapture {
        fn drop(&mut self) {
            unsafe { keepsock_capture_free(self.0) };
        }
    }

    fn segment(
        fill: impl FnOnce(*mut keepsock_segment, usize) -> Outcome<()>,
    ) -> Outcome<keepsock_segment> {
        let mut s: keepsock_segment = unsafe { std::mem::zeroed() };
        fill(&raw mut s, size_of_val(&s))?;
        Ok(s)
    }

    fn seg(s: &keepsock_segment) -> Seg {
        if !s.has_timestamps {
            assert_eq!((s.timestamp, s.timestamp_echo), (0, 0));
        }
        Seg {
            source: (field(&s.source_address), s.source_port),
            destination: (field(&s.destination_address), s.destination_port),
            ip_version: s.ip_version,
            ttl: s.ttl,
            traffic_class: s.traffic_class,
            dont_fragment: s.dont_fragment,
            flags: s.flags,
            seq: s.seq,
            ack: s.ack,
            window: s.window,
            urgent: s.urgent,
            mss: (s.mss != 0).then_some(s.mss),
            window_scale: u8::try_from(s.window_scale).ok(),
            timestamps: s.has_timestamps.then_some((s.timestamp, s.timestamp_echo)),
            sack_permitted: s.sack_permitted,
            options: s.options[..s.options_len.into()].to_vec(),
            payload_len: s.payload_len,
            captured_at_ns: s.captured_at_ns,
            line: field(&s.line),
        }
    }

    #[track_caller]
    fn shake(
        find: impl FnOnce(*mut *mut keepsock_handshake, *mut *mut keepsock_error) -> i32,
    ) -> Outcome<Shake> {
        let mut h = null_mut();
        call(|e| find(&raw mut h, e))?;
        let packets = [0, 1, 2].map(|i| {
            let get = |s, size| call(|e| unsafe { keepsock_handshake_segment(h, i, s, size, e) });
            segment(get).unwrap()
        });
        let state = |number| text(keepsock_tcp_state_str(number));
        let mut diagram = [0; 4096];
        call(|e| unsafe {
            let (buf, cap) = (diagram.as_mut_ptr(), diagram.len());
            keepsock_handshake_diagram(h, buf, cap, null_mut(), e)
        })?;
        let shake = Shake {
            packets: packets.each_ref().map(seg),
            states: packets.each_ref().map(|s| (state(s.client_state), state(s.server_state))),
            retransmissions: (packets[0].retransmissions, packets[1].retransmissions),
            diagram: field(&diagram),
        };
        assert_eq!(packets[2].retransmissions, 0);
        unsafe { keepsock_handshake_free(h) };
        Ok(shake)
    }

    impl Handshakes for CApi {
        type Capture = CCapture;

        fn syn(client: &CClient) -> Outcome<Seg> {
            let syn = segment(|s, size| {
                call(|e| unsafe { keepsock_client_saved_syn(client.pointer, s, size, e) })
            })?;
            assert_eq!((syn.retransmissions, syn.client_state, syn.server_state), (0, 0, 0));
            Ok(seg(&syn))
        }

        fn capture(port: u16) -> Outcome<CCapture> {
            let mut out = null_mut();
            call(|e| unsafe { keepsock_capture_new(port, &raw mut out, e) })?;
            Ok(CCapture(out))
        }

        fn handshake(capture: &CCapture, client: &CClient, ms: i64) -> Outcome<Shake> {
            let of = client.c_five_tuple();
            let size = size_of_val(&of);
            shake(|h, e| unsafe {
                keepsock_capture_handshake(capture.0, &raw const of, size, ms, h, e)
            })
        }

        fn handshake_between(
            capture: &CCapture,
            one: &str,
            other: &str,
            ms: i64,
        ) -> Outcome<Shake> {
            let of = five_tuple_of(one, other);
            let size = size_of_val(&of);
            shake(|h, e| unsafe {
                keepsock_capture_handshake(capture.0, &raw const of, size, ms, h, e)
            })
        }
    }

    /// The five-tuple of a connection of another program.
    fn five_tuple_of(one: &str, other: &str) -> keepsock_five_tuple {
        let tuple = FiveTuple::tcp(one.parse().unwrap(), other.parse().unwrap());
        let mut of: keepsock_five_tuple = unsafe { std::mem::zeroed() };
        of.protocol = tuple.protocol as i32;
        (of.local_port, of.remote_port) = (tuple.local.port(), tuple.remote.port());
        set_field(&mut of.local_address, &tuple.local.host());
        set_field(&mut of.remote_address, &tuple.remote.host());
        of
    }
}
