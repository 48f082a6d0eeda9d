//! The one inside: starts the service, says what it sees of it, ends it when nobody wants to see more.
//!
//! It judges nothing. Its own end is the end of everything that it started.

use super::wire::{ORDER, Order, Word};
use super::{End, ITSELF, NAME};
use crate::causes::told;
use crate::probe::{Address, Observer, ProbeSettings, Sight};
use crate::supervisor::{self, Launch, Live, StopBudget};
use cutover_core::{Observations, Seen};
use std::fs::{DirBuilder, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// From the word to a keeper until it is ready, until the program is executed, and until an exit is on record.
const KEEPER: Duration = Duration::from_secs(10);

/// From KILL to giving up.
const KILL: Duration = Duration::from_secs(5);

/// How much of the end of its log is told.
const LOG_MAX: u64 = 16 << 10;

/// Runs until the caller has heard enough or the service has ended.
#[must_use]
pub fn main() -> ExitCode {
    let order = std::env::var(ORDER).ok().and_then(|text| serde_json::from_str::<Order>(&text).ok());
    let Some(order) = order else {
        eprintln!("usage: cutover {NAME} (the daemon runs this in a sandbox, not people)");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let played = runtime.and_then(|runtime| {
        let played = runtime.block_on(play(&order));
        // A question that is not answered yet keeps nobody.
        runtime.shutdown_background();
        played
    });
    let log = tail(&order.launch.log.path).unwrap_or_default();
    match played.and_then(|()| io::stderr().write_all(&log)) {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody hears.
        Err(_) => ExitCode::FAILURE,
    }
}

async fn play(order: &Order) -> io::Result<()> {
    let caller = std::os::unix::net::UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    caller.set_nonblocking(true)?;
    let (mut caller, mut voice) = UnixStream::from_std(caller)?.into_split();
    let (live, mut observer) = match start(order).await {
        Ok(started) => started,
        Err(why) => return say(&mut voice, &Word::Ended(End::NotStarted(why))).await,
    };
    say(&mut voice, &Word::Started(live.instance().clone())).await?;
    let mut ended = std::pin::pin!(live.exited(KEEPER));
    let mut dismissed = std::pin::pin!(is_over(&mut caller));
    loop {
        tokio::select! {
            biased;
            () = &mut dismissed => break,
            exit = &mut ended => {
                let exit = exit.unwrap_or_else(|error| supervisor::Exit::Unknown { why: told(&error) });
                return say(&mut voice, &Word::Ended(End::Exited(exit))).await;
            }
            seen = round(&mut observer, order.pause) => {
                say(&mut voice, &Word::Round(Box::new(seen))).await?;
            }
        }
    }
    let budget = StopBudget { grace: order.grace, kill_wait: KILL };
    let end = match live.stop(budget, &[]).await {
        Ok(stopped) => End::Stopped { took: stopped.took, forced: stopped.forced },
        Err(error) => End::Killed(told(&error)),
    };
    say(&mut voice, &Word::Ended(end)).await
}

async fn start(order: &Order) -> Result<(Live, Observer), String> {
    let settings = ProbeSettings::of(&order.questions).map_err(|error| told(&error))?;
    let place = DirBuilder::new().mode(0o700).recursive(true).create(&order.place);
    place.map_err(|error| format!("making {}: {error}", order.place.display()))?;
    let Launch { nonce, log, .. } = &order.launch;
    let directory = order.place.join(nonce);
    let prepared = supervisor::prepare(Path::new(ITSELF), &directory, &order.launch, KEEPER).await;
    let live = prepared.map_err(|error| told(&error))?.go(KEEPER).await.map_err(|error| told(&error))?;
    let sight = Sight {
        settings,
        direct: Address::Tcp(order.address),
        elsewhere: None,
        port: order.address.port(),
        before: None,
        log: log.path.clone(),
        live: live.clone(),
    };
    Ok((live, Observer::new(sight, &order.root, wall_ms)))
}

/// One round, and the pause after it: what is said is as new as it can be.
async fn round(observer: &mut Observer, pause: Duration) -> Observations {
    tokio::time::sleep(pause).await;
    let traffic = Seen::NotApplicable { why: "nobody uses it in a rehearsal".into() };
    Observations { traffic, ..observer.look().await }
}

/// Comes back when the caller says no more, which is all that it ever says.
async fn is_over(caller: &mut OwnedReadHalf) {
    let mut byte = [0];
    while matches!(caller.read(&mut byte).await, Ok(1..)) {}
}

async fn say(voice: &mut OwnedWriteHalf, word: &Word) -> io::Result<()> {
    let mut line = serde_json::to_vec(word)?;
    line.push(b'\n');
    voice.write_all(&line).await
}

/// The end of a log.
fn tail(log: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_MAX)))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(text)
}

fn wall_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default()
}
