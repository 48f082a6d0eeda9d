//! What the front counts. Totals run from the front's start; `cut` and the waits from the start of the last hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::milliseconds;

/// The front's numbers at one moment. The probe lane is in none of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// `serve`, `hold` or `maintain`.
    pub posture: String,
    /// Whether requests are turned away although the posture is not `maintain`: the hold's limit has passed.
    pub expired: bool,
    /// Client connections now open.
    pub connections: u64,
    /// Requests now with the upstream.
    pub in_flight: u64,
    /// Requests now waiting.
    pub held: u64,
    /// WebSockets now open.
    pub websockets: u64,
    /// Exchanges cut since the last hold began: answered 502, aborted, an event stream that was ended, or a call over a
    /// WebSocket that got no answer.
    pub cut: u64,
    /// Exchanges cut since the front's start.
    pub cut_total: u64,
    /// Answers 502 and 503 of the front's own making.
    pub refused_5xx: u64,
    /// The longest that a request has waited since the last hold began, in milliseconds.
    pub longest_wait_ms: u64,
    /// Requests that waited since the last hold began.
    pub held_since: u64,
    /// Requests that waited, since the front's start.
    pub held_total: u64,
    /// Held requests whose client left; none of them was forwarded.
    pub gone_total: u64,
    /// Answers that came from the upstream.
    pub served_total: u64,
    /// Of these, the ones with status 500 and above.
    pub bad_total: u64,
    /// Bodyless GET and HEAD requests that were sent once more.
    pub replayed_total: u64,
    /// WebSockets that were opened.
    pub upgraded_total: u64,
    /// WebSockets that the front closed itself: in a drain, in maintenance, or because the upstream vanished.
    pub closed_total: u64,
    /// Of these, the ones whose upstream vanished without a farewell.
    pub abnormal_total: u64,
    /// Messages on WebSockets that came when the service was to be stopped, and that were given to nobody.
    #[serde(default)]
    pub withheld_total: u64,
    /// Requests refused for ambiguous framing.
    pub malformed_total: u64,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// Exchanges (WebSockets included) that were open when the drain began.
    pub open: u64,
    /// Exchanges that failed since the hold began: their upstream vanished, or the limit came.
    pub cut: u64,
    /// WebSockets that the front had to close, during this drain.
    pub websockets: u64,
    /// How long it took, in milliseconds on the wire.
    #[serde(rename = "waited_ms", with = "milliseconds")]
    pub waited: Duration,
}

/// The live counters behind [`Stats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: AtomicU64,
    pub(crate) in_flight: AtomicU64,
    pub(crate) websockets: AtomicU64,
    pub(crate) cut: AtomicU64,
    pub(crate) cut_total: AtomicU64,
    pub(crate) refused_5xx: AtomicU64,
    pub(crate) held_since: AtomicU64,
    pub(crate) held_total: AtomicU64,
    pub(crate) gone_total: AtomicU64,
    pub(crate) served_total: AtomicU64,
    pub(crate) bad_total: AtomicU64,
    pub(crate) replayed_total: AtomicU64,
    pub(crate) upgraded_total: AtomicU64,
    pub(crate) closed_total: AtomicU64,
    pub(crate) withheld_total: AtomicU64,
    pub(crate) abnormal_total: AtomicU64,
    pub(crate) malformed_total: AtomicU64,
}

impl Counters {
    /// Reads all counters; what the gate knows (posture, held, waits) is left at its default.
    pub(crate) fn read(&self) -> Stats {
        Stats {
            connections: self.connections.load(Relaxed),
            in_flight: self.in_flight.load(Relaxed),
            websockets: self.websockets.load(Relaxed),
            cut: self.cut.load(Relaxed),
            cut_total: self.cut_total.load(Relaxed),
            refused_5xx: self.refused_5xx.load(Relaxed),
            held_since: self.held_since.load(Relaxed),
            held_total: self.held_total.load(Relaxed),
            gone_total: self.gone_total.load(Relaxed),
            served_total: self.served_total.load(Relaxed),
            bad_total: self.bad_total.load(Relaxed),
            replayed_total: self.replayed_total.load(Relaxed),
            upgraded_total: self.upgraded_total.load(Relaxed),
            closed_total: self.closed_total.load(Relaxed),
            withheld_total: self.withheld_total.load(Relaxed),
            abnormal_total: self.abnormal_total.load(Relaxed),
            malformed_total: self.malformed_total.load(Relaxed),
            ..Stats::default()
        }
    }

    /// A new hold begins: what is counted per hold starts again.
    pub(crate) fn begin_hold(&self) {
        self.cut.store(0, Relaxed);
        self.held_since.store(0, Relaxed);
    }
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// One unit of something that is open now; gives it back when dropped.
pub(crate) struct Gauge {
    counters: Arc<Counters>,
    which: fn(&Counters) -> &AtomicU64,
}

impl Gauge {
    pub(crate) fn raise(counters: &Arc<Counters>, which: fn(&Counters) -> &AtomicU64) -> Self {
        which(counters).fetch_add(1, Relaxed);
        Self { counters: Arc::clone(counters), which }
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        (self.which)(&self.counters).fetch_sub(1, Relaxed);
    }
}
