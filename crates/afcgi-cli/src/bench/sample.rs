//! CPU time and memory of the application, by way of `/proc`. Linux only.

use std::fs;
use std::io;
use std::time::Duration;

/// Processes that are looked at.
const MOST: usize = 4096;

/// The process that is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) pid: u32,
    pub(super) children: bool,
}

/// What it uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    /// CPU time so far, of all threads, and of children that have ended. Counted in ticks of 10 ms.
    pub(super) cpu: Duration,
    /// Memory that is in RAM, in bytes. What processes share counts for each.
    pub(super) memory: u64,
    /// Processes.
    pub(super) processes: usize,
}

impl Target {
    /// Its name.
    pub(super) fn name(self) -> io::Result<String> {
        let name = fs::read(format!("/proc/{}/comm", self.pid))?;
        Ok(crate::wire::escaped(name.trim_ascii_end()))
    }

    /// Looks at it. A child that ends meanwhile is left out.
    pub(super) fn sample(self) -> io::Result<Sample> {
        let mut sum = one(self.pid)?;
        let mut parents = vec![self.pid];
        while let Some(parent) = parents.pop().filter(|_| self.children) {
            for child in children(parent) {
                if let Ok(sample) = one(child) {
                    sum.cpu += sample.cpu;
                    sum.memory += sample.memory;
                    sum.processes += 1;
                    parents.push(child);
                }
                if sum.processes >= MOST {
                    return Ok(sum);
                }
            }
        }
        Ok(sum)
    }
}

fn children(pid: u32) -> Vec<u32> {
    // Each thread has its own.
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    let texts = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    texts
        .flat_map(|text| {
            let pids = text.split_ascii_whitespace();
            pids.filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()
        })
        .collect()
}

fn one(pid: u32) -> io::Result<Sample> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let ticks = ticks(&stat) as f64 / rustix::param::clock_ticks_per_second() as f64;
    Ok(Sample {
        cpu: Duration::from_secs_f64(ticks),
        memory: kib(&status, "VmRSS:") * 1024,
        processes: 1,
    })
}

/// User and system time, of the process and of its children that have ended.
fn ticks(stat: &str) -> u64 {
    // The name, in parentheses, may hold spaces; utime is field 14 of all, so 12 after it.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields = rest.split_ascii_whitespace().skip(11).take(4);
    fields.map(|field| field.parse().unwrap_or(0)).sum()
}

fn kib(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_ascii_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn files_of_proc() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 11 22 33 44 20 0 1 0 5 6 7";
        assert_eq!((ticks(stat), ticks("")), (110, 0));
        assert_eq!(kib("Name:\tx\nVmRSS:\t   123 kB\n", "VmRSS:"), 123);
        assert_eq!(kib("", "VmRSS:"), 0);
    }

    #[test]
    fn processes() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep");
        let pid = std::process::id();
        let of = |children| Target { pid, children };
        let alone = of(false).sample().expect("this process");
        assert!(alone.processes == 1 && alone.memory > 100_000);
        assert!(of(true).sample().expect("its children").processes >= 2);
        child.kill().expect("its end");
        child.wait().expect("its end");
        let gone = Target {
            pid: child.id(),
            children: false,
        };
        assert!(gone.sample().is_err());
    }
}
