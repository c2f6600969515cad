//! Options that are set after a handover.

use std::fmt::Debug;

use crate::types::error::Result;

/// A socket that was inherited from a predecessor process and whose options are not set yet.
///
/// Both processes share the socket, so the options of one process apply to both. The predecessor
/// may continue to run until the successor reports that it is ready. So `Activation` keeps these
/// objects and sets the options then.
pub(crate) trait DeferredOptions: Debug + Send + Sync {
    /// Sets the options. Does nothing if the socket was dropped.
    ///
    /// # Errors
    /// The kernel rejected an option.
    fn set(&self) -> Result<()>;
}
