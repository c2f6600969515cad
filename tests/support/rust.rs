//! The Rust API as an [`Api`].

use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use keepsock::{
    Attempt, CancelToken, ClientSocket, CloseReason, Endpoint, Error, Framing, Keepalive,
    ServerSocket, SocketOptions, Sockopt,
};

#[cfg(feature = "serve")]
use super::serve::{
    Handler, On, Serve, handler_that_may_skip,
    rust::{Program, serve_options},
};
use super::{
    Api, Client, ConnStats, Counters, Failure, INFINITE, OnRetry, Opt, Outcome, Passed, Peer,
    PendingConnect, PendingLookup, Reconnect, Server, Token, Told, Tried, Tuple, WatchFn, Watched,
    os::{AsFd, AsRawFd, OwnedFd, RawFd},
    system,
};

pub struct RustApi;

impl From<Error> for Failure {
    fn from(e: Error) -> Failure {
        Failure {
            status: e.kind().code(),
            message: e.to_string().into(),
            operation: e.operation().into(),
            endpoint: e.endpoint().to_owned(),
            stage: e.failed_stage().map_or(String::new(), |stage| stage.to_string()).into(),
            os_error: e.os_error().unwrap_or(0),
            errno: e.errno(),
            lookup_code: e.lookup_code().unwrap_or(0),
            transferred: e.transferred(),
            attempts: e.attempts().iter().map(tried).collect(),
        }
    }
}

pub fn tried(a: &Attempt) -> Tried {
    Tried {
        address: a.address.to_string(),
        stage: a.stage.to_string(),
        status: a.kind.code(),
        os_error: a.os_error.unwrap_or(0),
        elapsed_us: i64::try_from(a.elapsed.as_micros()).unwrap(),
    }
}

pub fn ms(ms: i64) -> Option<Duration> {
    u64::try_from(ms).ok().map(Duration::from_millis)
}

/// For calls that need a timeout, because Rust has no negative time.
pub fn limit(ms_: i64) -> Duration {
    ms(ms_).unwrap_or(Duration::MAX)
}

pub fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap()
}

pub fn tuple(t: &keepsock::FiveTuple) -> Tuple {
    Tuple {
        protocol: t.protocol as i32,
        local: (t.local.host(), t.local.port()),
        remote: (t.remote.host(), t.remote.port()),
        text: t.to_string(),
    }
}

pub fn snap(s: keepsock::ConnectionStats) -> ConnStats {
    let us = |t: Option<Duration>| t.map_or(-1, |t| i64::try_from(t.as_micros()).unwrap());
    let n = |n: Option<u64>| n.map_or(-1, |n| i64::try_from(n).unwrap());
    ConnStats {
        state: s.tcp_state.map_or(0, |state| state as i32),
        close_reason: s.close_reason,
        rtt_us: us(s.rtt),
        rtt_variation_us: us(s.rtt_variation),
        min_rtt_us: us(s.min_rtt),
        last_sent_us: us(s.last_sent),
        last_received_us: us(s.last_received),
        retransmits: n(s.retransmits),
        unacknowledged: n(s.unacknowledged),
        unsent: n(s.unsent),
        unread: n(s.unread),
        bytes_sent: n(s.bytes_sent),
        bytes_received: n(s.bytes_received),
        segments_sent: n(s.segments_sent),
        segments_received: n(s.segments_received),
        mss: n(s.mss.map(u64::from)),
        congestion_window: n(s.congestion_window),
        peer_window: n(s.peer_window),
        heartbeats: n(s.heartbeats),
        congestion_control: s.congestion_control.unwrap_or_default(),
        user_timeout_ms: s.user_timeout.map_or(INFINITE, millis),
        is_mptcp: s.is_mptcp,
    }
}

