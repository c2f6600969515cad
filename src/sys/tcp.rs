//! What the kernel knows of a TCP connection, and how long it tries.
//!
//! - `tcp_info`: state, times, counters ([`TcpInfo`]); what a system does not tell is `None`
//! - `silence`: for how long nothing came, where `TELLS_SILENCE`
//! - `set_dead_after`, `unset_dead_after`, `user_timeout`: how long data may stay unacknowledged
//! - `is_answered_by_another`, `is_gone`, `unacknowledged`, `unread`
//! - `fast_open_connect`, `fast_open_listen` (RFC 7413), `is_mptcp`, `is_made_for_mptcp` (RFC 8684)

use std::io;
use std::time::Duration;

use crate::info::TcpState;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) use elsewhere::*;
pub(crate) use platform::*;

/// As far as the system tells.
#[derive(Debug, Clone, Default)]
pub(crate) struct TcpInfo {
    pub state: Option<TcpState>,
    pub rtt: Option<Duration>,
    pub rtt_variation: Option<Duration>,
    pub min_rtt: Option<Duration>,
    /// Segments.
    pub retransmits: Option<u64>,
    pub last_sent: Option<Duration>,
    pub last_received: Option<Duration>,
    pub mss: Option<u32>,
    /// Segments.
    pub congestion_window: Option<u64>,
    pub peer_window: Option<u64>,
    /// Written bytes: on their way, and not sent yet.
    pub unacknowledged: Option<u64>,
    pub unsent: Option<u64>,
    pub bytes_sent: Option<u64>,
    pub bytes_received: Option<u64>,
    pub segments_sent: Option<u64>,
    pub segments_received: Option<u64>,
    pub congestion_control: Option<String>,
}

/// Elsewhere nothing tells both in one call.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn is_answered_by_another(_socket: super::Borrowed<'_>) -> bool {
    false
}

/// Whole seconds as an option takes them, rounded up.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn seconds(time: Duration) -> u32 {
    let up = time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0));
    u32::try_from(up).unwrap_or(u32::MAX)
}

