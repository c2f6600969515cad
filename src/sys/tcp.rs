//! The kernel's knowledge of a TCP connection, and its limits for retries.
//!
//! - `tcp_info`: state, times, counters ([`TcpInfo`]); `None` for a value that the system does not report
//! - `silence`: the time since the last segment from the peer, up to `LONGEST_SILENCE`; `None`: never
//! - `acknowledged`: how many of the sent bytes the peer has acknowledged, and when (Linux)
//! - `set_dead_after`, `unset_dead_after`, `user_timeout`: how long data may stay unacknowledged
//! - `handshake`, `is_answered`, `is_gone`, `unacknowledged`, `unread`
//! - `fast_open_connect`, `fast_open_listen` (RFC 7413)
//! - `is_mptcp`, `is_made_for_mptcp`, `create_subflow` (RFC 8684)

use std::io;
use std::time::Duration;

use crate::types::tcp_state::TcpState;

#[cfg(not(keepsock_linux))]
pub(crate) use elsewhere::*;
pub(crate) use platform::*;

/// TCP_INFO. Members that the system does not report are `None`.
#[derive(Debug, Clone, Default)]
pub(crate) struct TcpInfo {
    pub state: Option<TcpState>,
    pub rtt: Option<Duration>,
    pub rtt_variation: Option<Duration>,
    pub min_rtt: Option<Duration>,
    /// In segments.
    pub retransmits: Option<u64>,
    pub last_sent: Option<Duration>,
    pub last_received: Option<Duration>,
    pub mss: Option<u32>,
    /// In segments.
    pub congestion_window: Option<u64>,
    pub peer_window: Option<u64>,
    /// Written bytes that are in flight, and written bytes that are not sent yet.
    pub unacknowledged: Option<u64>,
    pub unsent: Option<u64>,
    pub bytes_sent: Option<u64>,
    pub bytes_received: Option<u64>,
    pub segments_sent: Option<u64>,
    pub segments_received: Option<u64>,
    pub congestion_control: Option<String>,
}

/// The state of the handshake that connect(2) has started on a socket, as one call reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(keepsock_linux),
    expect(dead_code, reason = "only Linux reports more than `Unknown`")
)]
pub(crate) enum Handshake {
    /// It is complete, and the socket is not connected to itself.
    AnsweredByAnother,
    /// It has failed. SO_ERROR has the cause.
    Failed,
    /// It is in progress, or it is complete and the socket may be connected to itself.
    Unknown,
}

/// No other system reports both in one call.
#[cfg(not(keepsock_linux))]
pub(crate) fn handshake(_socket: super::Borrowed<'_>) -> Handshake {
    Handshake::Unknown
}

/// Rounds up to whole seconds, the unit of the option.
#[cfg(any(target_vendor = "apple", target_os = "freebsd", windows))]
fn seconds(time: Duration) -> u32 {
    let up = time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0));
    u32::try_from(up).unwrap_or(u32::MAX)
}

/// A congestion window in segments.
#[cfg(any(test, target_vendor = "apple", target_os = "freebsd"))]
fn segments(bytes: u32, mss: u32) -> Option<u64> {
    bytes.checked_div(mss).map(u64::from)
}

/// Whether a connection has ended in both directions, from its TCP information. TIME-WAIT is a state of
/// the kernel alone.
#[cfg(any(test, target_vendor = "apple", target_os = "freebsd"))]
fn has_ended(info: io::Result<TcpInfo>) -> bool {
    match info {
        Ok(info) => matches!(info.state, Some(TcpState::Closed | TcpState::TimeWait)),
        Err(e) => e.kind() == io::ErrorKind::ConnectionReset,
    }
}

/// Whether the peer owes an answer, from the number of bytes that it has not acknowledged, its window,
/// and the time since its last segment (FreeBSD). A closed window delays the bytes, and the kernel does
/// not report whether it has sent a probe. It sends one at least every minute (TCPTV_PERSMAX of
/// netinet/tcp_timer.h).
#[cfg(any(test, target_os = "freebsd"))]
fn owes_answer(unacknowledged: usize, window: u32, heard: Duration) -> bool {
    const PROBES: Duration = Duration::from_secs(60);
    unacknowledged > 0 && (window > 0 || heard > PROBES)
}

/// Calls an ioctl(2) that writes an int; 0 if it fails.
#[cfg(not(any(target_vendor = "apple", windows)))]
fn count(socket: super::Borrowed<'_>, request: libc::c_ulong) -> usize {
    use std::os::fd::AsRawFd;

    let mut bytes: libc::c_int = 0;
    // SAFETY: the callers' requests write an int through the pointer.
    let code = unsafe { super::kernel::ioctl(socket.as_raw_fd(), request as _, &raw mut bytes) };
    if code < 0 { 0 } else { usize::try_from(bytes).unwrap_or(0) }
}

#[cfg(keepsock_linux)]
mod platform {
    use std::os::fd::AsRawFd;

    use crate::sys::SockRef;
    use socket2::Domain;

    use super::super::{Borrowed, is_unsupported, sockopt};
    use super::{Duration, Handshake, TcpInfo, io};
    use crate::types::liveness::{Acknowledged, Silence};
    use crate::types::tcp_state::TcpState;

