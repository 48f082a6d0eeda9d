//! What a take-over would write, from what was found.

use super::Desk;
use super::environment::{Carried, carried};
use super::page::Page;
use super::plugins::{self, Plugins};
use super::whereabouts::Whereabouts;
use crate::causes;
use crate::conductor::resolved;
use crate::config::{self, STATE, ServiceSettings, VersionSettings};
use crate::predecessor::{self, Predecessor, Record, Written};
use crate::probe::{
    self, Address, Ask, Fields, Hello, HttpCheck, Places, ProbeSettings, Token, VersionProbe, places,
};
use crate::store::{Import, ImportedPlugin};
use crate::supervisor::Identity;
use anyhow::{Context, bail};
use cutover_core::Seen;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// The gateway's token, as the preset's environment has it.
const TOKEN: &str = "OPENCLAW_GATEWAY_TOKEN";
/// What has a configuration of the gateway's take in another file.
const INCLUDE: &[u8] = b"\"$include\"";
/// Limit of one question to the old or the new process.
const QUESTION: Duration = Duration::from_secs(10);

/// A take-over: who is succeeded, and what is written about it.
pub(super) struct Takeover {
    pub name: String,
    pub predecessor: Predecessor,
    /// The configuration, then the environment.
    pub files: Vec<Written>,
    /// The service as configured.
    pub settings: ServiceSettings,
    /// Where the token was read.
    pub token_source: String,
    /// Where the command line was read.
    pub command_source: String,
    /// Where its state and its configuration lie.
    pub whereabouts: Whereabouts,
    pub carried: Carried,
    /// Options of the old command line that the preset does not have.
    pub options: Vec<String>,
    /// What it has installed itself.
    pub plugins: Plugins,
    pub page: Page,
    /// Why its configuration would not be taken back with its state.
    pub uncovered: Option<String>,
    /// What is copied.
    pub import: Import,
    /// Why it is not taken over as it is, in words.
    pub obstacle: Option<String>,
}

/// What a person wants of the configuration.
pub(super) struct Wanted<'a> {
    /// The front's addresses; those of the process, if none is named.
    pub listen: &'a [SocketAddr],
    /// Further lines of the service.
    pub lines: &'a [String],
    /// The command line that was named, if it was.
    pub command: &'a [String],
}

impl Takeover {
    /// Makes a plan of what was found. Nothing is written.
    pub(super) async fn of(
        desk: &Desk,
        predecessor: Predecessor,
        wanted: &Wanted<'_>,
    ) -> anyhow::Result<Self> {
        let (name, config) = (desk.name.as_str(), desk.config.as_path());
        let derived = Whereabouts::derived(&predecessor)?;
        let (token, token_source) = token_of(&predecessor, &derived.configuration)?;
        let carried = carried(&predecessor.env);
        let command_source = match wanted.command {
            [] => format!("/proc/{}/cmdline", predecessor.instance.pid),
            _ => "named after --".to_owned(),
        };
        let options = further_options(&predecessor)?;
        let listen = addresses(&predecessor, wanted.listen)?;
        let beside = config.parent().unwrap_or(Path::new("."));
        let secret = beside.join(format!("{name}.env"));
        let path = match config.exists() {
            true => beside.join("conf.d").join(format!("{name}.toml")),
            false => config.to_owned(),
        };
        let begun = configuration(name, &predecessor, &listen, &secret, &options)?;
        let mut rest = wanted.lines.iter().fold(String::new(), |text, line| text + line + "\n");
        let _ = write!(rest, "\n[service.{name}.env]\n{}", derived.variables());
        let mut variables = carried.variables.clone();
        variables.insert(TOKEN.into(), token);
        let service = as_asked(settings(name, &path, &format!("{begun}{rest}"))?, &variables);
        let asked = probe(&service, &variables)?;
        let told = told(&predecessor, &asked).await;
        let page = match &told {
            Ok(_) => Page::asked(&predecessor, &service, wanted.lines, QUESTION).await?,
            Err(_) => Page::AsConfigured,
        };
        let whereabouts = match &told {
            Ok(_) => derived.told(told_places(&predecessor, &asked).await?)?,
            // It is not taken over as it is.
            Err(_) => derived,
        };
        // Whoever names plugins has the last word.
        let plugins = match &told {
            Ok(told) if line_at(wanted.lines, &["plugins"]).is_none() => {
                plugins::found(&whereabouts.state, &predecessor.package, told)
            }
            _ => Plugins::default(),
        };
        let more = plugins.configuration(&predecessor.package, STATE);
        let text = format!("{begun}{}{more}{rest}", page.configuration());
        let mut settings = settings(name, &path, &text)?;
        comparable(&settings, &whereabouts.told)?;
        let uncovered = covered(&mut settings, &carried, &desk.service().join("snapshots"))?;
        let environment = environment(&variables);
        let files = vec![Written { path, text }, Written { path: secret, text: environment }];
        Ok(Self {
            name: name.to_owned(),
            import: import(&predecessor, along(&settings)),
            predecessor,
            files,
            settings,
            token_source,
            command_source,
            whereabouts,
            carried,
            options,
            plugins,
            page,
            uncovered,
            obstacle: told.err(),
        })
    }

