//! The last steps before a worker is what it is to be, in a process of its own: limits, groups, user, the parent's death.
//!
//! `afcgi spawn` starts its own program, which does this and then becomes the other: between a fork and the program that follows it
//! only unsafe code could do it.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use nix::unistd::{setgroups, setresgid, setresuid};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, getppid, getrlimit, set_parent_process_death_signal, setrlimit,
};

/// The exit status for a program that is there and cannot be run, as of a shell.
pub(super) const CANNOT_RUN: u8 = 126;
/// That for a program that is not there.
pub(super) const NOT_FOUND: u8 = 127;

/// Becomes a worker. For `afcgi spawn` alone.
#[derive(Clone, Debug, clap::Args)]
#[command(hide = true)]
pub struct Exec {
    /// Who started this.
    #[arg(long)]
    parent: i32,
    /// Open files, the soft limit.
    #[arg(long)]
    nofile: Option<u64>,
    /// And the hard one.
    #[arg(long)]
    nofile_max: Option<u64>,
    #[arg(long, value_delimiter = ',')]
    groups: Vec<u32>,
    #[arg(long)]
    gid: Option<u32>,
    #[arg(long)]
    uid: Option<u32>,
    #[arg(last = true, required = true)]
    program: Vec<OsString>,
}

impl Exec {
    /// Becomes the program. Returns if that cannot be.
    pub fn run(self) -> ExitCode {
        let Some((program, arguments)) = self.program.split_first() else {
            return ExitCode::from(CANNOT_RUN);
        };
        if let Err(error) = self.prepare() {
            _ = writeln!(io::stderr(), "afcgi spawn: {error}");
            return ExitCode::from(CANNOT_RUN);
        }
        let error = Command::new(program).args(arguments).exec();
        _ = writeln!(
            io::stderr(),
            "afcgi spawn: cannot run {}: {error}",
            program.display()
        );
        ExitCode::from(match error.kind() {
            io::ErrorKind::NotFound => NOT_FOUND,
            _ => CANNOT_RUN,
        })
    }

    fn prepare(&self) -> Result<(), String> {
        let no = |what: &str, error: io::Error| format!("cannot {what}: {error}");
        // What takes root comes first.
        if self.nofile.is_some() || self.nofile_max.is_some() {
            let now = getrlimit(Resource::Nofile);
            let limit = Rlimit {
                current: self.nofile.or(now.current),
                maximum: self.nofile_max.or(now.maximum),
            };
            setrlimit(Resource::Nofile, limit)
                .map_err(|error| no("set the limit of open files", error.into()))?;
        }
        if !self.groups.is_empty() {
            let groups: Vec<_> = self.groups.iter().map(|gid| (*gid).into()).collect();
            setgroups(&groups).map_err(|error| no("set the groups", error.into()))?;
        }
        if let Some(gid) = self.gid {
            let gid = gid.into();
            setresgid(gid, gid, gid).map_err(|error| no("set the group", error.into()))?;
        }
        if let Some(uid) = self.uid {
            let uid = uid.into();
            setresuid(uid, uid, uid).map_err(|error| no("set the user", error.into()))?;
        }
        // A change of user would undo it.
        set_parent_process_death_signal(Some(Signal::TERM))
            .map_err(|error| no("follow the process manager", error.into()))?;
        if getppid().map(Pid::as_raw_pid) != Some(self.parent) {
            return Err("the process manager is gone".to_owned());
        }
        Ok(())
    }
}