    /// TCP_INFO has the ages of the last ACK and of the last data, in 32 bits of milliseconds.
    pub(crate) const LONGEST_SILENCE: Option<Duration> =
        Some(Duration::from_millis(u32::MAX as u64));
    /// The error of a connection whose retries the kernel has ended.
    pub(crate) const TIMEOUT_ERRNO: i32 = libc::ETIMEDOUT;

    /// Since Linux 6.15; not declared by the libc crate.
    const TCP_RTO_MAX_MS: libc::c_int = 44;
    /// The limit if the administrator has not changed it, in milliseconds.
    const TCP_RTO_MAX: u32 = 120_000;
    const SIOCOUTQNSD: libc::c_ulong = 0x894B; // linux/sockios.h; not declared by the libc crate
    /// IPPROTO_MPTCP of linux/in.h. The libc crate does not declare it for Android.
    pub(in crate::sys) const MPTCP: libc::c_int = 262;

    /// struct tcp_info of linux/tcp.h up to tcpi_snd_wnd (Linux 5.4). The libc crate's is shorter.
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Raw {
        state: u8,
        ca_state: u8,
        retransmits: u8,
        probes: u8,
        bits: [u8; 4],
        rto: u32,
        ato: u32,
        snd_mss: u32,
        rcv_mss: u32,
        unacked: u32,
        sacked: u32,
        lost: u32,
        retrans: u32,
        fackets: u32,
        last_data_sent: u32,
        last_ack_sent: u32,
        last_data_recv: u32,
        last_ack_recv: u32,
        pmtu: u32,
        rcv_ssthresh: u32,
        rtt: u32,
        rttvar: u32,
        snd_ssthresh: u32,
        snd_cwnd: u32,
        advmss: u32,
        reordering: u32,
        rcv_rtt: u32,
        rcv_space: u32,
        total_retrans: u32,
        pacing_rate: u64,
        max_pacing_rate: u64,
        bytes_acked: u64,
        bytes_received: u64,
        segs_out: u32,
        segs_in: u32,
        notsent_bytes: u32,
        min_rtt: u32,
        data_segs_in: u32,
        data_segs_out: u32,
        delivery_rate: u64,
        busy_time: u64,
        rwnd_limited: u64,
        sndbuf_limited: u64,
        delivered: u32,
        delivered_ce: u32,
        bytes_sent: u64,
        bytes_retrans: u64,
        dsack_dups: u32,
        reord_seen: u32,
        rcv_ooopack: u32,
        snd_wnd: u32,
    }

    fn raw(socket: Borrowed<'_>) -> io::Result<(Raw, usize)> {
        // SAFETY: Raw consists of integers.
        unsafe { sockopt::get(socket, libc::IPPROTO_TCP, libc::TCP_INFO) }
    }

    pub(crate) fn tcp_info(socket: Borrowed<'_>) -> io::Result<TcpInfo> {
        let (raw, len) = match raw(socket) {
            // A sandbox or an emulated kernel may lack it.
            Err(e) if is_unsupported(&e) => return Ok(TcpInfo::default()),
            raw => raw?,
        };
        // Newer kernels add members at the end.
        let knows = |end: usize| len >= end;
        macro_rules! since {
            ($field:ident, $value:expr) => {
                knows(std::mem::offset_of!(Raw, $field) + size_of_val(&raw.$field)).then(|| $value)
            };
        }
        let ms = |n: u32| Duration::from_millis(n.into());
        let us = |n: u32| Duration::from_micros(n.into());
        let queued = super::count(socket, libc::TIOCOUTQ as _) as u64;
        // Since Linux 4.6 TCP_INFO has the value of SIOCOUTQNSD.
        let unsent = since!(notsent_bytes, raw.notsent_bytes.into());
        let unsent = unsent.unwrap_or_else(|| super::count(socket, SIOCOUTQNSD) as u64);
        Ok(TcpInfo {
            state: TcpState::from_linux(raw.state),
            rtt: Some(us(raw.rtt)),
            rtt_variation: Some(us(raw.rttvar)),
            // ~0 means that there was no sample.
            min_rtt: since!(min_rtt, us(raw.min_rtt)).filter(|_| raw.min_rtt != u32::MAX),
            retransmits: Some(raw.total_retrans.into()),
            last_sent: Some(ms(raw.last_data_sent)),
            last_received: Some(ms(raw.last_data_recv.min(raw.last_ack_recv))),
            mss: Some(raw.snd_mss),
            congestion_window: Some(raw.snd_cwnd.into()),
            peer_window: since!(snd_wnd, raw.snd_wnd.into()),
            unacknowledged: Some(queued.saturating_sub(unsent)),
            unsent: Some(unsent),
            bytes_sent: since!(bytes_sent, raw.bytes_sent),
            bytes_received: since!(bytes_received, raw.bytes_received),
            segments_sent: since!(segs_out, raw.segs_out.into()),
            segments_received: since!(segs_in, raw.segs_in.into()),
            congestion_control: congestion_control(socket),
        })
    }