/// An ioctl(2) that writes an int; 0 if it fails.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
fn count(socket: super::Borrowed<'_>, request: libc::c_ulong) -> usize {
    use std::os::fd::AsRawFd;

    let mut bytes: libc::c_int = 0;
    // SAFETY: the callers' requests write an int through the pointer.
    let code = unsafe { libc::ioctl(socket.as_raw_fd(), request as _, &raw mut bytes) };
    if code < 0 { 0 } else { usize::try_from(bytes).unwrap_or(0) }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod platform {
    use socket2::{Domain, SockRef};

    use super::super::Borrowed;
    use super::super::sockopt;
    use super::{Duration, TcpInfo, io};
    use crate::info::TcpState;
    use crate::liveness::Silence;

    /// The ages of the last ACK and of the last data are in TCP_INFO.
    pub(crate) const TELLS_SILENCE: bool = true;
    /// The error of a connection that was given up.
    pub(crate) const GIVEN_UP: i32 = libc::ETIMEDOUT;

    /// Linux 6.15; not in libc yet.
    const TCP_RTO_MAX_MS: libc::c_int = 44;
    const SIOCOUTQNSD: libc::c_ulong = 0x894B; // linux/sockios.h; not in libc

    /// struct tcp_info of linux/tcp.h up to tcpi_snd_wnd (Linux 5.4). libc's ends sooner.
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
        // SAFETY: Raw is integers.
        unsafe { sockopt::get(socket, libc::IPPROTO_TCP, libc::TCP_INFO) }
    }

    pub(crate) fn tcp_info(socket: Borrowed<'_>) -> io::Result<TcpInfo> {
        let (raw, len) = raw(socket)?;
        // Kernels add fields at the end.
        let knows = |end: usize| len >= end;
        macro_rules! since {
            ($field:ident, $value:expr) => {
                knows(std::mem::offset_of!(Raw, $field) + size_of_val(&raw.$field)).then(|| $value)
            };
        }
        let ms = |n: u32| Duration::from_millis(n.into());
        let us = |n: u32| Duration::from_micros(n.into());
        let queued = super::count(socket, libc::TIOCOUTQ as _) as u64;
        let unsent = super::count(socket, SIOCOUTQNSD) as u64;
        let congestion_control = SockRef::from(&socket)
            .tcp_congestion()
            .ok()
            .map(|name| String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned());
        Ok(TcpInfo {
            state: TcpState::from_linux(raw.state),
            rtt: Some(us(raw.rtt)),
            rtt_variation: Some(us(raw.rttvar)),
            // ~0 says that there was no sample.
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
            congestion_control,
        })
    }

    /// The probes that are counted are those of keepalive and of a closed window alike. One may
    /// get lost, and before Linux 6.15 the next one may be minutes later.
    pub(crate) fn silence(socket: Borrowed<'_>) -> io::Result<Silence> {
        let (raw, _) = raw(socket)?;
        let heard = raw.last_data_recv.min(raw.last_ack_recv);
        Ok(Silence {
            heard: Duration::from_millis(heard.into()),
            owes: raw.unacked > 0 || raw.probes > 1,
            rtt: Duration::from_micros(raw.rtt.into()),
        })
    }

    /// Before Linux 6.15 the kernel asks a peer whose window is closed less and less often,
    /// up to each two minutes, and so notices its death late; TCP_RTO_MAX_MS keeps it asking.
    /// With `strict` the kernel gives up by itself whatever was not taken in time.
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

    /// As a new socket is, which has the system's own limit (tcp_rto_max_ms in ip-sysctl.rst).
    pub(crate) fn unset_dead_after(socket: Borrowed<'_>) -> io::Result<()> {
        // Multipath TCP has neither limit: setting one is refused.
        if is_made_for_mptcp(socket) {
            return Ok(());
        }
        SockRef::from(&socket).set_tcp_user_timeout(None)?;
        let rto_max = |socket| {
            // SAFETY: an int.
            unsafe { sockopt::get::<u32>(socket, libc::IPPROTO_TCP, TCP_RTO_MAX_MS) }
        };
        // Linux before 6.15 has no such limit to set.
        let Ok((now, _)) = rto_max(socket) else {
            return Ok(());
        };
        let new = super::super::stream_socket(Domain::IPV4, false)?;
        let (default, _) = rto_max(super::super::borrow(&new))?;
        if now == default {
            return Ok(());
        }
        sockopt::set(socket, libc::IPPROTO_TCP, TCP_RTO_MAX_MS, &default)
    }

    pub(crate) fn user_timeout(socket: Borrowed<'_>) -> io::Result<Option<Duration>> {
        let timeout = SockRef::from(&socket).tcp_user_timeout()?;
        Ok(timeout.filter(|t| !t.is_zero()))
    }

    /// Whether the handshake has ended well, with another socket. One call for what
    /// otherwise SO_ERROR and getsockname(2) tell. False: neither is known.
    ///
    /// A socket that is joined to itself (RFC 9293 section 3.5, simultaneous open) has
    /// received its own SYN before it was established. If one segment was all that came, it
    /// was the SYN-ACK of somebody else.
    pub(crate) fn is_answered_by_another(socket: Borrowed<'_>) -> bool {
        raw(socket).is_ok_and(|(raw, _)| {
            TcpState::from_linux(raw.state) == Some(TcpState::Established) && raw.segs_in == 1
        })
    }

    /// Whether the TCP connection is over in both directions: reset, given up, or
    /// closed by both sides (tcp(7), TCP_INFO). False where the system does not tell.
    pub(crate) fn is_gone(socket: Borrowed<'_>) -> bool {
        // SAFETY: the state is the first byte of struct tcp_info.
        let state = unsafe { sockopt::get::<u8>(socket, libc::IPPROTO_TCP, libc::TCP_INFO) };
        state.is_ok_and(|(state, _)| i32::from(state) == TcpState::Closed as i32)
    }

    /// Bytes that were written and that the peer's kernel has not acknowledged; 0
    /// where the system does not tell (tcp(7), SIOCOUTQ).
    pub(crate) fn unacknowledged(socket: Borrowed<'_>) -> usize {
        // TIOCOUTQ has SIOCOUTQ's number.
        super::count(socket, libc::TIOCOUTQ as _)
    }

    /// The next connect sends no SYN if there is a cookie; the first write does.
    pub(crate) fn fast_open_connect(socket: Borrowed<'_>) -> io::Result<()> {
        sockopt::set(socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, &1)
    }

    /// At most `pending` connections that have data and no ACK yet.
    pub(crate) fn fast_open_listen(socket: Borrowed<'_>, pending: u32) -> io::Result<()> {
        sockopt::set(socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, &pending)
    }

    /// Linux 5.16; false where the kernel does not know.
    pub(crate) fn is_mptcp(socket: Borrowed<'_>) -> bool {
        const TCP_IS_MPTCP: libc::c_int = 43; // linux/tcp.h; not in libc
        // SAFETY: an int.
        let is = unsafe { sockopt::get::<i32>(socket, libc::IPPROTO_TCP, TCP_IS_MPTCP) };
        is.is_ok_and(|(is, _)| is != 0)
    }

    /// Whether it was made for Multipath TCP, whatever became of it.
    pub(crate) fn is_made_for_mptcp(socket: Borrowed<'_>) -> bool {
        let protocol = SockRef::from(&socket).protocol();
        protocol.is_ok_and(|protocol| protocol == Some(socket2::Protocol::MPTCP))
    }

    /// Bytes that came and were not read (tcp(7), SIOCINQ).
    pub(crate) fn unread(socket: Borrowed<'_>) -> Option<u64> {
        Some(super::count(socket, libc::FIONREAD as _) as u64)
    }
}

