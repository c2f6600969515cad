//! Applying the options to a socket.

use std::io;
use std::result::Result;

use crate::sys::SockRef;

use super::{FAST_OPEN_PENDING, SocketOptions};
use crate::io::wait::{Cause, OptionFailure};
use crate::sys::{self, Borrowed};
use crate::types::error::Millis;
use crate::types::keepalive::KeepaliveSetting;

impl SocketOptions {
    /// Resets settings of an adopted socket that sockets of keepsock never have. SO_LINGER makes a
    /// close block, the kernel's timeouts would be mistaken for those of the library, and accepted
    /// connections would inherit them.
    pub(crate) fn adopt(&self, socket: Borrowed<'_>, nonblocking: bool) -> Result<(), Cause> {
        sys::set_nonblocking(socket, nonblocking)?;
        sys::forbid_sigpipe(socket)?;
        let socket = SockRef::from(&socket);
        socket.set_linger(None)?;
        socket.set_read_timeout(None)?;
        socket.set_write_timeout(None)?;
        Ok(())
    }

    /// The cause of a failure to create a stream socket, which names the option that selects
    /// another protocol than TCP.
    #[cold]
    pub(crate) fn socket_failure(&self, err: io::Error) -> Cause {
        match () {
            () if self.mptcp => OptionFailure::of(&err, "mptcp"),
            () if self.seqpacket => OptionFailure::of(&err, "seqpacket"),
            () => err.into(),
        }
    }

    /// Applies the options to an adopted TCP socket.
    pub(crate) fn adopt_tcp(&self, socket: Borrowed<'_>, ipv6: bool) -> Result<(), Cause> {
        self.apply_tcp(socket, ipv6)?;
        self.apply_dead_after(socket)?;
        if self.keepalive == KeepaliveSetting::Off {
            sys::set_keepalive(socket, None).map_err(named("keepalive off"))?;
        }
        if !self.nodelay {
            SockRef::from(&socket).set_tcp_nodelay(false).map_err(named("nodelay off"))?;
        }
        Ok(())
    }

    /// Applies the options of a listener to a TCP socket, before or after it starts to listen.
    pub(crate) fn apply_listener(&self, socket: Borrowed<'_>) -> Result<(), Cause> {
        if self.save_syn {
            sys::save_syn(socket, true).map_err(named("save_syn"))?;
        }
        if self.fast_open {
            sys::fast_open_listen(socket, FAST_OPEN_PENDING).map_err(named("fast_open"))?;
        }
        Ok(())
    }

    /// Applies the options of a listener to an adopted one.
    pub(crate) fn adopt_listener(&self, socket: Borrowed<'_>) -> Result<(), Cause> {
        let set = sys::save_syn(socket, self.save_syn);
        // Turning off an option that the system does not support may fail.
        if self.save_syn {
            set.map_err(named("save_syn"))?;
        }
        let pending = if self.fast_open { FAST_OPEN_PENDING } else { 0 };
        let set = sys::fast_open_listen(socket, pending);
        if self.fast_open {
            set.map_err(named("fast_open"))?;
        }
        // The previous owner may have set it.
        Ok(sys::unset_dead_after(socket)?)
    }

    /// Applies `dead_after`: to a listener, for the connections that it will accept, and to an
    /// established connection. Not before the connection is established, because the kernel's
    /// timeout would shorten the connect timeout.
    pub(crate) fn apply_dead_after(&self, socket: Borrowed<'_>) -> Result<(), Cause> {
        let Some(time) = self.liveness.dead_after else {
            return Ok(());
        };
        let strict = self.liveness.fail_on_stall;
        sys::set_dead_after(socket, time, strict).map_err(|e| {
            let strict = if strict { " with fail_on_stall" } else { "" };
            OptionFailure::of(&e, format!("dead_after {}{strict}", Millis(time)))
        })
    }

    /// Applies the options to a new TCP socket.
    pub(crate) fn apply_tcp(&self, socket: Borrowed<'_>, ipv6: bool) -> Result<(), Cause> {
        // The option that may fail comes first, so a failure leaves an adopted socket unchanged.
        self.apply_interface(socket, ipv6)?;
        if let Ok(Some(keepalive)) = self.effective_keepalive() {
            sys::set_keepalive(socket, Some(keepalive))
                .map_err(|e| OptionFailure::of(&e, format!("keepalive {keepalive}")))?;
        }
        if self.nodelay {
            SockRef::from(&socket).set_tcp_nodelay(true).map_err(named("nodelay"))?;
        }
        Ok(())
    }

    /// Binds a socket to the interface of the options, if there is one.
    pub(crate) fn apply_interface(&self, socket: Borrowed<'_>, ipv6: bool) -> Result<(), Cause> {
        let Some(name) = &self.interface else {
            return Ok(());
        };
        sys::bind_interface(socket, name, ipv6)
            .map_err(|e| OptionFailure::of(&e, format!("interface {name:?}")))
    }
}

/// The cause of a failure to set this option.
fn named(option: &'static str) -> impl Fn(io::Error) -> Cause {
    move |e| OptionFailure::of(&e, option)
}
