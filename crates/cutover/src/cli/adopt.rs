//! `cutover adopt`: a service that runs already is found, planned, taken over and given back. Which step follows which, and
//! words for people; the steps themselves are the rooms'.

mod apply;
mod daemon;
mod environment;
mod page;
mod plan;
mod plugins;
mod takeover;
mod undo;
mod whereabouts;

use super::arguments::{ADOPTED, ADOPTED_PORT, Adopt, Arguments, Output};
use super::exit::{self, ExitStatus};
use super::{Scene, config_file, offline, outlet};
use crate::conductor::Chronicle;
use crate::config::ServiceSettings;
use crate::predecessor::{self, Record, Search, Step};
use crate::shell;
use crate::store::Store;
use cutover_core::{Installed, RunId};
use std::path::PathBuf;
use takeover::{Takeover, Wanted};

/// The package that a preset is about.
const PACKAGE: &str = "openclaw";

/// What the steps of a take-over share.
#[derive(Clone)]
struct Desk {
    scene: Scene,
    name: String,
    /// The main configuration file, whether or not it is there.
    config: PathBuf,
    /// Flags that the daemon is started with, so that it finds the same places.
    flags: Vec<String>,
}

impl Desk {
    fn service(&self) -> PathBuf {
        self.scene.layout.service(&self.name)
    }

    fn store(&self) -> Store {
        Store::open(&self.service())
    }

    /// The service, as the files of a record configure it.
    fn settings(&self, record: &Record) -> anyhow::Result<ServiceSettings> {
        let file = &record.terms.files[0];
        takeover::settings(&self.name, &file.path, &file.text)
    }

    /// What the journal tells of the service, whether or not a daemon runs.
    fn chronicle(&self) -> anyhow::Result<Option<Chronicle>> {
        if !self.scene.layout.journal().exists() {
            return Ok(None);
        }
        let all = offline::chronicles(&self.scene.layout)?;
        Ok(all.into_iter().find(|(name, _)| *name == self.name).map(|(_, chronicle)| chronicle))
    }

    /// The run that is under way.
    fn open_run(&self) -> anyhow::Result<Option<RunId>> {
        Ok(self.chronicle()?.and_then(|chronicle| chronicle.state.open_run().cloned()))
    }

    /// What of ours is installed.
    fn current(&self) -> anyhow::Result<Option<Installed>> {
        Ok(self.chronicle()?.and_then(|chronicle| chronicle.state.current))
    }

    /// Whether there is, or was, a service of this name with a version of its own.
    fn has_a_story(&self) -> anyhow::Result<bool> {
        let chronicle = self.chronicle()?;
        Ok(chronicle.is_some_and(|told| told.state.current.is_some() || told.state.open_run().is_some()))
    }

    /// What a person types to have this program do something in the same places.
    fn line(&self, words: &str) -> String {
        self.scene.layout.command(words)
    }

    /// What a person types about this take-over, up to the flag that says what is to be done.
    fn adopting(&self) -> String {
        let name = match self.name == ADOPTED {
            true => String::new(),
            false => format!(" --name {}", shell::quoted(&self.name)),
        };
        self.line(&format!("adopt openclaw{name}"))
    }

    /// What a person types to have done what was only planned: with everything that was asked for.
    fn repeated(&self, adopt: &Adopt) -> String {
        let mut words = Vec::new();
        let mut add = |flag: &str, value: String| words.extend([flag.to_owned(), shell::quoted(&value)]);
        match adopt.pid {
            Some(pid) => add("--pid", pid.to_string()),
            None if adopt.port != ADOPTED_PORT => add("--port", adopt.port.to_string()),
            None => {}
        }
        adopt.listen.iter().for_each(|address| add("--listen", address.to_string()));
        adopt.set.iter().for_each(|line| add("--set", line.clone()));
        words.push("--apply".into());
        if !adopt.command.is_empty() {
            words.push("--".into());
            words.extend(adopt.command.iter().map(|word| shell::quoted(word)));
        }
        format!("{} {}", self.adopting(), words.join(" "))
    }

