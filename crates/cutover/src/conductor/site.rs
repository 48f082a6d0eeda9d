//! One service's place on this machine: its settings, directories, port and account, resolved once.

use super::age;
use crate::config::{
    self, Layout, Misplaced, PluginPolicy, PluginWanted, Port, Scripts, ServiceSettings, SourceSettings,
    VersionSettings, WebSocketSettings, fill, found,
};
use crate::probe::{Address, Greeting, ProbeSettings, Questions, VersionQuestion};
use crate::store::snapshot::StatePath;
use crate::store::{self, Store};
use crate::supervisor::{Identity, Launch, LogFile};
use anyhow::{Context, bail};
use cutover_core::{Generation, Plugin, PluginsTold, Release};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Instances whose directory and log are kept.
const INSTANCES_KEPT: usize = 20;

/// Where a port is chosen: below what Linux gives to outgoing connections by default.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
const PORT_TRIES: u32 = 200;

/// One service's place on this machine.
pub(super) struct Site {
    pub settings: ServiceSettings,
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
        mut settings: ServiceSettings,
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
        let env = environment(&settings, identity.as_ref(), inherited)?;
        for state in &mut settings.state {
            state.path = at_home(&state.path, &env).with_context(|| {
                format!("service.{name}.state: nothing says where {} is; write absolute paths", config::HOME)
            })?;
        }
        for file in settings.repair.iter_mut().flat_map(|repair| &mut repair.files) {
            *file = at_home(file, &env).with_context(|| {
                format!("service.{name}.preflight.repair.files: nothing says where {} is", config::HOME)
            })?;
        }
        if let Some(problem) = config::scripted(&settings, &env) {
            bail!(problem);
        }
        let port = match settings.port {
            Port::Fixed(port) => port,
            Port::Auto => kept_port(&directory.join("port"))?,
        };
        let store = Store::open(&directory);
        let npm_env = npm_environment(inherited, &env);
        Ok(Self { settings, layout, store, identity, port, executable, env, npm_env })
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

    /// Where the service itself listens.
    pub(super) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub(super) fn has_front(&self) -> bool {
        !self.settings.listen.is_empty()
    }