    /// The name of the algorithm, which ends with NUL bytes.
    fn congestion_control(socket: Borrowed<'_>) -> Option<String> {
        const NAME_MAX: usize = 16; // TCP_CA_NAME_MAX of net/tcp.h
        // SAFETY: every byte is valid.
        let name = unsafe {
            sockopt::get::<[u8; NAME_MAX]>(socket, libc::IPPROTO_TCP, libc::TCP_CONGESTION)
        };
        let name = name.ok()?.0;
        let name = name.split(|byte| *byte == 0).next()?;
        Some(String::from_utf8_lossy(name).into_owned())
    }

    /// The kernel counts probes of keepalive and of a closed window in one number. A probe may get
    /// lost, and before Linux 6.15 the next one may follow minutes later.
    pub(crate) fn silence(socket: Borrowed<'_>) -> io::Result<Silence> {
        let (raw, _) = raw(socket)?;
        let heard = raw.last_data_recv.min(raw.last_ack_recv);
        Ok(Silence {
            heard: Duration::from_millis(heard.into()),
            owes: raw.unacked > 0 || raw.probes > 1,
            rtt: Duration::from_micros(raw.rtt.into()),
        })
    }

    /// How many of the sent bytes the peer's kernel has acknowledged, and when.
    pub(crate) fn acknowledged(socket: Borrowed<'_>) -> Option<Acknowledged> {
        let (raw, _) = raw(socket).ok()?;
        Some(Acknowledged {
            bytes: raw.bytes_acked,
            in_flight: raw.unacked > 0,
            outstanding: raw.unacked > 0 || raw.notsent_bytes > 0,
            heard: Duration::from_millis(raw.last_ack_recv.into()),
            sent: Duration::from_millis(raw.last_data_sent.into()),
            rtt: Duration::from_micros(raw.rtt.into()),
        })
    }

    /// The time since the last segment with data arrived.
    pub(crate) fn data_arrived(socket: Borrowed<'_>) -> Option<Duration> {
        let (raw, _) = raw(socket).ok()?;
        Some(Duration::from_millis(raw.last_data_recv.into()))
    }

    /// Before Linux 6.15 the kernel probes a closed window at growing intervals, up to two minutes,
    /// and so detects a dead peer late; TCP_RTO_MAX_MS bounds the interval. With `strict` the kernel
    /// itself ends a connection whose peer did not accept the data in time.
    pub(crate) fn set_dead_after(
        socket: Borrowed<'_>,
        time: Duration,
        strict: bool,
    ) -> io::Result<()> {
        if strict {
            SockRef::from(&socket).set_tcp_user_timeout(Some(time))?;
        }
        let ms = u32::try_from(time.as_millis() / 8).unwrap_or(u32::MAX).clamp(1000, 120_000);
        match sockopt::set(socket, libc::IPPROTO_TCP, TCP_RTO_MAX_MS, &ms) {
            Err(e) if e.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(()),
            other => other,
        }
    }

    /// Restores the state of a new socket, which has the system's own limit (tcp_rto_max_ms in
    /// ip-sysctl.rst). A process without a free descriptor gets the kernel's own limit.
    pub(crate) fn unset_dead_after(socket: Borrowed<'_>) -> io::Result<()> {
        // Multipath TCP has neither limit: the kernel rejects the option.
        if is_made_for_mptcp(socket) {
            return Ok(());
        }
        SockRef::from(&socket).set_tcp_user_timeout(None)?;
        let rto_max = |socket| {
            // SAFETY: setsockopt reads one int.
            unsafe { sockopt::get::<u32>(socket, libc::IPPROTO_TCP, TCP_RTO_MAX_MS) }
        };
        // Linux before 6.15 does not have this option.
        let Ok((now, _)) = rto_max(socket) else {
            return Ok(());
        };
        let new = super::super::stream_socket(Domain::IPV4, false);
        let probe = new.as_ref().map(|new| rto_max(super::super::borrow(new)));
        let default = probe.ok().and_then(Result::ok).map_or(TCP_RTO_MAX, |(default, _)| default);
        if now == default {
            return Ok(());
        }
        sockopt::set(socket, libc::IPPROTO_TCP, TCP_RTO_MAX_MS, &default)
    }

    pub(crate) fn user_timeout(socket: Borrowed<'_>) -> io::Result<Option<Duration>> {
        let timeout = SockRef::from(&socket).tcp_user_timeout()?;
        Ok(timeout.filter(|t| !t.is_zero()))
    }

    /// The state of the handshake. If the peer has answered, this call replaces SO_ERROR and
    /// getsockname(2).
    ///
    /// A socket connected to itself (RFC 9293 section 3.5, simultaneous open) has received its own
    /// SYN before it was established. If exactly one segment has arrived, it was the SYN-ACK of
    /// another socket.
    pub(crate) fn handshake(socket: Borrowed<'_>) -> Handshake {
        let Ok((raw, _)) = raw(socket) else {
            return Handshake::Unknown;
        };
        match TcpState::from_linux(raw.state) {
            Some(TcpState::Established) if raw.segs_in == 1 => Handshake::AnsweredByAnother,
            Some(TcpState::Closed) => Handshake::Failed,
            _ => Handshake::Unknown,
        }
    }

