//! One direction of a WebSocket, and what the client's has more: messages that come once the service is to be stopped are
//! kept back at the boundary of a message, and passed to nobody unless the service serves on.

use std::future::pending;
use std::io;
use std::sync::Arc;

use tokio::task::coop::consume_budget;

use crate::calls::{Hearing, Said};
use crate::frames::{Deaf, FrameWalk, begins_control};
use crate::peer::Socket;
use crate::sieve::{Sieve, Sorter};
use crate::upstream::Intake;

const BUFFER: usize = 16 * 1024;
/// How many bytes of one client are kept back; after that it is not read any more.
const KEPT_MAX: usize = 64 * 1024;

/// Which side ended a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Source,
    Sink,
}

/// One direction. The walk covers exactly the bytes that were delivered, so that it may be stopped anywhere.
pub(crate) struct Flow {
    from: Arc<Socket>,
    to: Arc<Socket>,
    buffer: Vec<u8>,
    sent: usize,
    walk: FrameWalk,
    hearing: Hearing,
    /// What is read goes through it first.
    sieve: Option<Sieve>,
    /// Frames of the front's own, which go between two messages.
    own: Vec<u8>,
    /// Where in the buffer those end that go next.
    own_end: usize,
}

impl Flow {
    pub(crate) fn new(from: Arc<Socket>, to: Arc<Socket>, early: &[u8], mut sieve: Option<Sieve>) -> Self {
        let mut buffer = Vec::new();
        sieve.as_mut().map_or(&mut buffer, Sieve::input).extend_from_slice(early);
        Self {
            from,
            to,
            buffer,
            sent: 0,
            walk: FrameWalk::default(),
            hearing: Hearing::default(),
            sieve,
            own: Vec::new(),
            own_end: 0,
        }
    }

    /// What was delivered so far.
    pub(crate) fn walk(&self) -> &FrameWalk {
        &self.walk
    }

    /// Calls and answers that were delivered whole since the last question.
    pub(crate) fn said(&mut self) -> Vec<Said> {
        self.hearing.take()
    }

    /// Delivers the next bytes. It may be dropped at any moment and called again.
    pub(crate) async fn step(&mut self) -> Result<(), End> {
        self.fill().await?;
        self.flush().await.map_err(|_| End::Sink)
    }

    pub(crate) async fn pump(&mut self) -> End {
        loop {
            if let Err(end) = self.step().await {
                return end;
            }
        }
    }

    /// Delivers a frame of the front's own after what was delivered before.
    pub(crate) async fn say(&mut self, frame: Vec<u8>) -> io::Result<()> {
        self.load(frame);
        self.flush().await
    }

    /// Delivers frames of the front's own between two messages, as soon as it is [`step`](Self::step)ped; nothing, if a
    /// close frame has passed.
    pub(crate) fn put_in(&mut self, frames: &[u8]) {
        if !self.walk.has_closed() {
            self.own.extend_from_slice(frames);
        }
    }

    /// How many bytes of the front's own wait to be delivered.
    pub(crate) fn waiting(&self) -> usize {
        self.own.len() + self.own_end.saturating_sub(self.sent)
    }

    /// Whether anything waits to be delivered.
    pub(crate) fn is_behind(&self) -> bool {
        !self.rest().is_empty() || !self.own.is_empty()
    }

    /// Whether what was read ends with a whole message, so that all of it can be delivered without reading on.
    pub(crate) fn is_whole(&self) -> bool {
        let mut walk = self.walk.clone();
        walk.walk(self.rest(), &mut Deaf);
        walk.is_between_messages()
    }

    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        loop {
            self.join_own();
            if self.rest().is_empty() {
                return Ok(());
            }
            let end = match self.own.is_empty() {
                true => self.buffer.len(),
                false => self.sent + self.walk.clone().advance(self.rest(), &mut Deaf),
            };
            self.deliver(end).await?;
        }
    }

    /// Puts the front's own frames next, if they may stand there and none that were put there before are still to go.
    fn join_own(&mut self) {
        if self.own.is_empty() || self.sent < self.own_end || !self.walk.is_between_messages() {
            return;
        }
        let mut bytes = std::mem::take(&mut self.own);
        let own_end = bytes.len();
        bytes.extend_from_slice(self.rest());
        self.load(bytes);
        self.own_end = own_end;
    }

    /// What is to be delivered next, in the place of what was.
    fn load(&mut self, bytes: Vec<u8>) {
        (self.buffer, self.sent, self.own_end) = (bytes, 0, 0);
    }

    /// Writes once, of the buffer's bytes before `end`.
    async fn deliver(&mut self, end: usize) -> io::Result<()> {
        let written = self.to.write(&self.buffer[self.sent..end]).await?;
        self.walk.walk(&self.buffer[self.sent..self.sent + written], &mut self.hearing);
        self.sent += written;
        Ok(())
    }

    /// Reads the next bytes unless there are some to deliver.
    async fn fill(&mut self) -> Result<(), End> {
        self.join_own();
        if self.sent < self.buffer.len() {
            return Ok(());
        }
        let Some(sieve) = &mut self.sieve else { return self.read().await };
        if sieve.unsifted().is_empty() {
            read(&self.from, sieve.input()).await?;
        } else {
            // A client that has said much at once must not keep all others waiting until it is sifted.
            consume_budget().await;
        }
        let passed = sieve.sift();
        self.load(passed);
        Ok(())
    }

    /// Reads on without delivering anything: what matters is what the sieve takes.
    async fn listen(&mut self) -> Result<(), End> {
        self.clear();
        self.fill().await
    }

    async fn read(&mut self) -> Result<(), End> {
        self.clear();
        read(&self.from, &mut self.buffer).await
    }

    fn clear(&mut self) {
        self.buffer.clear();
        (self.sent, self.own_end) = (0, 0);
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.sent..]
    }
}

