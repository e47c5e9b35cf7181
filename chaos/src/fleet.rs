//! The applications: who they are, where they listen, and how they are started, killed, stopped and started again.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::fs::read_dir;
use std::path::{Path, PathBuf};
use std::process::Command;

use afcgi_interop::app::{afcgitest, compiled};
use afcgi_interop::php;
use afcgi_interop::process::{Process, Signal};
use afcgi_interop::wait::{SOON, eventually};
use tokio::net::UnixStream;

/// A kind of application.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// axum on the library of this project, with flow control.
    Own,
    /// The same without flow control.
    Plain,
    /// `afcgitest`, which gives bodies back.
    Afcgitest,
    /// Go's net/http/fcgi.
    Go,
    /// Pools of PHP-FPM: ondemand, static, with `pm.max_requests`.
    Php,
    /// The C libfcgi, with four threads for each address.
    Libfcgi,
    /// One that behaves badly when it is asked to.
    Bad,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Own,
        Self::Plain,
        Self::Afcgitest,
        Self::Go,
        Self::Php,
        Self::Libfcgi,
        Self::Bad,
    ];

    /// The name that its applications begin with.
    pub fn name(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Plain => "plain",
            Self::Afcgitest => "afcgitest",
            Self::Go => "go",
            Self::Php => "php",
            Self::Libfcgi => "libfcgi",
            Self::Bad => "bad",
        }
    }

    /// Whether it takes several requests at a time on a connection.
    pub fn multiplexes(self) -> bool {
        !matches!(self, Self::Php | Self::Libfcgi)
    }

    /// How many processes there are of it, and how many addresses each has.
    fn size(self) -> (usize, usize) {
        match self {
            Self::Own => (4, 60),
            Self::Plain => (2, 60),
            Self::Afcgitest => (4, 1),
            Self::Go => (2, 40),
            Self::Php => (1, 24),
            Self::Libfcgi => (1, 16),
            Self::Bad => (2, 8),
        }
    }

    /// How often an address of it is asked, beside the others.
    pub fn weight(self) -> u32 {
        match self {
            Self::Php | Self::Libfcgi => 1,
            Self::Afcgitest => 8,
            Self::Own | Self::Plain | Self::Go | Self::Bad => 4,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An application: an address, and what answers there.
#[derive(Clone, Debug)]
pub struct App {
    /// What it says that it is; the first part of its paths.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// The process that it is in, as an index.
    pub group: usize,
    /// Where it listens.
    pub socket: PathBuf,
}

/// A process with its applications.
#[derive(Debug)]
pub struct Group {
    /// What they are.
    pub kind: Kind,
    name: String,
    command: Command,
    log: PathBuf,
    sockets: Vec<PathBuf>,
    process: RefCell<Option<Process>>,
    /// Sockets that it has when nothing goes on.
    at_rest: Cell<usize>,
}

/// All applications.
#[derive(Debug)]
pub struct Fleet {
    /// By address.
    pub apps: Vec<App>,
    /// By process.
    pub groups: Vec<Group>,
    folder: PathBuf,
}

impl Fleet {
    /// Starts applications of these kinds, with all that they need in a folder. `program` is `chaos`.
    pub async fn start(folder: &Path, program: &Path, kinds: &[Kind]) -> Self {
        let mut fleet = Self {
            apps: Vec::new(),
            groups: Vec::new(),
            folder: folder.to_owned(),
        };
        for kind in Kind::ALL.into_iter().filter(|kind| kinds.contains(kind)) {
            let (processes, addresses) = kind.size();
            for _ in 0..processes {
                fleet.add(kind, addresses, program);
            }
        }
        for group in &fleet.groups {
            group.start().await;
        }
        fleet.settle().await;
        fleet
    }

    /// Takes note of the sockets that each has at rest, when those have not changed for a while: one that listens has not begun with
    /// everything, such as what tells it of signals.
    async fn settle(&self) {
        let (mut last, mut times) = (Vec::new(), 0);
        while times < 20 {
            let now: Vec<_> = self.groups.iter().map(Group::count_sockets).collect();
            times = if now == last { times + 1 } else { 0 };
            last = now;
            tokio::time::sleep(std::time::Duration::from_millis(25)).await;
        }
        for (group, count) in self.groups.iter().zip(last) {
            group.at_rest.set(count);
        }
    }

    /// The folder of PHP scripts, one below it for each pool.
    pub fn scripts(&self) -> PathBuf {
        self.folder.join("www")
    }

    fn add(&mut self, kind: Kind, addresses: usize, program: &Path) {
        let group = self.groups.len();
        let first = self.apps.iter().filter(|app| app.kind == kind).count();
        let apps: Vec<App> = (first..first + addresses)
            .map(|number| App {
                name: format!("{kind}-{number:03}"),
                kind,
                group,
                socket: self.folder.join(format!("{kind}-{number:03}.sock")),
            })
            .collect();
        let mut command = self.command(kind, program, &apps);
        command
            .env_remove("FCGI_WEB_SERVER_ADDRS")
            .env_remove("LISTEN_FDS");
        self.groups.push(Group {
            kind,
            name: format!("{kind} {group}"),
            command,
            log: self.folder.join(format!("{kind}-{group}.log")),
            sockets: apps.iter().map(|app| app.socket.clone()).collect(),
            process: RefCell::new(None),
            at_rest: Cell::new(0),
        });
        self.apps.extend(apps);
    }

    fn command(&self, kind: Kind, program: &Path, apps: &[App]) -> Command {
        let named = apps
            .iter()
            .map(|app| format!("{}={}", app.name, app.socket.display()));
        let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
        let mut command = match kind {
            Kind::Own | Kind::Plain | Kind::Bad => Command::new(program),
            Kind::Afcgitest => {
                let mut command = Command::new(afcgitest());
                command.arg(&apps[0].socket);
                return command;
            }
            Kind::Go => Command::new(compiled("chaos-go", &peers.join("go"))),
            Kind::Libfcgi => Command::new(compiled("chaos-libfcgi", &peers.join("libfcgi"))),
            Kind::Php => return self.php(apps, &peers.join("php/index.php")),
        };
        match kind {
            Kind::Own => command.arg("own"),
            Kind::Plain => command.args(["own", "--plain"]),
            Kind::Bad => command.arg("bad"),
            _ => &mut command,
        };
        command.args(named);
        command
    }

    /// One PHP-FPM with a pool for each application: those with `pm.max_requests`, static ones, and ondemand ones by turns.
    fn php(&self, apps: &[App], script: &Path) -> Command {
        let mut config = format!(
            "[global]\ndaemonize = no\nerror_log = {}/php-error.log\n",
            self.folder.display()
        );
        for (number, app) in apps.iter().enumerate() {
            let pm = match number % 4 {
                0 => "pm = static\npm.max_children = 2\npm.max_requests = 50",
                1 => "pm = static\npm.max_children = 2",
                _ => "pm = ondemand\npm.max_children = 4\npm.process_idle_timeout = 5s",
            };
            config += &format!(
                "[{name}]\nlisten = {socket}\nuser = root\ngroup = root\n{pm}\nenv[CHAOS_APP] = {name}\n\
                 php_admin_value[post_max_size] = 64M\nphp_admin_value[enable_post_data_reading] = 0\n",
                name = app.name,
                socket = app.socket.display()
            );
            let own = self.scripts().join(&app.name);
            std::fs::create_dir_all(&own).expect("a folder for the script");
            std::fs::copy(script, own.join("index.php")).expect("the script");
        }
        let path = self.folder.join("fpm.conf");
        std::fs::write(&path, config).expect("fpm.conf");
        let mut command = Command::new(php::program());
        command
            .args(["--nodaemonize", "--allow-to-run-as-root", "--fpm-config"])
            .arg(path);
        command
    }

    /// What of the logs should not be there: panics of applications of ours.
    pub fn complaints(&self) -> Vec<String> {
        let mut found = Vec::new();
        for group in &self.groups {
            if let Some(process) = &*group.process.borrow() {
                let log = process.log();
                let lines = log.lines().filter(|line| line.contains("panicked"));
                found.extend(lines.map(|line| format!("{}: {line}", group.name)));
            }
        }
        found
    }
}

impl Group {
    async fn start(&self) {
        for socket in &self.sockets {
            // One that was killed leaves it behind, and not all programs replace it.
            _ = std::fs::remove_file(socket);
        }
        let process = Process::start(&self.name, &self.command, &self.log);
        self.process.replace(Some(process));
        for socket in &self.sockets {
            eventually(&format!("{} listens", self.name), SOON, || {
                self.with(Process::assert_running);
                async {
                    let connected = UnixStream::connect(socket).await;
                    connected.map(drop).map_err(|error| error.to_string())
                }
            })
            .await;
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Process) -> T) -> T {
        act(self.process.borrow_mut().as_mut().expect("it was started"))
    }

    /// Kills it and what it has started, and starts it again.
    pub async fn kill(&self) {
        self.with(Process::kill_all);
        self.start().await;
    }

    /// Asks it to stop, and starts it again when it has. False if it cannot be asked.
    pub async fn restart(&self) -> bool {
        if self.kind == Kind::Libfcgi {
            // Its threads do not hear SIGTERM.
            return false;
        }
        self.with(|process| process.signal(Signal::TERM));
        eventually(&format!("{} leaves", self.name), SOON, || async {
            match self.with(Process::exited) {
                Some(_) => Ok(()),
                None => Err(String::from("it runs")),
            }
        })
        .await;
        self.start().await;
        true
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.with(|process| process.signal(signal));
    }

    /// Kills one of the processes that it has started; false if there is none.
    pub fn kill_child(&self, rng: &mut fastrand::Rng) -> bool {
        let id = self.with(|process| process.id());
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        let children = children.unwrap_or_default();
        let children: Vec<i32> = children
            .split_whitespace()
            .filter_map(|id| id.parse().ok())
            .collect();
        let chosen = rng
            .choice(children)
            .and_then(rustix::process::Pid::from_raw);
        chosen.is_some_and(|id| rustix::process::kill_process(id, Signal::KILL).is_ok())
    }

    /// Sockets that it has over those that it began with: connections that are left. None of PHP-FPM, whose connections are its children's.
    pub fn sockets_left(&self) -> usize {
        self.count_sockets().saturating_sub(self.at_rest.get())
    }

    fn count_sockets(&self) -> usize {
        let id = self.with(|process| process.id());
        descriptors(id)
            .iter()
            .filter(|target| target.starts_with("socket:"))
            .count()
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.kind == Kind::Libfcgi
            && let Some(process) = self.process.get_mut()
        {
            process.kill_all();
        }
    }
}

/// What the descriptors of a process are.
pub fn descriptors(id: u32) -> Vec<String> {
    let entries = read_dir(format!("/proc/{id}/fd")).into_iter().flatten();
    entries
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .map(|target| target.display().to_string())
        .collect()
}
