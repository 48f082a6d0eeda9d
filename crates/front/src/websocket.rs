//! A WebSocket between a client and the service: bytes pass untouched, frames are only walked, so that a close frame
//! can be put where one may stand, and so that a service that is to be stopped is given no further message.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{sleep, timeout};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::debug;

use crate::Say;
use crate::calls::Calls;
use crate::claims::{Seat, Turn};
use crate::frames::{close_frame, pong_frame, text_frame};
use crate::peer::{Socket, Stream};
use crate::sieve::Sieve;
use crate::sorters::{FromClient, FromService};
use crate::stats::count;
use crate::uplink::{End, Flow, Uplink};
use crate::upstream::{Intake, Link, Pass};

/// How long both sides may take to finish the handshake that they have agreed on.
const UPGRADE_LIMIT: Duration = Duration::from_secs(10);
/// How long the other side's farewell is waited for.
const FAREWELL_LIMIT: Duration = Duration::from_secs(1);
/// How long a frame that has begun may take to end, when the socket is to be closed.
const FRAME_LIMIT: Duration = Duration::from_millis(250);
/// How long an answer is waited for where calls and answers cannot be told from other messages.
const ANSWER_LIMIT: Duration = Duration::from_millis(250);
/// How long a service that is being stopped may say nothing on a WebSocket that waits for no answer and whose client goes
/// on calling, before the front says goodbye for it: each further call would be one that nobody takes.
const FAREWELL_FIRST: Duration = Duration::from_millis(500);

/// How many bytes of the front's own may wait for a client that does not read.
const OWN_MAX: usize = 64 * 1024;
/// How long a client may wait for the daemon without a service: longer than any run.
const STRANDED_MAX: Duration = Duration::from_secs(6 * 3600);

/// RFC 6455 section 7.4.1: the answer to a client's own goodbye.
const NORMAL: (u16, &str) = (1000, "");
/// RFC 6455 registry: the service is being restarted, come back.
const SERVICE_RESTART: (u16, &str) = (1012, "service restart");
/// RFC 6455 registry: the service cannot be had now, come back later.
const TRY_AGAIN_LATER: (u16, &str) = (1013, "try again later");

/// Joins the two halves once both handshakes are through, and relays until one side ends.
pub(crate) async fn join(
    client: OnUpgrade,
    service: OnUpgrade,
    link: Link,
    pass: Pass,
    seat: Option<(Arc<Seat>, UnboundedReceiver<Turn>)>,
) {
    let both = timeout(UPGRADE_LIMIT, async { tokio::try_join!(client, service) }).await;
    let Ok(Ok((client, service))) = both else {
        debug!("a WebSocket handshake was not finished");
        return;
    };
    drop(link);
    if let (Some(client), Some(service)) = (raw(client), raw(service)) {
        Relay::begun(client, service, pass, seat).run().await;
    }
}

/// A socket, and what was read of it already.
fn raw(upgraded: Upgraded) -> Option<(Arc<Socket>, Bytes)> {
    let parts = upgraded.downcast::<TokioIo<Stream>>().ok()?;
    Some((parts.io.into_inner().into_socket(), parts.read_buf))
}

struct Relay {
    client: Arc<Socket>,
    service: Arc<Socket>,
    /// From the service to the client.
    down: Flow,
    /// From the client to the service.
    up: Uplink,
    talk: Talk,
    pass: Pass,
    /// Where calls are claimed: its place among those who may call the daemon.
    seat: Option<Arc<Seat>>,
    turns: Option<UnboundedReceiver<Turn>>,
}

/// Why a relay is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    ClientGone,
    /// The client takes no more, but may have said something still.
    ClientDeaf,
    ServiceGone,
    /// The service has said goodbye, and the client was not told.
    ServiceLeft,
    /// The service takes no more, but may have said something still.
    ServiceDeaf,
    Cut,
    Maintained,
    /// All that was passed is answered, the client calls on, and the service is being stopped.
    Outlived,
    /// The daemon wants the client to come back on another WebSocket.
    Dismissed,
    /// The client's calls cannot be judged.
    Refused((u16, &'static str)),
}

/// How a client's stay without a service ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stay {
    /// It is gone.
    Left,
    /// It is told goodbye.
    Dismissed,
}

