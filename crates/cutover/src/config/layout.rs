//! Where things lie: one value, made once from the environment at the edge, passed to every room.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// A place or an address that the daemon cannot use. Nothing was changed there.
#[derive(Debug, Error)]
pub enum Misplaced {
    /// Nothing says where a user's state belongs. A directory that everybody can guess and make first is no place for it.
    #[error(
        "neither XDG_STATE_HOME nor HOME is an absolute path, so there is no place for state; name one with --state"
    )]
    NoState,
    /// Nothing says where a user's configuration lies.
    #[error(
        "neither XDG_CONFIG_HOME nor HOME is an absolute path, so no configuration is found; name a file with --config"
    )]
    NoConfig,
    /// A directory of another account.
    #[error(
        "{path} belongs to uid {owner} and not to uid {own}, who runs the daemon; \
         type `chown {own} {path}` if nobody else needs it, or name another with --state and --runtime"
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Its owner's uid.
        owner: u32,
        /// The daemon's effective uid.
        own: u32,
    },
    /// A directory in which others could exchange what lies there.
    #[error("{path} has mode {mode:04o}, so others can exchange what lies in it; type `chmod go-w {path}`")]
    Writable {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A socket's path that does not fit into an address.
    #[error("{path} is too long for a socket; name a shorter directory with --runtime")]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// The state directory is another daemon's.
    #[error(
        "another daemon runs on {path}; `cutover status` asks it, or name another directory with --state"
    )]
    Taken {
        /// The state directory.
        path: PathBuf,
    },
    /// The HTTP API's address cannot be had.
    #[error(
        "listening on {address}; `ss -ltnp` tells who does, or name another address in [daemon] listen, or \"off\""
    )]
    Address {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Directories of one daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Journal, generations, snapshots, logs (0700).
    pub state: PathBuf,
    /// Sockets and intents (0700).
    pub runtime: PathBuf,
    /// What a person has to type behind `cutover` for a command to find these places, quoted for a shell; empty where they are
    /// the usual ones.
    pub flags: String,
}

impl Layout {
    /// These directories, which commands find without flags.
    #[must_use]
    pub fn at(state: PathBuf, runtime: PathBuf) -> Self {
        Self { state, runtime, flags: String::new() }
    }

    /// What a person types for `cutover WORDS` in these places.
    #[must_use]
    pub fn command(&self, words: &str) -> String {
        ["cutover", &self.flags, words]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// The default directories: XDG for a user, `/var/lib` and `/run` for root.
    ///
    /// # Errors
    /// [`Misplaced::NoState`].
    pub fn default_for(env: &dyn Fn(&str) -> Option<OsString>, account: Account) -> Result<Self, Misplaced> {
        match account {
            Account::Root => Ok(Self::at("/var/lib/cutover".into(), "/run/cutover".into())),
            Account::User => {
                let state = own(env, "XDG_STATE_HOME", ".local/state").ok_or(Misplaced::NoState)?;
                let state = state.join("cutover");
                let runtime = absolute(env, "XDG_RUNTIME_DIR")
                    .map_or_else(|| state.join("run"), |directory| directory.join("cutover"));
                Ok(Self::at(state, runtime))
            }
        }
    }

    /// The default configuration file.
    ///
    /// # Errors
    /// [`Misplaced::NoConfig`].
    pub fn config_file(
        env: &dyn Fn(&str) -> Option<OsString>,
        account: Account,
    ) -> Result<PathBuf, Misplaced> {
        match account {
            Account::Root => Ok("/etc/cutover/cutover.toml".into()),
            Account::User => {
                let directory = own(env, "XDG_CONFIG_HOME", ".config").ok_or(Misplaced::NoConfig)?;
                Ok(directory.join("cutover/cutover.toml"))
            }
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

    /// Where the daemon's Unix socket is made ready before anybody finds it, in a directory that only its owner enters.
    #[must_use]
    pub fn control_unopened(&self) -> PathBuf {
        self.runtime.join("new").join("control.sock")
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

/// What a variable names, if it is an absolute path: another one would lead somewhere else from every directory.
fn absolute(env: &dyn Fn(&str) -> Option<OsString>, name: &str) -> Option<PathBuf> {
    env(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

fn own(env: &dyn Fn(&str) -> Option<OsString>, name: &str, below_home: &str) -> Option<PathBuf> {
    absolute(env, name).or_else(|| absolute(env, "HOME").map(|home| home.join(below_home)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<OsString> {
        move |name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into())
    }

    #[test]
    fn without_a_home_nothing_is_guessed_and_the_flag_is_named() {
        for variables in [
            &[][..],
            &[("HOME", "")],
            &[("HOME", "relative"), ("XDG_STATE_HOME", "also"), ("XDG_CONFIG_HOME", "")],
        ] {
            let env = of(variables);
            let state = Layout::default_for(&env, Account::User).unwrap_err();
            assert!(state.to_string().contains("--state"), "{state}");
            let config = Layout::config_file(&env, Account::User).unwrap_err();
            assert!(config.to_string().contains("--config"), "{config}");
        }
    }

    #[test]
    fn a_user_s_directories_are_found_in_the_usual_places() {
        let home = Layout::default_for(&of(&[("HOME", "/home/ann")]), Account::User).unwrap();
        assert_eq!(home.state, Path::new("/home/ann/.local/state/cutover"));
        assert_eq!(home.runtime, Path::new("/home/ann/.local/state/cutover/run"));
        let env = of(&[("XDG_STATE_HOME", "/state"), ("XDG_RUNTIME_DIR", "/run/user/7")]);
        let xdg = Layout::default_for(&env, Account::User).unwrap();
        assert_eq!((xdg.state, xdg.runtime), ("/state/cutover".into(), "/run/user/7/cutover".into()));
        let root = Layout::default_for(&of(&[]), Account::Root).unwrap();
        assert_eq!(root.state, Path::new("/var/lib/cutover"));
    }
}
