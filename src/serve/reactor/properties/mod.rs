//! Properties of the state machines of an event loop.

mod send_queue;
mod timers;
