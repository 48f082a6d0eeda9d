//! Which processes are the predecessor's: itself, or started again; and whether one of them listens where it did.

use super::found::{program, variables, words};
use super::{Error, Predecessor};
use crate::resolved::real;
use crate::supervisor::{self, Holder, Listener, process};
use cutover_core::Instance;
use std::collections::BTreeMap;
use std::path::Path;

/// By it two gateways that are started alike are told apart.
const STATE: &str = "OPENCLAW_STATE_DIR";

impl Predecessor {
    /// The processes that are it: itself, or started again. Known by program and directory, and by its command line, which a
    /// supervisor does not change; or by the title that it had put over that, and then by its environment too. The
    /// environment alone is its siblings' as well: whatever one shell or one table of jobs has started. Who names another state
    /// is another. Otherwise a doubt is for it: one that is missed is started twice.
    pub(super) fn lives(&self) -> Result<Vec<Instance>, Error> {
        let path = Path::new("/proc");
        let entries = std::fs::read_dir(path).map_err(|source| Error::Read { path: path.into(), source })?;
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let wanted = program(self.program.clone());
        let runs_it = |pid: &u32| {
            *pid == self.instance.pid
                || std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|found| program(found) == wanted)
        };
        // Most of what runs is seen not to be it at one look.
        let found = pids.filter(runs_it).filter_map(|pid| process::identify(pid).ok().flatten());
        Ok(found.filter(|one| self.is(one, &wanted)).collect())
    }

    fn is(&self, instance: &Instance, wanted: &Path) -> bool {
        // One that has ended meanwhile, or may not be looked into, is not it.
        let Ok(Some(links)) = process::links(instance) else { return false };
        if *instance == self.instance {
            return true;
        }
        let pid = instance.pid;
        let Ok(words) = words(&format!("/proc/{pid}/cmdline")) else { return false };
        let env = variables(pid).unwrap_or_default();
        program(links.exe) == wanted
            && links.cwd == self.cwd
            && !self.has_another_state(&env)
            && (said(&words) == said(&self.command) || (said(&words) == said(&self.shown) && env == self.env))
    }

    fn has_another_state(&self, env: &BTreeMap<String, String>) -> bool {
        let [own, other] = [&self.env, env].map(|env| env.get(STATE).filter(|path| !path.is_empty()));
        own.zip(other).is_some_and(|(own, other)| real(Path::new(own)) != real(Path::new(other)))
    }

    /// What ends when it is ended, or asks to be: those, and what its unit keeps, whatever that is by now.
    pub(super) async fn processes(&self) -> Result<Vec<Instance>, Error> {
        let mut found = self.lives()?;
        if let Some(main) = self.main().await? {
            // Where not all processes may be looked into, descent cannot be told.
            found.extend(supervisor::descendants(std::slice::from_ref(&main), "").unwrap_or_default());
            found.push(main);
        }
        Ok(found)
    }

    async fn main(&self) -> Result<Option<Instance>, Error> {
        let Some(unit) = &self.unit else { return Ok(None) };
        let Some(main) = unit.main().await? else { return Ok(None) };
        Ok(process::identify(main)?)
    }

    /// The process of its that takes what is sent to where clients ask; in words, what is there instead. What another of its
    /// version answers is no answer of its.
    pub(super) async fn listener(&self) -> Result<Result<Instance, String>, Error> {
        let mut rows = Vec::new();
        for address in self.addresses.iter().filter(|address| address.port() == self.port()) {
            rows.extend(supervisor::receiving(*address)?.into_iter().map(|row| (address, row)));
        }
        let mut found = Err("nobody listens there".to_owned());
        // While it starts that is all there is to see: no manager and no other process is asked.
        if rows.is_empty() {
            return Ok(found);
        }
        let own = match (&self.unit, self.main().await?) {
            (Some(_), None) => return Ok(Err("its unit does not keep it".into())),
            (Some(_), Some(main)) => vec![main],
            (None, _) => self.lives()?,
        };
        for (address, row) in rows {
            match member(&own, &row) {
                Some(member) if *address == self.addresses[0] => found = Ok(member),
                Some(_) => {}
                None => return Ok(Err(stranger(row))),
            }
        }
        Ok(found)
    }
}

/// The owner of a socket that is one of `own`, or descends from one.
fn member(own: &[Instance], row: &Listener) -> Option<Instance> {
    let direct = row.owners.iter().find(|owner| own.contains(owner));
    let below = || {
        // Where not all processes may be looked into, descent cannot be told.
        let below = supervisor::descendants(own, "").unwrap_or_default();
        row.owners.iter().find(|owner| below.contains(owner))
    };
    direct.or_else(below).cloned()
}

