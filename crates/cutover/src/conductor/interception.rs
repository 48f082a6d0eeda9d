//! Calls of a service's clients that are answered in its place: from the front's control connection to whoever answers, and
//! back on the same one. Must not know what is called, nor what is answered.

use cutover_front::control::ControlClient;
use cutover_front::{Claim, Claimed, Say};
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a front may take to pass a message on.
const CALL: Duration = Duration::from_secs(5);

/// Who answers calls of a service's clients.
#[derive(Clone)]
pub struct Interceptor {
    /// Which calls.
    pub claim: Claim,
    /// Where they go.
    pub calls: mpsc::UnboundedSender<Intercepted>,
}

impl Interceptor {
    pub(super) fn take(&self, call: Intercepted) {
        // Nobody answers any more only where the daemon is going down; the next one gets it.
        let _ = self.calls.send(call);
    }
}

/// A client's call. It can be answered as long as the control connection that brought it stands: after that the same call
/// comes again on the next one, if its client is still there.
#[derive(Clone)]
pub struct Intercepted {
    /// The call.
    pub claimed: Claimed,
    line: ControlClient,
}

impl Intercepted {
    pub(super) fn new(claimed: Claimed, line: ControlClient) -> Self {
        Self { claimed, line }
    }

    /// Which connection it came on: the front's process and its number for it.
    #[must_use]
    pub fn origin(&self) -> (u32, u64) {
        (self.line.hello().pid, self.claimed.connection)
    }

    /// Says something where the call came from; answers whether there was somebody to say it to.
    pub async fn say(&self, say: Say) -> bool {
        self.line.say(say, CALL).await.unwrap_or(false)
    }
}
