//! The parts of rustdoc error lists that several methods share. Each method's page has the full list.

/// The errors of calls on a connection that the kernel has ended abnormally.
macro_rules! kernel_end_errors {
    () => {
        "\
- [`Reset`](crate::ErrorKind::Reset): the peer, or a device on the path, reset the connection; or the
  peer had closed it before this side wrote.
- [`Dead`](crate::ErrorKind::Dead): the peer answered neither keepalive probes nor data in time.
- [`Unreachable`](crate::ErrorKind::Unreachable): the peer did not answer, and an ICMP message
  reported that it cannot be reached.
- [`Stalled`](crate::ErrorKind::Stalled): the peer took no data for the time of
  [`dead_after`](crate::SocketOptions::dead_after), and
  [`fail_on_stall`](crate::SocketOptions::fail_on_stall) is set.
- [`Refused`](crate::ErrorKind::Refused): the peer refused a connection that was started with
  [`fast_open`](crate::SocketOptions::fast_open)."
    };
}

/// The errors of calls on a connection that has ended abnormally.
macro_rules! end_errors {
    () => {
        concat!(
            kernel_end_errors!(),
            "
- [`IdleTimeout`](crate::ErrorKind::IdleTimeout): the connection was idle for the
  [`idle_timeout`](crate::SocketOptions::idle_timeout), or no byte arrived within the
  [`first_byte_timeout`](crate::SocketOptions::first_byte_timeout). Or the PROXY header did not arrive
  within the [`proxy_timeout`](crate::SocketOptions::proxy_timeout), and the connection was reset.
- [`HeartbeatTimeout`](crate::ErrorKind::HeartbeatTimeout): the peer did not answer a heartbeat
  within the [`heartbeat_timeout`](crate::SocketOptions::heartbeat_timeout)."
        )
    };
}

/// The errors of writes on a connection that has ended abnormally.
macro_rules! write_end_errors {
    () => {
        concat!(
            kernel_end_errors!(),
            "
- [`IdleTimeout`](crate::ErrorKind::IdleTimeout): the connection had ended by the
  [`idle_timeout`](crate::SocketOptions::idle_timeout) or the
  [`first_byte_timeout`](crate::SocketOptions::first_byte_timeout), and the kernel accepted no bytes
  without a wait.
- [`HeartbeatTimeout`](crate::ErrorKind::HeartbeatTimeout): the peer did not answer a heartbeat
  within the [`heartbeat_timeout`](crate::SocketOptions::heartbeat_timeout)."
        )
    };
}

/// The errors of every read, without those of an ended connection.
macro_rules! read_errors {
    () => {
        "\
- [`TimedOut`](crate::ErrorKind::TimedOut): the read timeout expired.
- [`Malformed`](crate::ErrorKind::Malformed): the connection from a
  [`trusted_proxy`](crate::SocketOptions::trusted_proxy) has no valid PROXY header. It was reset.
- [`WouldBlock`](crate::ErrorKind::WouldBlock): the socket is in non-blocking mode, and the call
  would have to wait.
- [`Cancelled`](crate::ErrorKind::Cancelled): the cancel token of the socket was fired.
- [`Closed`](crate::ErrorKind::Closed): this program has closed, aborted or released the socket.
- [`Draining`](crate::ErrorKind::Draining): the service that accepted the connection is draining.
- [`NoMemory`](crate::ErrorKind::NoMemory), [`Os`](crate::ErrorKind::Os): the kernel failed the
  call for another reason."
    };
}

/// The errors of every write, without those of an ended connection.
macro_rules! write_errors {
    () => {
        "\
- [`TimedOut`](crate::ErrorKind::TimedOut): the write timeout expired.
- [`WouldBlock`](crate::ErrorKind::WouldBlock): the socket is in non-blocking mode, and the call
  would have to wait for the peer or for a write of another thread.
- [`Cancelled`](crate::ErrorKind::Cancelled): the cancel token of the socket was fired.
- [`Closed`](crate::ErrorKind::Closed): this program has closed, aborted or released the socket.
- [`WrongState`](crate::ErrorKind::WrongState): this side has called
  [`shutdown_write`](crate::ClientSocket::shutdown_write), or a message of
  [`write_message`](crate::ClientSocket::write_message) is unfinished.
- [`NoMemory`](crate::ErrorKind::NoMemory), [`Os`](crate::ErrorKind::Os): the kernel failed the
  call for another reason."
    };
}
