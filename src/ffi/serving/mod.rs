//! `keepsock/serving.h` and `keepsock/conn.h`: services, and connections of event loops.

mod conn;
mod service;
mod tasks;

pub use conn::*;
pub use service::*;
pub use tasks::*;