    pub(super) fn state_paths(&self) -> Vec<StatePath> {
        self.settings
            .state
            .iter()
            .map(|state| StatePath { path: state.path.clone(), kind: state.kind })
            .collect()
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
            "CUTOVER_INTENT_FILE".into(),
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

    /// The source as the store takes it, with the plugins that the settings want now.
    ///
    /// # Errors
    /// If a plugin is kept and it cannot be told in which version: nobody would know that it is updated.
    pub(super) fn source(&self) -> Result<store::Source, store::Error> {
        let plugins = &self.settings.plugins;
        let keeps = plugins.iter().any(|plugin| plugin.policy == PluginPolicy::Keep);
        let current = if keeps { self.store.current()? } else { None };
        let kept = match current {
            Some(current) => self.store.record(current)?.release.plugins,
            None => Vec::new(),
        };
        let plugins = plugins.iter().map(|plugin| {
            let kept = kept.iter().find(|kept| kept.package == plugin.package);
            let wanted = match (plugin.policy, kept, &plugin.wanted) {
                (PluginPolicy::Keep, Some(kept), _) => store::Wanted::Version(kept.version.clone()),
                (_, _, PluginWanted::Channel(channel)) => store::Wanted::Channel(channel.clone()),
                (_, _, PluginWanted::Version(version)) => store::Wanted::Version(version.clone()),
            };
            let may_lack = plugin.policy == PluginPolicy::Wanted;
            store::PluginSource { package: plugin.package.clone(), wanted, may_lack }
        });
        Ok(self.source_with(plugins.collect()))
    }

    /// The same with the plugins that a release was frozen with.
    pub(super) fn source_of(&self, release: &Release) -> store::Source {
        let exact = |plugin: &Plugin| store::PluginSource {
            package: plugin.package.clone(),
            wanted: store::Wanted::Version(plugin.version.clone()),
            may_lack: false,
        };
        self.source_with(release.plugins.iter().map(exact).collect())
    }

    fn source_with(&self, plugins: Vec<store::PluginSource>) -> store::Source {
        match &self.settings.source {
            SourceSettings::Directory { directory, .. } => {
                store::Source::Directory(store::Directory { dir: directory.clone() })
            }
            SourceSettings::Npm { package, registry, npm, scripts, .. } => store::Source::Npm(store::Npm {
                package: package.clone(),
                plugins,
                registry: registry.clone(),
                npm: self.npm_command(npm.as_deref()),
                node: self.settings.node.clone(),
                env: self.npm_env.clone(),
                identity: self.identity.as_ref().map(store::Identity::from),
                scripts: match scripts {
                    Scripts::Off => store::Scripts::Off,
                    Scripts::Own => store::Scripts::Own,
                    Scripts::On => store::Scripts::On,
                },
                cache: self.layout.npm_cache(),
                limits: store::Limits::default(),
            }),
        }
    }

    fn npm_command(&self, given: Option<&[String]>) -> Vec<OsString> {
        match given {
            Some(words) => words.iter().map(OsString::from).collect(),
            None => vec!["npm".into()],
        }
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
        let tells = self.settings.plugins.iter().any(|plugin| plugin.policy != PluginPolicy::Wanted);
        for (is_asked, what) in [
            (tells, self.plugins_told().1),
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

/// Makes a directory that only its owner may enter. One that is there already must be ours, and nobody else may be able to
/// exchange what lies in it.
pub(crate) fn private_directory(path: &Path) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(path)
        .with_context(|| format!("making {}; the state directory must be writable", path.display()))?;
    let found = std::fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?;
    let (path, owner, own) = (path.to_owned(), found.uid(), rustix::process::geteuid().as_raw());
    if owner != own {
        return Err(config::Error::from(Misplaced::Foreign { path, owner, own }).into());
    }
    let mode = found.permissions().mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(config::Error::from(Misplaced::Writable { path, mode }).into());
    }
    Ok(())
}

/// Lets other accounts pass through a directory whose names they know.
pub(crate) fn passage(path: &Path) -> anyhow::Result<()> {
    std::fs::set_permissions(path, Permissions::from_mode(0o711))
        .with_context(|| format!("opening a way through {}", path.display()))
}

fn environment(
    settings: &ServiceSettings,
    identity: Option<&Identity>,
    inherited: &[(OsString, OsString)],
) -> anyhow::Result<BTreeMap<String, String>> {
    let mut env = BTreeMap::new();
    for name in ["PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "HOME", "USER"] {
        let given = inherited.iter().find(|(given, _)| given == name).and_then(|(_, value)| value.to_str());
        if let Some(value) = given {
            env.insert(name.to_owned(), value.to_owned());
        }
    }
    if let Some(identity) = identity {
        env.insert("HOME".into(), identity.home.clone().unwrap_or_else(|| "/".into()).display().to_string());
        env.insert("USER".into(), settings.user.clone().unwrap_or_default());
    }
    let secret = match &settings.env_file {
        Some(path) => variables(path)
            .with_context(|| format!("service.{}.env_file {}", settings.name, path.display()))?,
        None => BTreeMap::new(),
    };
    env.extend(secret.clone());
    for (name, value) in &settings.env {
        let filled = env.get("HOME").map_or_else(|| value.clone(), |home| value.replace(config::HOME, home));
        // Where the state lies is read from `env`: a file that says otherwise would be right about the process only.
        let differs = secret.get(name).is_some_and(|other| *other != filled);
        if differs && !value.is_empty() && settings.state.iter().any(|state| state.path.starts_with(value)) {
            let service = &settings.name;
            bail!(
                "service.{service}: `env_file` and `env` differ about {name}, where the state lies; name it in `env` alone"
            );
        }
        env.insert(name.clone(), filled);
    }
    Ok(env)
}

/// The variables that a file of KEY=VALUE lines names.
fn variables(path: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(path)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.split_once('=').context("a line is not KEY=VALUE")?;
            Ok((name.trim().to_owned(), value.trim().trim_matches('"').to_owned()))
        })
        .collect()
}

/// A path with the home of the service's user filled in; `None` if it has none.
fn at_home(path: &Path, env: &BTreeMap<String, String>) -> Option<PathBuf> {
    let Ok(below) = path.strip_prefix(config::HOME) else { return Some(path.to_owned()) };
    let home = env.get("HOME").map(Path::new).filter(|home| home.is_absolute())?;
    Some(home.join(below))
}

/// The daemon's own environment, in which proxies, certificates and npm's settings are, below the service's.
fn npm_environment(
    inherited: &[(OsString, OsString)],
    service: &BTreeMap<String, String>,
) -> Vec<(OsString, OsString)> {
    let mut env: BTreeMap<OsString, OsString> = inherited.iter().cloned().collect();
    env.extend(service.iter().map(|(name, value)| (name.into(), value.into())));
    env.into_iter().collect()
}

/// A port chosen once and kept, so that a service keeps its address across starts.
fn kept_port(path: &Path) -> anyhow::Result<u16> {
    if let Some(port) = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()) {
        return Ok(port);
    }
    let port = free_port()?;
    let new = path.with_extension("new");
    let write = |new: &Path| {
        let mut file = File::create(new)?;
        file.write_all(port.to_string().as_bytes())?;
        file.sync_all()?;
        std::fs::rename(new, path)
    };
    write(&new).with_context(|| format!("writing {}", path.display()))?;
    Ok(port)
}

