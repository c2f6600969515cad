//! Connecting: the addresses of a name race (RFC 8305) within one deadline.
//!
//! - [`race`] decides which attempt starts when. It does no I/O.
//! - [`attempt`] makes one attempt to one address.
//! - [`driver`] has the state of one connect. It does what can be done now, and never waits.
//! - [`connect`] waits for the driver in one poll. [`PendingConnect`] leaves the waiting to the
//!   caller.

mod attempt;
mod client;
mod driver;
mod pending;
#[cfg(test)]
mod properties;
mod race;

use std::net::SocketAddr;
use std::time::Instant;

use crate::log;
use crate::options::SocketOptions;
use crate::stream::Connected;
use crate::types::address::AddressUse;
use crate::types::endpoint::{Endpoint, Target};
use crate::types::error::Result;
use crate::types::sockopt::Sockets;

use attempt::{AttemptParams, AttemptStart, AttemptState, Candidate, FailedAttempt};
use driver::{ConnectDriver, Progress};
pub(crate) use pending::EVENT_CHECK;
pub use pending::{AttemptInProgress, PendingConnect, Watch};

const OPERATION: &str = "connect";

/// The detail of an error about a local address that no attempt could use.
pub(crate) const OTHER_FAMILY: &str =
    "it is of another address family than the peer: use an address of the same family";

/// The result of an attempt that was started outside a [`ConnectDriver`].
enum Direct {
    Connected(Connected),
    InProgress(AttemptStart),
}

/// Connects, and waits for the connection.
pub(crate) fn connect(
    endpoint: &Endpoint,
    options: &SocketOptions,
    start: Instant,
) -> Result<Connected> {
    check(endpoint, options)?;
    let first = match only_address(endpoint, options) {
        None => None,
        Some(address) => match connect_directly(address, options, start) {
            Ok(Direct::Connected(connected)) => return Ok(connected),
            Ok(Direct::InProgress(started)) => Some(Ok(started)),
            Err(error) => Some(Err(error)),
        },
    };
    let mut driver = ConnectDriver::new(endpoint, options, start)?;
    driver.first = first;
    let mut writable = None;
    loop {
        match driver.advance(options, writable)? {
            Progress::Connected(connected) => return Ok(connected),
            Progress::Wait(until) => match driver.wait(until, options.cancel.as_ref()) {
                Ok(woken) => writable = woken,
                Err(cause) => return Err(driver.abandon(&cause, options)),
            },
        }
    }
}

/// Rejects options that do not apply to connecting to this endpoint.
fn check(endpoint: &Endpoint, options: &SocketOptions) -> Result<()> {
    options.validate(OPERATION)?;
    options.refuse_datagram_only(OPERATION)?;
    if let Target::Inet { .. } = endpoint.0 {
        options.refuse_unix_only(OPERATION)?;
        options.refuse_addresses(endpoint, AddressUse::StreamPeer, OPERATION)?;
        options.refuse_other_sockets(Sockets::CONNECT, OPERATION)?;
        options.refuse_without_local(OPERATION)?;
        options.refuse_unused_flow_label(endpoint, OPERATION)?;
    } else {
        options.refuse_other_sockets(Sockets::UNIX, OPERATION)?;
    }
    options.refuse_listener_only(OPERATION)
}

/// The address of a connect that needs neither a lookup nor a choice.
fn only_address(endpoint: &Endpoint, options: &SocketOptions) -> Option<SocketAddr> {
    let plain = options.addresses.is_empty() && options.local.is_none() && options.cancel.is_none();
    let address = endpoint.plain_address()?;
    (plain && options.family.allows(address.ip())).then_some(address)
}

/// Connects to the only address without a [`ConnectDriver`]. A connect over loopback usually
/// completes here, with a small part of the instructions. The caller passes an attempt that does
/// not to a driver.
fn connect_directly(
    address: SocketAddr,
    options: &SocketOptions,
    start: Instant,
) -> std::result::Result<Direct, FailedAttempt> {
    let candidate = Candidate::inet(address);
    let params = AttemptParams { options, local: None, is_only: true };
    log::attempt_started(&candidate.address, 1, 1);
    let started = attempt::start(&candidate, &params)?;
    let AttemptState::Established(peer) = started.state else {
        return Ok(Direct::InProgress(started));
    };
    let connected = attempt::finish(started.socket, peer, &candidate, &params)?;
    log::attempt_succeeded(&candidate.address, start);
    Ok(Direct::Connected(connected))
}
