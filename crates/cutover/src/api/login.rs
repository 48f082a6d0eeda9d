//! Who is logged in on the page. A one-time token, or the daemon's own, is exchanged for a session; a session is a cookie
//! and a key. Browsers send a cookie to every port of a host, so to whatever else listens there, and a script of the page
//! cannot read it; the key stays with the page's own origin. Neither opens anything without the other.
//!
//! All of it is in memory: with the daemon every session ends.

use sha2::{Digest, Sha256};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long a one-time token can be used.
pub(super) const TOKEN_LIFE: Duration = Duration::from_secs(120);
/// A session that was not used for so long is over.
const SESSION_LIFE: Duration = Duration::from_secs(12 * 3600);
/// Older ones are forgotten.
const TOKENS_MAX: usize = 16;
const SESSIONS_MAX: usize = 32;

/// What a secret is known by here.
type Mark = [u8; 32];

/// The daemon's own token, one-time tokens, and sessions.
pub struct Logins {
    own: Mark,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    tokens: Vec<(Mark, Instant)>,
    sessions: Vec<Session>,
}

struct Session {
    cookie: Mark,
    key: Mark,
    used: Instant,
    /// Gone with the session.
    lives: watch::Sender<()>,
}

/// A session that a request came with.
#[derive(Clone, Debug)]
pub(super) struct Lease(watch::Receiver<()>);

impl Lease {
    /// Waits until the session is over.
    pub(super) async fn over(mut self) {
        while self.0.changed().await.is_ok() {}
    }
}

/// What a browser gets for a token: each half is worth nothing alone.
pub(super) struct Granted {
    /// For the cookie.
    pub cookie: String,
    /// For the page.
    pub key: String,
}

impl Logins {
    /// Nobody is logged in. `token` is the daemon's own.
    #[must_use]
    pub fn new(token: &str) -> Self {
        Self { own: mark(token), book: Mutex::default() }
    }

    /// Whether this is the daemon's own token.
    pub(super) fn is_own(&self, token: &str) -> bool {
        same(&mark(token), &self.own)
    }

    /// A token that opens one session, soon.
    pub(super) fn issue(&self, now: Instant) -> String {
        let token = secret();
        let mut book = self.book(now);
        if book.tokens.len() == TOKENS_MAX {
            book.tokens.remove(0);
        }
        book.tokens.push((mark(&token), now));
        token
    }

    /// Opens a session for a token; a one-time token is used up by it.
    pub(super) fn exchange(&self, token: &str, now: Instant) -> Option<Granted> {
        let given = mark(token);
        let mut book = self.book(now);
        let issued = book.tokens.iter().position(|(issued, _)| same(issued, &given));
        match issued {
            Some(at) => drop(book.tokens.remove(at)),
            None if self.is_own(token) => {}
            None => return None,
        }
        let granted = Granted { cookie: secret(), key: secret() };
        if book.sessions.len() == SESSIONS_MAX {
            book.sessions.remove(0);
        }
        let (cookie, key) = (mark(&granted.cookie), mark(&granted.key));
        book.sessions.push(Session { cookie, key, used: now, lives: watch::channel(()).0 });
        Some(granted)
    }

    /// The session that both halves are of.
    pub(super) fn admits(&self, cookie: &str, key: &str, now: Instant) -> Option<Lease> {
        let (cookie, key) = (mark(cookie), mark(key));
        let mut book = self.book(now);
        let session = book.sessions.iter_mut().find(|session| same(&session.cookie, &cookie));
        let session = session.filter(|session| same(&session.key, &key))?;
        session.used = now;
        Some(Lease(session.lives.subscribe()))
    }

    /// Ends the session with this cookie.
    pub(super) fn revoke(&self, cookie: &str, now: Instant) {
        let cookie = mark(cookie);
        self.book(now).sessions.retain(|session| !same(&session.cookie, &cookie));
    }

    /// What has not run out.
    fn book(&self, now: Instant) -> MutexGuard<'_, Book> {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.tokens.retain(|(_, issued)| now.duration_since(*issued) < TOKEN_LIFE);
        book.sessions.retain(|session| now.duration_since(session.used) < SESSION_LIFE);
        book
    }
}

/// A secret that nobody guesses: 64 hexadecimal digits, 244 of their bits random.
pub(crate) fn secret() -> String {
    format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}

fn mark(secret: &str) -> Mark {
    Sha256::digest(secret).into()
}

/// Compares without telling by time how much matched.
fn same(a: &Mark, b: &Mark) -> bool {
    a.iter().zip(b).fold(0, |differs, (x, y)| differs | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_one_time_token_opens_once_and_soon() {
        let (logins, now) = (Logins::new("own"), Instant::now());
        let token = logins.issue(now);
        assert!(logins.exchange(&token, now + TOKEN_LIFE / 2).is_some());
        assert!(logins.exchange(&token, now + TOKEN_LIFE / 2).is_none(), "used");
        let late = logins.issue(now);
        assert!(logins.exchange(&late, now + TOKEN_LIFE).is_none(), "expired");
        assert!(logins.exchange("guess", now).is_none());
        assert!(logins.exchange("own", now).is_some() && logins.exchange("own", now).is_some());
    }

    #[tokio::test]
    async fn a_session_is_both_halves_until_it_is_revoked_or_forgotten() {
        let (logins, now) = (Logins::new("own"), Instant::now());
        let [one, two] = [(); 2].map(|()| logins.exchange("own", now).unwrap());
        let is_in = |cookie: &str, key: &str, now| logins.admits(cookie, key, now).is_some();
        assert!(is_in(&one.cookie, &one.key, now));
        assert!(!is_in(&one.cookie, "", now) && !is_in("", &one.key, now));
        assert!(!is_in(&one.cookie, &two.key, now), "halves of two sessions");
        let (later, late) = (now + SESSION_LIFE / 2, now + SESSION_LIFE);
        assert!(is_in(&one.cookie, &one.key, later));
        let lease = logins.admits(&one.cookie, &one.key, late).expect("it was used in between");
        assert!(!is_in(&two.cookie, &two.key, late), "it was not used");
        logins.revoke(&one.cookie, late);
        assert!(!is_in(&one.cookie, &one.key, late));
        // What was begun under a session ends with it.
        lease.over().await;
    }

    #[test]
    fn neither_tokens_nor_sessions_grow_without_end() {
        let (logins, now) = (Logins::new("own"), Instant::now());
        let first = logins.issue(now);
        (0..TOKENS_MAX).for_each(|_| drop(logins.issue(now)));
        assert!(logins.exchange(&first, now).is_none());
        let first = logins.exchange("own", now).unwrap();
        (0..SESSIONS_MAX).for_each(|_| drop(logins.exchange("own", now)));
        assert!(logins.admits(&first.cookie, &first.key, now).is_none());
    }
}