    /// What is good to know before it is begun.
    pub(super) fn notes(&self) -> Vec<String> {
        let untold = self.whereabouts.untold.as_ref().map(|why| {
            format!(
                "where its state and its configuration lie is derived from how it was started, and what the copy works on is not \
                 compared with it: {why}"
            )
        });
        // What is carried over is not read from its file yet.
        let mut whole = self.settings.clone();
        whole.env.extend(self.carried.variables.clone());
        let uncovered = self.uncovered.as_ref().map(|why| {
            format!("its configuration is not covered, neither copied nor taken back, since nobody could lay it back: {why}")
        });
        untold.into_iter().chain(uncovered).chain(self.page.note()).chain(config::noted(&whole)).collect()
    }
}

/// The lines of the environment's file.
fn environment(variables: &BTreeMap<String, String>) -> String {
    variables.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name}={value}");
        text
    })
}

/// What the copy works on is held against what the old process tells, which takes the same handshake.
fn comparable(settings: &ServiceSettings, told: &Places) -> anyhow::Result<()> {
    if told.are_untold() || matches!(settings.version, VersionSettings::OpenClaw { .. }) {
        return Ok(());
    }
    bail!(
        "by another `probe.version` than `openclaw` the copy cannot be asked where its files lie, and whether they are those of the \
         gateway would not be proven: leave it out of --set, and write it into the file once the gateway is taken over"
    )
}

/// Has the declared state be what the daemon will take for it. Answers why the configuration would be none of it.
fn covered(
    settings: &mut ServiceSettings,
    carried: &Carried,
    snapshots: &Path,
) -> anyhow::Result<Option<String>> {
    let mut whole = settings.clone();
    // It is not written yet.
    whole.env_file = None;
    for (name, value) in &carried.variables {
        whole.env.entry(name.clone()).or_insert_with(|| value.clone());
    }
    let identity = Identity::resolve(settings.user.as_deref(), settings.group.as_deref())?;
    let inherited: Vec<_> = std::env::vars_os().collect();
    let resolved = resolved(whole, identity.as_ref(), &inherited, snapshots)?;
    settings.state = resolved.settings.state;
    Ok(resolved.uncovered)
}

/// What of the plugins that are configured lies where its installer has laid it.
fn along(settings: &ServiceSettings) -> Vec<ImportedPlugin> {
    let plugins = settings.plugins.iter();
    plugins
        .filter_map(|plugin| ImportedPlugin::installed(plugin.project.as_deref()?, &plugin.package))
        .collect()
}

/// What is copied: the package, and the plugins that are taken over with it.
pub(super) fn import(predecessor: &Predecessor, along: Vec<ImportedPlugin>) -> Import {
    let package = predecessor.package.clone();
    Import { package: package.name, version: package.version, root: package.root, plugins: along }
}

/// The plugins that the process tells, if it answers as its package; in words, why not.
async fn told(predecessor: &Predecessor, asked: &ProbeSettings) -> Result<Vec<String>, String> {
    let address = predecessor.addresses[0];
    match predecessor::answers(address, asked, &predecessor.package.version).await? {
        Seen::Yes { value, .. } => Ok(value),
        Seen::NotApplicable { .. } => Ok(Vec::new()),
        Seen::Missing { why, .. } => Err(format!("which plugins it runs is not to be had: {why}")),
    }
}

/// Where its files lie, as it tells; in words, why it refuses to.
async fn told_places(
    predecessor: &Predecessor,
    asked: &ProbeSettings,
) -> anyhow::Result<Result<Places, String>> {
    match places(asked, &Address::Tcp(predecessor.addresses[0])).await {
        Ok(Some(places)) => Ok(Ok(places)),
        Ok(None) => Ok(Err("it is not asked by its handshake".into())),
        Err(error @ probe::Error::Refused { .. }) => Ok(Err(causes::told(&error))),
        // It has just answered the same question about its version.
        Err(error) => Err(error)
            .context("the gateway did not say where its state lies; look again when it has less to do"),
    }
}

