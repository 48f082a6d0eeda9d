//! As whom a service runs.
//!
//! Knows `/etc/passwd` and `/etc/group`. Must not know which service asks.

use super::error::Error;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A user with all groups, as a process takes it on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids, the primary among them.
    pub groups: Vec<u32>,
    /// Login name, where there is an entry.
    pub name: Option<String>,
    /// Home directory, where there is an entry.
    pub home: Option<PathBuf>,
}

impl Identity {
    /// Finds out as whom a service is to run; `None` where that is what the daemon is already. Names are looked up in
    /// `/etc/passwd` and `/etc/group`; numbers need no entry there.
    ///
    /// # Errors
    /// [`Error::UnknownUser`], [`Error::UnknownGroup`], [`Error::GroupMissing`], [`Error::Read`]; and
    /// [`Error::NotRoot`] if the daemon may not start anything as somebody else.
    pub fn resolve(user: Option<&str>, group: Option<&str>) -> Result<Option<Self>, Error> {
        if user.is_none() && group.is_none() {
            return Ok(None);
        }
        let own = Own { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
        let found = Accounts::read()?.find(user, group, own)?;
        if own.uid == 0 {
            return Ok(Some(found));
        }
        if (found.uid, found.gid) == (own.uid, own.gid) {
            return Ok(None);
        }
        Err(Error::NotRoot { uid: found.uid, gid: found.gid, own: own.uid })
    }
}

#[derive(Clone, Copy)]
struct Own {
    uid: u32,
    gid: u32,
}

struct User {
    name: String,
    uid: u32,
    gid: u32,
    home: PathBuf,
}

struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

struct Accounts {
    users: Vec<User>,
    groups: Vec<Group>,
}

impl Accounts {
    fn read() -> Result<Self, Error> {
        let read = |path: &str| {
            let text =
                std::fs::read(path).map_err(|source| Error::Read { path: Path::new(path).into(), source })?;
            Ok(String::from_utf8_lossy(&text).into_owned())
        };
        Ok(Self::parse(&read("/etc/passwd")?, &read("/etc/group")?))
    }

    /// Lines that are no entries (comments, `+` of NIS) are passed over.
    fn parse(passwd: &str, group: &str) -> Self {
        let users = passwd.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, uid, gid, _, home, ..] = fields[..] else { return None };
            Some(User {
                name: name.into(),
                uid: uid.parse().ok()?,
                gid: gid.parse().ok()?,
                home: home.into(),
            })
        });
        let groups = group.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, gid, members, ..] = fields[..] else { return None };
            let members = members.split(',').filter(|member| !member.is_empty()).map(Into::into).collect();
            Some(Group { name: name.into(), gid: gid.parse().ok()?, members })
        });
        Self { users: users.collect(), groups: groups.collect() }
    }

    fn find(&self, user: Option<&str>, group: Option<&str>, own: Own) -> Result<Identity, Error> {
        let gid = group.map(|group| self.gid(group)).transpose()?;
        let Some(user) = user else {
            let gid = gid.unwrap_or(own.gid);
            return Ok(Identity { uid: own.uid, gid, groups: vec![gid], name: None, home: None });
        };
        let entry = self.user(user);
        let Some(entry) = entry else {
            let uid = user.parse().map_err(|_| Error::UnknownUser { name: user.into() })?;
            let gid = gid.ok_or(Error::GroupMissing { uid })?;
            return Ok(Identity { uid, gid, groups: vec![gid], name: None, home: None });
        };
        let gid = gid.unwrap_or(entry.gid);
        let of_user =
            self.groups.iter().filter(|group| group.members.contains(&entry.name)).map(|group| group.gid);
        let mut groups: Vec<u32> = std::iter::once(gid).chain(of_user).collect();
        groups.sort_unstable();
        groups.dedup();
        Ok(Identity {
            uid: entry.uid,
            gid,
            groups,
            name: Some(entry.name.clone()),
            home: Some(entry.home.clone()),
        })
    }

    /// A name wins over a number, because a user may be named by digits.
    fn user(&self, user: &str) -> Option<&User> {
        let by_name = self.users.iter().find(|entry| entry.name == user);
        let uid = || user.parse().ok();
        by_name.or_else(|| uid().and_then(|uid: u32| self.users.iter().find(|entry| entry.uid == uid)))
    }

    fn gid(&self, group: &str) -> Result<u32, Error> {
        match self.groups.iter().find(|entry| entry.name == group) {
            Some(entry) => Ok(entry.gid),
            None => group.parse().map_err(|_| Error::UnknownGroup { name: group.into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# remark\n+::::::\nweb:x:33:34:Web:/srv/web:/bin/false\n\
                          1000:x:7:7::/seven:/bin/sh\nplain:x:1000:1000::/home/plain:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nlogs:x:4:web,plain\nssl:x:5:plain,web\nempty:x:6:\n";
    const OWN: Own = Own { uid: 0, gid: 0 };

    fn find(user: Option<&str>, group: Option<&str>) -> Result<Identity, Error> {
        Accounts::parse(PASSWD, GROUP).find(user, group, OWN)
    }

    #[test]
    fn a_user_brings_its_primary_and_its_supplementary_groups() {
        let web = find(Some("web"), None).unwrap();
        assert_eq!((web.uid, web.gid, web.groups), (33, 34, vec![4, 5, 34]));
        assert_eq!(web.home, Some("/srv/web".into()));
    }

    #[test]
    fn a_group_beside_the_user_replaces_the_primary_one() {
        let web = find(Some("web"), Some("empty")).unwrap();
        assert_eq!((web.uid, web.gid, web.groups), (33, 6, vec![4, 5, 6]));
    }

    #[test]
    fn numbers_find_entries_and_need_none() {
        assert_eq!(find(Some("33"), None).unwrap().name.as_deref(), Some("web"));
        assert_eq!(find(Some("1000"), None).unwrap().uid, 7, "a user named by digits is a name first");
        let bare = find(Some("4242"), Some("4343")).unwrap();
        assert_eq!((bare.uid, bare.gid, bare.groups, bare.home), (4242, 4343, vec![4343], None));
        assert!(matches!(find(Some("4242"), None), Err(Error::GroupMissing { uid: 4242 })));
    }

    #[test]
    fn nobody_unknown_is_guessed() {
        assert!(matches!(find(Some("nosuch"), None), Err(Error::UnknownUser { .. })));
        assert!(matches!(find(Some("web"), Some("nosuch")), Err(Error::UnknownGroup { .. })));
        assert!(matches!(find(Some("-1"), Some("0")), Err(Error::UnknownUser { .. })));
    }

    #[test]
    fn somebody_else_needs_root_and_oneself_needs_nothing() {
        let own = rustix::process::geteuid().as_raw();
        assert_eq!(Identity::resolve(None, None).unwrap(), None);
        match Identity::resolve(Some("4242"), Some("4242")) {
            Ok(Some(identity)) => assert_eq!((own, identity.uid), (0, 4242)),
            Err(Error::NotRoot { uid: 4242, gid: 4242, own: told }) => assert_eq!(told, own),
            other => panic!("{other:?}"),
        }
    }
}
