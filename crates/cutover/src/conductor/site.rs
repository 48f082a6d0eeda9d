//! One service's place on this machine: its settings, directories, port and account, resolved once.

mod directory;
mod environment;
mod origin;
mod port;
mod resolution;

pub(crate) use directory::{passage, private_directory};
pub(crate) use port::free_port;
pub(crate) use resolution::resolved;

use super::age;
use crate::config::{
    self, Layout, Port, ServiceSettings, SourceSettings, VersionSettings, WebSocketSettings, fill, found,
};
use crate::probe::{Address, Greeting, ProbeSettings, Questions, VersionQuestion};
use crate::store::snapshot::StatePath;
use crate::store::{self, Store};
use crate::supervisor::{Identity, Launch, LogFile};
use anyhow::{Context, bail};
use cutover_core::{Generation, PluginsTold};
use environment::npm_environment;
use port::kept_port;
use resolution::Resolved;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Instances whose directory and log are kept.
const INSTANCES_KEPT: usize = 20;

/// One service's place on this machine.
pub(super) struct Site {
    pub settings: ServiceSettings,
    /// Why its configuration is not taken back with its state.
    pub uncovered: Option<String>,
    pub layout: Layout,
    pub store: Store,
    pub identity: Option<Identity>,
    pub port: u16,
    /// This program, for keepers and fronts.
    pub executable: PathBuf,
    /// The service's environment, without what each start adds.
    pub env: BTreeMap<String, String>,
    /// What the package manager's environment is chosen from.
    npm_env: Vec<(OsString, OsString)>,
}

impl Site {
    /// Resolves settings against this machine.
    ///
    /// # Errors
    /// What is missing, with what to do about it. Nothing was started.
    pub(super) fn new(
        settings: ServiceSettings,
        layout: Layout,
        executable: PathBuf,
        inherited: &[(OsString, OsString)],
    ) -> anyhow::Result<Self> {
        let name = &settings.name;
        let directory = layout.service(name);
        private_directory(&directory)?;
        private_directory(&directory.join("instances"))?;
        private_directory(&directory.join("logs"))?;
        private_directory(&directory.join("snapshots"))?;
        let identity = Identity::resolve(settings.user.as_deref(), settings.group.as_deref())
            .with_context(|| format!("service.{name}.user"))?;
        if identity.is_some() {
            // Its account must reach its own generations; it can list nothing on the way.
            for path in [layout.state.as_path(), &layout.state.join("services"), &directory] {
                passage(path)?;
            }
        }
        let snapshots = directory.join("snapshots");
        let Resolved { settings, env, uncovered } =
            resolved(settings, identity.as_ref(), inherited, &snapshots)?;
        if let Some(problem) = config::scripted(&settings, &env) {
            bail!(problem);
        }
        if let Some(why) = &uncovered {
            tracing::warn!(
                service = settings.name,
                why,
                "the configuration is not taken back with the state"
            );
        }
        let port = match settings.port {
            Port::Fixed(port) => port,
            Port::Auto => kept_port(&directory.join("port"))?,
        };
        let store = Store::open(&directory);
        let npm_env = npm_environment(inherited, &env);
        Ok(Self { settings, uncovered, layout, store, identity, port, executable, env, npm_env })
    }

    pub(super) fn directory(&self) -> PathBuf {
        self.layout.service(&self.settings.name)
    }

    /// A directory of its own that is nobody else's, and that the service's user can pass through.
    pub(super) fn passable(&self, name: &str) -> anyhow::Result<PathBuf> {
        let directory = self.directory().join(name);
        private_directory(&directory)?;
        if self.identity.is_some() {
            passage(&directory)?;
        }
        Ok(directory)
    }

    pub(super) fn instances(&self) -> PathBuf {
        self.directory().join("instances")
    }

    pub(super) fn snapshots(&self) -> PathBuf {
        self.directory().join("snapshots")
    }

    /// Where an OpenClaw gateway has its state.
    pub(super) fn gateway_state(&self) -> Option<PathBuf> {
        config::state_of(&self.settings, &self.env)
    }

    /// Where the service itself listens.
    pub(super) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub(super) fn has_front(&self) -> bool {
        !self.settings.listen.is_empty()
    }

