//! Servers under measurement: started on a core of their own, ended with their guard, and asked by way of `/proc` for
//! their CPU time and memory. Linux only.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::load::Target;

/// The cores this process may run on.
pub fn cores() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|&core| set.is_set(core))
        .collect())
}

/// Keeps the calling thread, and what it starts from now on, on one core.
pub fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).with_context(|| format!("cannot run on core {core}"))
}

/// Puts the calling thread, and what it starts from now on, before all that runs at ordinary priority, and says whether
/// that may be done: only root may. For what sleeps most of the time.
pub fn take_precedence() -> bool {
    Command::new("chrt")
        .args(["--rr", "--pid", "1", &std::process::id().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// A port of 127.0.0.1 that was free a moment ago.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A server process. Dropping it ends it: SIGTERM, and SIGKILL when that is not heeded within three seconds.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: fs::File,
}

impl Process {
    /// Starts `command` on `core`, and comes back to `home`. Its output goes to a file that is shown when it fails.
    /// It is told to end should this process die without ending it.
    pub fn spawn(name: &str, command: &[String], core: usize, home: usize) -> Result<Self> {
        let log = tempfile::tempfile()?;
        // Affinity is inherited from the thread that starts the process, so that all its threads have it from the
        // first, and runtimes that ask how many cores there are hear of one.
        pin(core)?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--"])
            .args(command)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .spawn();
        pin(home)?;
        let child = child.with_context(|| format!("{name}: cannot start setpriv (util-linux)"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// Waits until a connection to `target` is accepted.
    pub fn wait_for(&mut self, target: &Target) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let connected = match target {
                Target::Tcp(address) => std::net::TcpStream::connect(address).map(drop),
                Target::Unix(path) => std::os::unix::net::UnixStream::connect(path).map(drop),
            };
            let Err(error) = connected else { return Ok(()) };
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}: {}", self.name, self.output());
            }
            if Instant::now() > deadline {
                bail!(
                    "{} does not listen on {target}: {error}: {}",
                    self.name,
                    self.output()
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The process id (that of the server itself: `setpriv` has become it).
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails, with its output, when the process has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} ended with {status}: {}", self.name, self.output()),
            None => Ok(()),
        }
    }

    /// What it has printed, the last 2,000 bytes of it.
    pub fn output(&self) -> String {
        // Read in place: the file's position is shared with the process that writes to it.
        let length = self.log.metadata().map_or(0, |metadata| metadata.len());
        let start = length.saturating_sub(2000);
        let mut text = vec![0; usize::try_from(length - start).unwrap_or(0)];
        match self.log.read_exact_at(&mut text, start) {
            Ok(()) if text.is_empty() => "it printed nothing".to_owned(),
            Ok(()) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) => format!("its output cannot be read: {error}"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid.filter(|_| matches!(self.child.try_wait(), Ok(None))) {
            let _ = kill_process(pid, Signal::TERM);
            let deadline = Instant::now() + Duration::from_secs(3);
            while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU time that a process has used so far: user and system, all its threads. Counted in ticks of 10 ms.
pub fn cpu(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("process {pid} has ended"))?;
    // The name, in parentheses, may hold spaces; utime and stime are fields 14 and 15 of all, so 12 and 13 after it.
    let fields = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_ascii_whitespace())
        .context("a strange /proc/PID/stat")?;
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().unwrap_or(0))
        .sum();
    Ok(Duration::from_secs_f64(
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
    ))
}

/// Memory of a process that is in RAM now, in bytes.
pub fn resident(pid: u32) -> Result<u64> {
    status(pid, "VmRSS:")
}

/// The most memory of a process that was in RAM since it began, or since [`reset_peak`], in bytes.
pub fn peak(pid: u32) -> Result<u64> {
    status(pid, "VmHWM:")
}

/// Has [`peak`] begin anew.
pub fn reset_peak(pid: u32) -> Result<()> {
    let path = format!("/proc/{pid}/clear_refs");
    fs::write(&path, "5").with_context(|| format!("cannot write {path}"))
}

fn status(pid: u32, field: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid} has ended"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .with_context(|| format!("no {field}"))?;
    let kib: u64 = line
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .with_context(|| format!("a strange {field}"))?;
    Ok(kib * 1024)
}

/// The children of a process, such as nginx's workers.
pub fn children(pid: u32) -> Result<Vec<u32>> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    Ok(text
        .split_ascii_whitespace()
        .filter_map(|child| child.parse().ok())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_figures_are_plausible() {
        let before = cpu(std::process::id()).unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        let mut sum = 0_u64;
        while cpu(std::process::id()).unwrap() < before + Duration::from_millis(30) {
            sum = std::hint::black_box(sum.wrapping_add(1));
            assert!(
                Instant::now() < end,
                "10 s of work counted as less than 30 ms"
            );
        }
        assert!(resident(std::process::id()).unwrap() > 100_000);
        reset_peak(std::process::id()).unwrap();
        assert!(peak(std::process::id()).unwrap() > 100_000);
    }

    #[test]
    fn a_process_ends_with_its_guard() {
        let core = cores().unwrap()[0];
        let mut process =
            Process::spawn("sleep", &["sleep".into(), "60".into()], core, core).unwrap();
        let pid = process.pid();
        process.check().unwrap();
        assert!(children(std::process::id()).is_ok());
        drop(process);
        assert!(cpu(pid).is_err());
    }

    #[test]
    fn a_process_that_ends_early_shows_its_output() {
        let core = cores().unwrap()[0];
        let mut process = Process::spawn(
            "sh",
            &["sh".into(), "-c".into(), "echo no luck; exit 3".into()],
            core,
            core,
        )
        .unwrap();
        let port = free_port().unwrap();
        let error = process
            .wait_for(&format!("127.0.0.1:{port}").parse().unwrap())
            .unwrap_err()
            .to_string();
        assert!(error.contains("no luck"), "{error}");
    }
}