/// Reads into a buffer that is empty.
async fn read(from: &Socket, buffer: &mut Vec<u8>) -> Result<(), End> {
    // No more is read than there is room for, and what was in it before may have left it as short as itself.
    buffer.reserve(BUFFER);
    match from.read(buffer).await {
        Ok(0) | Err(_) => Err(End::Source),
        Ok(_) => Ok(()),
    }
}

/// The client's direction.
pub(crate) struct Uplink {
    flow: Flow,
    /// Messages that nobody was given, in their order.
    kept: Vec<u8>,
    /// Covers what is kept.
    kept_walk: FrameWalk,
    /// What was kept when there was nobody left to give it to.
    again: Option<Sieve>,
    /// Messages that came when there was nobody left to give them to.
    late: u64,
}

impl Uplink {
    pub(crate) fn new(flow: Flow) -> Self {
        Self { flow, kept: Vec::new(), kept_walk: FrameWalk::default(), again: None, late: 0 }
    }

    /// What the service was given so far.
    pub(crate) fn walk(&self) -> &FrameWalk {
        &self.flow.walk
    }

    /// As [`Flow::said`].
    pub(crate) fn said(&mut self) -> Vec<Said> {
        self.flow.said()
    }

    /// Whether the client has begun a message that the service is not given.
    pub(crate) fn keeps_any(&self) -> bool {
        !self.kept.is_empty()
    }

    /// How many whole messages nobody was given.
    pub(crate) fn kept_messages(&self) -> u64 {
        self.kept_walk.messages() + self.late
    }

    /// Takes the client's next bytes, and delivers them or keeps them back. It may be dropped at any moment and called
    /// again.
    pub(crate) async fn step(&mut self, intake: Intake) -> Result<(), End> {
        match intake {
            Intake::Open => {
                self.release()?;
                self.flow.fill().await?;
                if self.kept.is_empty() { self.flow.flush().await } else { self.end_frame().await }
            }
            Intake::Held | Intake::Draining => {
                if self.kept.len() >= KEPT_MAX && self.flow.rest().is_empty() {
                    return pending().await;
                }
                self.flow.fill().await?;
                self.sift().await
            }
        }
        .map_err(|_| End::Sink)
    }

    /// There is nobody to deliver to any more: what was kept back is to go through a sieve again, before what comes.
    pub(crate) fn sift_again(&mut self, again: impl Sorter + 'static) {
        let again = self.again.insert(Sieve::new(again)).input();
        again.append(&mut self.kept);
        let rest = self.flow.rest();
        // The rest of a frame whose beginning was delivered says nothing to anybody.
        let is_begun = self.kept_walk.is_at_boundary() && !self.flow.walk.is_at_boundary();
        let begun = if is_begun { self.flow.walk.clone().advance(rest, &mut Deaf) } else { 0 };
        again.extend_from_slice(&rest[begun..]);
        self.kept_walk = FrameWalk::default();
    }

    /// Takes the client's next bytes, for the sieve alone. It may be dropped at any moment and called again.
    pub(crate) async fn listen(&mut self) -> Result<(), End> {
        match self.again.as_mut().filter(|again| !again.unsifted().is_empty()) {
            Some(again) => drop(again.sift()),
            None => self.flow.listen().await?,
        }
        Ok(())
    }

