//! Commands and flags.

use crate::demo;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

/// The heading of flags that every command takes.
const EVERYWHERE: &str = "Options of every command";

/// Updates long-running services and calls nothing success but a live new process that has proven itself.
#[derive(Debug, Parser)]
#[command(name = "cutover", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 verified or already current · 1 bug · 2 usage or configuration · \
3 package_update_failed · 4 restart failed, old version verified · 5 restart failed, not serving or unverified · \
6 still scheduled · 7 no daemon · 8 refused")]
pub(crate) struct Arguments {
    /// Configuration file.
    #[arg(long, global = true, env = "CUTOVER_CONFIG", value_name = "FILE", help_heading = EVERYWHERE)]
    pub config: Option<PathBuf>,
    /// State directory; the runtime directory is then `<state>/run`.
    #[arg(long, global = true, env = "CUTOVER_STATE", value_name = "DIR", help_heading = EVERYWHERE)]
    pub state: Option<PathBuf>,
    /// Runtime directory (sockets, intents).
    #[arg(long, global = true, env = "CUTOVER_RUNTIME", value_name = "DIR", help_heading = EVERYWHERE)]
    pub runtime: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the whole story on a sample service: no configuration, no network.
    Demo(demo::Arguments),
    /// Run the daemon.
    Serve {
        /// At SIGTERM also stop the services and fronts, which otherwise go on. They stay stopped until `cutover start`.
        #[arg(long)]
        stop_services: bool,
    },
    /// Take over a service that runs already. Prints what was found, the configuration and what `--apply` would do, and
    /// changes nothing.
    Adopt(Adopt),
    /// Resolve, fetch and check what an update would install; stop and switch nothing.
    Plan {
        #[command(flatten)]
        wanted: Wanted,
        /// Say of each finding what it means and what to do.
        #[arg(long)]
        explain: bool,
    },
    /// Look at a tree of JavaScript packages for what would break; needs no daemon. Exit code 3: something would.
    Check(Check),
    /// Install another version and prove it.
    Update {
        #[command(flatten)]
        wanted: Wanted,
        /// Only plan.
        #[arg(long)]
        dry_run: bool,
        /// Wait for `cutover approve` before anything stops, whatever the policy says.
        #[arg(long, conflicts_with = "dry_run")]
        hold: bool,
        #[command(flatten)]
        wait: Wait,
    },
    /// Show what serves now and how the last run ended.
    Status {
        /// A service; all, if none is named.
        service: Option<String>,
        /// Go on showing it.
        #[arg(long)]
        watch: bool,
    },
    /// Let the service run (durable); proves a run that was switched while it was stopped.
    Start {
        #[command(flatten)]
        service: Service,
        #[command(flatten)]
        wait: Wait,
    },
    /// Stop the service (durable, also across reboots).
    Stop {
        #[command(flatten)]
        service: Service,
        #[command(flatten)]
        wait: Wait,
    },
    /// End the live process and start the same generation again.
    Restart {
        #[command(flatten)]
        service: Service,
        #[command(flatten)]
        wait: Wait,
    },
    /// Go back to an older generation, with the same proof as an update.
    Rollback {
        #[command(flatten)]
        service: Service,
        /// The generation; the one before the current, if none is named.
        #[arg(long, value_name = "GENERATION")]
        to: Option<u32>,
        /// What becomes of the data.
        #[arg(long, value_enum, default_value = "keep")]
        data: Data,
        #[command(flatten)]
        wait: Wait,
    },
    /// Leave maintenance.
    Recover {
        /// The service.
        service: String,
        #[command(flatten)]
        way: Way,
        #[command(flatten)]
        wait: Wait,
    },
    /// Give up a run that has not passed the cut.
    Cancel {
        #[command(flatten)]
        service: Service,
    },
    /// Let the run under way wait for `cutover approve` before anything stops.
    Hold {
        #[command(flatten)]
        service: Service,
    },
    /// Let a prepared run that waits for it go on, and follow it. It is looked at once more before anything stops.
    Approve {
        #[command(flatten)]
        service: Service,
        /// What is approved, as `cutover status` names it. Anything else is refused.
        #[arg(long, value_name = "PLAN")]
        plan: Option<String>,
        #[command(flatten)]
        wait: Wait,
    },
    /// List runs, newest first.
    History {
        /// A service; all, if none is named.
        service: Option<String>,
        /// How many.
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// Show one run: steps, facts, causes.
    Show {
        /// The run's id.
        run: String,
    },
    /// Show the end of the service's own log.
    Logs {
        #[command(flatten)]
        service: Service,
        /// How many lines.
        #[arg(short = 'n', long, default_value_t = 100)]
        lines: usize,
        /// Go on showing new lines.
        #[arg(short, long)]
        follow: bool,
    },
    /// Print the address of the page, with a token that opens it once, for two minutes.
    Open,
    /// List sealed generations.
    Generations {
        #[command(flatten)]
        service: Service,
    },
    /// Check or describe the configuration.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Read the configuration and say what is wrong with it.
    Check,
    /// Print the configuration that is in effect, presets filled in and secrets hidden.
    Show,
    /// Print the JSON Schema of the file.
    Schema,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Service {
    /// The service; may be left out if there is only one.
    pub service: Option<String>,
}

/// Services that can be taken over.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Adoptable {
    /// OpenClaw's gateway.
    Openclaw,
}

/// A service's name where `adopt` is told none.
pub(crate) const ADOPTED: &str = "openclaw";
/// The port that it listens on where `adopt` is told none.
pub(crate) const ADOPTED_PORT: u16 = 18789;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Adopt {
    /// What it is.
    #[arg(value_enum)]
    pub what: Adoptable,
    /// The process that serves; who listens on `--port`, if none is named.
    #[arg(long, value_name = "PID", conflicts_with = "port")]
    pub pid: Option<u32>,
    /// The port that it listens on.
    #[arg(long, default_value_t = ADOPTED_PORT)]
    pub port: u16,
    /// The service's name from now on.
    #[arg(long, default_value = ADOPTED)]
    pub name: String,
    /// Addresses of the front; those of the process, if none is named.
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Vec<std::net::SocketAddr>,
    /// A further line of the service's configuration, as `policy.stop_grace = "330s"`.
    #[arg(long, value_name = "LINE")]
    pub set: Vec<String>,
    /// Take it over: copy what runs, end the old process, prove the same version. What fails is undone.
    #[arg(long, conflicts_with = "undo")]
    pub apply: bool,
    /// Give the address back to what served before, and prove that it does.
    #[arg(long)]
    pub undo: bool,
    /// The command line that starts it, where the process does not tell any more.
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Check {
    /// The package's directory: the one with its `package.json`.
    pub directory: PathBuf,
    /// The same package as it runs today: only what is worse than there counts.
    #[arg(long, value_name = "DIR")]
    pub against: Option<PathBuf>,
    /// The node that will run it; the one in PATH, if none is named.
    #[arg(long, value_name = "FILE")]
    pub node: Option<PathBuf>,
    /// A file of the package that is started, beside those that its `package.json` names.
    #[arg(long, value_name = "FILE")]
    pub entry: Vec<PathBuf>,
    /// A plugin's directory; it finds the package by its name.
    #[arg(long, value_name = "DIR")]
    pub plugin: Vec<PathBuf>,
    /// Where what was read is remembered, for the next check.
    #[arg(long, value_name = "FILE")]
    pub cache: Option<PathBuf>,
    /// Say of each finding what it means and what to do.
    #[arg(long)]
    pub explain: bool,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Wanted {
    /// The service; may be left out if there is only one.
    pub service: Option<String>,
    /// Exactly this version; what the channel names, if none is given.
    #[arg(long, value_name = "VERSION")]
    pub to: Option<String>,
    /// Another channel (dist-tag, link) than the configured one.
    #[arg(long, conflicts_with = "to")]
    pub channel: Option<String>,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Wait {
    /// Do not wait for the end.
    #[arg(long)]
    pub detach: bool,
    /// Wait at most so many seconds; what was begun goes on.
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
}

impl Wait {
    pub(crate) fn limit(&self) -> Option<Duration> {
        self.timeout.map(Duration::from_secs)
    }
}

#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Way {
    /// Try the target again.
    #[arg(long)]
    pub retry: bool,
    /// Back to the version before.
    #[arg(long)]
    pub rollback: bool,
    /// Start what the pointer names and serve it even if its proof stays incomplete.
    #[arg(long)]
    pub accept: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Data {
    /// The data stays as it is.
    Keep,
    /// The snapshot that belongs to the older version is laid down.
    Restore,
}
