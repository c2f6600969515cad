//! SYNs and handshakes through both APIs.

use keepsock::{Capture, FiveTuple, Segment};

use super::{Api, Failure, Outcome, RustApi};

/// A segment as either API has it.
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
    /// Since 1970; 0: not known.
    pub captured_us: i64,
    pub line: String,
}

/// A handshake as either API has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shake {
    pub packets: [Seg; 3],
    /// Of client and server, after each packet.
    pub states: [(String, String); 3],
    /// Of SYN, and of SYN and ACK.
    pub retransmissions: (u32, u32),
    pub lines: String,
    pub diagram: String,
}

/// What an [`Api`] has of handshakes.
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
            captured_us: since.map_or(0, |t| i64::try_from(t.as_micros()).unwrap()),
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
            lines: found.lines().join("\n"),
            diagram: found.diagram(),
        })
    }
}

impl Handshakes for RustApi {
    type Capture = Capture;

    fn syn(client: &Self::Client) -> Outcome<Seg> {
        Ok(client.syn()?.into())
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

/// Whether this process may capture; if not, the failure says what is missing. In CI it may.
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

    use super::super::capi::{CApi, CClient, c, call, field, text};
    use super::{Handshakes, Outcome, Seg, Shake};

    pub struct CCapture(*mut keepsock_capture);

    // The header: any number of threads may look for handshakes at once.
    unsafe impl Send for CCapture {}
    unsafe impl Sync for CCapture {}

    impl Drop for CCapture {
        fn drop(&mut self) {
            unsafe { keepsock_capture_free(self.0) };
        }
    }

    fn seg(fill: impl FnOnce(*mut keepsock_segment, usize) -> Outcome<()>) -> Outcome<Seg> {
        let mut s: keepsock_segment = unsafe { std::mem::zeroed() };
        fill(&raw mut s, size_of_val(&s))?;
        if !s.has_timestamps {
            assert_eq!((s.timestamp, s.timestamp_echo), (0, 0));
        }
        Ok(Seg {
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
            captured_us: s.captured_us,
            line: field(&s.line),
        })
    }

    fn shake(
        find: impl FnOnce(*mut *mut keepsock_handshake, *mut *mut keepsock_error) -> i32,
    ) -> Outcome<Shake> {
        let mut h = null_mut();
        call(|e| find(&raw mut h, e))?;
        let packet = |i| {
            seg(|s, size| call(|e| unsafe { keepsock_handshake_segment(h, i, s, size, e) }))
                .unwrap()
        };
        let states = |i| {
            let (mut client, mut server) = (0, 0);
            call(|e| unsafe {
                keepsock_handshake_states(h, i, &raw mut client, &raw mut server, e)
            })
            .unwrap();
            (text(keepsock_tcp_state_name(client)), text(keepsock_tcp_state_name(server)))
        };
        let again = |i| {
            let mut n = 77;
            call(|e| unsafe { keepsock_handshake_retransmissions(h, i, &raw mut n, e) }).unwrap();
            n
        };
        let shake = Shake {
            packets: [0, 1, 2].map(packet),
            states: [0, 1, 2].map(states),
            retransmissions: (again(0), again(1)),
            lines: text(unsafe { keepsock_handshake_lines(h) }),
            diagram: text(unsafe { keepsock_handshake_diagram(h) }),
        };
        assert_eq!(again(2), 0);
        unsafe { keepsock_handshake_free(h) };
        Ok(shake)
    }

    impl Handshakes for CApi {
        type Capture = CCapture;

        fn syn(client: &CClient) -> Outcome<Seg> {
            seg(|s, size| call(|e| unsafe { keepsock_client_syn(client.pointer, s, size, e) }))
        }

        fn capture(port: u16) -> Outcome<CCapture> {
            let mut out = null_mut();
            call(|e| unsafe { keepsock_capture_new(port, &raw mut out, e) })?;
            Ok(CCapture(out))
        }

        fn handshake(capture: &CCapture, client: &CClient, ms: i64) -> Outcome<Shake> {
            shake(|h, e| unsafe { keepsock_capture_handshake(capture.0, client.pointer, ms, h, e) })
        }

        fn handshake_between(
            capture: &CCapture,
            one: &str,
            other: &str,
            ms: i64,
        ) -> Outcome<Shake> {
            let (one, other) = (c(one), c(other));
            shake(|h, e| unsafe {
                let (one, other) = (one.as_ptr(), other.as_ptr());
                keepsock_capture_handshake_between(capture.0, one, other, ms, h, e)
            })
        }
    }
}