    /// Whether the peer has acknowledged the SYN of this side.
    pub(crate) fn is_answered(socket: Borrowed<'_>) -> bool {
        raw(socket).is_ok_and(|(raw, _)| raw.bytes_acked > 0)
    }

    /// Whether the TCP connection has ended in both directions: reset, timed out, or closed by both
    /// sides (tcp(7), TCP_INFO). False where the system does not report it.
    pub(crate) fn is_gone(socket: Borrowed<'_>) -> bool {
        // SAFETY: the state is the first byte of struct tcp_info.
        let state = unsafe { sockopt::get::<u8>(socket, libc::IPPROTO_TCP, libc::TCP_INFO) };
        state.is_ok_and(|(state, _)| i32::from(state) == TcpState::Closed as i32)
    }

    /// Whether a connection has ended without the peer's FIN: a call on the socket, perhaps in another
    /// process, has received a reset. `None`: the connection has ended, and the kernel does not report the
    /// cause. Linux 5.1 and later report it through TCP_INQ, which counts a received FIN as one byte;
    /// struct tcp_info has that size since 5.4.
    pub(crate) fn ended_without_fin(socket: Borrowed<'_>) -> io::Result<Option<bool>> {
        // SAFETY: tcp_info consists of integers.
        let info = unsafe { sockopt::get::<Raw>(socket, libc::IPPROTO_TCP, libc::TCP_INFO) };
        let (info, known) = info?;
        if i32::from(info.state) != TcpState::Closed as i32 {
            return Ok(Some(false));
        }
        if known < size_of::<Raw>() {
            return Ok(None);
        }
        match peek_with_inq(socket)? {
            (0, inq) => Ok(inq.map(|inq| inq == 0)),
            _ => Ok(None),
        }
    }

    /// Whether the kernel has received the peer's FIN on a connection that has failed, after bytes that
    /// the program has not read. False if the kernel does not report it. TCP_INQ counts the FIN, and
    /// SIOCINQ does not.
    #[cfg(feature = "serve")]
    pub(crate) fn received_fin(socket: Borrowed<'_>) -> bool {
        if is_mptcp(socket) {
            return false;
        }
        let unread = super::count(socket, libc::FIONREAD as _);
        let inq = peek_with_inq(socket).ok().and_then(|(_, inq)| usize::try_from(inq?).ok());
        inq == Some(unread + 1)
    }

    /// Peeks at one byte. Returns the number of peeked bytes, and the number of unread bytes with the FIN
    /// (TCP_INQ) if the kernel reports it.
    fn peek_with_inq(socket: Borrowed<'_>) -> io::Result<(isize, Option<i32>)> {
        const TCP_INQ: libc::c_int = 36; // linux/tcp.h, as TCP_CM_INQ; not declared by the libc crate
        if sockopt::set(socket, libc::IPPROTO_TCP, TCP_INQ, &1).is_err() {
            return Ok((0, None));
        }
        let (mut byte, mut control) = (0u8, [0u64; 8]);
        let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        // SAFETY: msghdr consists of integers and pointers; all zeros are valid.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        // SAFETY: the message and the buffers that it describes outlive the call.
        let peeked =
            unsafe { super::super::kernel::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
        let error = io::Error::last_os_error();
        let _ = sockopt::set(socket, libc::IPPROTO_TCP, TCP_INQ, &0);
        if peeked < 0 {
            return Err(error);
        }
        // SAFETY: recvmsg filled the message, and its buffers are alive.
        Ok((peeked, unsafe { control_int(&message, libc::IPPROTO_TCP, TCP_INQ) }))
    }

    /// Returns the int in the first control message, if the message has this type.
    ///
    /// # Safety
    /// recvmsg(2) filled the message, and its buffers are alive.
    unsafe fn control_int(message: &libc::msghdr, level: i32, kind: i32) -> Option<i32> {
        // SAFETY: the caller guarantees a filled message; the read may be unaligned.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(message).as_ref()?;
            (header.cmsg_level == level && header.cmsg_type == kind)
                .then(|| libc::CMSG_DATA(header).cast::<i32>().read_unaligned())
        }
    }

    /// The number of written bytes that the peer's kernel has not acknowledged; 0 where the system
    /// does not report it (tcp(7), SIOCOUTQ).
    pub(crate) fn unacknowledged(socket: Borrowed<'_>) -> usize {
        // TIOCOUTQ has SIOCOUTQ's number.
        super::count(socket, libc::TIOCOUTQ as _)
    }

    /// With a cookie, the next connect sends no SYN, and the first write sends SYN and data.
    pub(crate) fn fast_open_connect(socket: Borrowed<'_>) -> io::Result<()> {
        sockopt::set(socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, &1)
    }

    /// Accepts data in the SYN, for at most `pending` connections without a complete handshake.
    pub(crate) fn fast_open_listen(socket: Borrowed<'_>, pending: u32) -> io::Result<()> {
        sockopt::set(socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, &pending)
    }

    /// Since Linux 5.16; false on older kernels.
    pub(crate) fn is_mptcp(socket: Borrowed<'_>) -> bool {
        const TCP_IS_MPTCP: libc::c_int = 43; // linux/tcp.h; not declared by the libc crate
        // SAFETY: getsockopt writes one int.
        let is = unsafe { sockopt::get::<i32>(socket, libc::IPPROTO_TCP, TCP_IS_MPTCP) };
        is.is_ok_and(|(is, _)| is != 0)
    }