impl Relay {
    fn begun(
        (client, from_client): (Arc<Socket>, Bytes),
        (service, from_service): (Arc<Socket>, Bytes),
        pass: Pass,
        seat: Option<(Arc<Seat>, UnboundedReceiver<Turn>)>,
    ) -> Self {
        let (seat, turns) = seat.unzip();
        let sieves = seat.clone().map(|seat| (FromService(Arc::clone(&seat)), FromClient(seat)));
        let (down, up) = sieves.map(|(down, up)| (Sieve::new(down), Sieve::new(up))).unzip();
        let down = Flow::new(Arc::clone(&service), Arc::clone(&client), &from_service, down);
        let up = Uplink::new(Flow::new(Arc::clone(&client), Arc::clone(&service), &from_client, up));
        let talk = Talk::begun(&pass);
        Self { client, service, down, up, talk, pass, seat, turns }
    }

    async fn run(mut self) {
        let mut over = self.converse().await;
        if over == Over::ClientDeaf {
            let _ = timeout(FAREWELL_LIMIT, self.hear_out()).await;
            over = Over::ClientGone;
        }
        if over == Over::ServiceDeaf {
            let _ = timeout(FAREWELL_LIMIT, self.down.pump()).await;
            over = Over::ServiceGone;
        }
        self.talk.listen(&mut self.down, &mut self.up);
        self.talk.open = None;
        // Who has left of its own accord waits for nothing.
        let has_left = over == Over::ClientGone && !self.down.walk().has_closed();
        if !has_left && !self.talk.is_given_up {
            (0..self.talk.calls.open().unwrap_or(0)).for_each(|_| self.pass.count_cut());
        }
        let is_dismissed = self.say_what_waits();
        let may_stay =
            !matches!(over, Over::ClientGone | Over::ClientDeaf | Over::Dismissed | Over::Refused(_));
        if let Some(seat) = self.seat.clone().filter(|seat| may_stay && !is_dismissed && seat.is_waiting()) {
            return self.strand(seat).await;
        }
        match over {
            Over::ClientGone | Over::ClientDeaf => {
                self.service.finish();
                // A client may only have ended its half; one that is gone must not take away what the service has
                // not read yet, as closing on unread bytes would.
                if timeout(FAREWELL_LIMIT, self.down.pump()).await == Ok(End::Sink) {
                    self.service.linger(FAREWELL_LIMIT).await;
                }
            }
            Over::Cut => {
                self.service.abandon();
                self.close_client(SERVICE_RESTART).await;
            }
            Over::Maintained => {
                self.service.abandon();
                self.close_client(TRY_AGAIN_LATER).await;
            }
            Over::Outlived | Over::Dismissed => {
                self.service.finish();
                self.close_client(SERVICE_RESTART).await;
            }
            Over::Refused(why) => {
                self.service.finish();
                self.close_client(why).await;
            }
            Over::ServiceLeft => self.close_client(SERVICE_RESTART).await,
            Over::ServiceGone | Over::ServiceDeaf => {
                if !self.down.walk().has_closed()
                    && let Some(counters) = self.pass.counters()
                {
                    count(&counters.abnormal_total);
                }
                self.close_client(SERVICE_RESTART).await;
            }
        }
    }

    /// Relays until one side ends or the front has to.
    async fn converse(&mut self) -> Over {
        let epoch = Arc::clone(self.pass.epoch());
        let (cutting, maintained) = (epoch.cutting(), epoch.maintained());
        let mut intake = epoch.intake();
        let mut dismissed: Option<Instant> = None;
        loop {
            if let Some(since) = dismissed
                && (self.down.waiting() == 0 || since.elapsed() > FAREWELL_LIMIT)
            {
                return Over::Dismissed;
            }
            self.talk.take_in(*intake.borrow_and_update(), &self.pass);
            let wait = match self.talk.judge(&mut self.down, &mut self.up) {
                Judged::Over => return Over::Outlived,
                Judged::Goes => None,
                Judged::Again(wait) => Some(wait),
            };
            let is_heard = self.down.waiting() < OWN_MAX;
            let is_answered = self.turns.as_ref().is_none_or(UnboundedReceiver::is_empty);
            tokio::select! {
                step = self.down.step() => match step {
                    Ok(()) => {}
                    Err(End::Source) => return Over::ServiceGone,
                    Err(End::Sink) => return Over::ClientDeaf,
                },
                // A client is heard no faster than it is answered, and not at all if it does not read what it is answered.
                step = self.up.step(self.talk.intake), if is_heard && is_answered => match step {
                    Ok(()) => {}
                    Err(End::Source) => return Over::ClientGone,
                    Err(End::Sink) => return Over::ServiceDeaf,
                },
                // Its sender lives in the epoch, which is held here.
                _ = intake.changed() => {}
                turn = next(&mut self.turns), if is_heard => match turn {
                    Turn::Say(say) => if self.pass_on(&say) { dismissed = Some(Instant::now()) },
                    Turn::Farewell => return Over::ServiceLeft,
                    Turn::Refuse(why) => return Over::Refused(why),
                    // Only where there is no service to answer them.
                    Turn::Pong(_) | Turn::Leave => {}
                },
                () = sleep(wait.unwrap_or_default()), if wait.is_some() => {}
                () = sleep(FAREWELL_LIMIT), if dismissed.is_some() => {}
                () = cutting.cancelled() => return Over::Cut,
                () = maintained.cancelled() => return Over::Maintained,
            }
        }
    }

