//! The cancel token of a socket that services may use.
//!
//! A service takes the token when it starts, so a later token would have no effect on it. A service
//! is a user of the socket from the moment it starts, although its threads start later. One lock
//! protects both, so a service starts either before or after a change.

use std::sync::{Arc, PoisonError};

use crate::io::cancel::CancelToken;
#[cfg(feature = "serve")]
use crate::sys::fork;
#[cfg(feature = "serve")]
use crate::sys::sync::atomic::{AtomicBool, Ordering};
use crate::sys::sync::{Mutex, MutexGuard};

#[derive(Debug, Default)]
pub(crate) struct TokenSlot(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    token: Option<CancelToken>,
    #[cfg(feature = "serve")]
    services: u32,
    /// The process whose services are counted. The services of the parent do not run in a child.
    #[cfg(feature = "serve")]
    process: u32,
}

/// While this value lives, no service starts and the token does not change.
pub(crate) struct Locked<'a>(MutexGuard<'a, State>);

/// The use of a socket by a service. Dropping it ends the use.
#[cfg(feature = "serve")]
pub(crate) struct ServiceUse {
    slot: Arc<TokenSlot>,
    /// The token that ends the service.
    pub token: Option<CancelToken>,
    process: u32,
    ended: AtomicBool,
}

impl TokenSlot {
    pub(crate) fn new(token: Option<&CancelToken>) -> Arc<TokenSlot> {
        let slot = TokenSlot::default();
        slot.lock().set(token);
        Arc::new(slot)
    }

    pub(crate) fn lock(&self) -> Locked<'_> {
        Locked(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn token(&self) -> Option<CancelToken> {
        self.lock().0.token.clone()
    }

    /// Counts a service as a user of the socket. The caller then checks that the socket is open.
    #[cfg(feature = "serve")]
    pub(crate) fn begin_service(self: &Arc<Self>) -> ServiceUse {
        self.begin(self.lock())
    }

    /// Does the same if no other service uses the socket.
    #[cfg(all(feature = "serve", feature = "datagram"))]
    pub(crate) fn begin_only_service(self: &Arc<Self>) -> Option<ServiceUse> {
        let locked = self.lock();
        (!locked.is_served()).then(|| self.begin(locked))
    }

    #[cfg(feature = "serve")]
    fn begin(self: &Arc<Self>, locked: Locked<'_>) -> ServiceUse {
        let mut state = locked.0;
        let process = fork::process();
        if state.process != process {
            (state.services, state.process) = (0, process);
        }
        state.services += 1;
        let token = state.token.clone();
        drop(state);
        ServiceUse { slot: self.clone(), token, process, ended: AtomicBool::new(false) }
    }
}

impl Locked<'_> {
    /// Whether a service of this process uses the socket.
    pub(crate) fn is_served(&self) -> bool {
        #[cfg(feature = "serve")]
        return self.0.services > 0 && !fork::is_inherited(self.0.process);
        #[cfg(not(feature = "serve"))]
        return false;
    }

    #[cfg(feature = "datagram")]
    pub(crate) fn token(&self) -> Option<&CancelToken> {
        self.0.token.as_ref()
    }

    pub(crate) fn set(&mut self, token: Option<&CancelToken>) {
        self.0.token = token.cloned();
    }
}

#[cfg(feature = "serve")]
impl ServiceUse {
    /// Ends the use. Further calls do nothing.
    pub(crate) fn end(&self) {
        // The lock of the parent may be held forever in a child.
        if self.ended.swap(true, Ordering::Relaxed) || fork::is_inherited(self.process) {
            return;
        }
        self.slot.lock().0.services -= 1;
    }
}

#[cfg(all(feature = "serve", feature = "datagram"))]
impl ServiceUse {
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

#[cfg(feature = "serve")]
impl Drop for ServiceUse {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(all(test, feature = "serve"))]
mod tests {
    use super::*;

    /// T4: each service is a user until it ends, and keeps the token with which it started.
    #[test]
    fn services_are_users_until_they_end() {
        let token = CancelToken::new().unwrap();
        let slot = TokenSlot::new(Some(&token));
        assert!(!slot.lock().is_served());
        let (first, second) = (slot.begin_service(), slot.begin_service());
        first.end();
        first.end();
        drop(first);
        assert!(slot.lock().is_served());
        drop(second);
        assert!(!slot.lock().is_served());
        let third = slot.begin_service();
        slot.lock().set(None);
        assert!(third.token.is_some() && slot.token().is_none());
    }
}