fn stranger(row: Listener) -> String {
    let address = row.address;
    let holder = Holder::from(row);
    let how = match &holder.instance {
        Some(one) => format!("end that (`cat /proc/{}/cgroup` tells what keeps it)", one.pid),
        None => "end that (`ss -ltnp` as root tells it)".to_owned(),
    };
    format!("{holder} listens on {address} in its place: {how} and begin anew")
}

/// Words without the empty ones at their end: a title is followed by as many as the command line was long.
fn said(words: &[String]) -> &[String] {
    let end = words.iter().rposition(|word| !word.is_empty()).map_or(0, |last| last + 1);
    &words[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predecessor::record::tests::predecessor;
    use std::path::PathBuf;
    use std::process::{Child, Command};
    use std::time::Duration;

    /// A process of its own program in its own directory.
    struct Ground {
        directory: tempfile::TempDir,
        children: Vec<Child>,
    }

    impl Ground {
        fn new() -> Self {
            let ground = Self { directory: tempfile::tempdir().unwrap(), children: Vec::new() };
            ground.install();
            ground
        }

        /// By another process: whatever a test beside this one starts would keep a file of ours open for writing.
        fn install(&self) {
            assert!(Command::new("cp").arg("/bin/sleep").arg(self.program()).status().unwrap().success());
        }

        fn program(&self) -> PathBuf {
            self.directory.path().join("sleep")
        }

        fn started(&mut self, env: &[(&str, &str)]) -> Instance {
            let mut command = Command::new(self.program());
            command.arg("600").env_clear().envs(env.iter().copied()).current_dir(self.directory.path());
            let child = command.spawn().unwrap();
            let pid = child.id();
            self.children.push(child);
            // Its words and its environment are there a moment after it is.
            while words(&format!("/proc/{pid}/cmdline")).unwrap().last().is_none_or(|word| word != "600") {
                std::thread::sleep(Duration::from_millis(1));
            }
            process::identify(pid).unwrap().unwrap()
        }

        fn found(&self, instance: &Instance) -> Predecessor {
            let pid = instance.pid;
            let links = process::links(instance).unwrap().unwrap();
            let command = words(&format!("/proc/{pid}/cmdline")).unwrap();
            Predecessor {
                instance: instance.clone(),
                program: links.exe,
                cwd: links.cwd,
                shown: command.clone(),
                command,
                env: variables(pid).unwrap(),
                ..predecessor()
            }
        }
    }

    impl Drop for Ground {
        fn drop(&mut self) {
            for child in &mut self.children {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }

    #[test]
    fn one_that_is_started_alike_for_another_state_is_another_s_and_any_other_difference_says_nothing() {
        let mut ground = Ground::new();
        let named = ["/a", "/a/", "/b"].map(|state| ground.started(&[(STATE, state)]));
        // A gateway that restarts itself names its port and its profile to the next.
        let more = ground.started(&[("OPENCLAW_GATEWAY_PORT", "1"), ("HOME", "/elsewhere")]);
        let found = ground.found(&named[0]);
        let lives = found.lives().unwrap();
        let is_it = |one: &Instance| lives.contains(one);
        assert_eq!(named.each_ref().map(is_it), [true, true, false]);
        assert!(is_it(&more) && lives.len() == 3, "{lives:?}");
    }

    #[test]
    fn one_whose_program_was_replaced_since_is_itself_and_so_is_one_that_was_found_then() {
        let mut ground = Ground::new();
        let first = ground.started(&[]);
        let before = ground.found(&first);
        std::fs::remove_file(ground.program()).unwrap();
        ground.install();
        let second = ground.started(&[]);
        let as_recorded = ground.found(&first);
        assert!(as_recorded.program.to_str().unwrap().ends_with(" (deleted)"));
        let after = Predecessor { program: program(as_recorded.program.clone()), ..before.clone() };
        assert_eq!(after.program, ground.program(), "what is there by its name is what is started again");
        for found in [before, as_recorded, after] {
            let lives = found.lives().unwrap();
            assert!(lives.contains(&first) && lives.contains(&second) && lives.len() == 2, "{lives:?}");
        }
    }

    #[test]
    fn a_title_is_the_same_over_a_command_line_of_another_length() {
        let titled = |empty: usize| -> Vec<String> {
            std::iter::once("gateway".to_owned()).chain(std::iter::repeat_n(String::new(), empty)).collect()
        };
        assert_eq!(said(&titled(3)), said(&titled(40)));
        assert_ne!(said(&titled(0)), said(&["gateway".to_owned(), "run".to_owned()]));
    }
}
