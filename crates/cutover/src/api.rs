//! The wire: RPC over WebSocket and HTTP, on a Unix socket and on loopback TCP. Knows Order, Report and Refusal, not
//! states or effects.

mod button;
mod guard;
mod http;
mod logs;
mod rpc;
mod socket;

pub use button::Button;
pub use http::{local, public};
pub(crate) use logs::{tail, youngest};
pub use rpc::{Failure, Registry};