    /// What was said before it was known that this is over. Answers whether the client is to come back elsewhere.
    fn say_what_waits(&mut self) -> bool {
        let mut is_dismissed = false;
        while let Some(Ok(turn)) = self.turns.as_mut().map(UnboundedReceiver::try_recv) {
            if let Turn::Say(say) = turn {
                is_dismissed |= self.pass_on(&say);
            }
        }
        is_dismissed
    }

    /// Tells the client what the daemon says, between two messages of the service. Answers whether it is to come back
    /// elsewhere.
    fn pass_on(&mut self, say: &Say) -> bool {
        self.down.put_in(&text_frame(say.message.to_string().as_bytes()));
        say.closes
    }

    /// Passes on what a client has said that takes no more. What it would be told of it is told to nobody.
    async fn hear_out(&mut self) {
        while self.up.step(self.talk.intake).await.is_ok() {
            while self.turns.as_mut().is_some_and(|turns| turns.try_recv().is_ok()) {}
        }
    }

    /// The client waits for the daemon's answer while there is no service to speak with: what it says else is put off.
    async fn strand(&mut self, seat: Arc<Seat>) {
        self.service.abandon();
        self.pass.release();
        seat.strand();
        // The rest of a message of the service's; one that has not come whole never will.
        let _ = timeout(FRAME_LIMIT, self.down.flush()).await;
        if !self.down.is_whole() {
            self.client.finish();
            return;
        }
        self.up.sift_again(FromClient(Arc::clone(&seat)));
        if timeout(STRANDED_MAX, self.stay(&seat)).await == Ok(Stay::Left) {
            self.client.finish();
            return;
        }
        let _ = timeout(FAREWELL_LIMIT, self.down.flush()).await;
        // The client's own goodbye, or its end.
        let until_left = async {
            loop {
                tokio::select! {
                    biased;
                    turn = next(&mut self.turns) => if matches!(turn, Turn::Leave) { return },
                    step = self.up.listen() => if step.is_err() { return },
                }
            }
        };
        let _ = timeout(FAREWELL_LIMIT, until_left).await;
        self.client.finish();
        self.client.linger(FAREWELL_LIMIT).await;
    }

    /// Puts off what the client calls, until it has its answers.
    async fn stay(&mut self, seat: &Seat) -> Stay {
        loop {
            let (is_heard, is_behind) = (self.down.waiting() < OWN_MAX, self.down.is_behind());
            let turn = tokio::select! {
                biased;
                turn = next(&mut self.turns), if is_heard => turn,
                flushed = self.down.flush(), if is_behind => match flushed {
                    Ok(()) => continue,
                    Err(_) => return Stay::Left,
                },
                step = self.up.listen(), if is_heard => match step {
                    Ok(()) => continue,
                    Err(_) => return Stay::Left,
                },
            };
            let goodbye = match turn {
                Turn::Say(say) => {
                    let is_dismissed = self.pass_on(&say);
                    // Nothing keeps it here once it has its answers.
                    (is_dismissed || !seat.is_waiting()).then_some(SERVICE_RESTART)
                }
                Turn::Pong(payload) => {
                    self.down.put_in(&pong_frame(&payload));
                    None
                }
                Turn::Refuse(why) => Some(why),
                Turn::Leave => Some(NORMAL),
                Turn::Farewell => None,
            };
            if let Some((code, reason)) = goodbye {
                self.down.put_in(&close_frame(code, reason));
                return Stay::Dismissed;
            }
        }
    }

