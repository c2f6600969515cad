//! Rejecting options that are out of range, or do not apply to a kind of socket.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

#[cfg(feature = "datagram")]
use super::CLOSE_TIMEOUT;
use super::{ATTEMPT_DELAY, CONNECT_TIMEOUT, PROXY_TIMEOUT, SocketOptions};
use crate::sys;
use crate::types::address::{AddressUse, Family, Unusable, lacks_zone, needs_zone};
use crate::types::credentials::UnixFile;
use crate::types::endpoint::{Endpoint, Host, Port, Target};
use crate::types::error::{Error, ErrorKind, Millis, Result, Stage};
use crate::types::keepalive::{Keepalive, KeepaliveSetting};
use crate::types::network::network;

/// RFC 8305 section 5: at least 10 ms, and at most 2 s.
const ATTEMPT_DELAYS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(2);

/// The first of these names whose condition holds. A chain of conditions, because an array of names
/// would be filled for each connect.
macro_rules! first_of {
    ($($name:literal: $holds:expr,)+) => {
        $(if $holds { Some($name) } else)+ { None }
    };
}

/// Why an address cannot be used. `zone`: something else selects the interface.
fn rejects(purpose: AddressUse, address: SocketAddr, zone: bool) -> Option<Unusable> {
    let no_zone = !zone && lacks_zone(address);
    purpose.rejects(address).or(no_zone.then_some(Unusable::NoZone))
}

/// Why a numeric endpoint cannot be used, and its IP address.
fn unusable(endpoint: &Endpoint, purpose: AddressUse, zone: bool) -> Option<(IpAddr, Unusable)> {
    let Target::Inet { host, port } = &endpoint.0 else {
        return None;
    };
    let port = match port {
        Port::Number(port) => *port,
        Port::Service(_) => 1,
    };
    match host {
        Host::V4(ip) => {
            let ip = IpAddr::V4(*ip);
            Some((ip, purpose.rejects(SocketAddr::new(ip, port))?))
        }
        Host::V6(v6, scope) => {
            let ip = IpAddr::V6(*v6);
            let zone = zone || scope.is_some();
            Some((ip, rejects(purpose, SocketAddr::new(ip, port), zone)?))
        }
        // The IP address does not matter.
        Host::Name(_) | Host::Any => {
            let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
            Some((ip, purpose.rejects(SocketAddr::new(ip, port))?))
        }
    }
}

impl SocketOptions {
    /// Rejects values that no socket can have, before the socket is created.
    pub(crate) fn validate(&self, operation: &'static str) -> Result<()> {
        let refuse = |what: &str| {
            Err(Error::new(ErrorKind::InvalidArgument, operation).detail(what.to_owned()))
        };
        let is_zero = |timeout: Option<Duration>| timeout.is_some_and(|t| t.is_zero());
        let zero = first_of! {
            "connect_timeout": is_zero(self.connect_timeout),
            "read_timeout": is_zero(self.read_timeout),
            "write_timeout": is_zero(self.write_timeout),
            "proxy_timeout": self.proxy_timeout.is_zero(),
        };
        if let Some(name) = zero {
            return refuse(&format!("{name} must be greater than zero"));
        }
        if !ATTEMPT_DELAYS.contains(&self.attempt_delay) {
            return refuse(&format!(
                "attempt_delay {} is not within {} to {}",
                Millis(self.attempt_delay),
                Millis(*ATTEMPT_DELAYS.start()),
                Millis(*ATTEMPT_DELAYS.end())
            ));
        }
        if self.mptcp && self.liveness.dead_after.is_some() {
            return refuse(
                "dead_after checks one path, and mptcp uses several: remove one of them",
            );
        }
        self.liveness.validate(operation)?;
        self.effective_keepalive().map_err(|e| e.during(operation))?;
        if let Err(what) = self.validate_kernel() {
            return refuse(&what);
        }
        if self.family != Family::Any && self.preferred_family != Family::Any {
            return refuse("preferred_family has no effect with family: remove one of them");
        }
        if self.backlog == Some(0) {
            return refuse("backlog must be greater than zero");
        }
        if let Some(mode) = self.unix.mode.filter(|mode| *mode > 0o777) {
            return refuse(&format!("unix_mode 0{mode:o} is greater than 0777"));
        }
        // chown(2) does not change an ID of -1.
        if self.unix.uid == Some(u32::MAX) || self.unix.gid == Some(u32::MAX) {
            return refuse("unix_owner: 4294967295 (-1) is not a valid ID");
        }
        if !self.users.is_empty() && self.users.contains(&u32::MAX) {
            return refuse("allowed_uid: 4294967295 (-1) is not a valid user ID");
        }
        for text in &self.trusted_proxies {
            network(text, operation)?;
        }
        if self.proxy_header.is_some() && self.seqpacket {
            return refuse("proxy_header needs a stream, and seqpacket has packets");
        }
        if let Some(name) = &self.interface {
            // IFNAMSIZ is 16 with the final NUL, on Linux and on the BSDs.
            if name.is_empty() || name.len() > 15 || name.contains('\0') {
                return refuse(&format!(
                    "interface {name:?} is not an interface name, which has 1 to 15 bytes"
                ));
            }
        }
        Ok(())
    }