    pub(super) fn state_paths(&self) -> Vec<StatePath> {
        self.settings.state.iter().map(StatePath::from).collect()
    }

    pub(super) fn filled(&self, template: &str, root: &Path) -> String {
        let text = match &self.settings.source {
            SourceSettings::Npm { package, .. } => config::fill_plugins(template, root, package),
            SourceSettings::Directory { .. } => template.to_owned(),
        };
        fill(&text, root, self.port, &self.settings, &self.env)
    }

    /// The entry file of a generation.
    pub(super) fn entry(&self, root: &Path) -> PathBuf {
        PathBuf::from(self.filled(&self.settings.entry, root))
    }

    /// What to start for a generation.
    pub(super) fn launch(&self, generation: Generation, nonce: String) -> anyhow::Result<Launch> {
        let root = self.store.root(generation)?;
        let words: Vec<String> = self.settings.command.iter().map(|word| self.filled(word, &root)).collect();
        let (program, args) = words.split_first().context("the command is empty")?;
        let mut env: BTreeMap<String, String> =
            self.env.iter().map(|(name, value)| (name.clone(), self.filled(value, &root))).collect();
        env.insert(
            cutover_intent::FILE_VARIABLE.into(),
            self.layout.intent(&self.settings.name).display().to_string(),
        );
        Ok(Launch {
            program: found(program, env.get("PATH").map(String::as_str)).with_context(|| {
                format!("`{program}` is not found in PATH; write its absolute path in `command`")
            })?,
            args: args.to_vec(),
            cwd: PathBuf::from(self.filled(&self.settings.cwd, &root)),
            env,
            identity: self.identity.clone(),
            entry: self.entry(&root),
            generation,
            log: LogFile {
                path: self.log(&nonce),
                size_max: self.settings.log_size,
                files_max: self.settings.log_files,
            },
            nonce,
        })
    }

    /// The log of one process, named by its mark.
    pub(super) fn log(&self, nonce: &str) -> PathBuf {
        self.directory().join("logs").join(format!("{nonce}.log"))
    }

    /// The directories of all instances, youngest first.
    pub(super) fn instance_directories(&self) -> Vec<PathBuf> {
        age::youngest_first(&self.instances())
    }

    /// Removes the directories and logs of instances long gone.
    pub(super) fn forget_old_instances(&self) {
        for directory in self.instance_directories().into_iter().skip(INSTANCES_KEPT) {
            let mark = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !matches!(crate::supervisor::bearing(&mark), Ok(alive) if alive.is_empty()) {
                continue;
            }
            // A leftover is tried again after the next start.
            let _ = std::fs::remove_dir_all(&directory);
            for rotated in 0..=self.settings.log_files {
                let suffix = if rotated == 0 { String::new() } else { format!(".{rotated}") };
                let _ = std::fs::remove_file(format!("{}{suffix}", self.log(&mark).display()));
            }
        }
    }

    /// Who must own an intent: the service's account.
    pub(super) fn intent_owner(&self) -> Option<cutover_intent::Owner> {
        self.identity.as_ref().map(|identity| cutover_intent::Owner { uid: identity.uid, gid: identity.gid })
    }

    /// How to ask the live process.
    pub(super) fn probe(&self) -> anyhow::Result<ProbeSettings> {
        Ok(ProbeSettings::of(&self.questions())?)
    }

    /// The same as plain data, with the secrets that it takes.
    pub(super) fn questions(&self) -> Questions {
        let settings = &self.settings;
        let filled = |value: &str| self.filled(value, Path::new(""));
        let headers = settings.probe_headers.iter();
        let version = match settings.version.clone() {
            VersionSettings::Http { path, pointer, build, instance, plugins } => {
                VersionQuestion::Http { path, version: pointer, build, instance, plugins }
            }
            VersionSettings::OpenClaw { token } => VersionQuestion::OpenClaw { token: filled(&token) },
        };
        Questions {
            live: settings.live.clone(),
            ready: settings.ready.clone(),
            page: settings.page.clone(),
            websocket: settings.websocket.clone().map(|websocket| {
                let WebSocketSettings { path, pointer, equals } = websocket;
                Greeting { path, pointer, equals }
            }),
            headers: headers.map(|(name, value)| (name.clone(), filled(value))).collect(),
            version,
            request_limit: settings.probe_timeout,
        }
    }