    /// Ends the client's side: with a close frame unless the service has sent one, and not inside a frame.
    async fn close_client(&mut self, (code, reason): (u16, &str)) {
        // The rest of a frame that is on its way.
        let _ = timeout(FRAME_LIMIT, self.down.flush()).await;
        if !self.down.walk().has_closed() {
            if let Some(counters) = self.pass.counters() {
                count(&counters.closed_total);
            }
            if !self.down.walk().is_at_boundary() {
                return;
            }
            let farewell = self.down.say(close_frame(code, reason));
            if !matches!(timeout(FAREWELL_LIMIT, farewell).await, Ok(Ok(()))) {
                return;
            }
        }
        let answered = timeout(FAREWELL_LIMIT, self.up.until_closed()).await;
        self.client.finish();
        if answered.is_ok() {
            self.client.linger(FAREWELL_LIMIT).await;
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(counters) = self.pass.counters() {
            counters.withheld_total.fetch_add(self.up.kept_messages(), Relaxed);
        }
    }
}

/// The next turn, where there are any.
async fn next(turns: &mut Option<UnboundedReceiver<Turn>>) -> Turn {
    let turn = match turns {
        Some(turns) => turns.recv().await,
        None => None,
    };
    match turn {
        Some(turn) => turn,
        None => pending().await,
    }
}

/// Who owes whom an answer. Calls that bear an id are matched with their answers. Where a client does not call this way,
/// one message of the service counts as the answer to one of the client's, and is not waited for long.
struct Talk {
    intake: Intake,
    intake_since: Instant,
    calls: Calls,
    asked: u64,
    answered: u64,
    /// Messages of the client that no message of the service has followed.
    unfollowed: u64,
    /// When the last message ended, either way.
    last: Instant,
    /// Whether the client said goodbye before the service did.
    is_given_up: bool,
    /// While it is there, a process that is to be stopped is waited for.
    open: Option<TaskTrackerToken>,
}

/// What is to be done with a WebSocket now.
enum Judged {
    /// It goes on; what changes that will be noticed.
    Goes,
    /// It goes on, and is to be judged again after so long.
    Again(Duration),
    Over,
}

impl Talk {
    fn begun(pass: &Pass) -> Self {
        let now = Instant::now();
        Self {
            intake: Intake::Open,
            intake_since: now,
            calls: Calls::default(),
            asked: 0,
            answered: 0,
            unfollowed: 0,
            last: now,
            is_given_up: false,
            open: Some(pass.epoch().talk()),
        }
    }

    fn take_in(&mut self, intake: Intake, pass: &Pass) {
        if self.intake == intake {
            return;
        }
        self.intake = intake;
        self.intake_since = Instant::now();
        if intake == Intake::Open {
            self.open = Some(pass.epoch().talk());
        }
    }

    /// Takes what was said since the last time.
    fn listen(&mut self, down: &mut Flow, up: &mut Uplink) {
        self.calls.take(up.said(), down.said());
        self.is_given_up |= up.walk().has_closed() && !down.walk().has_closed();
        let (asked, answered) = (up.walk().messages(), down.walk().messages());
        if (asked, answered) != (self.asked, self.answered) {
            // What the service has said was not an answer to what came at the same time.
            self.unfollowed = self.unfollowed.saturating_sub(answered - self.answered) + (asked - self.asked);
            (self.asked, self.answered) = (asked, answered);
            self.last = Instant::now();
        }
    }

    fn owes_answers(&self) -> bool {
        self.calls.open().map_or(self.unfollowed > 0, |open| open > 0)
    }

    /// How much longer a process that is to be stopped may be waited for; `None` as long as it takes.
    fn patience(&self, is_settled: bool) -> Option<Duration> {
        match self.calls.open() {
            Some(1..) => None,
            Some(0) if is_settled => Some(Duration::ZERO),
            None if is_settled && self.unfollowed == 0 => Some(Duration::ZERO),
            // A message that has begun may never come to its end.
            _ => Some(ANSWER_LIMIT.saturating_sub(self.last.max(self.intake_since).elapsed())),
        }
    }