    /// Reads on, delivering nothing, until a close frame or the end.
    pub(crate) async fn until_closed(&mut self) {
        let is_keeping = !self.kept_walk.is_at_boundary();
        let mut walk = if is_keeping { &self.kept_walk } else { &self.flow.walk }.clone();
        let before = walk.messages();
        walk.walk(self.flow.rest(), &mut Deaf);
        self.late = walk.messages() - before;
        if let Some(sieve) = &self.flow.sieve {
            // What it has not let pass, or not come to, has been read all the same.
            walk = sieve.walk().clone();
            let before = walk.messages();
            walk.walk(sieve.unsifted(), &mut Deaf);
            self.late += walk.messages() - before;
        }
        let before = walk.messages() - self.late;
        while !walk.has_closed() && !self.flow.walk.has_closed() {
            if self.flow.read().await.is_err() {
                return;
            }
            walk.walk(&self.flow.buffer, &mut Deaf);
            self.late = walk.messages() - before;
        }
    }

    /// What was kept back is next to be delivered, unless its client has left meanwhile.
    fn release(&mut self) -> Result<(), End> {
        if self.kept.is_empty() || !self.flow.walk.is_at_boundary() {
            return Ok(());
        }
        if self.flow.from.is_gone() {
            return Err(End::Source);
        }
        let mut bytes = std::mem::take(&mut self.kept);
        bytes.extend_from_slice(self.flow.rest());
        self.flow.load(bytes);
        self.kept_walk = FrameWalk::default();
        Ok(())
    }

    /// Delivers the rest of a control frame that had begun to pass.
    async fn end_frame(&mut self) -> io::Result<()> {
        let end = self.flow.sent + self.flow.walk.clone().advance(self.flow.rest(), &mut Deaf);
        while self.flow.sent < end {
            self.flow.deliver(end).await?;
        }
        Ok(())
    }

    /// Delivers control frames and the rest of a message that had begun to pass; keeps everything else.
    async fn sift(&mut self) -> io::Result<()> {
        while let Some(first) = self.flow.rest().first() {
            if self.keeps(*first) {
                let step = self.kept_walk.advance(self.flow.rest(), &mut Deaf);
                self.kept.extend_from_slice(&self.flow.buffer[self.flow.sent..self.flow.sent + step]);
                self.flow.sent += step;
            } else {
                let end = self.flow.sent + self.flow.walk.clone().advance(self.flow.rest(), &mut Deaf);
                self.flow.deliver(end).await?;
            }
        }
        Ok(())
    }