    /// Rejects addresses that the program has written and that cannot be used: the endpoint, the local
    /// address, an added address. The addresses of names are checked when they are known.
    #[inline(always)]
    pub(crate) fn refuse_addresses(
        &self,
        endpoint: &Endpoint,
        purpose: AddressUse,
        operation: &'static str,
    ) -> Result<()> {
        // Most connects have one numeric IPv4 address.
        if let Target::Inet { host: Host::V4(ip), port: Port::Number(port) } = &endpoint.0 {
            let is_only = self.local.is_none() && self.addresses.is_empty();
            if is_only && purpose.rejects(SocketAddr::from((*ip, *port))).is_none() {
                return Ok(());
            }
        }
        self.check_addresses(endpoint, purpose, operation)
    }

    #[cold]
    fn check_addresses(
        &self,
        endpoint: &Endpoint,
        purpose: AddressUse,
        operation: &'static str,
    ) -> Result<()> {
        let refuse = |at: &Endpoint, what: String| {
            Err(Error::new(ErrorKind::InvalidEndpoint, operation).at(at).detail(what))
        };
        let zone = self.zone();
        if let Some(local) = &self.local {
            if let Some((ip, why)) = unusable(local, AddressUse::Local, self.interface.is_some()) {
                return refuse(endpoint, why.describe(ip)).map_err(|e| e.with_local(local));
            }
        }
        for address in &self.addresses {
            if let Some(why) = rejects(purpose, *address, zone) {
                return refuse(&(*address).into(), why.describe(address.ip()));
            }
        }
        let is_peer = purpose.is_peer();
        match &endpoint.0 {
            Target::Inet { host: Host::Any, .. } if is_peer => {
                let what =
                    "\"*\" is for listening and binding: write the name or the address of the peer";
                refuse(endpoint, what.to_owned())
            }
            // The added addresses replace those of the endpoint.
            _ if !self.addresses.is_empty() => Ok(()),
            _ => match unusable(endpoint, purpose, zone) {
                Some((ip, why)) => refuse(endpoint, why.describe(ip)),
                None => Ok(()),
            },
        }
    }

    /// Moves the addresses of the preferred family to the front. The order of `*` stays: IPv6 accepts
    /// both families.
    pub(crate) fn prefer(
        &self,
        endpoint: &Endpoint,
        mut found: Vec<SocketAddr>,
    ) -> Vec<SocketAddr> {
        let any = matches!(&endpoint.0, Target::Inet { host: Host::Any, .. });
        if self.preferred_family != Family::Any && !any {
            found.sort_by_key(|address| !self.preferred_family.allows(address.ip()));
        }
        found
    }

