//! Programs that start a service again whenever it ends, and how somebody takes it out of there. Known by the processes above
//! it; nothing of them is called. A command is told only where it does what is said of it when it is typed as it stands.

use super::found::words;
use crate::shell::quoted;
use crate::supervisor::Identity;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Something that starts a process again whenever it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Respawner {
    /// What it is, for a person.
    pub name: String,
    /// What to do so that it does not any more; the process ends with it.
    pub how: String,
}

/// A process above the service's.
struct Above {
    pid: u32,
    words: Vec<String>,
    /// The directory that it works in, where that may be read.
    cwd: Option<PathBuf>,
    /// Whose it is.
    owner: u32,
}

impl Above {
    fn of(pid: u32) -> Option<Self> {
        let words = words(&format!("/proc/{pid}/cmdline")).ok()?;
        let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).ok();
        let owner = std::fs::metadata(format!("/proc/{pid}")).ok()?.uid();
        Some(Self { pid, words, cwd, owner })
    }

    /// The name that it was called by.
    fn program(&self) -> &str {
        let first = self.words.first().map_or("", String::as_str);
        let first = first.split(' ').next().unwrap_or_default();
        first.rsplit('/').next().unwrap_or_default()
    }

    /// The value of an option of its command line, however it is written.
    fn option(&self, short: &str, long: &str) -> Option<&str> {
        let at = self.words.iter().position(|word| word == short || word == long);
        let apart = at.and_then(|at| self.words.get(at + 1)).map(String::as_str);
        let joined = |word: &'_ String| {
            let rest = word.strip_prefix(long).and_then(|rest| rest.strip_prefix('='));
            rest.or_else(|| word.strip_prefix(short).filter(|rest| !rest.is_empty())).map(str::len)
        };
        apart.or_else(|| self.words.iter().find_map(|word| joined(word).map(|len| &word[word.len() - len..])))
    }
}

/// Who types the commands.
#[derive(Clone, Copy)]
struct Typist {
    uid: u32,
}

impl Typist {
    /// What goes before a command that takes an account's rights: root has everybody's.
    fn with_rights_of(self, owner: u32) -> &'static str {
        if self.uid == owner || self.uid == 0 { "" } else { "sudo " }
    }

    /// What goes before a command that looks for an account's own places; `None`: that cannot be said.
    fn as_account(self, owner: u32) -> Option<String> {
        if self.uid == owner {
            return Some(String::new());
        }
        if self.uid != 0 {
            return Some(format!("sudo -H -u {} ", quoted(&format!("#{owner}"))));
        }
        let account = Identity::resolve(Some(&owner.to_string()), None).ok().flatten()?;
        let (name, home) = (account.name?, account.home?);
        Some(format!("runuser -u {} -- env HOME={} ", quoted(&name), quoted(&home.display().to_string())))
    }
}

/// The one that starts `pid` again, by those above it (itself first) and what it was started with.
pub(super) fn above(pids: &[u32], env: &BTreeMap<String, String>) -> Option<Respawner> {
    let typist = Typist { uid: rustix::process::geteuid().as_raw() };
    container(*pids.first()?, typist).or_else(|| {
        pids.iter().skip(1).filter_map(|pid| Above::of(*pid)).find_map(|above| known(&above, env, typist))
    })
}

/// One of those that are known.
fn known(above: &Above, env: &BTreeMap<String, String>, typist: Typist) -> Option<Respawner> {
    let told = |name: &str| env.get(name).filter(|value| !value.is_empty()).map(String::as_str);
    let all = above.words.join(" ");
    let (name, how) = match above.program() {
        // A title: `PM2 v5.3.0: God Daemon (/home/ann/.pm2)`.
        "PM2" if all.contains("God Daemon") => {
            ("pm2", pm2(above, &all, told("name").or(told("pm_id")), typist))
        }
        _ if above.words.iter().take(2).any(|word| word.ends_with("supervisord")) => {
            let process = told("SUPERVISOR_PROCESS_NAME");
            ("supervisord", supervisord(above, process, told("SUPERVISOR_GROUP_NAME"), typist))
        }
        "runsv" => ("runit", directory(above, "sv down", typist)),
        "s6-supervise" => ("s6", directory(above, "s6-svc -d", typist)),
        "supervise" => ("daemontools", directory(above, "svc -d", typist)),
        _ if all.contains("/forever/bin/monitor") => {
            let script = above.words.last().map_or("", String::as_str);
            let command =
                typist.as_account(above.owner).map(|by| format!("{by}forever stop {}", quoted(script)));
            ("forever", for_good(command, "end it with `forever stop`"))
        }
        _ => return None,
    };
    Some(Respawner { name: format!("{name} (pid {})", above.pid), how })
}

/// A command that ends it for good, or what to do where none is known.
fn for_good(command: Option<String>, otherwise: &str) -> String {
    match command {
        Some(command) => format!("type `{command}`, which ends it and keeps it from coming back"),
        None => format!("{otherwise}, as the account whose process that is"),
    }
}

/// Whether a name, which the process itself chose, is read by its keeper as this one's: not as an option, a pattern or everybody.
fn names_one(name: &str) -> bool {
    name != "all" && !name.starts_with(['-', '/']) && !name.contains('*')
}