    /// Whether the byte belongs to what is kept back.
    fn keeps(&self, first: u8) -> bool {
        if !self.kept_walk.is_at_boundary() {
            return true;
        }
        self.flow.walk.is_between_messages() && !begins_control(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::{Turn, seat};
    use crate::frames::frame;
    use crate::peer::pair;
    use crate::sorters::{FromClient, FromService};
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;
    use tokio::sync::mpsc::UnboundedReceiver;
    use tokio::time::timeout;

    const MASK: Option<[u8; 4]> = Some([9, 8, 7, 6]);
    const CALLS: usize = 100;
    const LIMIT: Duration = Duration::from_secs(10);

    fn calls(method: &str) -> Vec<u8> {
        let call = |id| frame(0x81, format!(r#"{{"id":{id},"method":"{method}"}}"#).as_bytes(), MASK);
        (0..CALLS).flat_map(call).collect()
    }

    /// The numbers of the calls that are put off, of which there is never more than one at a time.
    fn put_off(turns: &mut UnboundedReceiver<Turn>) -> Option<u64> {
        assert!(turns.len() <= 1, "{} at a time", turns.len());
        match turns.try_recv().ok()? {
            Turn::Say(say) => say.message["id"].as_u64(),
            other => panic!("{other:?}"),
        }
    }

    /// Delivers a pong; answers whether a single step delivers the whole of a message that fills the buffer then.
    async fn delivers_at_once(flow: &mut Flow, mut from: UnixStream) -> bool {
        from.write_all(&[0x8a, 0]).await.unwrap();
        flow.step().await.unwrap();
        let before = flow.walk().messages();
        from.write_all(&frame(0x82, &vec![b'x'; BUFFER - 4], None)).await.unwrap();
        flow.step().await.unwrap();
        flow.walk().messages() == before + 1
    }

    #[tokio::test]
    async fn a_short_message_does_not_shorten_what_is_read_after_it() {
        for sieve in [None, Some(Sieve::new(FromService(seat().0)))] {
            let ((service, from), (client, _to)) = (pair(), pair());
            let mut flow = Flow::new(service, client, &[], sieve);
            assert!(delivers_at_once(&mut flow, from).await);
        }
    }

    #[tokio::test]
    async fn a_short_message_that_was_kept_does_not_shorten_what_is_read_after_it() {
        let ((client, mut from), (service, _to)) = (pair(), pair());
        let mut up = Uplink::new(Flow::new(client, service, &[], None));
        from.write_all(&frame(0x81, b"", MASK)).await.unwrap();
        up.step(Intake::Held).await.unwrap();
        assert_eq!(up.kept_messages(), 1);
        up.step(Intake::Open).await.unwrap();
        assert!(delivers_at_once(&mut up.flow, from).await);
    }

    #[tokio::test]
    async fn what_was_read_is_whole_if_its_last_message_is() {
        let whole = frame(0x81, b"whole", None);
        for (next, is_whole) in [(vec![], true), (frame(0x01, b"begun", None), false), (vec![0x81], false)] {
            let ((service, _from), (client, _to)) = (pair(), pair());
            let mut flow = Flow::new(service, client, &[whole.clone(), next].concat(), None);
            assert_eq!((flow.is_whole(), flow.is_behind()), (is_whole, true), "before it is delivered");
            flow.step().await.unwrap();
            assert_eq!((flow.is_whole(), flow.is_behind()), (is_whole, false), "afterwards");
        }
    }

    #[tokio::test]
    async fn a_step_takes_one_claimed_call_however_many_have_come() {
        let (early, read) = (calls("update."), Vec::new());
        for (early, read) in [(&early, &read), (&read, &early)] {
            let ((seat, mut turns), (client, mut from), (service, mut to)) = (seat(), pair(), pair());
            let mut up = Uplink::new(Flow::new(client, service, early, Some(Sieve::new(FromClient(seat)))));
            from.write_all(read).await.unwrap();
            let other = frame(0x81, b"no call", MASK);
            from.write_all(&other).await.unwrap();
            for id in 0..CALLS as u64 {
                let mut told = put_off(&mut turns);
                while told.is_none() {
                    up.step(Intake::Open).await.unwrap();
                    told = put_off(&mut turns);
                }
                assert_eq!(told, Some(id));
            }
            up.step(Intake::Open).await.unwrap();
            let mut got = vec![0; other.len()];
            to.read_exact(&mut got).await.unwrap();
            assert_eq!(got, other, "what comes behind them passes");
        }
    }

    #[tokio::test]
    async fn what_was_kept_for_a_service_that_is_gone_is_put_off_one_call_at_a_time() {
        let ((seat, mut turns), (client, mut from), (service, _to)) = (seat(), pair(), pair());
        let sieve = Sieve::new(FromClient(Arc::clone(&seat)));
        let mut up = Uplink::new(Flow::new(client, service, &[], Some(sieve)));
        from.write_all(&calls("health")).await.unwrap();
        while up.kept_messages() < CALLS as u64 {
            up.step(Intake::Draining).await.unwrap();
        }
        seat.strand();
        up.sift_again(FromClient(Arc::clone(&seat)));
        // What comes later is heard later.
        from.write_all(&calls("health")).await.unwrap();
        for id in (0..CALLS as u64).chain(0..CALLS as u64) {
            let mut told = put_off(&mut turns);
            while told.is_none() {
                up.listen().await.unwrap();
                told = put_off(&mut turns);
            }
            assert_eq!(told, Some(id));
        }
    }

    #[tokio::test]
    async fn what_has_come_and_was_not_sifted_was_given_to_nobody() {
        let ((seat, _turns), (client, mut from), (service, _to)) = (seat(), pair(), pair());
        let mut up = Uplink::new(Flow::new(client, service, &[], Some(Sieve::new(FromClient(seat)))));
        from.write_all(&calls("update.")).await.unwrap();
        from.write_all(&frame(0x88, b"", MASK)).await.unwrap();
        up.step(Intake::Open).await.unwrap();
        timeout(LIMIT, up.until_closed()).await.expect("its close frame has come");
        assert_eq!(up.kept_messages(), CALLS as u64 - 1);
    }

    #[tokio::test]
    async fn a_client_without_a_service_gets_its_pongs_one_at_a_time() {
        let ((seat, mut turns), (client, mut from), (service, _to)) = (seat(), pair(), pair());
        seat.strand();
        let mut up = Uplink::new(Flow::new(client, service, &[], Some(Sieve::new(FromClient(seat)))));
        from.write_all(&frame(0x89, b"", MASK).repeat(CALLS)).await.unwrap();
        for _ in 0..CALLS {
            while turns.is_empty() {
                up.listen().await.unwrap();
            }
            assert_eq!(turns.len(), 1, "at a time");
            assert!(matches!(turns.try_recv(), Ok(Turn::Pong(_))));
        }
    }
}