    /// Whether the socket was created for Multipath TCP, even if the connection uses plain TCP.
    pub(crate) fn is_made_for_mptcp(socket: Borrowed<'_>) -> bool {
        let protocol = SockRef::from(&socket).protocol();
        protocol.is_ok_and(|protocol| protocol == Some(MPTCP.into()))
    }

    /// Creates the first subflow of a Multipath TCP socket, if the socket has none. The kernel checks
    /// the name of a congestion control, and keeps the segment size, only if there is a subflow. The
    /// query of the congestion control creates the subflow. Before Linux 5.14 the kernel supports
    /// neither this query nor the option.
    pub(crate) fn create_subflow(socket: Borrowed<'_>) -> io::Result<()> {
        // SAFETY: every byte is valid.
        let name =
            unsafe { sockopt::get::<[u8; 16]>(socket, libc::IPPROTO_TCP, libc::TCP_CONGESTION) };
        match name {
            Err(e) if e.raw_os_error() != Some(libc::EOPNOTSUPP) => Err(e),
            _ => Ok(()),
        }
    }

    /// The number of received bytes that the program has not read (tcp(7), SIOCINQ).
    pub(crate) fn unread(socket: Borrowed<'_>) -> Option<u64> {
        Some(super::count(socket, libc::FIONREAD as _) as u64)
    }
}

#[cfg(target_vendor = "apple")]
mod platform {
    use super::super::Borrowed;
    use super::super::sockopt;
    use super::{Duration, TcpInfo, io, seconds};
    use crate::types::tcp_state::TcpState;

    pub(crate) const LONGEST_SILENCE: Option<Duration> = None;
    pub(crate) const TIMEOUT_ERRNO: i32 = libc::ETIMEDOUT;

    /// netinet/tcp.h: the time after which retransmission ends, in seconds. The libc crate does not
    /// declare it.
    const TCP_RXT_CONNDROPTIME: libc::c_int = 0x80;

    /// TCP_CONNECTION_INFO (netinet/tcp.h). Its states have the numbers of netinet/tcp_fsm.h, its
    /// times are in milliseconds.
    pub(crate) fn tcp_info(socket: Borrowed<'_>) -> io::Result<TcpInfo> {
        // SAFETY: the structure consists of integers.
        let (raw, _) = unsafe {
            sockopt::get::<libc::tcp_connection_info>(
                socket,
                libc::IPPROTO_TCP,
                libc::TCP_CONNECTION_INFO,
            )
        }?;
        let ms = |n: u32| Some(Duration::from_millis(n.into()));
        Ok(TcpInfo {
            state: TcpState::from_bsd(raw.tcpi_state),
            rtt: ms(raw.tcpi_srtt),
            rtt_variation: ms(raw.tcpi_rttvar),
            mss: Some(raw.tcpi_maxseg),
            congestion_window: super::segments(raw.tcpi_snd_cwnd, raw.tcpi_maxseg),
            peer_window: Some(raw.tcpi_snd_wnd.into()),
            bytes_sent: Some(raw.tcpi_txbytes),
            bytes_received: Some(raw.tcpi_rxbytes),
            segments_sent: Some(raw.tcpi_txpackets),
            segments_received: Some(raw.tcpi_rxpackets),
            unacknowledged: Some(unacknowledged(socket) as u64),
            ..TcpInfo::default()
        })
    }

    /// The kernel ends retransmission after this time, but continues to probe a closed window. It has
    /// no option to end a connection whose peer accepts no data.
    pub(crate) fn set_dead_after(
        socket: Borrowed<'_>,
        time: Duration,
        strict: bool,
    ) -> io::Result<()> {
        if strict {
            return Err(io::ErrorKind::Unsupported.into());
        }
        sockopt::set(socket, libc::IPPROTO_TCP, TCP_RXT_CONNDROPTIME, &seconds(time))
    }

    /// 0: the kernel's own limit, which a new socket has.
    pub(crate) fn unset_dead_after(socket: Borrowed<'_>) -> io::Result<()> {
        sockopt::set(socket, libc::IPPROTO_TCP, TCP_RXT_CONNDROPTIME, &0u32)
    }

    pub(crate) fn user_timeout(socket: Borrowed<'_>) -> io::Result<Option<Duration>> {
        // SAFETY: getsockopt writes one int.
        let (s, _) =
            unsafe { sockopt::get::<u32>(socket, libc::IPPROTO_TCP, TCP_RXT_CONNDROPTIME) }?;
        Ok((s > 0).then(|| Duration::from_secs(s.into())))
    }

    pub(crate) fn is_gone(socket: Borrowed<'_>) -> bool {
        super::has_ended(tcp_info(socket))
    }

    /// SO_NWRITE.
    pub(crate) fn unacknowledged(socket: Borrowed<'_>) -> usize {
        // SAFETY: getsockopt writes one int.
        let bytes = unsafe { sockopt::get::<i32>(socket, libc::SOL_SOCKET, libc::SO_NWRITE) };
        bytes.map_or(0, |(bytes, _)| usize::try_from(bytes).unwrap_or(0))
    }