    /// Tells a step, on the other channel than the result.
    fn say(&self, text: &str) {
        if self.scene.json == Output::Text {
            outlet::aside(text);
        }
    }
}

/// What is to be done, once nothing speaks against it.
enum Way {
    Plan(Box<Takeover>),
    Begin(Box<Takeover>),
    GoOn(Record),
    Undo(Record),
}

/// Does what is asked for.
pub(super) async fn command(arguments: &Arguments, adopt: &Adopt) -> anyhow::Result<ExitStatus> {
    let (desk, way) = considered(arguments, adopt).await.map_err(exit::refused)?;
    let done = match way {
        Way::Plan(takeover) => {
            return Ok(plan::print(&desk, &takeover, &desk.repeated(adopt)));
        }
        Way::Begin(takeover) => apply::begin(&desk, *takeover).await,
        Way::GoOn(record) => apply::go_on(&desk, record).await,
        Way::Undo(record) => undo::command(&desk, record).await,
    };
    done.map_err(exit::unsettled)
}

/// Looks at what there is, and writes nothing.
async fn considered(arguments: &Arguments, adopt: &Adopt) -> anyhow::Result<(Desk, Way)> {
    let config = std::path::absolute(config_file(arguments)?)?;
    let settings = if config.exists() { Some(crate::config::load(&config)?) } else { None };
    let file = settings.as_ref().map(|settings| settings.daemon.directories.clone()).unwrap_or_default();
    let scene = Scene::of(arguments, &file)?;
    let mut flags = vec!["--config".to_owned(), config.display().to_string()];
    for (flag, path) in [("--state", &arguments.state), ("--runtime", &arguments.runtime)] {
        if let Some(path) = path {
            flags.extend([flag.to_owned(), std::path::absolute(path)?.display().to_string()]);
        }
    }
    let desk = Desk { scene, name: adopt.name.clone(), config, flags };
    let record = Record::read(&desk.service())?;
    if adopt.undo {
        let record = undo::allowed(&desk, record)?;
        return Ok((desk, Way::Undo(record)));
    }
    if let Some(record) = record.filter(|record| !matches!(record.step(), Step::Returned { .. })) {
        return match (record.step(), adopt.apply) {
            (Step::Returning { .. }, _) => {
                anyhow::bail!(
                    "{} is being given back: `{} --undo` goes on with it",
                    desk.name,
                    desk.adopting()
                )
            }
            (Step::Taken { .. }, _) => {
                let rival = record.rival()?.map_or_else(String::new, |rival| {
                    format!("; {rival}, beside it and on the same state: {}", rival.how)
                });
                anyhow::bail!(
                    "{} was taken over already; `{} --undo` gives it back{rival}",
                    desk.name,
                    desk.adopting()
                )
            }
            (_, true) => Ok((desk, Way::GoOn(record))),
            (_, false) => {
                let since = record.lines[0].at;
                anyhow::bail!(
                    "a take-over of {0} that began at {since} is not finished: `{1} --apply` goes on with it, `{1} --undo` gives it \
                     up",
                    desk.name,
                    desk.adopting()
                )
            }
        };
    }
    if settings.is_some_and(|settings| settings.services.contains_key(&desk.name)) {
        anyhow::bail!("{} has a service {} already: choose another --name", desk.config.display(), desk.name);
    }
    let search = Search {
        pid: adopt.pid,
        port: adopt.port,
        command: adopt.command.clone(),
        package: PACKAGE.to_owned(),
    };
    let found = predecessor::find(&search).await?;
    let wanted = Wanted { listen: &adopt.listen, lines: &adopt.set, command: &adopt.command };
    let takeover = Takeover::of(&desk, found, &wanted).await?;
    if !adopt.apply {
        return Ok((desk, Way::Plan(Box::new(takeover))));
    }
    apply::may_begin(&desk, &takeover).await?;
    Ok((desk, Way::Begin(Box::new(takeover))))
}