#[cfg(target_vendor = "apple")]
mod platform {
    use super::super::Borrowed;
    use super::super::sockopt;
    use super::{Duration, TcpInfo, io, seconds};
    use crate::info::TcpState;
    use crate::liveness::Silence;

    pub(crate) const TELLS_SILENCE: bool = false;
    pub(crate) const GIVEN_UP: i32 = libc::ETIMEDOUT;

    /// netinet/tcp.h: the time after which retransmitting ends, in seconds. Not in libc.
    const TCP_RXT_CONNDROPTIME: libc::c_int = 0x80;

    /// TCP_CONNECTION_INFO (netinet/tcp.h). Its states have the numbers of
    /// netinet/tcp_fsm.h, its times are milliseconds.
    pub(crate) fn tcp_info(socket: Borrowed<'_>) -> io::Result<TcpInfo> {
        // SAFETY: the structure is integers.
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
            retransmits: None,
            mss: Some(raw.tcpi_maxseg),
            peer_window: Some(raw.tcpi_snd_wnd.into()),
            bytes_sent: Some(raw.tcpi_txbytes),
            bytes_received: Some(raw.tcpi_rxbytes),
            segments_sent: Some(raw.tcpi_txpackets),
            segments_received: Some(raw.tcpi_rxpackets),
            unacknowledged: Some(unacknowledged(socket) as u64),
            ..TcpInfo::default()
        })
    }

    pub(crate) fn silence(_socket: Borrowed<'_>) -> io::Result<Silence> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The kernel gives up retransmitting after that time; probing a closed window goes
    /// on. It cannot be told to give up a peer that takes no data.
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

    pub(crate) fn user_timeout(_socket: Borrowed<'_>) -> io::Result<Option<Duration>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn is_gone(_socket: Borrowed<'_>) -> bool {
        false
    }

    /// SO_NWRITE.
    pub(crate) fn unacknowledged(socket: Borrowed<'_>) -> usize {
        // SAFETY: an int.
        let bytes = unsafe { sockopt::get::<i32>(socket, libc::SOL_SOCKET, libc::SO_NWRITE) };
        bytes.map_or(0, |(bytes, _)| usize::try_from(bytes).unwrap_or(0))
    }

    /// SO_NREAD.
    pub(crate) fn unread(socket: Borrowed<'_>) -> Option<u64> {
        // SAFETY: an int.
        let bytes = unsafe { sockopt::get::<i32>(socket, libc::SOL_SOCKET, libc::SO_NREAD) };
        bytes.ok().and_then(|(bytes, _)| u64::try_from(bytes).ok())
    }
}

#[cfg(target_os = "freebsd")]
mod platform {
    use super::super::Borrowed;
    use super::super::sockopt;
    use super::{Duration, TcpInfo, io, seconds};
    use crate::info::TcpState;
    use crate::liveness::Silence;

    /// TCP_INFO tells when the last segment came, but not whether a probe of a closed
    /// window is unanswered.
    pub(crate) const TELLS_SILENCE: bool = false;
    pub(crate) const GIVEN_UP: i32 = libc::ETIMEDOUT;

    /// struct tcp_info of netinet/tcp.h (FreeBSD 13): states with the numbers of
    /// netinet/tcp_fsm.h, times in microseconds. Fields with __ in C are not filled.
    pub(crate) fn tcp_info(socket: Borrowed<'_>) -> io::Result<TcpInfo> {
        // SAFETY: the structure is integers.
        let (raw, _) =
            unsafe { sockopt::get::<libc::tcp_info>(socket, libc::IPPROTO_TCP, libc::TCP_INFO) }?;
        let us = |n: u32| Some(Duration::from_micros(n.into()));
        Ok(TcpInfo {
            state: TcpState::from_bsd(raw.tcpi_state),
            rtt: us(raw.tcpi_rtt),
            rtt_variation: us(raw.tcpi_rttvar),
            retransmits: Some(raw.tcpi_snd_rexmitpack.into()),
            last_received: us(raw.tcpi_last_data_recv),
            mss: Some(raw.tcpi_snd_mss),
            peer_window: Some(raw.tcpi_snd_wnd.into()),
            unacknowledged: Some(unacknowledged(socket) as u64),
            ..TcpInfo::default()
        })
    }