/// What a person's lines say of a key. What makes no sense is refused when it is read.
pub(super) fn line_at(lines: &[String], key: &[&str]) -> Option<toml::Value> {
    let table = lines.join("\n").parse::<toml::Table>().ok()?;
    key.iter().try_fold(toml::Value::Table(table), |value, name| value.get(*name).cloned())
}

/// A service as the file of a take-over configures it.
pub(super) fn settings(name: &str, path: &Path, text: &str) -> anyhow::Result<ServiceSettings> {
    let mut settings = config::parse(path, text)?;
    settings.services.remove(name).with_context(|| format!("{} does not configure {name}", path.display()))
}

/// A service with the headers of its probes as each proof sends them.
pub(super) fn as_asked(
    mut settings: ServiceSettings,
    variables: &BTreeMap<String, String>,
) -> ServiceSettings {
    let filled = |value: &str| config::fill(value, Path::new(""), 0, &settings, variables);
    let headers = settings.probe_headers.iter().map(|(name, value)| (name.clone(), filled(value)));
    settings.probe_headers = headers.collect();
    settings
}

/// How the service is asked, before and after.
pub(super) fn probe(
    asked: &ServiceSettings,
    variables: &BTreeMap<String, String>,
) -> anyhow::Result<ProbeSettings> {
    let token =
        variables.get(TOKEN).with_context(|| format!("{TOKEN} is not among the service's variables"))?;
    let check = |path: &str| check(asked, path);
    Ok(ProbeSettings {
        live: asked.live.as_deref().map(check).transpose()?,
        ready: asked.ready.as_deref().map(check).transpose()?,
        version: Some(VersionProbe {
            ask: Ask::OpenClawHello(Hello::new("/", Some(Token::new(token)))?),
            fields: Fields::of_openclaw(),
        }),
        page: None,
        first_frame: None,
        request_limit: QUESTION,
    })
}

/// A question for a path of a service.
pub(super) fn check(asked: &ServiceSettings, path: &str) -> Result<HttpCheck, probe::Error> {
    HttpCheck::new(path, asked.probe_headers.iter().map(|(name, value)| (name.as_str(), value.as_str())))
}

/// The environment that a record's files hold.
pub(super) fn variables_in(record: &Record) -> anyhow::Result<BTreeMap<String, String>> {
    let secret = record.terms.files.get(1).context("the record of the take-over holds no environment")?;
    config::variables_of(&secret.path, &secret.text)
}

/// The token, from the environment, the command line or the gateway's own configuration.
fn token_of(predecessor: &Predecessor, configuration: &Path) -> anyhow::Result<(String, String)> {
    let pid = predecessor.instance.pid;
    if let Some(token) = predecessor.env.get(TOKEN).filter(|token| !token.is_empty()) {
        return Ok((token.clone(), format!("/proc/{pid}/environ")));
    }
    if let Some(token) = predecessor.option("--token") {
        return Ok((token.to_owned(), "its command line".into()));
    }
    let (token, lacks) = match written_token(configuration) {
        Ok(token) => (token, "it names none (gateway.auth.token)".to_owned()),
        Err(why) => (None, why),
    };
    let variable = token.as_deref().and_then(|token| token.strip_prefix("${")?.strip_suffix('}'));
    let token = match variable {
        Some(name) => predecessor.env.get(name).cloned(),
        None => token,
    };
    let Some(token) = token.filter(|token| !token.is_empty()) else {
        bail!(
            "the gateway's token is found neither in its environment ({TOKEN}) nor in its command line (--token); and as for {}, {lacks}. \
             Without it nobody can ask which version answers: start the gateway with {TOKEN} set",
            configuration.display()
        );
    };
    Ok((token, configuration.display().to_string()))
}

/// The token that a configuration names; in words, why that is not known. OpenClaw reads more than plain JSON.
fn written_token(configuration: &Path) -> Result<Option<String>, String> {
    let text = std::fs::read(configuration).map_err(|error| format!("it cannot be read: {error}"))?;
    let written: Value = serde_json::from_slice(&text).map_err(|error| {
        format!("it could not be read as plain JSON ({error}), so whether it names one is not known")
    })?;
    let token = written.pointer("/gateway/auth/token").and_then(Value::as_str).map(ToOwned::to_owned);
    if token.is_none() && text.windows(INCLUDE.len()).any(|word| word == INCLUDE) {
        return Err("it includes other files, which are not read here".into());
    }
    Ok(token)
}