    /// SO_NREAD.
    pub(crate) fn unread(socket: Borrowed<'_>) -> Option<u64> {
        // SAFETY: getsockopt writes one int.
        let bytes = unsafe { sockopt::get::<i32>(socket, libc::SOL_SOCKET, libc::SO_NREAD) };
        bytes.ok().and_then(|(bytes, _)| u64::try_from(bytes).ok())
    }
}

#[cfg(target_os = "freebsd")]
mod platform {
    use super::super::Borrowed;
    use super::super::sockopt;
    use super::{Duration, TcpInfo, io, seconds};
    use crate::types::liveness::Silence;
    use crate::types::tcp_state::TcpState;

    /// TCP_INFO reports when the last segment arrived, in 32 bits of microseconds, which overflow after
    /// 71 minutes. Checks may be some minutes late.
    pub(crate) const LONGEST_SILENCE: Option<Duration> = Some(Duration::from_secs(3600));
    pub(crate) const TIMEOUT_ERRNO: i32 = libc::ETIMEDOUT;

    /// struct tcp_info of netinet/tcp.h (FreeBSD 13): states with the numbers of netinet/tcp_fsm.h,
    /// times in microseconds, windows in bytes. The kernel does not fill members that start with __
    /// in C.
    fn raw(socket: Borrowed<'_>) -> io::Result<libc::tcp_info> {
        // SAFETY: the structure consists of integers.
        let got =
            unsafe { sockopt::get::<libc::tcp_info>(socket, libc::IPPROTO_TCP, libc::TCP_INFO) };
        got.map(|(raw, _)| raw)
    }

    pub(crate) fn tcp_info(socket: Borrowed<'_>) -> io::Result<TcpInfo> {
        let raw = raw(socket)?;
        let us = |n: u32| Some(Duration::from_micros(n.into()));
        Ok(TcpInfo {
            state: TcpState::from_bsd(raw.tcpi_state),
            rtt: us(raw.tcpi_rtt),
            rtt_variation: us(raw.tcpi_rttvar),
            retransmits: Some(raw.tcpi_snd_rexmitpack.into()),
            last_received: us(raw.tcpi_last_data_recv),
            mss: Some(raw.tcpi_snd_mss),
            congestion_window: super::segments(raw.tcpi_snd_cwnd, raw.tcpi_snd_mss),
            peer_window: Some(raw.tcpi_snd_wnd.into()),
            unacknowledged: Some(unacknowledged(socket) as u64),
            ..TcpInfo::default()
        })
    }

    pub(crate) fn silence(socket: Borrowed<'_>) -> io::Result<Silence> {
        let raw = raw(socket)?;
        let heard = Duration::from_micros(raw.tcpi_last_data_recv.into());
        let owes = super::owes_answer(unacknowledged(socket), raw.tcpi_snd_wnd, heard);
        Ok(Silence { heard, owes, rtt: Duration::from_micros(raw.tcpi_rtt.into()) })
    }

    /// The kernel fails calls for a connection that it has dropped with ECONNRESET.
    pub(crate) fn is_gone(socket: Borrowed<'_>) -> bool {
        super::has_ended(tcp_info(socket))
    }

    /// TCP_MAXUNACKTIME ends every connection that makes no progress, including one whose peer
    /// accepts no data, and is therefore set with `strict` only. Without it the library looks for
    /// [`silence`].
    pub(crate) fn set_dead_after(
        socket: Borrowed<'_>,
        time: Duration,
        strict: bool,
    ) -> io::Result<()> {
        if !strict {
            return Ok(());
        }
        sockopt::set(socket, libc::IPPROTO_TCP, libc::TCP_MAXUNACKTIME, &seconds(time))
    }

    /// 0: the limit of the system (sysctl net.inet.tcp.maxunacktime), which a new socket has.
    pub(crate) fn unset_dead_after(socket: Borrowed<'_>) -> io::Result<()> {
        sockopt::set(socket, libc::IPPROTO_TCP, libc::TCP_MAXUNACKTIME, &0u32)
    }

    pub(crate) fn user_timeout(socket: Borrowed<'_>) -> io::Result<Option<Duration>> {
        // SAFETY: setsockopt reads one unsigned int.
        let (s, _) =
            unsafe { sockopt::get::<u32>(socket, libc::IPPROTO_TCP, libc::TCP_MAXUNACKTIME) }?;
        Ok((s > 0).then(|| Duration::from_secs(s.into())))
    }

    /// FIONWRITE (sys/filio.h).
    pub(crate) fn unacknowledged(socket: Borrowed<'_>) -> usize {
        super::count(socket, libc::FIONWRITE)
    }

    pub(crate) fn unread(socket: Borrowed<'_>) -> Option<u64> {
        Some(super::count(socket, libc::FIONREAD as _) as u64)
    }
}

#[cfg(windows)]
mod platform {
    use std::os::windows::io::AsRawSocket;

    use socket2::Domain;
    use windows_sys::Win32::Networking::WinSock as ws;

    use super::super::{Borrowed, check, is_unsupported, set_tcp_option, tcp_option};
    use super::{Duration, TcpInfo, io, seconds};
    use crate::types::tcp_state::TcpState;

