//! Programs that start a service again whenever it ends, and how somebody takes it out of there. Known by the processes above
//! it; nothing of them is called.

use super::found::words;
use std::collections::BTreeMap;
use std::path::Path;

/// Something that starts a process again whenever it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Respawner {
    /// What it is, for a person.
    pub name: String,
    /// What to type so that it does not any more; the process ends with it.
    pub command: String,
}

/// A process above the service's.
struct Above {
    pid: u32,
    words: Vec<String>,
    /// The directory that it works in, where that may be read.
    cwd: Option<String>,
}

impl Above {
    fn of(pid: u32) -> Option<Self> {
        let words = words(&format!("/proc/{pid}/cmdline")).ok()?;
        let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).ok().map(|path| path.display().to_string());
        Some(Self { pid, words, cwd })
    }

    /// The name that it was called by.
    fn program(&self) -> &str {
        let first = self.words.first().map_or("", String::as_str);
        let first = first.split(' ').next().unwrap_or_default();
        first.rsplit('/').next().unwrap_or_default()
    }
}

/// The one that starts `pid` again, by those above it (itself first) and what it was started with.
pub(super) fn above(pids: &[u32], env: &BTreeMap<String, String>) -> Option<Respawner> {
    container(*pids.first()?).or_else(|| {
        pids.iter().skip(1).filter_map(|pid| Above::of(*pid)).find_map(|above| known(&above, env))
    })
}

/// One of those that are known.
fn known(above: &Above, env: &BTreeMap<String, String>) -> Option<Respawner> {
    let told = |name: &str| env.get(name).filter(|value| !value.is_empty()).map(String::as_str);
    let directory = || above.cwd.clone().unwrap_or_else(|| format!("the directory of pid {}", above.pid));
    let all = above.words.join(" ");
    let (name, command) = match above.program() {
        // A title: `PM2 v5.3.0: God Daemon (/home/ann/.pm2)`.
        "PM2" if all.contains("God Daemon") => {
            let app = told("name").or(told("pm_id")).unwrap_or("NAME");
            let home = all.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(home, _)| home);
            let home = home.filter(|home| !home.ends_with("/.pm2"));
            let at = home.map_or_else(String::new, |home| format!("PM2_HOME={} ", quoted(home)));
            ("pm2", format!("{at}pm2 delete {} && {at}pm2 save", quoted(app)))
        }
        _ if above.words.iter().take(2).any(|word| word.ends_with("supervisord")) => {
            let process = told("SUPERVISOR_PROCESS_NAME").unwrap_or("NAME");
            let name = match told("SUPERVISOR_GROUP_NAME").filter(|group| *group != process) {
                Some(group) => format!("{group}:{process}"),
                None => process.to_owned(),
            };
            ("supervisord", format!("supervisorctl stop {}", quoted(&name)))
        }
        "runsv" => ("runit", format!("touch {0}/down && sv down {0}", quoted(&directory()))),
        "s6-supervise" => ("s6", format!("touch {0}/down && s6-svc -d {0}", quoted(&directory()))),
        "supervise" => ("daemontools", format!("touch {0}/down && svc -d {0}", quoted(&directory()))),
        _ if all.contains("/forever/bin/monitor") => {
            let script = above.words.last().map_or("SCRIPT", String::as_str);
            ("forever", format!("forever stop {}", quoted(script)))
        }
        _ => return None,
    };
    Some(Respawner { name: format!("{name} (pid {})", above.pid), command })
}

/// The container that the process is in and we are not.
fn container(pid: u32) -> Option<Respawner> {
    let namespace = |pid: &str| std::fs::read_link(Path::new("/proc").join(pid).join("ns/pid")).ok();
    let (its, ours) = (namespace(&pid.to_string())?, namespace("self")?);
    let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    (its != ours).then(|| contained(&cgroup))
}

/// What to type for a container, by the cgroup of a process in it.
fn contained(cgroup: &str) -> Respawner {
    let is_id = |word: &&str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id =
        cgroup.split(|c: char| !c.is_ascii_alphanumeric()).find(is_id).map_or("CONTAINER", |id| &id[..12]);
    let program = if cgroup.contains("libpod") { "podman" } else { "docker" };
    let name = format!("a container ({program} {id})");
    Respawner { name, command: format!("{program} update --restart=no {id} && {program} stop {id}") }
}

/// As a shell reads it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-:@+".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_starts_a_service_again_is_known_by_those_above_it_and_told_with_what_to_type() {
        let command = |words: &[&str], env: &[(&str, &str)]| {
            let words = words.iter().map(|word| (*word).to_owned()).collect();
            let above = Above { pid: 7, words, cwd: Some("/etc/service/claw".into()) };
            let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            known(&above, &env).map(|found| found.command)
        };
        let pm2 = command(&["PM2 v5.3.0: God Daemon (/root/.pm2)"], &[("name", "my claw"), ("pm_id", "0")]);
        assert_eq!(pm2.as_deref(), Some("pm2 delete 'my claw' && pm2 save"));
        let elsewhere = command(&["PM2 v6.0.1: God Daemon (/srv/pm2)"], &[("pm_id", "3")]);
        assert_eq!(
            elsewhere.as_deref(),
            Some("PM2_HOME=/srv/pm2 pm2 delete 3 && PM2_HOME=/srv/pm2 pm2 save")
        );
        let group = [("SUPERVISOR_GROUP_NAME", "all"), ("SUPERVISOR_PROCESS_NAME", "claw")];
        let supervisord = command(&["/usr/bin/python3", "/usr/bin/supervisord", "-n"], &group);
        assert_eq!(supervisord.as_deref(), Some("supervisorctl stop all:claw"));
        assert_eq!(
            command(&["runsv", "claw"], &[]).as_deref(),
            Some("touch /etc/service/claw/down && sv down /etc/service/claw")
        );
        assert!(command(&["s6-supervise", "claw"], &[]).unwrap().contains("s6-svc -d /etc/service/claw"));
        let forever =
            command(&["/usr/bin/node", "/usr/lib/node_modules/forever/bin/monitor", "claw.js"], &[]);
        assert_eq!(forever.as_deref(), Some("forever stop claw.js"));
        for shell in [["-bash", ""], ["tmux: server", ""], ["sshd: ann@pts/0", ""], ["node", "start.js"]] {
            assert_eq!(command(&shell, &[("name", "x"), ("pm_id", "0")]), None, "{shell:?}");
        }
    }

    #[test]
    fn a_container_is_named_as_its_program_names_it() {
        let id = "0123456789abcdef".repeat(4);
        let docker = contained(&format!("0::/system.slice/docker-{id}.scope\n"));
        assert_eq!(docker.command, "docker update --restart=no 0123456789ab && docker stop 0123456789ab");
        let podman = contained(&format!("0::/machine.slice/libpod-{id}.scope/container\n"));
        assert!(podman.command.ends_with("podman stop 0123456789ab"), "{podman:?}");
        assert!(contained("0::/\n").command.contains("CONTAINER"));
    }
}
