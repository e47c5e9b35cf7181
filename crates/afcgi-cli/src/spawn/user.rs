//! Whom workers run as, and who owns their sockets: users and groups, by name or number.

use std::ffi::CString;
use std::str::FromStr;

use nix::unistd;

/// A user of this system, or a number that may have no entry.
#[derive(Clone, Debug)]
pub(super) struct User {
    pub(super) uid: u32,
    entry: Option<unistd::User>,
}

/// A group of this system, or a number that may have no entry.
#[derive(Clone, Debug)]
pub(super) struct Group(pub(super) u32);

/// The owner of a file: what is not given stays as it is.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

/// Whom a program is to run as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// `None`: as this process.
    pub(super) uid: Option<u32>,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    /// HOME, USER and LOGNAME, where the user has them.
    pub(super) variables: Vec<(&'static str, std::ffi::OsString)>,
}

impl FromStr for User {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let entry = match text.parse::<u32>() {
            Ok(uid) => {
                let entry = unistd::User::from_uid(uid.into()).ok().flatten();
                return Ok(Self { uid, entry });
            }
            Err(_) => unistd::User::from_name(text),
        };
        match entry {
            Ok(Some(entry)) => Ok(Self {
                uid: entry.uid.as_raw(),
                entry: Some(entry),
            }),
            Ok(None) => Err("there is no such user".to_owned()),
            Err(error) => Err(format!("the users cannot be looked up: {}", error.desc())),
        }
    }
}

impl FromStr for Group {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(gid) = text.parse() {
            return Ok(Self(gid));
        }
        match unistd::Group::from_name(text) {
            Ok(Some(entry)) => Ok(Self(entry.gid.as_raw())),
            Ok(None) => Err("there is no such group".to_owned()),
            Err(error) => Err(format!("the groups cannot be looked up: {}", error.desc())),
        }
    }
}

impl FromStr for Owner {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let gid = group.map(str::parse::<Group>).transpose()?;
        let uid = match (user, &gid) {
            ("", Some(_)) => None,
            _ => Some(user.parse::<User>()?.uid),
        };
        Ok(Self {
            uid,
            gid: gid.map(|group| group.0),
        })
    }
}

impl Identity {
    /// What `--user` and `--group` ask for; `None` if they ask for nothing.
    pub(super) fn new(user: Option<&User>, group: Option<&Group>) -> Result<Option<Self>, String> {
        let Some(user) = user else {
            return Ok(group.map(|group| Self {
                uid: None,
                gid: group.0,
                groups: vec![group.0],
                variables: Vec::new(),
            }));
        };
        let own = user.entry.as_ref().map(|entry| entry.gid.as_raw());
        // Without one it would keep that of root.
        let gid = group.map(|group| group.0).or(own);
        let gid = gid.ok_or("the user has no entry in /etc/passwd: name a group, with --group")?;
        let mut identity = Self {
            uid: Some(user.uid),
            gid,
            groups: vec![gid],
            variables: Vec::new(),
        };
        if let Some(entry) = &user.entry {
            let name = CString::new(entry.name.as_str()).map_err(|error| error.to_string())?;
            let groups = unistd::getgrouplist(&name, gid.into())
                .map_err(|error| format!("the groups cannot be looked up: {}", error.desc()))?;
            identity.groups = groups.into_iter().map(unistd::Gid::as_raw).collect();
            identity.variables = vec![
                ("HOME", entry.dir.clone().into()),
                ("USER", entry.name.clone().into()),
                ("LOGNAME", entry.name.clone().into()),
            ];
        }
        Ok(Some(identity))
    }

    /// Why this process may not run others as that, if it may not.
    pub(super) fn refused(&self) -> Option<&'static str> {
        let (uid, gid) = (unistd::geteuid(), unistd::getegid());
        let same = self.uid.is_none_or(|wanted| wanted == uid.as_raw()) && self.gid == gid.as_raw();
        (!uid.is_root() && !same).then_some("only root can run workers as another user or group")
    }

    /// Whether that is what this process is.
    pub(super) fn is_own(&self) -> bool {
        !unistd::geteuid().is_root()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        assert_eq!("root".parse::<User>().unwrap().uid, 0);
        assert_eq!("4000123".parse::<User>().unwrap().uid, 4_000_123);
        assert!("no-such-user".parse::<User>().is_err());
        assert!("".parse::<Owner>().is_err());
        for (text, uid, gid) in [
            ("root", Some(0), None),
            ("root:root", Some(0), Some(0)),
            (":7", None, Some(7)),
            ("5:7", Some(5), Some(7)),
        ] {
            let owner: Owner = text.parse().unwrap();
            assert_eq!((owner.uid, owner.gid), (uid, gid), "{text}");
        }
        for text in ["root:", ":", "root:no-such-group"] {
            assert!(text.parse::<Owner>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_user_is_never_left_with_the_group_of_root() {
        let stranger: User = "4000123".parse().unwrap();
        assert!(Identity::new(Some(&stranger), None).is_err());
        let identity = Identity::new(Some(&stranger), Some(&Group(9))).unwrap();
        assert_eq!(identity.unwrap().groups, [9]);
        let nobody: User = "nobody".parse().unwrap();
        let identity = Identity::new(Some(&nobody), None).unwrap().unwrap();
        assert!(!identity.groups.contains(&0), "{identity:?}");
        assert_eq!(identity.variables[1].1, "nobody");
        assert_eq!(Identity::new(None, None), Ok(None));
    }
}