    /// What a proof consists of here, and what is not part of it.
    pub(super) fn profile(&self) -> String {
        let mut has =
            "basic: identity, code, port, version, readiness, tripwires, old process gone (V1-V6, V10, V11)"
                .to_owned();
        let mut lacks = Vec::new();
        for (is_asked, what) in [
            (!self.settings.plugins.is_empty(), self.plugins_told().1),
            (self.settings.page.is_some(), "a page (V8)"),
            (self.greets(), "the first frame of a WebSocket (V8)"),
            (self.has_front(), "traffic (V9)"),
        ] {
            if is_asked {
                has.push_str(", ");
                has.push_str(what);
            } else {
                lacks.push(what);
            }
        }
        format!("{has}; not part of it: {}", lacks.join(", "))
    }

    /// Whether a WebSocket's first frame is asked for: by itself, or in OpenClaw's handshake, which begins with it.
    pub(super) fn greets(&self) -> bool {
        let settings = &self.settings;
        settings.websocket.is_some() || matches!(settings.version, VersionSettings::OpenClaw { .. })
    }

    /// What the service tells of its plugins, and how that is called. OpenClaw's hello lists bare ids.
    pub(super) fn plugins_told(&self) -> (PluginsTold, &'static str) {
        match &self.settings.version {
            VersionSettings::Http { .. } => (PluginsTold::Versions, "plugins (V7)"),
            VersionSettings::OpenClaw { .. } => (PluginsTold::Ids, "plugins by their ids, no versions (V7)"),
        }
    }

    /// Where clients reach the service, as somebody on this machine does; `None` where that is not known.
    pub(super) fn public(&self) -> Option<Address> {
        let address = self.settings.listen.iter().find(|address| address.port() != 0)?;
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Some(Address::Tcp((ip, address.port()).into()))
    }

    /// Where the live process is asked in Prove: directly, and through the front's probe lane where there is one.
    pub(super) fn lane(&self) -> anyhow::Result<Option<Address>> {
        if !self.has_front() {
            return Ok(None);
        }
        let lane = self.layout.probe_lane(&self.settings.name);
        Ok(Some(Address::unix(lane, &self.address().to_string())?))
    }
}

impl From<&Identity> for store::Identity {
    fn from(identity: &Identity) -> Self {
        Self { uid: identity.uid, gid: identity.gid, groups: identity.groups.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A site whose service has one plugin that is kept and one that follows its channel.
    pub(super) fn keeping(ground: &Path, version_probe: &str) -> Site {
        let text = format!(
            "[service.web]\nsource = {{ npm = \"app\" }}\ncommand = [\"node\", \"{{root}}/app.mjs\", \"{{port}}\"]\n\
             listen = \"127.0.0.1:8080\"\nprobe = {{ live = \"/\", version = {version_probe} }}\n\
             plugins = [{{ npm = \"@toy/kept\", policy = \"keep\" }}, {{ npm = \"@toy/new\" }}]\n"
        );
        let settings =
            config::parse(Path::new("cutover.toml"), &text).unwrap().services.remove("web").unwrap();
        let layout = Layout::at(ground.join("state"), ground.join("run"));
        Site::new(settings, layout, "/bin/true".into(), &[]).unwrap()
    }

    #[test]
    fn a_service_that_tells_no_versions_of_its_plugins_is_not_said_to() {
        let ground = tempfile::tempdir().unwrap();
        let site = keeping(ground.path(), "{ http = \"/version\", plugins = \"/plugins\" }");
        assert!(site.plugins_told().0 == PluginsTold::Versions && site.profile().contains("plugins (V7)"));
        let site = keeping(ground.path(), "{ openclaw = \"{env:TOKEN}\" }");
        assert_eq!(site.plugins_told().0, PluginsTold::Ids);
        assert!(site.profile().contains("plugins by their ids, no versions (V7)"), "{}", site.profile());
    }
}
