//! The entrance of the C API into the crate: the items that it needs in addition to the public API.
//!
//! `src/ffi` imports public items of the crate and items of this module, and no others. It also calls
//! the following methods of public types, which are visible in the crate only. So a change behind the
//! public API shows here whether it concerns C. `tests/architecture.rs` compares the table with the
//! calls.
//!
//! | type | methods | reason |
//! |---|---|---|
//! | `ClientSocket` | `try_peek`, `try_read`, `try_read_exact`, `try_read_slices`, `try_write`, `try_write_all`, `try_write_message`, `try_write_slices` | "would block" costs no error object |
//! | `ClientSocket` | `read_line_bytes`, `read_message_bytes`, `read_until_bytes` | C copies from the read buffer into its own buffer |
//! | `ClientSocket` | `from_connected`, `finish_connect` | a socket is constructed in its handle |
//! | `ServerSocket` | `accept_socket`, `into_client`, `configure` | an accepted socket is constructed in its handle |
//! | `ServerSocket` | `serve_for`, `serve_events_for` | a service is stored in its handle before the first callback |
//! | `Service` | `add_borrowed`, `reconnect_borrowed` | the handle of the connection or of the reconnect stays with the caller on failure |
//! | `Connection` | `id_of_handler` | the handles of a list of connections |
//! | `Connection` | `is_accepted` | the handle of an added connection exists before it opens |
//! | `Connection` | `require_live` | functions without a result in Rust have a status in C |
//! | `Service` | `require_own_process` | as for `require_live` |
//! | `DatagramSocket` | `recv_into`, `try_recv_with`, `with_meta`, `send_one`, `send_parts` | datagrams are converted to C structures without a `Datagram` in between |
//! | `DatagramSocket` | `serve_into` | a service is stored in its handle before the first callback |
//! | `DatagramService` | `add_with` | the handler receives the handle of the added socket |
//! | `Service`, `DatagramService` | `shut_down` | a freed handle is valid until the last callback has returned |
//! | `PendingConnect`, `Reconnect` | `would_block` | a connect in progress is a status in C |
//! | options | `validate`, `checked_stack_size`, `try_heartbeat` | C checks an option, and copies it, when it is set |
//! | `Error` | `detail`, `during` | errors of arguments (with `Error::new`) |
//! | process | `birth`, `is_inherited` | the logger of a forked child has no threads of the parent |
//! | others | `from_number`, `to_socket_addr` | C has numbers and text |

use std::time::Instant;

use crate::stream::Connected;
use crate::{ClientSocket, Endpoint, LengthFormat, Result, SocketOptions};
#[cfg(feature = "serve")]
use crate::{Connection, ServeOptions};

// Batches of datagrams are converted to C structures without a `Datagram` in between.
#[cfg(feature = "datagram")]
pub(crate) use crate::datagram::recv::{Batch, Facts};
#[cfg(feature = "datagram")]
pub(crate) use crate::datagram::send::Parts;
// A panic of the program's code must not unwind into C.
pub(crate) use crate::io::panic_guard::panics;
// Lists whose length the program determines.
#[cfg(feature = "serve")]
pub(crate) use crate::io::memory::listed;
// The reason why a call did not complete, before an error object is created.
pub(crate) use crate::io::wait::Stop;
// A network is checked when it is added, because C has no builder that returns the error later.
pub(crate) use crate::types::network::network as parse_network;
// Descriptors: numbers in C. Locks of handle tables and the logger survive fork(2), and a call of the
// C API disables pthread_cancel(3).
pub(crate) use crate::sys::fork;
#[cfg(all(test, keepsock_model))]
pub(crate) use crate::sys::model::explore;
pub(crate) use crate::sys::sync;
pub(crate) use crate::sys::{Borrowed, CancellationDisabled, FileRef, Owned, SLICE_LEN_MAX};
// The text of an error about an index.
pub(crate) use crate::types::error::no_element;
// The buffers of a batch, and the result of one receive for each datagram.
#[cfg(feature = "datagram")]
pub(crate) use crate::sys::{Buffers, Details, MAX_BATCH};

/// Connects as [`ClientSocket::connect_with`] does. `put` constructs the socket in its final place
/// by [`ClientSocket::from_connected`], because the socket is large, and calls
/// [`ClientSocket::finish_connect`].
#[inline(always)]
pub(crate) fn connect_into<T>(
    endpoint: &Endpoint,
    options: &SocketOptions,
    put: impl FnOnce(Connected, Instant) -> Result<T>,
) -> Result<T> {
    let since = Instant::now();
    put(crate::connect::connect(endpoint, options, since)?, since)
}

/// Whether dropping the socket is one system call that does not wait.
#[inline]
pub(crate) fn closes_at_once(client: &ClientSocket) -> bool {
    client.closes_at_once()
}

/// The index of the connection's slot in the tables of all event loops.
#[inline]
#[cfg(feature = "serve")]
pub(crate) fn slot_index(connection: &Connection) -> usize {
    connection.slot_index()
}

/// The number of connection slots that event-driven serving with these options may use.
#[cfg(feature = "serve")]
pub(crate) fn event_slots(options: &ServeOptions) -> usize {
    options.event_entries()
}

/// The format of a length with this number in the C API.
pub(crate) fn length_format_from_number(number: i32) -> Option<LengthFormat> {
    use LengthFormat::*;
    let all =
        [U8, U16Be, U16Le, U24Be, U24Le, U32Be, U32Le, U64Be, U64Le, VarintMqtt, VarintProtobuf];
    all.into_iter().find(|format| *format as i32 == number)
}