    pub(crate) fn silence(_socket: Borrowed<'_>) -> io::Result<Silence> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// TCP_MAXUNACKTIME gives up whatever makes no progress, a peer that takes no data
    /// included; without `strict` there is nothing.
    pub(crate) fn set_dead_after(
        socket: Borrowed<'_>,
        time: Duration,
        strict: bool,
    ) -> io::Result<()> {
        if !strict {
            return Err(io::ErrorKind::Unsupported.into());
        }
        sockopt::set(socket, libc::IPPROTO_TCP, libc::TCP_MAXUNACKTIME, &seconds(time))
    }

    pub(crate) fn user_timeout(socket: Borrowed<'_>) -> io::Result<Option<Duration>> {
        // SAFETY: an unsigned int.
        let (s, _) =
            unsafe { sockopt::get::<u32>(socket, libc::IPPROTO_TCP, libc::TCP_MAXUNACKTIME) }?;
        Ok((s > 0).then(|| Duration::from_secs(s.into())))
    }

    pub(crate) fn is_gone(_socket: Borrowed<'_>) -> bool {
        false
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

    use windows_sys::Win32::Networking::WinSock as ws;

    use super::super::{Borrowed, tcp_option};
    use super::{Duration, TcpInfo, io, seconds};
    use crate::info::TcpState;
    use crate::liveness::Silence;

    pub(crate) const TELLS_SILENCE: bool = false;
    pub(crate) const GIVEN_UP: i32 = ws::WSAETIMEDOUT;

    /// SIO_TCP_INFO: Windows 10 1703 and later.
    pub(crate) fn tcp_info(socket: Borrowed<'_>) -> io::Result<TcpInfo> {
        let version = 0u32;
        let mut raw = ws::TCP_INFO_v0::default();
        let mut returned = 0u32;
        // SAFETY: the system reads four bytes and writes at most the structure.
        let code = unsafe {
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
        };
        if code != 0 {
            // SAFETY: no memory is passed.
            return Err(io::Error::from_raw_os_error(unsafe { ws::WSAGetLastError() }));
        }
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

    pub(crate) fn silence(_socket: Borrowed<'_>) -> io::Result<Silence> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// TCP_MAXRT: seconds of retransmitting. A peer that takes no data is not given up, and
    /// there is no option that would.
    pub(crate) fn set_dead_after(
        socket: Borrowed<'_>,
        time: Duration,
        strict: bool,
    ) -> io::Result<()> {
        if strict {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let value = seconds(time);
        // SAFETY: the system reads four bytes from value.
        let code = unsafe {
            ws::setsockopt(
                socket.as_raw_socket() as ws::SOCKET,
                ws::IPPROTO_TCP,
                ws::TCP_MAXRT,
                (&raw const value).cast(),
                4,
            )
        };
        if code != 0 {
            // SAFETY: no memory is passed.
            return Err(io::Error::from_raw_os_error(unsafe { ws::WSAGetLastError() }));
        }
        Ok(())
    }

    /// TCP_MAXRT, the nearest that Windows has; 0xFFFFFFFF is for ever.
    pub(crate) fn user_timeout(socket: Borrowed<'_>) -> io::Result<Option<Duration>> {
        let s = tcp_option(socket, ws::TCP_MAXRT)?;
        Ok((s != 0 && s != u32::MAX).then(|| Duration::from_secs(s.into())))
    }

    /// Windows does not tell.
    pub(crate) fn is_gone(_socket: Borrowed<'_>) -> bool {
        false
    }

    /// Windows tells of what is in flight only, and not of what waits to be sent.
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
}

#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_vendor = "apple",
    target_os = "freebsd",
    windows
)))]
mod platform {
    use super::super::Borrowed;
    use super::{Duration, TcpInfo, io, seconds};
    use crate::liveness::Silence;

    pub(crate) const TELLS_SILENCE: bool = false;
    pub(crate) const GIVEN_UP: i32 = libc::ETIMEDOUT;

    pub(crate) fn tcp_info(_socket: Borrowed<'_>) -> io::Result<TcpInfo> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn silence(_socket: Borrowed<'_>) -> io::Result<Silence> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn set_dead_after(_: Borrowed<'_>, _: Duration, _: bool) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn user_timeout(_socket: Borrowed<'_>) -> io::Result<Option<Duration>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn is_gone(_socket: Borrowed<'_>) -> bool {
        false
    }

    pub(crate) fn unacknowledged(_socket: Borrowed<'_>) -> usize {
        0
    }

    pub(crate) fn unread(_socket: Borrowed<'_>) -> Option<u64> {
        None
    }
}

/// Fast Open and Multipath TCP are offered on Linux only.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod elsewhere {
    use super::super::Borrowed;
    use super::io;

    pub(crate) fn fast_open_connect(_socket: Borrowed<'_>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Here each connection has its own limit, set after accept.
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
}
