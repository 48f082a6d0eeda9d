//! One daemon's connection to the front: orders in, answers out, in the order in which they are done.

use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::sync::Arc;

use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::control::{Answer, Call, Hello, Order, PROTOCOL, Reply, Word};
use crate::front::Shared;
use crate::wire::{DESCRIPTORS_MAX, LineReader, LineWriter, split};

/// Speaks with one daemon until it leaves. What waits in it ends with it; postures stay.
pub(crate) async fn converse(shared: Arc<Shared>, stream: UnixStream) -> io::Result<()> {
    let (mut reader, writer) = split(stream);
    writer.send(&hello(&shared), &[]).await?;
    let mut waits = JoinSet::new();
    let mut attendance = shared.claims.attend();
    let (outbox, words) = mpsc::unbounded_channel();
    // Reading goes on while the other side is slow to read: it may be writing, too.
    let writing = write(&shared, writer, words);
    tokio::pin!(writing);
    loop {
        let reply = tokio::select! {
            ended = &mut writing => return ended,
            line = reader.line() => {
                let Some(line) = line? else { return Ok(()) };
                let Call { id, order } = serde_json::from_slice(&line)?;
                match order {
                    Order::Answers { limit } => {
                        let drain = shared.gate.begin_drain();
                        waits.spawn(async move { Reply { id, answer: Answer::Owed(drain.answers(limit).await) } });
                        continue;
                    }
                    Order::Drain { limit } => {
                        let drain = shared.gate.begin_drain();
                        waits.spawn(async move { Reply { id, answer: Answer::Drained(drain.finish(limit).await) } });
                        continue;
                    }
                    order => Reply { id, answer: obey(&shared, &mut reader, order).await },
                }
            }
            Some(Ok(reply)) = waits.join_next() => reply,
            Some(claimed) = attendance.claimed.recv() => {
                // Its receiver is being polled here.
                let _ = outbox.send((Word::Claimed(claimed), Vec::new()));
                continue;
            }
        };
        let duplicates = match reply.answer {
            Answer::Sockets(_) => shared.listeners.duplicates()?,
            _ => Vec::new(),
        };
        let _ = outbox.send((Word::Reply(reply), duplicates));
    }
}

/// Writes what is to be said, in its order. The last word is that the front ends.
async fn write(
    shared: &Shared,
    writer: LineWriter,
    mut words: mpsc::UnboundedReceiver<(Word, Vec<TcpListener>)>,
) -> io::Result<()> {
    while let Some((word, descriptors)) = words.recv().await {
        let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        writer.send(&word, &borrowed).await?;
        if matches!(&word, Word::Reply(Reply { answer: Answer::Quitting, .. })) {
            shared.leaving.cancel();
        }
    }
    Ok(())
}

fn hello(shared: &Shared) -> Hello {
    Hello {
        protocol: PROTOCOL,
        service: shared.service.clone(),
        pid: std::process::id(),
        posture: shared.gate.posture(),
        listening: shared.listeners.addresses(),
    }
}

async fn obey(shared: &Arc<Shared>, reader: &mut LineReader, order: Order) -> Answer {
    match order {
        Order::Listen { sockets } => listen(shared, reader, sockets),
        Order::Sockets => Answer::Sockets(shared.listeners.addresses().len()),
        Order::Posture(posture) => {
            shared.gate.set(posture);
            shared.gate.settle().await;
            Answer::Is(shared.gate.posture())
        }
        Order::Claim(claim) => {
            shared.claims.set(claim);
            Answer::Claims
        }
        Order::Say(say) => Answer::Said(shared.claims.say(say)),
        Order::Stats => Answer::Stats(shared.gate.stats()),
        Order::Quit => Answer::Quitting,
        Order::Answers { .. } | Order::Drain { .. } => {
            Answer::Refused("what takes time is not obeyed in line".to_owned())
        }
    }
}

fn listen(shared: &Arc<Shared>, reader: &mut LineReader, count: usize) -> Answer {
    let Some(sockets) = reader.take_descriptors(count).filter(|_| count <= DESCRIPTORS_MAX) else {
        return Answer::Refused(format!("{count} sockets were announced and did not come"));
    };
    let sockets = sockets.into_iter().map(TcpListener::from).collect();
    match shared.listeners.replace(shared, sockets) {
        Ok(()) => Answer::Listening(shared.listeners.addresses()),
        Err(error) => Answer::Refused(format!("a passed socket cannot be used: {error}")),
    }
}