    pub(crate) const LONGEST_SILENCE: Option<Duration> = None;
    pub(crate) const TIMEOUT_ERRNO: i32 = ws::WSAETIMEDOUT;

    /// SIO_TCP_INFO: Windows 10 1703 and later. Before that Windows reports none of the values.
    pub(crate) fn tcp_info(socket: Borrowed<'_>) -> io::Result<TcpInfo> {
        let version = 0u32;
        let mut raw = ws::TCP_INFO_v0::default();
        let mut returned = 0u32;
        // SAFETY: the system reads four bytes and writes at most the structure.
        let called = check(unsafe {
            ws::WSAIoctl(
                socket.as_raw_socket() as ws::SOCKET,
                ws::SIO_TCP_INFO,
                (&raw const version).cast(),
                4,
                (&raw mut raw).cast(),
                size_of::<ws::TCP_INFO_v0>() as u32,
                &raw mut returned,
                std::ptr::null_mut(),
                None,
            )
        });
        match called {
            Err(e) if is_unsupported(&e) => return Ok(TcpInfo::default()),
            called => called?,
        };
        Ok(TcpInfo {
            state: state(raw.State),
            rtt: Some(Duration::from_micros(raw.RttUs.into())),
            min_rtt: Some(Duration::from_micros(raw.MinRttUs.into())),
            mss: Some(raw.Mss),
            peer_window: Some(raw.SndWnd.into()),
            unacknowledged: Some(raw.BytesInFlight.into()),
            bytes_sent: Some(raw.BytesOut),
            bytes_received: Some(raw.BytesIn),
            ..TcpInfo::default()
        })
    }

    fn state(state: ws::TCPSTATE) -> Option<TcpState> {
        Some(match state {
            ws::TCPSTATE_CLOSED => TcpState::Closed,
            ws::TCPSTATE_LISTEN => TcpState::Listen,
            ws::TCPSTATE_SYN_SENT => TcpState::SynSent,
            ws::TCPSTATE_SYN_RCVD => TcpState::SynReceived,
            ws::TCPSTATE_ESTABLISHED => TcpState::Established,
            ws::TCPSTATE_FIN_WAIT_1 => TcpState::FinWait1,
            ws::TCPSTATE_FIN_WAIT_2 => TcpState::FinWait2,
            ws::TCPSTATE_CLOSE_WAIT => TcpState::CloseWait,
            ws::TCPSTATE_CLOSING => TcpState::Closing,
            ws::TCPSTATE_LAST_ACK => TcpState::LastAck,
            ws::TCPSTATE_TIME_WAIT => TcpState::TimeWait,
            _ => return None,
        })
    }

    /// TCP_MAXRT: seconds of retransmission. Windows has no option to end a connection whose peer
    /// accepts no data.
    pub(crate) fn set_dead_after(
        socket: Borrowed<'_>,
        time: Duration,
        strict: bool,
    ) -> io::Result<()> {
        if strict {
            return Err(io::ErrorKind::Unsupported.into());
        }
        set_tcp_option(socket, ws::TCP_MAXRT, seconds(time))
    }