pub fn options(list: &[Opt<'_, RustApi>]) -> Result<SocketOptions, Error> {
    let mut o = SocketOptions::new();
    for option in list {
        o = match option {
            Opt::Keepalive(idle, interval, count) => {
                o.keepalive(Keepalive::new(limit(*idle), limit(*interval), *count)?)
            }
            Opt::NoKeepalive => o.keepalive(None),
            Opt::Nodelay(on) => o.nodelay(*on),
            Opt::ConnectTimeout(t) => o.connect_timeout(ms(*t)),
            Opt::ReadTimeout(t) => o.read_timeout(ms(*t)),
            Opt::WriteTimeout(t) => o.write_timeout(ms(*t)),
            Opt::CloseTimeout(t) => o.close_timeout(limit(*t)),
            Opt::Family(family) => o.family(*family),
            Opt::Local(local) => o.local_endpoint(local.parse::<Endpoint>()?),
            Opt::Interface(name) => o.interface(*name),
            Opt::Address(address) => o.remote_address(*address),
            Opt::Backlog(n) => o.backlog(*n),
            Opt::FastOpen(on) => o.fast_open(*on),
            Opt::Mptcp(on) => o.mptcp(*on),
            #[cfg(feature = "datagram")]
            Opt::UdpGro(on) => o.udp_gro(*on),
            Opt::AttemptDelay(t) => o.attempt_delay(limit(*t)),
            Opt::DeadAfter(t) => o.dead_after(ms(*t)),
            Opt::FailOnStall(on) => o.fail_on_stall(*on),
            Opt::MiddleboxTimeout(t) => o.middlebox_timeout(ms(*t)),
            Opt::Heartbeat(bytes, t) => o.heartbeat(bytes, ms(*t)),
            Opt::HeartbeatTimeout(t) => o.heartbeat_timeout(ms(*t)),
            Opt::IdleTimeout(t) => o.idle_timeout(ms(*t)),
            Opt::IdleReceiveOnly(on) => o.idle_receive_only(*on),
            Opt::FirstByteTimeout(t) => o.first_byte_timeout(ms(*t)),
            Opt::KeepStats(on) => o.keep_stats(*on),
            #[cfg(feature = "diag")]
            Opt::SaveSyn(on) => o.save_syn(*on),
            #[cfg(feature = "activation")]
            Opt::Handover(on) => o.handover(*on),
            Opt::Cancel(token) => o.cancel(*token),
            Opt::UnixMode(mode) => o.unix_mode(*mode),
            Opt::UnixOwner(uid, gid) => o.unix_owner(*uid, *gid),
            Opt::AllowUid(uid) => o.allowed_uid(*uid),
            Opt::Seqpacket(on) => o.seqpacket(*on),
            Opt::PreferredFamily(family) => o.preferred_family(*family),
            Opt::TrustedProxy(network) => o.trusted_proxy(*network),
            Opt::ProxyTimeout(t) => o.proxy_timeout(limit(*t)),
            Opt::ProxyHeader(1, addresses) => o.proxy_header(keepsock::ProxyHeader::v1(*addresses)),
            Opt::ProxyHeader(_, addresses) => o.proxy_header(keepsock::ProxyHeader::v2(*addresses)),
            Opt::Sockopt(option, value) => o.sockopt(*option, *value),
            Opt::CongestionControl(name) => o.congestion_control(*name),
            Opt::Defaults => o
                .local_endpoint(None)
                .interface(None)
                .congestion_control(None)
                .backlog(None)
                .unix_mode(None)
                .unix_owner(None, None),
            Opt::RawSockopt(level, name, value) => o.raw_sockopt(*level, *name, value),
        };
    }
    Ok(o)
}

impl Api for RustApi {
    type Client = Arc<ClientSocket>;
    type Server = ServerSocket;
    type Token = CancelToken;
    type PendingConnect = keepsock::PendingConnect;
    type PendingLookup = keepsock::PendingLookup;
    #[cfg(feature = "serve")]
    type Service = keepsock::Service;
    #[cfg(feature = "serve")]
    type Connection = keepsock::Connection;
    type Reconnect = keepsock::Reconnect;
    #[cfg(feature = "datagram")]
    type Datagram = keepsock::DatagramSocket;
    #[cfg(all(feature = "datagram", feature = "serve"))]
    type DatagramService = keepsock::DatagramService;
    #[cfg(feature = "activation")]
    type Activation = keepsock::Activation;

    const NUMBER: u8 = 1;

    fn connect(endpoint: &str, list: &[Opt<'_, Self>]) -> Outcome<Self::Client> {
        Ok(Arc::new(ClientSocket::connect_with(endpoint, &options(list)?)?))
    }

    fn connect_host(host: &str, port: u16, list: &[Opt<'_, Self>]) -> Outcome<Self::Client> {
        Ok(Arc::new(ClientSocket::connect_host(host, port, &options(list)?)?))
    }

    fn listen(endpoint: &str, list: &[Opt<'_, Self>]) -> Outcome<ServerSocket> {
        Ok(ServerSocket::listen_with(endpoint, &options(list)?)?)
    }

    fn listen_all(endpoints: &[&str], list: &[Opt<'_, Self>]) -> Outcome<ServerSocket> {
        Ok(ServerSocket::listen_all(endpoints.iter().copied(), &options(list)?)?)
    }

    fn start(endpoint: &str, list: &[Opt<'_, Self>]) -> Outcome<keepsock::PendingConnect> {
        Ok(keepsock::PendingConnect::start(endpoint, &options(list)?)?)
    }

    fn lookup(endpoint: &str, list: &[Opt<'_, Self>]) -> Outcome<Vec<SocketAddr>> {
        Ok(keepsock::lookup(endpoint, &options(list)?)?)
    }

    fn start_lookup(endpoint: &str, list: &[Opt<'_, Self>]) -> Outcome<keepsock::PendingLookup> {
        Ok(keepsock::PendingLookup::start(endpoint, &options(list)?)?)
    }

    fn adopt_client(
        fd: OwnedFd,
        list: &[Opt<'_, Self>],
    ) -> Result<Self::Client, (OwnedFd, Failure)> {
        match ClientSocket::from_owned(fd, &options(list).unwrap()) {
            Ok(client) => Ok(Arc::new(client)),
            Err((fd, e)) => Err((fd, e.into())),
        }
    }

    fn adopt_server(
        fd: OwnedFd,
        list: &[Opt<'_, Self>],
    ) -> Result<ServerSocket, (OwnedFd, Failure)> {
        ServerSocket::from_owned(fd, &options(list).unwrap()).map_err(|(fd, e)| (fd, e.into()))
    }

    fn try_token() -> Outcome<CancelToken> {
        Ok(CancelToken::new()?)
    }

    fn reconnect(endpoint: &str, list: &[Opt<'_, Self>]) -> Outcome<Self::Reconnect> {
        Ok(keepsock::Reconnect::new(endpoint, &options(list)?)?)
    }
}

fn watched(reported: &keepsock::Watch<'_>) -> Watched {
    match reported {
        keepsock::Watch::Readable(fd) => Watched::Readable(fd.as_raw_fd()),
        keepsock::Watch::Writable(fd) => Watched::Writable(fd.as_raw_fd()),
        keepsock::Watch::Remove(fd) => Watched::Remove(fd.as_raw_fd()),
        keepsock::Watch::Timeout(time) => Watched::Timeout(time.map_or(INFINITE, up)),
        other => panic!("{other:?}"),
    }
}

/// Milliseconds, rounded up.
fn up(time: Duration) -> i64 {
    i64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap()
}

impl PendingConnect<RustApi> for keepsock::PendingConnect {
    fn finish(&mut self) -> Outcome<Option<Arc<ClientSocket>>> {
        Ok(keepsock::PendingConnect::finish(self)?.map(Arc::new))
    }

    fn wait(&mut self) -> Outcome<Arc<ClientSocket>> {
        Ok(Arc::new(keepsock::PendingConnect::wait(self)?))
    }

    fn fd(&mut self) -> Outcome<RawFd> {
        Ok(self.descriptor()?.as_raw_fd())
    }

    fn socket(&mut self) -> Outcome<RawFd> {
        Ok(keepsock::PendingConnect::socket(self)?.as_raw_fd())
    }

    fn set_watch(&mut self, mut watch: WatchFn) -> Outcome<()> {
        keepsock::PendingConnect::set_watch(self, move |reported| watch(watched(&reported)))?;
        Ok(())
    }

    fn timeout(&mut self) -> i64 {
        keepsock::PendingConnect::next_timeout(self).map_or(INFINITE, up)
    }

    fn attempts(&mut self) -> Vec<Tried> {
        keepsock::PendingConnect::attempts(self).iter().map(tried).collect()
    }

    fn attempts_in_progress(&mut self) -> Vec<(String, i32, i64)> {
        let under_way = keepsock::PendingConnect::attempts_in_progress(self).into_iter();
        let describe = |a: keepsock::AttemptInProgress| {
            let state = a.tcp_state.map_or(0, |state| state as i32);
            (a.address.to_string(), state, i64::try_from(a.elapsed.as_micros()).unwrap())
        };
        under_way.map(describe).collect()
    }
}

impl PendingLookup for keepsock::PendingLookup {
    fn finish(&mut self) -> Outcome<Option<Vec<SocketAddr>>> {
        Ok(keepsock::PendingLookup::finish(self)?)
    }

    fn wait(&mut self) -> Outcome<Vec<SocketAddr>> {
        Ok(keepsock::PendingLookup::wait(self)?)
    }

    fn fd(&mut self) -> Outcome<RawFd> {
        Ok(self.descriptor()?.as_raw_fd())
    }

    fn timeout(&mut self) -> i64 {
        keepsock::PendingLookup::next_timeout(self).map_or(INFINITE, up)
    }
}

impl Client<RustApi> for Arc<ClientSocket> {
    fn read(&self, buf: &mut [u8]) -> Outcome<usize> {
        Ok(ClientSocket::read(self, buf)?)
    }

    fn read_exact(&self, buf: &mut [u8]) -> Outcome<()> {
        Ok(ClientSocket::read_exact(self, buf)?)
    }

    fn read_until(&self, delimiter: u8, max: usize) -> Outcome<Vec<u8>> {
        Ok(ClientSocket::read_until(self, delimiter, max)?)
    }

    fn read_line(&self, max: usize) -> Outcome<String> {
        Ok(ClientSocket::read_line(self, max)?)
    }

    fn read_message(&self, framing: &Framing) -> Outcome<Vec<u8>> {
        Ok(ClientSocket::read_message(self, framing)?)
    }

    fn write_message(&self, framing: &Framing, message: &[u8]) -> Outcome<()> {
        Ok(ClientSocket::write_message(self, framing, message)?)
    }

    fn buffered(&self) -> usize {
        ClientSocket::buffered(self)
    }

    fn write(&self, buf: &[u8]) -> Outcome<usize> {
        Ok(ClientSocket::write(self, buf)?)
    }

    fn write_all(&self, buf: &[u8]) -> Outcome<()> {
        Ok(ClientSocket::write_all(self, buf)?)
    }

    fn peek(&self, buf: &mut [u8]) -> Outcome<usize> {
        Ok(ClientSocket::peek(self, buf)?)
    }

    fn read_slices(&self, bufs: &mut [&mut [u8]]) -> Outcome<usize> {
        let mut slices: Vec<_> = bufs.iter_mut().map(|b| IoSliceMut::new(b)).collect();
        Ok(ClientSocket::read_slices(self, &mut slices)?)
    }

    fn write_slices(&self, bufs: &[&[u8]]) -> Outcome<()> {
        let mut slices: Vec<_> = bufs.iter().map(|b| IoSlice::new(b)).collect();
        Ok(ClientSocket::write_slices(self, &mut slices)?)
    }

    fn wait_hangup(&self, t: i64) -> Outcome<CloseReason> {
        Ok(ClientSocket::wait_hangup(self, ms(t))?)
    }

    fn close_reason(&self) -> Option<CloseReason> {
        ClientSocket::close_reason(self)
    }

    fn check_liveness(&self) -> Outcome<i64> {
        let next = ClientSocket::check_liveness(self)?;
        Ok(next.map_or(INFINITE, |t| i64::try_from(t.as_nanos().div_ceil(1_000_000)).unwrap()))
    }

    fn stats(&self) -> Outcome<ConnStats> {
        Ok(snap(ClientSocket::stats(self)?))
    }

    fn shutdown_write(&self) -> Outcome<()> {
        Ok(ClientSocket::shutdown_write(self)?)
    }

    fn close(&self) -> Outcome<()> {
        Ok(ClientSocket::close(self)?)
    }

    fn abort(&self) {
        ClientSocket::abort(self);
    }

    fn keepalive(&self) -> Outcome<Option<(i64, i64, u32)>> {
        let now = ClientSocket::keepalive(self)?;
        Ok(now.map(|k| (millis(k.idle()), millis(k.interval()), k.count())))
    }

    fn keepalive_values(&self) -> Outcome<(i64, i64, u32)> {
        let k = ClientSocket::keepalive_values(self)?;
        Ok((millis(k.idle()), millis(k.interval()), k.count()))
    }

    fn set_keepalive(&self, idle: i64, interval: i64, count: u32) -> Outcome<()> {
        let keepalive = Keepalive::new(limit(idle), limit(interval), count)?;
        Ok(ClientSocket::set_keepalive(self, keepalive)?)
    }

    fn disable_keepalive(&self) -> Outcome<()> {
        Ok(ClientSocket::set_keepalive(self, None)?)
    }

    fn set_dead_after(&self, time: i64) -> Outcome<()> {
        Ok(ClientSocket::set_dead_after(self, ms(time))?)
    }

    fn set_idle_timeout(&self, time: i64) -> Outcome<()> {
        Ok(ClientSocket::set_idle_timeout(self, ms(time))?)
    }

    fn set_heartbeat(&self, bytes: &[u8], every: i64) -> Outcome<()> {
        Ok(ClientSocket::set_heartbeat(self, bytes, ms(every))?)
    }

    fn set_heartbeat_timeout(&self, time: i64) -> Outcome<()> {
        Ok(ClientSocket::set_heartbeat_timeout(self, ms(time))?)
    }

    fn set_read_timeout(&self, t: i64) -> Outcome<()> {
        Ok(ClientSocket::set_read_timeout(self, ms(t))?)
    }

    fn set_write_timeout(&self, t: i64) -> Outcome<()> {
        Ok(ClientSocket::set_write_timeout(self, ms(t))?)
    }

    fn set_close_timeout(&self, t: i64) {
        ClientSocket::set_close_timeout(self, limit(t));
    }

    fn set_nonblocking(&self, on: bool) -> Outcome<()> {
        Ok(ClientSocket::set_nonblocking(self, on)?)
    }

    fn set_cancel(&self, token: Option<&CancelToken>) {
        ClientSocket::set_cancel(self, token);
    }

    fn set_sockopt(&self, option: Sockopt, value: u32) -> Outcome<()> {
        Ok(ClientSocket::set_sockopt(self, option, value)?)
    }

    fn sockopt(&self, option: Sockopt) -> Outcome<u32> {
        Ok(ClientSocket::sockopt(self, option)?)
    }

    fn read_proxy_header(&self) -> Outcome<()> {
        Ok(ClientSocket::read_proxy_header(self)?)
    }

    fn proxy_address(&self) -> Option<String> {
        ClientSocket::proxy_address(self).map(|address| address.to_string())
    }

    fn five_tuple(&self) -> Tuple {
        tuple(&ClientSocket::five_tuple(self))
    }

    fn fd(&self) -> Outcome<RawFd> {
        Ok(self.borrow()?.as_fd().as_raw_fd())
    }

    fn release(&self) -> Outcome<OwnedFd> {
        Ok(ClientSocket::release(self)?)
    }

    fn another(&self) -> Arc<ClientSocket> {
        self.clone()
    }

    fn write_fds(&self, bytes: &[u8], fds: &[RawFd]) -> Outcome<usize> {
        let fds: Vec<_> = fds.iter().map(|fd| system::borrow(*fd)).collect();
        Ok(self.send_with_descriptors(bytes, &fds)?)
    }

    fn read_fds(&self, cap: usize, max: usize) -> Outcome<Passed> {
        let mut bytes = vec![0; cap];
        let received = self.recv_with_descriptors(&mut bytes, max)?;
        bytes.truncate(received.len);
        Ok(Passed { bytes, fds: received.descriptors, truncated: received.descriptors_truncated })
    }

    fn peer_credentials(&self) -> Outcome<Peer> {
        Ok(peer(ClientSocket::peer_credentials(self)?))
    }

    fn send_file(&self, file: RawFd, offset: u64, len: u64) -> Outcome<u64> {
        Ok(ClientSocket::send_file(self, system::borrow_file(file), offset, len)?)
    }
}

pub fn peer(peer: keepsock::Credentials) -> Peer {
    Peer { pid: peer.pid.map_or(-1, i64::from), uid: peer.uid, gid: peer.gid }
}

impl Server<RustApi> for ServerSocket {
    fn accept(&self) -> Outcome<Arc<ClientSocket>> {
        Ok(Arc::new(ServerSocket::accept(self)?))
    }

    fn endpoint(&self) -> String {
        ServerSocket::endpoint(self).to_string()
    }

    fn endpoints(&self) -> Vec<String> {
        ServerSocket::endpoints(self).map(ToString::to_string).collect()
    }

    fn port(&self) -> u16 {
        ServerSocket::port(self)
    }

    fn stats(&self) -> Counters {
        let c = ServerSocket::stats(self);
        Counters {
            accepted: c.accepted,
            retried: c.retried,
            exhausted: c.exhausted,
            rejected: c.rejected,
            over_address_limit: c.over_address_limit,
            denied: c.denied,
            proxy_rejected: c.proxy_rejected,
        }
    }

    fn set_accept_timeout(&self, t: i64) -> Outcome<()> {
        Ok(ServerSocket::set_accept_timeout(self, ms(t))?)
    }

    fn set_nonblocking(&self, on: bool) -> Outcome<()> {
        Ok(ServerSocket::set_nonblocking(self, on)?)
    }

    fn set_cancel(&self, token: Option<&CancelToken>) -> Outcome<()> {
        Ok(ServerSocket::set_cancel(self, token)?)
    }

    fn fd(&self) -> Outcome<RawFd> {
        Ok(self.borrow()?.as_fd().as_raw_fd())
    }

    fn fd_at(&self, index: usize) -> Outcome<RawFd> {
        Ok(self.borrow_at(index)?.as_fd().as_raw_fd())
    }

    fn release(&self) -> Outcome<OwnedFd> {
        Ok(ServerSocket::release(self)?)
    }

    fn close(&self) {
        ServerSocket::close(self);
    }

    #[cfg(feature = "serve")]
    fn serve(&self, list: &[Serve], handler: Handler<RustApi>) -> Outcome<keepsock::Service> {
        Ok(self.serve_with(&serve_options(list), handler_that_may_skip::<RustApi>(handler))?)
    }

    #[cfg(feature = "serve")]
    fn serve_events(&self, list: &[Serve], on: On<RustApi>) -> Outcome<keepsock::Service> {
        Ok(ServerSocket::serve_events(self, &serve_options(list), Program(on.that_may_skip()))?)
    }
}

impl Token for CancelToken {
    fn fd(&self) -> Outcome<RawFd> {
        Ok(self.descriptor()?.as_raw_fd())
    }

    fn fire(&self) {
        CancelToken::fire(self);
    }

    fn reset(&self) {
        CancelToken::reset(self);
    }

    fn is_fired(&self) -> bool {
        CancelToken::is_fired(self)
    }
}

impl Reconnect<RustApi> for keepsock::Reconnect {
    fn set_backoff(&mut self, first: i64, longest: i64) -> Outcome<()> {
        Ok(keepsock::Reconnect::set_backoff(self, limit(first), limit(longest))?)
    }

    fn set_limit(&mut self, t: i64) -> Outcome<()> {
        Ok(keepsock::Reconnect::set_timeout(self, ms(t))?)
    }

    fn on_retry(&mut self, mut told: OnRetry) {
        keepsock::Reconnect::on_retry(self, move |retry| {
            let wait_ms = retry.wait.as_nanos().div_ceil(1_000_000);
            told(Told {
                error: retry.error.cloned().map(Failure::from),
                tries: retry.tries,
                wait_ms: i64::try_from(wait_ms).unwrap(),
            });
        });
    }

    fn reset(&mut self) {
        keepsock::Reconnect::reset(self);
    }

    fn connect(&mut self) -> Outcome<Arc<ClientSocket>> {
        Ok(Arc::new(keepsock::Reconnect::connect(self)?))
    }

    fn try_connect(&mut self) -> Outcome<Option<Arc<ClientSocket>>> {
        Ok(keepsock::Reconnect::try_connect(self)?.map(Arc::new))
    }

    fn next_timeout(&mut self) -> i64 {
        keepsock::Reconnect::next_timeout(self).map_or(INFINITE, up)
    }

    fn set_watch(&mut self, mut watch: WatchFn) {
        keepsock::Reconnect::set_watch(self, move |reported| watch(watched(&reported)));
    }
}