    /// Whether the options select the interface of a link-local address: the interface itself, or the
    /// zone of the local address.
    fn zone(&self) -> bool {
        let local = self.local.as_ref().map(|local| &local.0);
        let has_zone = |host: &Host| matches!(host, Host::V6(ip, Some(_)) if needs_zone(*ip));
        self.interface.is_some()
            || matches!(local, Some(Target::Inet { host, .. }) if has_zone(host))
    }

    /// The addresses of the local endpoint that can be used. Fails if there are some and none of them
    /// can.
    pub(crate) fn usable_local(
        &self,
        mut found: Vec<SocketAddr>,
        operation: &'static str,
    ) -> Result<Vec<SocketAddr>> {
        let zone = self.interface.is_some();
        let mut unusable = None;
        found.retain(|address| match self.rejects_local(*address, zone) {
            None => true,
            Some(why) => {
                unusable.get_or_insert_with(|| why.describe(address.ip()));
                false
            }
        });
        match unusable.filter(|_| found.is_empty()) {
            None => Ok(found),
            Some(what) => Err(Error::new(ErrorKind::InvalidEndpoint, operation).detail(what)),
        }
    }

    /// Adds the local address and the interface that the caller has chosen to the error of a
    /// connect, if they may be its cause.
    #[cold]
    pub(crate) fn name_local_side(&self, error: Error, stage: Stage) -> Error {
        use ErrorKind::{AddressInUse, AddressNotAvailable, TimedOut, Unreachable};
        let local = self.local.as_ref();
        match (stage, error.kind()) {
            (Stage::Bind, _) => error.with_local_side(local, None),
            (Stage::Connect, AddressInUse | AddressNotAvailable | TimedOut | Unreachable) => {
                error.with_local_side(local, self.interface.as_deref())
            }
            _ => error,
        }
    }

    /// Why a TCP socket, or a datagram socket with one peer, cannot have the local address.
    fn rejects_local(&self, address: SocketAddr, zone: bool) -> Option<Unusable> {
        rejects(AddressUse::Local, address, zone)
            .or_else(|| sys::is_broadcast(address.ip()).then_some(Unusable::Broadcast))
    }

    /// Why a socket cannot be bound to the address.
    pub(crate) fn rejects_bind(
        &self,
        address: SocketAddr,
        purpose: AddressUse,
    ) -> Option<Unusable> {
        let zone = self.interface.is_some();
        match purpose {
            #[cfg(feature = "datagram")]
            AddressUse::Receive => rejects(purpose, address, zone),
            _ => self.rejects_local(address, zone),
        }
    }

    /// Why a socket cannot connect to an address that a lookup has found. `local` are the addresses
    /// of the local endpoint.
    pub(crate) fn rejects_peer(
        &self,
        address: SocketAddr,
        purpose: AddressUse,
        local: &[SocketAddr],
    ) -> Option<Unusable> {
        let is_scoped =
            |local: &SocketAddr| matches!(local, SocketAddr::V6(a) if a.scope_id() != 0);
        let zone = self.interface.is_some() || local.iter().any(is_scoped);
        rejects(purpose, address, zone)
    }

    pub(crate) fn effective_keepalive(&self) -> Result<Option<Keepalive>> {
        self.keepalive.resolve(self.liveness.dead_after, self.liveness.middlebox_timeout)
    }

    /// Rejects, for a Unix socket, the options that only IP sockets have. `dead_after` is accepted:
    /// the peer of a Unix socket cannot vanish.
    pub(crate) fn refuse_inet_only(&self, operation: &'static str) -> Result<()> {
        let given = first_of! {
            "family": self.family != Family::Any,
            "preferred_family": self.preferred_family != Family::Any,
            "local_endpoint": self.local.is_some(),
            "interface": self.interface.is_some(),
            "remote_address": !self.addresses.is_empty(),
            "attempt_delay": self.attempt_delay != ATTEMPT_DELAY,
            "fail_on_stall": self.liveness.fail_on_stall,
            "fast_open": self.fast_open,
            "mptcp": self.mptcp,
            "save_syn": self.save_syn,
            "udp_gro": self.udp_gro,
        };
        refuse(operation, given, |name| format!("{name} does not apply to Unix sockets"))
    }