    /// Restores the value of a new socket. A system without the option has nothing to restore.
    pub(crate) fn unset_dead_after(socket: Borrowed<'_>) -> io::Result<()> {
        let new = super::super::stream_socket(Domain::IPV4, false)?;
        match tcp_option(super::super::borrow(&new), ws::TCP_MAXRT) {
            Ok(default) => set_tcp_option(socket, ws::TCP_MAXRT, default),
            Err(e) if is_unsupported(&e) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// TCP_MAXRT is the closest option of Windows; 0xFFFFFFFF means no limit.
    pub(crate) fn user_timeout(socket: Borrowed<'_>) -> io::Result<Option<Duration>> {
        let s = tcp_option(socket, ws::TCP_MAXRT)?;
        Ok((s != 0 && s != u32::MAX).then(|| Duration::from_secs(s.into())))
    }

    /// Windows reports the bytes in flight only, not the unsent bytes.
    pub(crate) fn unacknowledged(_socket: Borrowed<'_>) -> usize {
        0
    }

    pub(crate) fn unread(socket: Borrowed<'_>) -> Option<u64> {
        let mut bytes = 0u32;
        // SAFETY: FIONREAD writes four bytes.
        let code = unsafe {
            ws::ioctlsocket(socket.as_raw_socket() as ws::SOCKET, ws::FIONREAD, &raw mut bytes)
        };
        (code == 0).then(|| bytes.into())
    }

    #[cfg(test)]
    mod tests {
        use std::os::windows::io::AsSocket;

        use super::*;

        /// K3: the limit of the system applies again after dead_after was turned off. Wine does not
        /// have TCP_MAXRT.
        #[test]
        fn unset_dead_after_restores_the_limit_of_a_new_socket() {
            let socket = super::super::super::stream_socket(Domain::IPV4, false).unwrap();
            let socket = socket.as_socket();
            let Ok(before) = tcp_option(socket, ws::TCP_MAXRT) else {
                return unset_dead_after(socket).unwrap();
            };
            set_dead_after(socket, Duration::from_secs(before.wrapping_add(9).into()), false)
                .unwrap();
            assert_ne!(tcp_option(socket, ws::TCP_MAXRT).unwrap(), before);
            unset_dead_after(socket).unwrap();
            assert_eq!(tcp_option(socket, ws::TCP_MAXRT).unwrap(), before);
        }
    }
}

#[cfg(not(any(keepsock_linux, target_vendor = "apple", target_os = "freebsd", windows)))]
mod platform {
    use super::super::Borrowed;
    use super::{Duration, TcpInfo, io};

    pub(crate) const LONGEST_SILENCE: Option<Duration> = None;
    pub(crate) const TIMEOUT_ERRNO: i32 = libc::ETIMEDOUT;

    /// These systems have no such report.
    pub(crate) fn tcp_info(_socket: Borrowed<'_>) -> io::Result<TcpInfo> {
        Ok(TcpInfo::default())
    }

    pub(crate) fn set_dead_after(_: Borrowed<'_>, _: Duration, _: bool) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn user_timeout(_socket: Borrowed<'_>) -> io::Result<Option<Duration>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn unacknowledged(_socket: Borrowed<'_>) -> usize {
        0
    }

    pub(crate) fn unread(socket: Borrowed<'_>) -> Option<u64> {
        Some(super::count(socket, libc::FIONREAD as _) as u64)
    }
}

/// Fast Open and Multipath TCP are supported on Linux only.
#[cfg(not(keepsock_linux))]
mod elsewhere {
    use super::super::Borrowed;
    use super::io;
    use crate::types::liveness::Acknowledged;

    /// Unknown: the caller counts what the kernel accepts.
    pub(crate) fn acknowledged(_socket: Borrowed<'_>) -> Option<Acknowledged> {
        None
    }

    /// Unknown.
    pub(crate) fn ended_without_fin(_socket: Borrowed<'_>) -> io::Result<Option<bool>> {
        Ok(Some(false))
    }

    /// Unknown: the caller counts unread bytes.
    pub(crate) fn data_arrived(_socket: Borrowed<'_>) -> Option<std::time::Duration> {
        None
    }

    #[cfg(not(target_os = "freebsd"))]
    pub(crate) fn silence(_: Borrowed<'_>) -> io::Result<crate::types::liveness::Silence> {
        Err(io::ErrorKind::Unsupported.into())
    }

    #[cfg(feature = "serve")]
    pub(crate) fn received_fin(_socket: Borrowed<'_>) -> bool {
        false
    }

    /// A connection that was reset, or that both sides have closed, has no peer.
    #[cfg(not(any(target_vendor = "apple", target_os = "freebsd")))]
    pub(crate) fn is_gone(socket: Borrowed<'_>) -> bool {
        let peer = crate::sys::SockRef::from(&socket).peer_addr();
        peer.is_err_and(|e| {
            matches!(e.kind(), io::ErrorKind::NotConnected | io::ErrorKind::InvalidInput)
        })
    }

    pub(crate) fn fast_open_connect(_socket: Borrowed<'_>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Without Fast Open a connected socket has always been answered.
    pub(crate) fn is_answered(_socket: Borrowed<'_>) -> bool {
        true
    }

    /// On this platform each connection has a limit of its own, set after accept.
    #[cfg(not(any(target_vendor = "apple", target_os = "freebsd", windows)))]
    pub(crate) fn unset_dead_after(_socket: Borrowed<'_>) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn fast_open_listen(_socket: Borrowed<'_>, _pending: u32) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn is_mptcp(_socket: Borrowed<'_>) -> bool {
        false
    }

    pub(crate) fn is_made_for_mptcp(_socket: Borrowed<'_>) -> bool {
        false
    }

    /// There is no socket for Multipath TCP on this platform.
    pub(crate) fn create_subflow(_socket: Borrowed<'_>) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// K3: a peer with a closed window owes an answer once a probe must have been sent.
    #[test]
    fn owes_answer_with_closed_window_needs_a_probe() {
        let second = Duration::from_secs(1);
        assert!(!owes_answer(0, 1000, 90 * second), "everything is acknowledged");
        assert!(owes_answer(1, 1000, second));
        assert!(!owes_answer(1, 0, 59 * second));
        assert!(owes_answer(1, 0, 61 * second));
    }

    /// I4: a dropped connection has ended, and so has one that both sides have closed.
    #[test]
    fn has_ended_knows_the_states_without_a_stream() {
        let of = |state| has_ended(Ok(TcpInfo { state: Some(state), ..TcpInfo::default() }));
        assert!(of(TcpState::Closed) && of(TcpState::TimeWait));
        assert!(!of(TcpState::Established) && !of(TcpState::LastAck) && !of(TcpState::SynSent));
        assert!(has_ended(Err(io::ErrorKind::ConnectionReset.into())));
        assert!(!has_ended(Err(io::ErrorKind::InvalidInput.into())), "a Unix socket");
    }

    /// N1: a congestion window in bytes is reported in segments.
    #[test]
    fn segments_without_a_segment_size_are_unknown() {
        assert_eq!(segments(14_600, 1460), Some(10));
        assert_eq!(segments(14_600, 0), None);
    }
}