/// A port that nobody listens on and that the system gives to nobody by itself: one of those could be a client's when the
/// service starts again.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    for _ in 0..PORT_TRIES {
        let chosen = uuid::Uuid::new_v4().as_u64_pair().0 % u64::from(PORTS.end - PORTS.start);
        let port = PORTS.start + u16::try_from(chosen).expect("smaller than the range of ports");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between {} and {}: name one as `port`", PORTS.start, PORTS.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_others_could_write_to_is_refused_with_the_command_to_type() {
        let ground = tempfile::tempdir().unwrap();
        let path = ground.path().join("state");
        private_directory(&path).unwrap();
        // What `passage` and service managers leave is not writable for others.
        for mode in [0o700, 0o711, 0o755] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            private_directory(&path).unwrap();
        }
        for mode in [0o770, 0o702, 0o1777] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = private_directory(&path).unwrap_err();
            assert!(error.downcast_ref::<config::Error>().is_some(), "a matter of usage");
            let told = format!("`chmod go-w {}`", path.display());
            assert!(error.to_string().contains(&told), "{error}");
        }
    }

    #[test]
    fn a_directory_of_another_account_is_refused_with_the_command_to_type() {
        let ground = tempfile::tempdir().unwrap();
        let own = rustix::process::geteuid().as_raw();
        // Root gives one away; everybody else finds root's.
        let path = if own == 0 { ground.path() } else { Path::new("/usr") };
        if own == 0 {
            std::os::unix::fs::chown(path, Some(65_534), None).unwrap();
        }
        let error = private_directory(path).unwrap_err();
        assert!(error.downcast_ref::<config::Error>().is_some(), "a matter of usage");
        let told = format!("`chown {own} {}`", path.display());
        assert!(error.to_string().contains(&told), "{error}");
    }

    #[test]
    fn npm_finds_the_machine_s_own_settings_and_the_service_s_before_them() {
        let inherited = [("HTTPS_PROXY", "machine"), ("HOME", "/root"), ("npm_config_cafile", "/ca")];
        let inherited = inherited.map(|(name, value)| (name.into(), value.into()));
        let service = BTreeMap::from([("HOME".to_owned(), "/home/claw".to_owned())]);
        let given = npm_environment(&inherited, &service);
        let expected = [("HOME", "/home/claw"), ("HTTPS_PROXY", "machine"), ("npm_config_cafile", "/ca")];
        assert_eq!(given, expected.map(|(name, value)| (name.into(), value.into())));
    }

    /// A site whose service has one plugin that is kept and one that follows its channel.
    fn keeping(ground: &Path, version_probe: &str) -> Site {
        let text = format!(
            "[service.web]\nsource = {{ npm = \"app\" }}\ncommand = [\"node\", \"{{root}}/app.mjs\", \"{{port}}\"]\n\
             listen = \"127.0.0.1:8080\"\nprobe = {{ live = \"/\", version = {version_probe} }}\n\
             plugins = [{{ npm = \"@toy/kept\", policy = \"keep\" }}, {{ npm = \"@toy/new\" }}]\n"
        );
        let settings =
            config::parse(Path::new("cutover.toml"), &text).unwrap().services.remove("web").unwrap();
        let layout = Layout { state: ground.join("state"), runtime: ground.join("run") };
        Site::new(settings, layout, "/bin/true".into(), &[]).unwrap()
    }

    fn wanted(site: &Site) -> Vec<(String, store::Wanted)> {
        let store::Source::Npm(npm) = site.source().unwrap() else { panic!("not npm") };
        npm.plugins.into_iter().map(|plugin| (plugin.package, plugin.wanted)).collect()
    }

    #[test]
    fn a_kept_plugin_stays_in_its_version_and_is_never_updated_because_nobody_can_tell_it() {
        let ground = tempfile::tempdir().unwrap();
        let site = keeping(ground.path(), "{ http = \"/version\" }");
        let latest = || store::Wanted::Channel("latest".into());
        let free = [("@toy/kept".to_owned(), latest()), ("@toy/new".to_owned(), latest())];
        assert_eq!(wanted(&site), free, "nothing is current");

        let directory = site.directory().join("generations/0001");
        let record = directory.join("generation.json");
        std::fs::create_dir_all(&directory).unwrap();
        std::os::unix::fs::symlink("generations/0001", site.directory().join("current")).unwrap();
        let write = |plugins: serde_json::Value| {
            let release = serde_json::json!({
                "package": "app", "version": "1.0.0", "digest": "sha512-x", "plugins": plugins
            });
            let told = serde_json::json!({
                "generation": 1, "release": release, "published": null,
                "source": {"kind": "npm", "package": "app", "registry": null}, "createdAt": "",
                "root": "core", "packageRoot": "core/node_modules/app", "files": 0, "bytes": 0,
                "manifestDigest": "", "withoutIntegrity": []
            });
            std::fs::write(&record, told.to_string()).unwrap();
        };
        let plugin =
            |package: &str| serde_json::json!({"package": package, "version": "1.1.0", "digest": "sha512-x"});
        write(serde_json::json!([plugin("@toy/kept"), plugin("@toy/new")]));
        let kept = store::Wanted::Version("1.1.0".into());
        assert_eq!(wanted(&site), [("@toy/kept".to_owned(), kept), ("@toy/new".to_owned(), latest())]);
        write(serde_json::json!([plugin("@toy/new")]));
        assert_eq!(wanted(&site), free, "the current release has no such plugin");

        std::fs::write(&record, "{").unwrap();
        assert!(matches!(site.source(), Err(store::Error::Damaged { .. })));
        std::fs::remove_file(&record).unwrap();
        assert!(matches!(site.source(), Err(store::Error::Unsealed { .. })));
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