    fn judge(&mut self, down: &mut Flow, up: &mut Uplink) -> Judged {
        self.listen(down, up);
        if self.intake == Intake::Open {
            return Judged::Goes;
        }
        let is_settled = up.walk().is_between_messages() && down.walk().is_between_messages();
        if self.open.is_some() {
            match self.patience(is_settled) {
                None => return Judged::Goes,
                Some(Duration::ZERO) => self.open = None,
                Some(left) => return Judged::Again(left),
            }
        }
        if self.intake != Intake::Draining || !is_settled || self.owes_answers() || !up.keeps_any() {
            return Judged::Goes;
        }
        match FAREWELL_FIRST.saturating_sub(self.last.max(self.intake_since).elapsed()) {
            Duration::ZERO => Judged::Over,
            left => Judged::Again(left),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Upstream;
    use crate::claims::seat;
    use crate::frames::frame;
    use crate::peer::pair;
    use crate::upstream::{Epoch, Reuse};
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;
    use tokio::task::yield_now;

    const LIMIT: Duration = Duration::from_secs(10);

    /// A relay where calls are claimed, the seat, and the client's and the service's ends.
    fn relay() -> (Relay, Arc<Seat>, UnixStream, UnixStream) {
        let ((client, client_end), (service, service_end)) = (pair(), pair());
        let (seat, turns) = seat();
        let upstream = Upstream::at("127.0.0.1:9".parse().unwrap());
        let pass = Pass::probe(&Epoch::new(upstream, Reuse::Single));
        let taken = Some((Arc::clone(&seat), turns));
        let relay = Relay::begun((client, Bytes::new()), (service, Bytes::new()), pass, taken);
        (relay, seat, client_end, service_end)
    }

    fn call(id: usize) -> Vec<u8> {
        let text = json!({"id": id, "method": "update."}).to_string();
        frame(0x81, text.as_bytes(), Some([1, 2, 3, 4]))
    }

    /// Relays for much longer than it takes until all wait for a client that does not read.
    async fn relay_in_vain(relay: &mut Relay) {
        let often = async {
            for _ in 0..1000 {
                yield_now().await;
            }
        };
        tokio::select! {
            over = relay.converse() => panic!("{over:?}"),
            () = often => {}
        }
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_owed_one_answer_beside_those_on_their_way() {
        let (mut relay, _seat, mut client, _service) = relay();
        let calls: Vec<_> = (0..20_000).flat_map(call).collect();
        tokio::select! {
            () = relay_in_vain(&mut relay) => {}
            sent = client.write_all(&calls) => panic!("all is heard: {sent:?}"),
        }
        let (turns, waiting) = (relay.turns.as_ref().unwrap().len(), relay.down.waiting());
        assert!(turns <= 1 && waiting < OWN_MAX + 1000, "{turns} turns, {waiting} bytes");
    }

    #[tokio::test]
    async fn what_the_daemon_says_waits_its_turn_while_the_client_does_not_read() {
        let (mut relay, seat, mut client, _service) = relay();
        let mut all = Vec::new();
        for number in 0..10_000 {
            let message = json!({"number": number, "padding": "x".repeat(200)});
            all.extend(text_frame(message.to_string().as_bytes()));
            seat.turn(Turn::Say(Say { connection: 1, answers: None, message, closes: false }));
        }
        relay_in_vain(&mut relay).await;
        assert!(relay.down.waiting() < OWN_MAX + 1000, "{} bytes", relay.down.waiting());
        let mut got = vec![0; all.len()];
        tokio::select! {
            over = relay.converse() => panic!("{over:?}"),
            read = timeout(LIMIT, client.read_exact(&mut got)) => assert_eq!(read.unwrap().unwrap(), all.len()),
        }
        assert!(got == all, "all of it, in its order");
    }

    #[tokio::test]
    async fn nothing_waits_for_a_client_that_takes_no_more() {
        let (mut relay, _seat, mut client, _service) = relay();
        client.write_all(&(0..100).flat_map(call).collect::<Vec<_>>()).await.unwrap();
        client.shutdown().await.unwrap();
        timeout(LIMIT, relay.hear_out()).await.unwrap();
        assert_eq!((relay.turns.as_ref().unwrap().len(), relay.down.waiting()), (0, 0));
    }
}