    /// Rejects, for a server with Unix sockets only, the options that apply to TCP sockets. A
    /// server with a TCP socket applies them to that socket. An option that is off is accepted.
    pub(crate) fn refuse_tcp_only(&self, operation: &'static str) -> Result<()> {
        let given = first_of! {
            "keepalive": matches!(self.keepalive, KeepaliveSetting::Own(_)),
            "middlebox_timeout": self.liveness.middlebox_timeout.is_some(),
            "nodelay": !self.nodelay,
            "trusted_proxy": !self.trusted_proxies.is_empty(),
        };
        refuse(operation, given, |name| format!("{name} does not apply to Unix sockets"))
    }

    /// Rejects, for IP sockets, the options of Unix sockets.
    pub(crate) fn refuse_unix_only(&self, operation: &'static str) -> Result<()> {
        let given = first_of! {
            "unix_mode": self.unix.mode.is_some(),
            "unix_owner": self.unix.uid.is_some() || self.unix.gid.is_some(),
            "allowed_uid": !self.users.is_empty(),
            "seqpacket": self.seqpacket,
        };
        refuse(operation, given, |name| format!("{name} applies to Unix sockets only"))
    }

    /// Rejects the options of a socket file, for a Unix socket that creates none.
    pub(crate) fn refuse_file_only(&self, operation: &'static str) -> Result<()> {
        if self.unix == UnixFile::default() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidArgument, operation).detail(
            "unix_mode and unix_owner apply to the socket file of a listener or datagram socket",
        ))
    }

    /// The options that apply to an inherited socket. It is bound already. If it has a file, the file
    /// exists with its mode and owner.
    #[cfg(feature = "activation")]
    pub(crate) fn for_inherited(&self, endpoint: &Endpoint) -> SocketOptions {
        let mut options = self.clone();
        if matches!(&endpoint.0, Target::UnixPath(_)) {
            options.unix = UnixFile::default();
        }
        // The process that bound the socket has decided on these.
        options.forget_bind_options();
        options
    }

    /// Rejects, for a listener, the options of a client.
    pub(crate) fn refuse_client_only(&self, operation: &'static str) -> Result<()> {
        if self.local.is_some() || !self.addresses.is_empty() {
            return Err(Error::new(ErrorKind::InvalidArgument, operation)
                .detail("local_endpoint and remote_address apply to connecting only"));
        }
        let given = first_of! {
            "attempt_delay": self.attempt_delay != ATTEMPT_DELAY,
            "proxy_header": self.proxy_header.is_some(),
        };
        refuse(operation, given, |name| format!("{name} applies to connecting only"))
    }

    /// Rejects a header timeout of a listener that expects no headers.
    pub(crate) fn refuse_without_proxies(&self, operation: &'static str) -> Result<()> {
        if self.proxy_timeout == PROXY_TIMEOUT || !self.trusted_proxies.is_empty() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidArgument, operation)
            .detail("proxy_timeout has no effect without trusted_proxy: add a network"))
    }

    /// Rejects, for an adopted socket, the options that only creating a socket can apply.
    pub(crate) fn refuse_making_only(&self, operation: &'static str) -> Result<()> {
        let given = first_of! {
            "connect_timeout": self.connect_timeout != Some(CONNECT_TIMEOUT),
            "attempt_delay": self.attempt_delay != ATTEMPT_DELAY,
            "family": self.family != Family::Any,
            "preferred_family": self.preferred_family != Family::Any,
            "local_endpoint": self.local.is_some(),
            "remote_address": !self.addresses.is_empty(),
            "proxy_header": self.proxy_header.is_some(),
        };
        refuse(operation, given, |name| format!("{name} has no effect on an existing socket"))
    }

    /// Rejects, for an established connection, the options that only connecting can apply.
    pub(crate) fn refuse_connecting_only(&self, operation: &'static str) -> Result<()> {
        self.refuse_making_only(operation)?;
        let given = first_of! {
            "fast_open": self.fast_open,
            "mptcp": self.mptcp,
        };
        refuse(operation, given, |name| format!("{name} has no effect on an existing socket"))
    }

    /// Rejects, for connections of event-driven serving, the options of a
    /// [`ClientSocket`](crate::ClientSocket).
    #[cfg(feature = "serve")]
    pub(crate) fn refuse_calls_only(&self, operation: &'static str) -> Result<()> {
        let given = first_of! {
            "keep_stats": self.keep_stats,
            "save_syn": self.save_syn,
            "seqpacket": self.seqpacket,
            "read_timeout": self.read_timeout.is_some(),
            "write_timeout": self.write_timeout.is_some(),
        };
        refuse(operation, given, |name| {
            let instead = match name {
                "read_timeout" => "; use idle_timeout",
                "write_timeout" => "; use dead_after with fail_on_stall",
                _ => "",
            };
            format!("{name} has no effect on connections of event-driven serving{instead}")
        })
    }

    /// Rejects, for a connection, the options of a listener.
    pub(crate) fn refuse_listener_only(&self, operation: &'static str) -> Result<()> {
        let given = first_of! {
            "handover": self.handover,
            "backlog": self.backlog.is_some(),
            "save_syn": self.save_syn,
            "allowed_uid": !self.users.is_empty(),
            "trusted_proxy": !self.trusted_proxies.is_empty(),
            "proxy_timeout": self.proxy_timeout != PROXY_TIMEOUT,
        };
        refuse(operation, given, |name| format!("{name} applies to listening only"))?;
        self.refuse_file_only(operation)
    }

    /// Rejects, for a stream, the options of datagram sockets.
    pub(crate) fn refuse_datagram_only(&self, operation: &'static str) -> Result<()> {
        if self.udp_gro {
            return Err(Error::new(ErrorKind::InvalidArgument, operation)
                .detail("udp_gro applies to datagram sockets only"));
        }
        Ok(())
    }

    /// Rejects, for a datagram socket, the options of streams. An option that is off is accepted.
    #[cfg(feature = "datagram")]
    pub(crate) fn refuse_stream_only(&self, operation: &'static str) -> Result<()> {
        let live = &self.liveness;
        let given = first_of! {
            "keepalive": matches!(self.keepalive, KeepaliveSetting::Own(_)),
            "fail_on_stall": live.fail_on_stall,
            "dead_after": live.dead_after.is_some(),
            "middlebox_timeout": live.middlebox_timeout.is_some(),
            "heartbeat_timeout": live.heartbeat_timeout.is_some(),
            "heartbeat": live.heartbeat.is_some(),
            "idle_receive_only": live.idle_receive_only,
            "idle_timeout": live.idle_timeout.is_some(),
            "first_byte_timeout": live.first_byte_timeout.is_some(),
            "nodelay": !self.nodelay,
            "close_timeout": self.close_timeout != CLOSE_TIMEOUT,
            "attempt_delay": self.attempt_delay != ATTEMPT_DELAY,
            "backlog": self.backlog.is_some(),
            "fast_open": self.fast_open,
            "mptcp": self.mptcp,
            "save_syn": self.save_syn,
            "seqpacket": self.seqpacket,
            "trusted_proxy": !self.trusted_proxies.is_empty(),
            "proxy_timeout": self.proxy_timeout != PROXY_TIMEOUT,
            "proxy_header": self.proxy_header.is_some(),
        };
        refuse(operation, given, |name| format!("{name} does not apply to datagram sockets"))
    }
}

/// Rejects an option that is set and does not apply. `why` returns the text for its name.
#[inline]
fn refuse(
    operation: &'static str,
    given: Option<&str>,
    why: impl Fn(&str) -> String,
) -> Result<()> {
    match given {
        None => Ok(()),
        Some(name) => Err(Error::new(ErrorKind::InvalidArgument, operation).detail(why(name))),
    }
}
