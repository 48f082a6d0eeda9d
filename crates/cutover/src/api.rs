//! The wire: RPC over WebSocket and HTTP, on a Unix socket and on loopback TCP. Knows Order, Report and Refusal, not
//! states or effects.

mod button;
mod guard;
mod http;
mod login;
mod logs;
mod page;
mod rpc;
mod socket;

pub use button::Button;
pub use http::{Entrance, local, public};
pub use login::Logins;
pub(crate) use login::secret;
pub(crate) use logs::{tail, youngest};
pub use rpc::{Failure, Registry};
