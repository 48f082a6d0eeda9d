//! Where things lie: one value, made once from the environment at the edge, passed to every room.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Directories of one daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Journal, generations, snapshots, logs (0700).
    pub state: PathBuf,
    /// Sockets and intents (0700).
    pub runtime: PathBuf,
}

impl Layout {
    /// The default directories: XDG for a user, `/var/lib` and `/run` for root.
    #[must_use]
    pub fn default_for(env: &dyn Fn(&str) -> Option<OsString>, is_root: Account) -> Self {
        let xdg = |name: &str, fallback: &str| {
            env(name)
                .filter(|dir| !dir.is_empty())
                .map(PathBuf::from)
                .or_else(|| env("HOME").map(|home| PathBuf::from(home).join(fallback)))
        };
        match is_root {
            Account::Root => Self { state: "/var/lib/cutover".into(), runtime: "/run/cutover".into() },
            Account::User => {
                let state =
                    xdg("XDG_STATE_HOME", ".local/state").unwrap_or_else(std::env::temp_dir).join("cutover");
                let runtime = env("XDG_RUNTIME_DIR")
                    .filter(|dir| !dir.is_empty())
                    .map_or_else(|| state.join("run"), |dir| PathBuf::from(dir).join("cutover"));
                Self { state, runtime }
            }
        }
    }

    /// The default configuration file.
    #[must_use]
    pub fn config_file(env: &dyn Fn(&str) -> Option<OsString>, account: Account) -> PathBuf {
        match account {
            Account::Root => "/etc/cutover/cutover.toml".into(),
            Account::User => env("XDG_CONFIG_HOME")
                .filter(|dir| !dir.is_empty())
                .map(PathBuf::from)
                .or_else(|| env("HOME").map(|home| PathBuf::from(home).join(".config")))
                .unwrap_or_default()
                .join("cutover/cutover.toml"),
        }
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.state.join("journal.sqlite")
    }

    /// The token of the HTTP API.
    #[must_use]
    pub fn token(&self) -> PathBuf {
        self.state.join("token")
    }

    /// One service's directory.
    #[must_use]
    pub fn service(&self, name: &str) -> PathBuf {
        self.state.join("services").join(name)
    }

    /// The lock that makes the daemon the only one.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.state.join("lock")
    }

    /// The daemon's Unix socket.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.runtime.join("control.sock")
    }

    /// The control socket of a service's front.
    #[must_use]
    pub fn front(&self, name: &str) -> PathBuf {
        self.runtime.join("fronts").join(format!("{name}.sock"))
    }

    /// The probe lane of a service's front.
    #[must_use]
    pub fn probe_lane(&self, name: &str) -> PathBuf {
        self.runtime.join("fronts").join(format!("{name}.probe.sock"))
    }

    /// The intent file of a service.
    #[must_use]
    pub fn intent(&self, name: &str) -> PathBuf {
        self.intents().join(name).join("intent.json")
    }

    /// The directory of intents.
    #[must_use]
    pub fn intents(&self) -> PathBuf {
        self.runtime.join("intents")
    }

    /// The npm cache that all services share.
    #[must_use]
    pub fn npm_cache(&self) -> PathBuf {
        self.state.join("npm-cache")
    }

    /// Whether `path` fits into a Unix socket address.
    #[must_use]
    pub fn fits_socket(path: &Path) -> bool {
        path.as_os_str().len() < 104
    }
}

/// Whose daemon it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// The system's.
    Root,
    /// A user's.
    User,
}
