//! The options of inherited listeners, which are set when the successor is ready.

use std::sync::{Arc, Weak};

use super::adopt::{ADOPT, set_listener_options};
use super::{ListenerInner, ServerSocket};
use crate::options::deferred::DeferredOptions;
use crate::types::error::Result;

/// The options of a server whose listeners were handed over. They are set when this process is
/// ready, because they also apply to the predecessor.
#[derive(Debug)]
pub(crate) struct PendingListenerOptions(Weak<ListenerInner>);

impl DeferredOptions for PendingListenerOptions {
    fn set(&self) -> Result<()> {
        self.0.upgrade().map_or(Ok(()), |inner| ServerSocket(inner).configure_listeners())
    }
}

impl ServerSocket {
    /// The options that the caller of [`adopt`](ServerSocket::adopt) sets later.
    pub(crate) fn pending_options(&self) -> PendingListenerOptions {
        PendingListenerOptions(Arc::downgrade(&self.0))
    }

    /// Sets the options on adopted listeners. Closed listeners are skipped.
    fn configure_listeners(&self) -> Result<()> {
        for listener in self.listeners() {
            if let Some(io) = listener.hold() {
                set_listener_options(io.socket(), &listener.address, &self.0.options)
                    .map_err(|cause| cause.into_error(ADOPT).at(&listener.endpoint))?;
            }
        }
        Ok(())
    }
}