/// Options that the preset's command does not have. A way of authentication that it cannot have is refused.
fn further_options(predecessor: &Predecessor) -> anyhow::Result<Vec<String>> {
    let script = predecessor
        .command
        .iter()
        .position(|word| predecessor.entry.ends_with(word.trim_start_matches("./")));
    let script = script.or_else(|| {
        let is_entry = |word: &String| {
            predecessor.cwd.join(word).canonicalize().is_ok_and(|path| path == predecessor.entry)
        };
        predecessor.command.iter().position(is_entry)
    });
    let mut words = predecessor.command.iter().skip(script.map_or(1, |at| at + 1)).map(String::as_str);
    let mut further = Vec::new();
    let mut is_before_the_word = true;
    while let Some(word) = words.next() {
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        match name {
            "gateway" => is_before_the_word = false,
            "run" | "--allow-unconfigured" => {}
            // Behind `gateway` it is another option of the same name.
            "--dev" if is_before_the_word => further.extend(["--profile", "dev"].map(ToOwned::to_owned)),
            "--port" | "--bind" | "--token" | "--auth" => {
                let value = value.or_else(|| words.next());
                if name == "--auth" && value != Some("token") {
                    bail!(
                        "the gateway runs with --auth {}: only --auth token can be taken over",
                        value.unwrap_or_default()
                    );
                }
            }
            "--password" | "--tailscale" => bail!("the gateway runs with {name}: that cannot be taken over"),
            _ => further.push(word.to_owned()),
        }
    }
    Ok(further)
}

fn addresses(predecessor: &Predecessor, wanted: &[SocketAddr]) -> anyhow::Result<Vec<SocketAddr>> {
    let port = predecessor.port();
    let own: Vec<SocketAddr> =
        predecessor.addresses.iter().copied().filter(|address| address.port() == port).collect();
    let listen = if wanted.is_empty() { own } else { wanted.to_vec() };
    if let Some(open) = listen.iter().find(|address| !address.ip().is_loopback()) {
        bail!(
            "{open} is reached from elsewhere, and a gateway behind a front takes everybody for a local client: name \
             loopback addresses with --listen and let a proxy that authenticates stand before them"
        );
    }
    Ok(listen)
}

fn configuration(
    name: &str,
    predecessor: &Predecessor,
    listen: &[SocketAddr],
    secret: &Path,
    options: &[String],
) -> anyhow::Result<String> {
    let listen: Vec<String> = listen.iter().map(|address| quoted(address)).collect();
    let (at, version) = (predecessor.package.root.display(), &predecessor.package.version);
    let mut text = format!(
        "# Written by `cutover adopt openclaw`; it ran as {version} from {at}.\n\n[service.{name}]\npreset = \"openclaw\"\n\
         node = {}\nlisten = [{}]\nenv_file = {}\n",
        quoted(&predecessor.program.display()),
        listen.join(", "),
        quoted(&secret.display()),
    );
    if let Some(user) = user_of(predecessor)? {
        let _ = writeln!(text, "user = {}", quoted(&user));
    }
    let is_of_the_old_tree = predecessor.cwd.starts_with(&predecessor.package.root);
    if predecessor.cwd != Path::new("/") && !is_of_the_old_tree {
        let _ = writeln!(text, "cwd = {}", quoted(&predecessor.cwd.display()));
    }
    if !options.is_empty() {
        let all = config::preset_command().into_iter().chain(options.iter().cloned());
        let all: Vec<String> = all.map(|word| quoted(&word)).collect();
        let _ = writeln!(
            text,
            "# The preset's command, and the options that it ran with.\ncommand = [{}]",
            all.join(", ")
        );
    }
    Ok(text)
}

/// As TOML writes it.
pub(super) fn quoted(text: &dyn std::fmt::Display) -> String {
    toml::Value::from(text.to_string()).to_string()
}

/// Who runs the service under a root daemon, if that is somebody else.
fn user_of(predecessor: &Predecessor) -> anyhow::Result<Option<String>> {
    let uid = predecessor.account.uid;
    if uid == rustix::process::geteuid().as_raw() {
        return Ok(None);
    }
    let uid = uid.to_string();
    let identity =
        Identity::resolve(Some(&uid), None).with_context(|| format!("the process runs as uid {uid}"))?;
    Ok(identity.map(|identity| identity.name.unwrap_or(uid)))
}