fn pm2(above: &Above, title: &str, app: Option<&str>, typist: Typist) -> String {
    let home = title.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(home, _)| home);
    // What is usual is usual for its own account.
    let home = home.filter(|home| !home.ends_with("/.pm2") || above.owner != typist.uid);
    let app = app.filter(|app| names_one(app));
    let command = typist.as_account(above.owner).zip(app).map(|(by, app)| {
        let at = home.map_or_else(String::new, |home| format!("env PM2_HOME={} ", quoted(home)));
        // Without the flag nothing is saved once the last one is deleted.
        format!("{by}{at}pm2 delete {} && {by}{at}pm2 save --force", quoted(app))
    });
    for_good(command, "end it with `pm2 delete` and `pm2 save --force`")
}

fn supervisord(above: &Above, process: Option<&str>, group: Option<&str>, typist: Typist) -> String {
    let Some(process) = process.filter(|process| names_one(process)) else {
        return "stop it with `supervisorctl`, and write `autostart=false` into the section of its program"
            .into();
    };
    let name = match group.filter(|group| *group != process) {
        Some(group) => format!("{group}:{process}"),
        None => process.to_owned(),
    };
    let file = above.option("-c", "--configuration").map(|file| match &above.cwd {
        Some(cwd) => cwd.join(file),
        None => PathBuf::from(file),
    });
    let file = file.map_or_else(String::new, |file| format!("-c {} ", quoted(&file.display().to_string())));
    let by = typist.with_rights_of(above.owner);
    format!(
        "type `{by}supervisorctl {file}stop {}`, which ends it until supervisord itself begins again, and write `autostart=false` \
         into the section of its program, which keeps it down then too",
        quoted(&name)
    )
}

/// For those that keep a directory for each service.
fn directory(above: &Above, down: &str, typist: Typist) -> String {
    // In a directory of another account root follows no link of that account's.
    let by = match typist.uid == 0 && above.owner != 0 {
        true => typist.as_account(above.owner),
        false => Some(typist.with_rights_of(above.owner).to_owned()),
    };
    let Some(by) = by else { return for_good(None, &format!("end it with `{down}`")) };
    let command = match &above.cwd {
        Some(cwd) => {
            let cwd = quoted(&cwd.display().to_string());
            format!("{by}touch {cwd}/down && {by}{down} {cwd}")
        }
        // Not ours to look into: whoever types it finds out.
        None => {
            let pid = above.pid;
            format!("d=$({by}readlink /proc/{pid}/cwd) && {by}touch \"$d/down\" && {by}{down} \"$d\"")
        }
    };
    for_good(Some(command), "")
}

/// The container that the process is in and we are not.
fn container(pid: u32, typist: Typist) -> Option<Respawner> {
    let namespace = |pid: &str| std::fs::read_link(Path::new("/proc").join(pid).join("ns/pid")).ok();
    let (its, ours) = (namespace(&pid.to_string())?, namespace("self")?);
    let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    (its != ours).then(|| contained(&cgroup, typist))
}

