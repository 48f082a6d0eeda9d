//! The daemon's doors: the Unix socket, the HTTP API's address and its token. They are bound before anything begins, so that
//! a daemon that cannot be reached touches no service, and opened when there is somebody to answer: until then callers wait.

use crate::api::{self, Entrance, Logins, Registry};
use crate::conductor;
use crate::config::{self, DaemonSettings, Layout, Misplaced};
use anyhow::Context;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;

/// A shorter token is what a crash or a foreign hand left (characters).
const TOKEN_MIN: usize = 32;

/// Doors that are bound and not answered yet.
pub(super) struct Doors {
    control: UnixListener,
    public: Option<Public>,
}

struct Public {
    listener: TcpListener,
    token: String,
    hosts: Vec<String>,
}

impl Doors {
    /// Binds everything. Whoever calls holds the lock of the state directory: what lies at the socket's path is a dead
    /// daemon's.
    pub(super) async fn bind(layout: &Layout, settings: DaemonSettings) -> anyhow::Result<Self> {
        let public = match settings.listen {
            Some(address) => {
                let listener = TcpListener::bind(address)
                    .await
                    .map_err(|source| config::Error::from(Misplaced::Address { address, source }))?;
                Some(Public { listener, token: token(&layout.token())?, hosts: settings.hosts })
            }
            None => None,
        };
        Ok(Self { control: control(layout)?, public })
    }

    /// Where the HTTP API listens.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.public.as_ref().and_then(|public| public.listener.local_addr().ok())
    }

    /// Answers whoever waits and whoever comes, until the tasks are ended.
    pub(super) fn open(self, registry: &Arc<Registry>) -> Vec<JoinHandle<()>> {
        let logins = |public: &Public| Arc::new(Logins::new(&public.token));
        let entrance = self.public.as_ref().zip(self.address());
        let entrance = entrance.map(|(public, address)| Entrance { address, logins: logins(public) });
        let (control, local) = (self.control, api::local(Arc::clone(registry), entrance.clone()));
        let mut doors = vec![tokio::spawn(async move {
            if let Err(error) = axum::serve(control, local).await {
                tracing::error!(%error, "the control socket ended");
            }
        })];
        if let Some((Public { listener, hosts, .. }, Entrance { logins, .. })) = self.public.zip(entrance) {
            let routes = api::public(Arc::clone(registry), logins, hosts);
            doors.push(tokio::spawn(async move {
                if let Err(error) = axum::serve(listener, routes).await {
                    tracing::error!(%error, "the HTTP API ended");
                }
            }));
        }
        doors
    }
}

/// Binds the control socket where nobody else gets to, and lets it be found when it is its owner's alone.
fn control(layout: &Layout) -> anyhow::Result<UnixListener> {
    let (path, new) = (layout.control(), layout.control_unopened());
    let directory = new.parent().expect("the socket has a directory of its own");
    conductor::private_directory(directory)?;
    let _ = std::fs::remove_file(&new);
    let listener = UnixListener::bind(&new).with_context(|| format!("listening on {}", new.display()))?;
    std::fs::set_permissions(&new, Permissions::from_mode(0o600))
        .with_context(|| format!("protecting {}", new.display()))?;
    std::fs::rename(&new, &path).with_context(|| format!("listening on {}", path.display()))?;
    Ok(listener)
}

/// The API's token, made once.
fn token(path: &Path) -> anyhow::Result<String> {
    if let Some(token) = kept(path)? {
        return Ok(token);
    }
    let token = api::secret();
    written(path, &token).with_context(|| format!("writing {}", path.display()))?;
    Ok(token)
}

/// The token on disk, if it is one.
fn kept(path: &Path) -> anyhow::Result<Option<String>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let token = text.trim();
    if token.len() < TOKEN_MIN {
        tracing::warn!(path = %path.display(), "too short for a token; another one is made");
        return Ok(None);
    }
    let mode = std::fs::metadata(path).map(|found| found.permissions().mode() & 0o777);
    if mode.with_context(|| format!("looking at {}", path.display()))? & 0o077 != 0 {
        std::fs::set_permissions(path, Permissions::from_mode(0o600))
            .with_context(|| format!("protecting {}", path.display()))?;
        tracing::warn!(
            path = %path.display(),
            "others could read the token, and cannot any more; remove the file and start again for another one"
        );
    }
    Ok(Some(token.to_owned()))
}

/// Whole and durable, or not there.
fn written(path: &Path, token: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&new)?;
    file.write_all(token.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_token_that_a_crash_left_empty_or_short_is_made_anew() {
        let ground = tempfile::tempdir().unwrap();
        let path = ground.path().join("token");
        for left in ["", "\n", "0123456789abcdef0123456789abcde"] {
            std::fs::write(&path, left).unwrap();
            std::fs::write(path.with_extension("new"), "half").unwrap();
            let made = token(&path).unwrap();
            assert_eq!((made.len(), mode(&path)), (64, 0o600));
            assert_eq!(token(&path).unwrap(), made, "made once");
        }
    }

    #[test]
    fn a_token_that_others_could_read_is_theirs_no_longer() {
        let ground = tempfile::tempdir().unwrap();
        let path = ground.path().join("token");
        let made = token(&path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(token(&path).unwrap(), made);
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn a_token_that_cannot_be_read_is_not_taken_for_a_missing_one() {
        let ground = tempfile::tempdir().unwrap();
        let path = ground.path().join("token");
        std::fs::create_dir(&path).unwrap();
        assert!(token(&path).is_err());
    }

    #[tokio::test]
    async fn the_control_socket_takes_a_dead_daemon_s_place_and_is_found_only_when_it_is_private() {
        let ground = tempfile::tempdir().unwrap();
        let layout = Layout::at(ground.path().into(), ground.path().into());
        drop(std::os::unix::net::UnixListener::bind(layout.control()).unwrap());
        // Others may pass through the runtime directory, so the socket may not be born in it.
        conductor::passage(&layout.runtime).unwrap();
        let listener = control(&layout).unwrap();
        assert_eq!(mode(&layout.control()), 0o600);
        assert_eq!(mode(layout.control_unopened().parent().unwrap()), 0o700);
        assert!(!layout.control_unopened().exists());
        let (asked, answered) =
            tokio::join!(tokio::net::UnixStream::connect(layout.control()), listener.accept());
        assert!(asked.is_ok() && answered.is_ok());
    }
}