/// What to do about a container, by the cgroup of a process in it.
fn contained(cgroup: &str, typist: Typist) -> Respawner {
    let is_id = |word: &&str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = cgroup.split(|c: char| !c.is_ascii_alphanumeric()).find(is_id).map(|id| &id[..12]);
    let programs = [("libpod", "podman"), ("docker", "docker")];
    let program = programs.iter().find(|(mark, _)| cgroup.contains(mark)).map(|(_, program)| *program);
    // One without a daemon of root's is its account's own.
    let owner = cgroup.split_once("/user-").and_then(|(_, rest)| rest.split('.').next()?.parse().ok());
    let by = match owner {
        Some(owner) => typist.as_account(owner),
        None => Some(typist.with_rights_of(0).to_owned()),
    };
    let Some(((program, id), by)) = program.zip(id).zip(by) else {
        let how = "end that container where it is managed, so that nothing starts it there again".to_owned();
        return Respawner { name: "a container".into(), how };
    };
    let how = match program {
        "docker" => format!(
            "type `{by}docker update --restart=no {id} && {by}docker stop {id}`, which ends it and keeps docker from starting it \
             again, and take it out of a file of docker compose that brings it up"
        ),
        // A restart policy of podman's is about a container that ended by itself, and about the next boot.
        _ => format!(
            "type `{by}podman stop {id}`, which ends it until the machine starts, and take it out of the unit, if one keeps it; \
             `podman-restart.service` would start it again at boot where its restart policy is `always`"
        ),
    };
    Respawner { name: format!("a container ({program} {id})"), how }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: Typist = Typist { uid: 1000 };

    fn told(words: &[&str], env: &[(&str, &str)], owner: u32, cwd: Option<&str>) -> Option<String> {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        let above = Above { pid: 7, words, cwd: cwd.map(PathBuf::from), owner };
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        known(&above, &env, ANN).map(|found| found.how)
    }

    /// Of what is told: the command.
    fn command(how: Option<String>) -> String {
        how.unwrap().split('`').nth(1).unwrap().to_owned()
    }

    #[test]
    fn who_starts_a_service_again_is_known_by_those_above_it_and_told_with_what_to_type() {
        let own = |words: &[&str], env: &[(&str, &str)]| told(words, env, 1000, Some("/etc/service/claw"));
        let pm2 = own(&["PM2 v5.3.0: God Daemon (/home/ann/.pm2)"], &[("name", "my claw"), ("pm_id", "0")]);
        assert_eq!(command(pm2), "pm2 delete 'my claw' && pm2 save --force");
        let elsewhere = own(&["PM2 v6.0.1: God Daemon (/srv/pm2)"], &[("pm_id", "3")]);
        assert_eq!(
            command(elsewhere),
            "env PM2_HOME=/srv/pm2 pm2 delete 3 && env PM2_HOME=/srv/pm2 pm2 save --force"
        );
        assert_eq!(
            command(own(&["runsv", "claw"], &[])),
            "touch /etc/service/claw/down && sv down /etc/service/claw"
        );
        assert!(command(own(&["s6-supervise", "claw"], &[])).ends_with("s6-svc -d /etc/service/claw"));
        let forever = own(&["/usr/bin/node", "/usr/lib/node_modules/forever/bin/monitor", "claw.js"], &[]);
        assert_eq!(command(forever), "forever stop claw.js");
        for shell in [["-bash", ""], ["tmux: server", ""], ["sshd: ann@pts/0", ""], ["node", "start.js"]] {
            assert_eq!(own(&shell, &[("name", "x"), ("pm_id", "0")]), None, "{shell:?}");
        }
    }

    #[test]
    fn a_stop_that_does_not_outlast_supervisord_is_not_told_as_one_that_does() {
        let group = [("SUPERVISOR_GROUP_NAME", "all"), ("SUPERVISOR_PROCESS_NAME", "claw")];
        let usual = ["/usr/bin/python3", "/usr/bin/supervisord", "-n"];
        let how = told(&usual, &group, 0, Some("/")).unwrap();
        assert!(
            how.contains("until supervisord itself begins again") && how.contains("`autostart=false`"),
            "{how}"
        );
        assert_eq!(command(Some(how)), "sudo supervisorctl stop all:claw");
        for words in [["-c", "own.conf"], ["--configuration=own.conf", "-n"], ["-cown.conf", "-n"]] {
            let started = [&usual[..2], &words[..]].concat();
            let how = told(&started, &group, 1000, Some("/srv"));
            assert_eq!(command(how), "supervisorctl -c /srv/own.conf stop all:claw", "{words:?}");
        }
    }

    #[test]
    fn what_is_another_account_s_is_told_as_it_has_to_be_typed() {
        let hidden = command(told(&["runsv", "claw"], &[], 0, None));
        assert_eq!(
            hidden, "d=$(sudo readlink /proc/7/cwd) && sudo touch \"$d/down\" && sudo sv down \"$d\"",
            "its directory is not ours to see"
        );
        let pm2 = command(told(&["PM2 v5: God Daemon (/home/bob/.pm2)"], &[("name", "claw")], 1001, None));
        let typed = "sudo -H -u '#1001' env PM2_HOME=/home/bob/.pm2 pm2";
        assert_eq!(pm2, format!("{typed} delete claw && {typed} save --force"));
    }

    #[test]
    fn a_name_that_its_keeper_would_read_as_everybody_is_put_into_no_command() {
        for name in ["all", "-a", "/.*/", "*"] {
            let pm2 = told(&["PM2 v5: God Daemon (/home/ann/.pm2)"], &[("name", name)], 1000, None).unwrap();
            assert!(!pm2.contains(name) || name == "-a", "{pm2}");
            assert!(!pm2.contains("type `"), "{pm2}");
            let process = [("SUPERVISOR_PROCESS_NAME", name)];
            let how = told(&["/usr/bin/python3", "/usr/bin/supervisord"], &process, 1000, None).unwrap();
            assert!(!how.contains("type `"), "{how}");
        }
    }

    #[test]
    fn a_container_is_named_as_its_program_names_it() {
        let id = "0123456789abcdef".repeat(4);
        let how = |cgroup: String, uid| contained(&cgroup, Typist { uid }).how;
        let docker = format!("0::/system.slice/docker-{id}.scope\n");
        let typed = "docker update --restart=no 0123456789ab && docker stop 0123456789ab";
        assert_eq!(command(Some(how(docker.clone(), 0))), typed);
        assert_eq!(command(Some(how(docker, 1000))), typed.replace("docker ", "sudo docker "));
        let podman = how(format!("0::/machine.slice/libpod-{id}.scope/container\n"), 0);
        assert_eq!(command(Some(podman)), "podman stop 0123456789ab");
        let own = format!("0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{id}.scope\n");
        assert_eq!(command(Some(how(own, 1000))), "podman stop 0123456789ab");
        for unknown in ["0::/\n".to_owned(), format!("0::/kubepods.slice/cri-containerd-{id}.scope\n")] {
            let how = how(unknown, 0);
            assert!(!how.contains('`'), "no command is made up: {how}");
        }
    }
}
